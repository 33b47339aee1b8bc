"""What can be done about a reward model of low variance: a `Remedy` each, all of them in `REMEDIES`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rvlib.tabular.policy import softmax
from rvlib.tabular.remedies.worlds import Worlds

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Remedy:
    """One remedy: what it does to the rewards before training, and to the groups and their advantages during it."""

    text: str
    reward: Callable[[Worlds], Array] = lambda worlds: worlds.reward
    algorithm: str = "dr_grpo"
    dither: float = 0.0  # standard deviation of noise on every sampled reward
    # Which half of the prompts a step uses: any, first those whose group has a spread, or those of the largest.
    prompts: Literal["any", "spread", "largest"] = "any"
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
