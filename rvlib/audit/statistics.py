"""Statistics of groups of replies that an audit adds to those of `rvlib.metrics`; without torch.

    signal-to-noise       E[ĉ] / SD[ĉ],  ĉ the sample covariance of one group of G replies
    flat groups           P[ all G rewards of a group are equal ]
    relative speed        E_x[ Cov_{y~π}(r, r_G) ] / E_x[ Var_{y~π}(r_G) ]

ĉ is the covariance of the reward with the ground truth
or, without one, the variance of the reward. What is said of groups of G replies is estimated from all groups of that
size that the drawn replies make, so it has no bias. A missing reward is NaN, and is left out.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from rvlib import _checks
from rvlib.metrics import reward_covariance

MAX_SUBSETS = 1000  # groups made of the replies to a prompt; where there are more, so many are drawn
MIN_PROMPTS = 5  # for an interval of signal to noise, and for advice on what a reward goes by
ROUNDING = 1e-12  # of a mean square: a variance below it is what rounding left
MANTISSA = {"float32": 23, "bfloat16": 7}  # bits
Interval = list[float]  # [value, low, high], as JSON holds it


@dataclass(frozen=True)
class Moments:
    """The first two moments of a group's sample covariance, for each prompt: mean and mean_square, (prompts,)."""

    mean: NDArray[np.float64]
    mean_square: NDArray[np.float64]


def jointly_known(*columns: ArrayLike) -> list[NDArray[np.float64]]:
    """The columns, of one shape, with NaN wherever one of them has none: moments of these are of the same replies."""
    values = [np.asarray(column, dtype=float) for column in columns]
    known = np.logical_and.reduce([np.isfinite(column) for column in values])
    return [np.where(known, column, np.nan) for column in values]


