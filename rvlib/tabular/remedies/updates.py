"""The step that groups of samples ask for under a remedy, Σ_i A_i/k at each output: of sampled groups, or expected.

The expected one is a sum over all groups that can be drawn.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rvlib.tabular.estimators import advantages as group_advantages
from rvlib.tabular.remedies.remedy import Remedy

Array = NDArray[np.float64]


def sampled_update(
    probs: Array, reward: Array, remedy: Remedy, num_generations: int, rng: np.random.Generator
) -> Array:
    """Σ_i A_i/k at each output i of a group, on half of the prompts: (worlds, prompts, outputs)."""
    draws = rng.random((*probs.shape[:2], num_generations * remedy.oversample))
    outputs = (draws[..., None] > np.cumsum(probs, -1)[..., None, :-1]).sum(-1)
    rewards = np.take_along_axis(reward, outputs, -1)
    if remedy.dither:
        rewards = rewards + remedy.dither * rng.normal(size=rewards.shape)
    if remedy.oversample > 1:
        kept = largest_variance(rewards, num_generations)
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
    for i in range(num_generations):
        update += advantages[..., i, None] * (outputs[..., i, None] == np.arange(probs.shape[-1]))
    return update * used[..., None] / num_generations


def expected_update(
    reward: Array, remedy: Remedy, num_generations: int, ranks: Sequence[int] | None = None
) -> Callable[[Array], Array]:
    """E[Σ_i A_i/k] at each output, as a function of the policy: probs (..., n) to (..., n), for rewards (..., n).

    `num_generations` samples of a group are used: all, those of largest variance where the remedy samples more, or, of
    `num_generations` sampled, those whose `ranks` are given. Samples that tie are used with the same probability.
    ValueError for a remedy that compares prompts with one another, and for ranks that are none.
    """
    if remedy.prompts != "any" or remedy.silent:
        raise ValueError(
            "remedy must treat each prompt by itself, got one that compares prompts; use train, which samples."
        )
    groups = _Groups(reward, remedy, num_generations, ranks)
    advantages = np.zeros(groups.ordered.shape)
    if groups.kept.shape[-1] > 1:
        used = np.take_along_axis(groups.ordered, groups.kept, -1)
        spread = used.max(-1, keepdims=True) > used.min(-1, keepdims=True)
        # Without a spread the rounding error of the mean would be a direction.
        values = np.where(spread, group_advantages(used, remedy.algorithm), 0.0) / groups.kept.shape[-1]
        np.put_along_axis(advantages, groups.kept, values, -1)
    tied = groups.ordered[..., :, None] == groups.ordered[..., None, :]
    shared = (tied * advantages[..., None, :]).sum(-1) / tied.sum(-1)
    table = np.stack([(shared * (groups.at_output == y)).sum(-1) for y in range(reward.shape[-1])], -1)
    return lambda probs: (groups.likelihood(probs)[..., None] * table).sum(-2)


def expected_variance(
    probs: Array, reward: Array, remedy: Remedy, num_generations: int, ranks: Sequence[int] | None = None
) -> Array:
    """The mean variance, with their number as the divisor, of the samples of a group that are used: (...) of (..., n).

    The arguments are those of `expected_update`, and the policy's probs (..., n).
    """
    groups = _Groups(reward, remedy, num_generations, ranks)
    if not groups.kept.shape[-1]:
        return np.zeros(reward.shape[:-1])
    return (groups.likelihood(probs) * np.take_along_axis(groups.ordered, groups.kept, -1).var(-1)).sum(-1)


class _Groups:
    """All groups of samples of each prompt, and which of their samples are used.

    ordered, at_output: (..., groups, samples), each group's rewards in increasing order, and the outputs that have
    them. kept: (..., groups, k), the places in that order of those used.
    """

    def __init__(self, reward: Array, remedy: Remedy, num_generations: int, ranks: Sequence[int] | None) -> None:
        if ranks is not None and not set(ranks) <= set(range(num_generations)):
            raise ValueError(f"ranks must be whole numbers from 0 to {num_generations - 1}, got {list(ranks)}.")
        drawn, outputs = num_generations * remedy.oversample, range(reward.shape[-1])
        self._groups = np.array(list(itertools.combinations_with_replacement(outputs, drawn)))
        counts = (self._groups[..., None] == np.array(outputs)).sum(1)
        self._orders = np.array([math.factorial(drawn) / math.prod(map(math.factorial, c)) for c in counts.tolist()])
        rewards = reward[..., self._groups]
        place = rewards.argsort(-1, kind="stable")
        self.ordered = np.take_along_axis(rewards, place, -1)
        self.at_output = np.take_along_axis(np.broadcast_to(self._groups, rewards.shape), place, -1)
        if ranks is None:
            self.kept = largest_variance(self.ordered, num_generations)
        else:
            used = np.array(sorted(set(ranks)), dtype=int)
            self.kept = np.broadcast_to(used, (*self.ordered.shape[:-1], used.size))

    def likelihood(self, probs: Array) -> Array:
        """The probability of each group, (..., groups), under the policy probs (..., n)."""
        return self._orders * probs[..., self._groups].prod(-1)


def largest_variance(rewards: Array, size: int) -> NDArray[np.intp]:
    """Indices (..., size) of the samples of largest variance among rewards (..., k): some highest and some lowest."""
    order = rewards.argsort(-1)
    ranked = np.take_along_axis(rewards, order, -1)
    last = ranked.shape[-1]
    choices = [np.r_[:low, last - (size - low) : last] for low in range(size + 1)]
    best = np.stack([ranked[..., choice].var(-1) for choice in choices], -1).argmax(-1)
    return np.take_along_axis(order, np.stack(choices)[best], -1)
