"""Policy gradient in many worlds side by side under one remedy, and how it went.

All prompts share one step, of a fixed length as under an optimizer that rescales, so that a factor on all rewards
changes nothing and a prompt's *share* of the step counts. `train` follows sampled groups; `train_in_expectation` takes
the expected update of a group, summed over all groups, in place of a sampled one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rvlib import _checks
from rvlib.metrics import ranking_accuracy, reward_variance
from rvlib.tabular.policy import softmax
from rvlib.tabular.remedies.remedy import Remedy
from rvlib.tabular.remedies.updates import expected_update, sampled_update
from rvlib.tabular.remedies.worlds import Worlds

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrainingResult:
    """How training under one remedy went in each world.

    accuracy, variance: (worlds,), of the remedied rewards under the initial policy, mean over prompts; the variance is
    a share of that over prompts and outputs together. truth: (worlds, steps + 1), the expected ground truth.
    """

    accuracy: Array
    variance: Array
    truth: Array

    def steps_to_gain(self, gain: float) -> Array:
        """The first step at which the ground truth has risen by `gain`, (worlds,); inf where it never does."""
        reached = self.truth >= self.truth[:, :1] + gain
        return np.where(reached.any(1), reached.argmax(1), np.inf)

    @property
    def gained(self) -> Array:
        """Ground truth gained by the last step, (worlds,)."""
        return self.truth[:, -1] - self.truth[:, 0]

    @property
    def lost_again(self) -> Array:
        """Ground truth lost since its highest point, (worlds,)."""
        return self.truth.max(1) - self.truth[:, -1]


class Policies(Protocol):
    """What is trained: one policy for each world."""

    def probs(self) -> Array:
        """The probabilities of all outputs, (worlds, prompts, outputs)."""

    def step(self, update: Array, learning_rate: float) -> None:
        """Take one step along Σ update · ∇ ln π; update: (worlds, prompts, outputs)."""


class TabularPolicies:
    """A table of logits for each world.

    Every step has the Euclidean length `learning_rate`, or where `plain` that of the gradient times it.
    """

    def __init__(self, logits: Array, *, plain: bool = False) -> None:
        self.logits, self.plain = logits.copy(), plain

    def probs(self) -> Array:
        """The probabilities of all outputs, (worlds, prompts, outputs)."""
        return softmax(self.logits)

    def step(self, update: Array, learning_rate: float) -> None:
        """Take one step along the update's gradient in the logits."""
        gradient = update - self.probs() * update.sum(-1, keepdims=True)
        length = np.sqrt((gradient**2).sum((1, 2), keepdims=True))
        self.logits += learning_rate * gradient / np.where((length > 0) & (not self.plain), length, 1)


def train(
    worlds: Worlds,
    remedy: Remedy,
    *,
    policies: Policies | None = None,
    steps: int = 300,
    num_generations: int = 8,
    learning_rate: float = 0.3,
    seed: int = 0,
) -> TrainingResult:
    """Sampled policy gradient on all worlds side by side, with half of the prompts in each step, under one remedy.

    policies: by default tabular ones that start at the worlds' logits. ValueError on bad arguments.
    """
    num_generations = _checks.whole("num_generations", num_generations, low=2)
    rng, reward = np.random.default_rng(seed), remedy.reward(worlds)
    return _follow(
        worlds,
        reward,
        policies,
        lambda probs: sampled_update(probs, reward, remedy, num_generations, rng),
        steps,
        learning_rate,
    )


def train_in_expectation(
    worlds: Worlds,
    remedy: Remedy,
    *,
    policies: Policies | None = None,
    steps: int = 300,
    num_generations: int = 6,
    ranks: Sequence[int] | None = None,
    learning_rate: float = 0.3,
) -> TrainingResult:
    """Like `train`, with all prompts in each step and the expected update of a group: no sampling, so no seed.

    ranks: which samples of a group are used, 0 the one of the lowest reward; all by default. All groups of a prompt are
    summed over, and n outputs and k samples make (n + k - 1)! / ((n - 1)! k!) of them, so both must be few. Noise on
    the rewards (`dither`) has no part in the expectation; samples are selected before it. ValueError on bad arguments,
    and for a remedy that compares prompts with one another.
    """
    num_generations, reward = _checks.whole("num_generations", num_generations, low=2), remedy.reward(worlds)
    expected = expected_update(reward, remedy, num_generations, ranks)
    return _follow(worlds, reward, policies, expected, steps, learning_rate)


def _follow(
    worlds: Worlds,
    reward: Array,
    policies: Policies | None,
    update: Callable[[Array], Array],
    steps: int,
    learning_rate: float,
) -> TrainingResult:
    """Take the steps, and say how they went. ValueError on bad arguments."""
    steps, learning_rate = _checks.whole("steps", steps), _checks.number("learning_rate", learning_rate, above=0.0)
    policies = TabularPolicies(worlds.logits) if policies is None else policies
    initial = probs = policies.probs()
    truth = [(initial * worlds.ground_truth).sum(-1).mean(1)]
    for _ in range(steps):
        policies.step(update(probs), learning_rate)
        probs = policies.probs()
        truth.append((probs * worlds.ground_truth).sum(-1).mean(1))
    within = reward_variance(reward, initial).mean(1)
    between = (initial * reward).sum(-1).var(1)
    accuracy = ranking_accuracy(reward, worlds.ground_truth, initial[..., :, None] * initial[..., None, :])
    return TrainingResult(accuracy.mean(1), within / (within + between), np.stack(truth, 1))