def covariances(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """The unbiased sample covariance of each prompt. first, second: (prompts, replies), NaN where there is none.

    Returns (prompts,), NaN where fewer than two replies have both.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    present = np.isfinite(first) & np.isfinite(second)
    if present.all() and first.shape[-1] > 1:
        return reward_covariance(first, second)
    result = np.full(len(first), np.nan)
    for row in np.flatnonzero(present.sum(-1) > 1):
        result[row] = reward_covariance(first[row, present[row]], second[row, present[row]])
    return result


def flat_groups(rewards: ArrayLike, group: int, tolerance: float = 0.0) -> NDArray[np.float64]:
    """For each prompt the share of the groups of `group` replies whose rewards differ by `tolerance` at the most.

    rewards: (prompts, replies), NaN where there is none; group: at least 2. Every group of the drawn replies counts
    once, so this is an unbiased estimate for `group` replies drawn anew. (prompts,), NaN where replies are too few.
    """
    group = _checks.whole("group", group, low=2)
    shares = np.full(len(np.asarray(rewards)), np.nan)
    for row, values in enumerate(np.asarray(rewards, dtype=float)):
        values = np.sort(values[np.isfinite(values)])
        if len(values) >= group:
            # Groups by their smallest reward: all others must be of those after it that are within reach.
            within_reach = np.searchsorted(values, values + tolerance, side="right") - np.arange(len(values)) - 1
            groups = sum(math.comb(int(count), group - 1) for count in within_reach)
            shares[row] = groups / math.comb(len(values), group)
    return shares


def group_moments(rewards: ArrayLike, ground_truth: ArrayLike | None = None, *, group: int, seed: int = 0) -> Moments:
    """Moments of the sample covariance of `group` replies, estimated without bias from all groups that can be made.

    rewards, ground_truth: (prompts, replies), NaN where there is none; without a ground truth the covariance is the
    reward's own variance. Where more than `MAX_SUBSETS` groups can be made, so many are drawn by `seed`.
    """
    group = _checks.whole("group", group, low=2)
    rewards = np.asarray(rewards, dtype=float)
    truth = rewards if ground_truth is None else np.asarray(ground_truth, dtype=float)
    mean_square = np.full(len(rewards), np.nan)
    present = np.isfinite(rewards) & np.isfinite(truth)
    counts = present.sum(-1)
    for count in np.unique(counts[counts >= group]):
        rows = np.flatnonzero(counts == count)
        pair = [values[rows][present[rows]].reshape(len(rows), count) for values in (rewards, truth)]
        squares = np.zeros(len(rows))
        subsets = _subsets(int(count), group, seed)
        for part in np.array_split(subsets, max(1, len(rows) * subsets.size // 2_000_000)):
            squares += (reward_covariance(*(values[:, part] for values in pair)) ** 2).sum(-1)
        mean_square[rows] = squares / len(subsets)
    mean = np.where(counts >= group, covariances(rewards, truth), np.nan)
    return Moments(mean, mean_square)


def signal_to_noise(moments: Moments, prompt: NDArray[np.int64] | None = None) -> Interval | None:
    """E[ĉ] / SD[ĉ] of one group of a prompt drawn at random, with its 95 % interval over prompts.

    A batch of n prompts has √n times as much. prompt: as in `of_means`. None where the noise is 0, and where fewer than
    `MIN_PROMPTS` prompts are known: it is a square root of a difference, whose resamples vary without bound there.
    """
    mean, mean_square = averaged(moments.mean, prompt), averaged(moments.mean_square, prompt)
    keep = np.isfinite(mean) & np.isfinite(mean_square)
    mean, count = mean[keep], int(keep.sum())
    if count < MIN_PROMPTS:
        return None

    def ratio(first: Any, squares: Any, second: Any) -> Any:
        # Of different prompts alone, since the square of an estimate is too large by its error.
        square_of_mean = (count * first**2 - squares) / (count - 1)
        noise = second - square_of_mean
        with np.errstate(invalid="ignore", divide="ignore"):
            return first / np.sqrt(np.where(np.abs(noise) > ROUNDING * second, noise, 0.0))

    return of_means(ratio, mean, mean**2, mean_square[keep])


def relative_speed(
    covariance: ArrayLike, truth_variance: ArrayLike, prompt: NDArray[np.int64] | None = None
) -> Interval | None:
    """The mean covariance with the ground truth in units of the ground truth's own variance, with its 95 % interval.

    covariance, truth_variance: (prompts,), of the same replies, both in one unit of the ground truth, and the reward,
    or the ground truth in its place, in units of its deviation over these. It is how fast the reward begins to raise
    the ground truth beside the ground truth itself, which has 1. prompt: as in `of_means`.
    """
    return of_means(_ratio, covariance, truth_variance, prompt=prompt)


def within_correlation(
    rewards: ArrayLike, feature: ArrayLike, prompt: NDArray[np.int64] | None = None
) -> Interval | None:
    """The correlation of a reward with a feature of the replies within prompts, with its 95 % interval.

    Both (prompts, replies); prompt: as in `of_means`. E_x Cov / √(E_x Var E_x Var): that of all replies
    after the mean of their prompt is taken off. None where either has no spread within prompts.
    """
    rewards, feature = jointly_known(rewards, feature)
    columns = (covariances(rewards, feature), covariances(rewards, rewards), covariances(feature, feature))
    return of_means(_correlation, *columns, prompt=prompt)


def partial_covariance(
    rewards: ArrayLike, ground_truth: ArrayLike, feature: ArrayLike, prompt: NDArray[np.int64] | None = None
) -> Interval | None:
    """The covariance of two rewards within prompts after a feature is regressed out of both, with its interval.

    All (prompts, replies); prompt: as in `of_means`. E_x Cov(r, g) - E_x Cov(r, f) E_x Cov(f, g) / E_x Var(f): one
    slope for all prompts. Where the feature has no spread it is the covariance.
    """
    rewards, ground_truth, feature = jointly_known(rewards, ground_truth, feature)
    columns = (
        covariances(rewards, ground_truth),
        covariances(rewards, feature),
        covariances(feature, ground_truth),
        covariances(feature, feature),
    )
    if not np.nansum(columns[-1]):
        return of_means(lambda mean: mean, columns[0], prompt=prompt)
    return of_means(lambda both, first, second, own: both - first * second / own, *columns, prompt=prompt)


def replies_to_halve(rewards: ArrayLike, ground_truth: ArrayLike | None = None) -> int | None:
    """So many replies to each prompt would halve the interval of the mean covariance; None if no number would.

    rewards, ground_truth: (prompts, replies); without a ground truth it is the interval of the mean variance. Of the
    variance V of the prompts' values, W comes from drawing replies (by the jackknife over replies) and shrinks as
    1/(replies - 1); B = V - W is how much prompts differ, which only more prompts help. None for two replies, whose W
    cannot be told.
    """
    proxy = np.asarray(rewards, dtype=float)
    truth = proxy if ground_truth is None else np.asarray(ground_truth, dtype=float)
    keep = np.isfinite(proxy).all(-1) & np.isfinite(truth).all(-1)
    proxy, truth = proxy[keep], truth[keep]
    prompts, replies = proxy.shape
    if replies < 3 or prompts < 2:
        return None
    total = covariances(proxy, truth).var(ddof=1)
    without = np.array([covariances(np.delete(proxy, i, 1), np.delete(truth, i, 1)) for i in range(replies)])
    within = float((replies - 1) / replies * ((without - without.mean(0)) ** 2).sum(0).mean())
    room = total / 4 - max(total - within, 0.0)
    return math.ceil(1 + (replies - 1) * min(within, total) / room) if room > 0 else None


def of_means(
    function: Callable[..., NDArray[np.float64]],
    *columns: ArrayLike,
    prompt: NDArray[np.int64] | None = None,
    resamples: int = 1999,
    seed: int = 0,
) -> Interval | None:
    """function(mean of each column), with a BCa bootstrap interval of 95 % over prompts, which are drawn together.

    columns: (prompts,) each; a prompt with a NaN is left out. prompt: (prompts,), a number for each, where equal
    numbers are one prompt; all different by default. None where fewer than two prompts are left, or the value is not
    finite.
    """
    table = np.array([averaged(column, prompt) for column in columns])
    table = table[:, np.isfinite(table).all(0)]
    if table.shape[1] < 2:
        return None
    prompts = table.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(function(*table.mean(-1)))
        if not np.isfinite(value):
            return None
        drawn = function(*(table @ _resamples(prompts, resamples, seed)))
        without_one = function(*((table.sum(-1, keepdims=True) - table) / (prompts - 1)))
    drawn, without_one = (values[np.isfinite(values)] for values in (drawn, without_one))
    return [value, *_bca(value, drawn, without_one)]


def _bca(value: float, drawn: NDArray[np.float64], without_one: NDArray[np.float64]) -> list[float]:
    """The ends of the bias-corrected and accelerated interval of 95 % (Efron 1987, J. Am. Stat. Assoc. 82, 171).

    value: the estimate; drawn: (resamples,), that of each resample; without_one: (n,), that without each observation.
    """
    # By hand, since `scipy.stats.bootstrap` gives NaN where one resample has no value, as a ratio of 0 to 0 has none.
    if not len(drawn) or np.allclose(drawn, value, rtol=1e-12, atol=0):
        return [value, value]
    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    bias = ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    deviations = without_one.mean() - without_one
    deviations /= np.abs(deviations).max(initial=0.0) or 1.0  # so that the cubes are numbers, whatever the unit
    size = (deviations**2).sum()
    acceleration = (deviations**3).sum() / (6 * size**1.5) if size > 0 else 0.0
    shifted = bias + ndtri([0.025, 0.975])
    levels = ndtr(bias + shifted / (1 - acceleration * shifted))
    return [float(end) for end in np.quantile(drawn, levels)]


@functools.lru_cache(maxsize=1)
def _resamples(prompts: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """(prompts, resamples) weights of each prompt in each resample, which sum to 1."""
    counts = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    return counts.T / prompts


def averaged(values: ArrayLike, prompt: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """The mean value of each prompt that differs, by its number, of those that are not NaN; NaN where none is."""
    values = np.asarray(values, dtype=float)
    if prompt is None:
        return values
    _, prompt = np.unique(prompt, return_inverse=True)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.bincount(prompt, np.where(known, values, 0.0)) / np.bincount(prompt, known)


def _ratio(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    return first / second


def _correlation(
    both: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    return both / np.sqrt(first * second)


@functools.lru_cache
def _subsets(count: int, group: int, seed: int) -> NDArray[np.int64]:
    """(subsets, group) indices of the groups of `count` replies, all of them or `MAX_SUBSETS` drawn at random."""
    if math.comb(count, group) <= MAX_SUBSETS:
        return np.array(list(itertools.combinations(range(count), group)))
    return np.random.default_rng(seed).random((MAX_SUBSETS, count)).argsort(-1)[:, :group]


def without_noise(rewards: ArrayLike, noise: float = 0.0) -> NDArray[np.float64]:
    """Rewards (prompts, replies) in which replies that differ by rounding alone, within a prompt, have their mean.

    Each reward is known up to `noise` and up to the step to the next number: where all of a prompt lie within twice
    that, it has no reward variance; and where all of all prompts do, nothing has. The step is that of 32-bit numbers
    for a model, whose noise is above 0, and where all rewards are such numbers; whole numbers are exact, and all others
    have the step of 64-bit numbers. NaN stays where there is none.
    """
    values = np.array(rewards, dtype=float)
    known = values[np.isfinite(values)]
    whole = not noise and bool((known == np.floor(known)).all())
    short = noise > 0 or _of_32_bits(known)
    for axis in (1, None):
        present = np.isfinite(values)
        if not present.any():
            return values
        low, high = (
            edge(values, axis=axis, keepdims=True, where=present, initial=start)
            for edge, start in ((np.min, np.inf), (np.max, -np.inf))
        )
        largest = np.max(np.abs(values), axis=axis, keepdims=True, where=present, initial=0.0)
        step = precision_step(largest, MANTISSA["float32"]) if short else np.spacing(largest)
        limit = 2.02 * np.maximum(noise, 0.0 if whole else step)
        flat = high - low <= limit  # a hundredth more, since what is kept is in decimals
        count = np.maximum(present.sum(axis=axis, keepdims=True), 1)
        mean = np.sum(values, axis=axis, keepdims=True, where=present) / count
        values = np.where(flat & present, np.broadcast_to(mean, values.shape), values)
    return values


def _of_32_bits(values: NDArray[np.float64]) -> bool:
    """Whether all are 32-bit numbers, in full or in the ten digits in which an audit keeps rewards."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float32).astype(float)
    return all(value == number or value == float(f"{number:.10g}") for value, number in zip(values, short))


def precision_step(values: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """The step from numbers to the next, of a precision with so many bits of mantissa."""
    return 2.0 ** (np.floor(np.log2(np.maximum(values, np.finfo(np.float32).tiny))) - bits)
