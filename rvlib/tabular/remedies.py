"""Remedies for a reward model of low variance, tried on many policies: what each does to speed and truth.

`Worlds` has policies on several prompts, their ground truth, and reward models with three common faults: on half of the
prompts the rewards lie close together, good outputs are rare, and equally good outputs get different rewards. `train`
follows sampled policy gradient under one of `REMEDIES`. All prompts share one step, of a fixed length as under an
optimizer that rescales, so that a factor on all rewards changes nothing and a prompt's *share* of the step counts.
`train_in_expectation` takes the expected update of a group, summed over all groups, in place of a sampled one.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rvlib import _checks
from rvlib.metrics import ranking_accuracy, reward_variance
from rvlib.tabular.estimators import advantages as group_advantages
from rvlib.tabular.policy import softmax

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Worlds:
    """logits and ground_truth (worlds, prompts, outputs), and scores (worlds, models, prompts, outputs).

    The scores are those of reward models of one kind with independent errors; the first of them is the teacher.
    """

    logits: Array
    ground_truth: Array
    scores: Array

    @property
    def reward(self) -> Array:
        """The teacher's rewards, (worlds, prompts, outputs)."""
        return self.scores[:, 0]


def make_worlds(
    count: int = 20,
    *,
    prompts: int = 16,
    outputs: int = 12,
    error: float = 0.5,
    quiet: float = 0.05,
    skill: float = -0.6,
    models: int = 5,
    seed: int = 0,
    logits: Array | None = None,
) -> Worlds:
    """`count` random worlds.

    error: standard deviation of a reward model's error, where the ground truth has levels -1, -1/3, 1/3 and 1. quiet:
    the factor on the rewards of every second prompt. skill: how much likelier better outputs are at the start; below 0
    they are rarer. logits: of given policies, (count, prompts, outputs), in place of random ones; skill then has no
    effect. ValueError on bad arguments.
    """
    if logits is not None:
        count, prompts, outputs = _checks.array("logits", logits).shape
    count, prompts = _checks.whole("count", count), _checks.whole("prompts", prompts, low=2)
    outputs, models = _checks.whole("outputs", outputs, low=2), _checks.whole("models", models)
    error, quiet = _checks.number("error", error, low=0.0), _checks.number("quiet", quiet, above=0.0)
    skill, rng = _checks.number("skill", skill), np.random.default_rng(seed)
    truth = rng.choice([-1.0, -1 / 3, 1 / 3, 1.0], (count, prompts, outputs))
    drawn = rng.normal(size=truth.shape) + 2 * skill * truth
    scale = np.where(np.arange(prompts) % 2, quiet, 1.0)[:, None]
    offset = 0.5 * rng.normal(size=(count, 1, prompts, 1))  # what a prompt's difficulty adds to all of its rewards
    errors = error * rng.normal(size=(count, models, prompts, outputs))
    return Worlds(drawn if logits is None else logits, truth, scale * (truth[:, None] + errors) + offset)


@dataclass(frozen=True)
class Remedy:
    """One remedy: what it does to the rewards before training, and to the groups and their advantages during it."""

    text: str
    reward: Callable[[Worlds], Array] = lambda worlds: worlds.reward
    algorithm: str = "dr_grpo"
    dither: float = 0.0  # standard deviation of noise on every sampled reward
    prompts: str = "any"  # "spread": those whose group has any; "largest": those whose group has most
    oversample: int = 1  # how many times as many outputs are drawn as are used: those of the largest variance
    silent: float = 0.0  # advantage of a group without spread, by the side of the batch's mean that it is on


