"""Policies on several prompts, their ground truth, and reward models with three common faults.

On half of the prompts the rewards lie close together, good outputs are rare, and equally good outputs get different
rewards.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rvlib import _checks

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
