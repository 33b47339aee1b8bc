"""Accuracy, reward variance and covariance of sampled replies, prompt by prompt, with intervals.

All three are means over pairs of different samples y_i, y_j of one prompt, here weighed by p_i p_j:

    accuracy    mean of 1[ sign(r_i - r_j) = sign(g_i - g_j) ]        Def. 1, arXiv 2503.15477, on-policy pairs
    variance    mean of ½ (r_i - r_j)²                                 Def. 2, the unbiased sample variance at equal p
    covariance  mean of ½ (r_i - r_j)(g_i - g_j)

The bootstrap draws samples again with replacement, so p_i becomes how often y_i was drawn. A sample paired with itself
would be a tie that agrees, and a difference of 0: pairs of one sample with itself have no place in any of the three.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import bootstrap, chi2, norm, t

from rvlib import _checks, metrics


@dataclass(frozen=True)
class Estimate:
    """An estimate and the ends of its interval: numbers, or arrays of one shape."""

    value: Any  # float or NDArray[np.float64], and so are the ends
    low: Any
    high: Any

    def __getitem__(self, index: Any) -> "Estimate":
        return Estimate(self.value[index], self.low[index], self.high[index])

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


class _Bootstrap(TypedDict, total=False):
    level: float
    resamples: int
    seed: int


def accuracy(proxy: ArrayLike, ground_truth: ArrayLike, **bootstrap_options: Unpack[_Bootstrap]) -> Estimate:
    """Ranking accuracy (Def. 1) of each prompt. proxy, ground_truth: (prompts, samples). Options: `over_samples`'s."""
    return over_samples(
        lambda probs, r, g: metrics.ranking_accuracy(r, g, probs[..., :, None] * probs[..., None, :]),
        proxy,
        ground_truth,
        **bootstrap_options,
    )


def variance(rewards: ArrayLike, **bootstrap_options: Unpack[_Bootstrap]) -> Estimate:
    """Reward variance (Def. 2) of each prompt, in squared units of the reward. rewards: (prompts, samples)."""
    return over_samples(
        lambda probs, r: metrics.reward_variance(r, probs) / _different(probs), rewards, **bootstrap_options
    )


def covariance(proxy: ArrayLike, ground_truth: ArrayLike, **bootstrap_options: Unpack[_Bootstrap]) -> Estimate:
    """Covariance of two rewards for each prompt, in the product of their units.

    proxy, ground_truth: (prompts, samples).
    """
    return over_samples(
        lambda probs, r, g: metrics.reward_covariance(r, g, probs) / _different(probs),
        proxy,
        ground_truth,
        **bootstrap_options,
    )


def over_samples(
    statistic: Callable[..., NDArray[np.float64]],
    *rewards: ArrayLike,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """`statistic(probs, *rewards of one prompt)` for each prompt at equal probs, with percentile intervals.

    rewards: each (prompts, samples). Returns an `Estimate` of arrays (prompts,). ValueError for fewer than two samples.
    """
    arrays = [np.atleast_2d(np.asarray(r, dtype=float)) for r in rewards]
    by_prompt, draws = list(zip(*arrays)), arrays[0].shape[-1]
    if draws < 2:
        raise ValueError(f"rewards must hold at least two samples of each prompt, got {draws}; draw more.")

    # By hand: a resample of `scipy.stats.bootstrap` is a list of values, in which a sample is paired with itself.
    equal = np.full(draws, 1 / draws)
    drawn = np.random.default_rng(seed).multinomial(draws, equal, size=resamples) / draws
    drawn = drawn[(drawn > 0).sum(-1) > 1]  # a resample of one sample alone has no pair
    tails = [50 - 50 * level, 50 + 50 * level]
    low, high = np.transpose([np.percentile(statistic(drawn, *prompt), tails) for prompt in by_prompt])
    return Estimate(np.array([statistic(equal, *prompt) for prompt in by_prompt]), low, high)


def over_prompts(values: ArrayLike, *, level: float = 0.95, resamples: int = 9999, seed: int = 0) -> Estimate:
    """The mean of values of prompts, with a BCa bootstrap interval over prompts.

    values: (prompts,). Returns an `Estimate` of numbers. Prompts are resampled, and not the samples of a prompt, whose
    noise is part of how values differ between prompts.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"values must be one finite number for each of at least two prompts, got shape {values.shape}."
        )
    if np.ptp(values) == 0:
        return Estimate(values[0], values[0], values[0])
    interval = bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=resamples, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Estimate(values.mean(), interval.low, interval.high)


def detectable_difference(deviation: float, pairs: int, *, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest mean difference that a two-sided paired t-test finds with probability `power`.

    deviation: the standard deviation of the paired differences, in whose units the result is. pairs: how many there
    are, at least two. For independent normal differences. ValueError on bad arguments.
    """
    deviation, pairs = _checks.number("deviation", deviation, low=0.0), _checks.whole("pairs", pairs, low=2)
    for name, share in (("power", power), ("level", level)):
        if not 1 - level < share < 1:
            raise ValueError(f"{name} must be a probability above {1 - level:g} and below 1, got {share}.")
    # Given the estimated deviation, the mean is normal; the estimate is averaged over, at 4,000 quantiles of it. (The
    # same by SciPy's noncentral t distribution is NaN for few pairs and a large shift.)
    estimated = np.sqrt(chi2.ppf((np.arange(4000) + 0.5) / 4000, pairs - 1) / (pairs - 1))
    limit = t.ppf((1 + level) / 2, pairs - 1) * estimated

    def lack(shift: float) -> float:
        return power - float((norm.cdf(shift - limit) + norm.cdf(-shift - limit)).mean())

    return float(brentq(lack, 0.0, float(limit.max()) + 10) * deviation / np.sqrt(pairs))


def _different(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chance that two draws are different samples; a variance divided by it is a mean over such pairs alone."""
    return 1 - (probs**2).sum(-1)