def fit_bradley_terry(reward: Array, *, smoothing: float = 0.0, margin: float = 0.0, steps: int = 300) -> Array:
    """Rewards (..., n) of a Bradley–Terry model trained on all pairs, whose preferences follow `reward` (..., n).

    The label of a pair is σ(r_a - r_b), moved by label smoothing to (1 - 2ε)σ + ε; the loss is -ln σ(d_a - d_b - m)
    with the margin m. By gradient descent, with a slight penalty on the squares.
    """
    target = (1 - 2 * smoothing) * expit(reward[..., :, None] - reward[..., None, :]) + smoothing
    target = target * ~np.eye(reward.shape[-1], dtype=bool)
    fitted = np.zeros_like(reward)
    for _ in range(steps):
        wrong = target * expit(margin - fitted[..., :, None] + fitted[..., None, :])
        fitted = fitted + 4 / reward.shape[-1] * (wrong.sum(-1) - wrong.sum(-2)) - 1e-3 * fitted
    return fitted


def discretised(reward: Array, levels: int = 4) -> Array:
    """Rewards (..., n) at the middles of `levels` even steps between the least and the largest of each prompt."""
    low, high = reward.min(-1, keepdims=True), reward.max(-1, keepdims=True)
    place = np.clip(np.floor((reward - low) / np.where(high > low, high - low, 1) * levels), 0, levels - 1)
    return low + (place + 0.5) / levels * (high - low)


def _spread_out(worlds: Worlds) -> Array:
    """The same ranking with evenly spread rewards: the place of an output among those of its prompt, in [-1, 1]."""
    places = worlds.reward.argsort(-1).argsort(-1)
    return 2 * places / (worlds.reward.shape[-1] - 1) - 1


def _centred(worlds: Worlds) -> Array:
    return worlds.reward - (softmax(worlds.logits) * worlds.reward).sum(-1, keepdims=True)


REMEDIES: dict[str, Remedy] = {
    "nothing": Remedy("Advantages are rewards less their group's mean."),
    "scale by 10": Remedy("All rewards are multiplied by ten.", lambda worlds: 10 * worlds.reward),
    "centre": Remedy("Each prompt's mean reward under the initial policy is subtracted.", _centred),
    "bounded (PAR)": Remedy(
        "A sigmoid of the reward less the mean under the initial policy.", lambda worlds: expit(_centred(worlds))
    ),
    "label smoothing": Remedy(
        "A Bradley–Terry model trained on labels smoothed by 0.1.",
        lambda worlds: fit_bradley_terry(worlds.reward, smoothing=0.1),
    ),
    "margin": Remedy(
        "A Bradley–Terry model trained with a margin of 1.", lambda worlds: fit_bradley_terry(worlds.reward, margin=1.0)
    ),
    "ensemble": Remedy("The mean of five reward models with independent errors.", lambda worlds: worlds.scores.mean(1)),
    "discretise": Remedy("Four levels on each prompt.", lambda worlds: discretised(worlds.reward)),
    "dither": Remedy(
        "Four levels on each prompt, and noise on every sampled reward (ReDit).",
        lambda worlds: discretised(worlds.reward),
        dither=0.05,
    ),
    "spread the ranking": Remedy(
        "The same ranking, with evenly spread rewards (GRPOVI has the largest variance at the same ranking and mean).",
        _spread_out,
    ),
    "group normalisation": Remedy("Advantages are divided by their group's deviation (GRPO).", algorithm="grpo"),
    "drop silent groups": Remedy(
        "Four levels on each prompt; prompts whose group has no spread are replaced (DAPO's dynamic sampling).",
        lambda worlds: discretised(worlds.reward),
        prompts="spread",
    ),
    "use silent groups": Remedy(
        "Four levels on each prompt; a group without spread is raised or lowered as a whole (after RL-ZVP).",
        lambda worlds: discretised(worlds.reward),
        silent=0.05,
    ),
    "largest-variance subset": Remedy(
        "Of twice as many outputs, those with most variance are used (PODS).", oversample=2
    ),
    "curriculum": Remedy(
        "The half of the prompts whose groups have the largest deviation (after VCRL).", prompts="largest"
    ),
}


@dataclass(frozen=True)
class Outcome:
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
    """A table of logits for each world; every step has the Euclidean length `learning_rate`, or where `plain` that of
    the gradient times it.
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
    group_size: int = 8,
    learning_rate: float = 0.3,
    seed: int = 0,
) -> Outcome:
    """Sampled policy gradient on all worlds side by side, with half of the prompts in each step, under one remedy.

    policies: by default tabular ones that start at the worlds' logits. ValueError on bad arguments.
    """
    group_size = _checks.whole("group_size", group_size, low=2)
    rng, reward = np.random.default_rng(seed), remedy.reward(worlds)
    return _follow(
        worlds, reward, policies, lambda probs: _update(probs, reward, remedy, group_size, rng), steps, learning_rate
    )


def train_in_expectation(
    worlds: Worlds,
    remedy: Remedy,
    *,
    policies: Policies | None = None,
    steps: int = 300,
    group_size: int = 6,
    ranks: Sequence[int] | None = None,
    learning_rate: float = 0.3,
) -> Outcome:
    """Like `train`, with all prompts in each step and the expected update of a group: no sampling, so no seed.

    ranks: which samples of a group are used, 0 the one of the lowest reward; all by default. All groups of a prompt are
    summed over, and n outputs and k samples make (n + k - 1)! / ((n - 1)! k!) of them, so both must be few. Noise on
    the rewards (`dither`) has no part in the expectation; samples are selected before it. ValueError on bad arguments,
    and for a remedy that compares prompts with one another.
    """
    group_size, reward = _checks.whole("group_size", group_size, low=2), remedy.reward(worlds)
    expected = expected_update(reward, remedy, group_size, ranks)
    return _follow(worlds, reward, policies, expected, steps, learning_rate)


def _follow(
    worlds: Worlds,
    reward: Array,
    policies: Policies | None,
    update: Callable[[Array], Array],
    steps: int,
    learning_rate: float,
) -> Outcome:
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
    return Outcome(accuracy.mean(1), within / (within + between), np.stack(truth, 1))


def _update(probs: Array, reward: Array, remedy: Remedy, group_size: int, rng: np.random.Generator) -> Array:
    """Σ_i A_i/k at each output i of a group, on half of the prompts: (worlds, prompts, outputs)."""
    draws = rng.random((*probs.shape[:2], group_size * remedy.oversample))
    outputs = (draws[..., None] > np.cumsum(probs, -1)[..., None, :-1]).sum(-1)
    rewards = np.take_along_axis(reward, outputs, -1)
    if remedy.dither:
        rewards = rewards + remedy.dither * rng.normal(size=rewards.shape)
    if remedy.oversample > 1:
        kept = _largest_variance(rewards, group_size)
        rewards, outputs = np.take_along_axis(rewards, kept, -1), np.take_along_axis(outputs, kept, -1)
    advantages = group_advantages(rewards, remedy.algorithm)
    deviation = rewards.std(-1)
    if remedy.silent:
        above = np.sign(rewards.mean(-1) - rewards.mean((1, 2))[:, None])
        advantages = np.where((deviation > 1e-12)[..., None], advantages, remedy.silent * above[..., None])
    # Half of the prompts: any, or those with a spread before the others, or those with the largest.
    order = rng.random(deviation.shape)
    if remedy.prompts == "spread":
        order = order + (deviation <= 1e-12)
    elif remedy.prompts == "largest":
        order = -deviation
    used = order.argsort(-1).argsort(-1) < deviation.shape[1] // 2
    update = np.zeros_like(probs)
    for i in range(group_size):
        update += advantages[..., i, None] * (outputs[..., i, None] == np.arange(probs.shape[-1]))
    return update * used[..., None] / group_size


def expected_update(
    reward: Array, remedy: Remedy, group_size: int, ranks: Sequence[int] | None = None
) -> Callable[[Array], Array]:
    """E[Σ_i A_i/k] at each output, as a function of the policy: probs (..., n) to (..., n), for rewards (..., n).

    `group_size` samples of a group are used: all, those of largest variance where the remedy samples more, or, of
    `group_size` sampled, those whose `ranks` are given. Samples that tie are used with the same probability. ValueError
    for a remedy that compares prompts with one another, and for ranks that are none.
    """
    if remedy.prompts != "any" or remedy.silent:
        raise ValueError(
            "remedy must treat each prompt by itself, got one that compares prompts; use train, which samples."
        )
    every = _Groups(reward, remedy, group_size, ranks)
    advantages = np.zeros(every.ordered.shape)
    if every.kept.shape[-1] > 1:
        used = np.take_along_axis(every.ordered, every.kept, -1)
        spread = used.max(-1, keepdims=True) > used.min(-1, keepdims=True)
        # Without a spread the rounding error of the mean would be a direction.
        values = np.where(spread, group_advantages(used, remedy.algorithm), 0.0) / every.kept.shape[-1]
        np.put_along_axis(advantages, every.kept, values, -1)
    tied = every.ordered[..., :, None] == every.ordered[..., None, :]
    shared = (tied * advantages[..., None, :]).sum(-1) / tied.sum(-1)
    table = np.stack([(shared * (every.at_output == y)).sum(-1) for y in range(reward.shape[-1])], -1)
    return lambda probs: (every.likelihood(probs)[..., None] * table).sum(-2)


def expected_variance(
    probs: Array, reward: Array, remedy: Remedy, group_size: int, ranks: Sequence[int] | None = None
) -> Array:
    """The mean variance, with their number as the divisor, of the samples of a group that are used: (...) of (..., n).

    The arguments are those of `expected_update`, and the policy's probs (..., n).
    """
    every = _Groups(reward, remedy, group_size, ranks)
    if not every.kept.shape[-1]:
        return np.zeros(reward.shape[:-1])
    return (every.likelihood(probs) * np.take_along_axis(every.ordered, every.kept, -1).var(-1)).sum(-1)


class _Groups:
    """All groups of samples of each prompt, and which of their samples are used.

    ordered, at_output: (..., groups, samples), each group's rewards in increasing order, and the outputs that have
    them. kept: (..., groups, k), the places in that order of those used.
    """

    def __init__(self, reward: Array, remedy: Remedy, group_size: int, ranks: Sequence[int] | None) -> None:
        if ranks is not None and not set(ranks) <= set(range(group_size)):
            raise ValueError(f"ranks must be whole numbers from 0 to {group_size - 1}, got {list(ranks)}.")
        drawn, outputs = group_size * remedy.oversample, range(reward.shape[-1])
        self._groups = np.array(list(itertools.combinations_with_replacement(outputs, drawn)))
        counts = (self._groups[..., None] == np.array(outputs)).sum(1)
        self._orders = np.array([math.factorial(drawn) / math.prod(map(math.factorial, c)) for c in counts.tolist()])
        rewards = reward[..., self._groups]
        place = rewards.argsort(-1, kind="stable")
        self.ordered = np.take_along_axis(rewards, place, -1)
        self.at_output = np.take_along_axis(np.broadcast_to(self._groups, rewards.shape), place, -1)
        if ranks is None:
            self.kept = _largest_variance(self.ordered, group_size)
        else:
            used = np.array(sorted(set(ranks)), dtype=int)
            self.kept = np.broadcast_to(used, (*self.ordered.shape[:-1], used.size))

    def likelihood(self, probs: Array) -> Array:
        """The probability of each group, (..., groups), under the policy probs (..., n)."""
        return self._orders * probs[..., self._groups].prod(-1)


def _largest_variance(rewards: Array, size: int) -> NDArray[np.intp]:
    """Indices (..., size) of the samples of largest variance among rewards (..., k): some highest and some lowest."""
    order = rewards.argsort(-1)
    ranked = np.take_along_axis(rewards, order, -1)
    last = ranked.shape[-1]
    choices = [np.r_[:low, last - (size - low) : last] for low in range(size + 1)]
    best = np.stack([ranked[..., choice].var(-1) for choice in choices], -1).argmax(-1)
    return np.take_along_axis(order, np.stack(choices)[best], -1)
