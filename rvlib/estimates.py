"""Accuracy, reward variance and covariance of sampled replies, prompt by prompt, with intervals.

All three are means over pairs of different samples y_i, y_j of one prompt, here weighed by p_i p_j:

    accuracy    mean of 1[ sign(r_i - r_j) = sign(g_i - g_j) ]        Def. 1, arXiv 2503.15477, on-policy pairs
    variance    mean of ½ (r_i - r_j)²                                 Def. 2, the unbiased sample variance at equal p
    covariance  mean of ½ (r_i - r_j)(g_i - g_j)

The bootstrap draws samples again with replacement, so p_i becomes how often y_i was drawn. A sample paired with itself
would be a tie that agrees, and a difference of 0: pairs of one sample with itself have no place in any of the three.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from rvlib import metrics


@dataclass(frozen=True)
class Estimate:
    """Estimates and the ends of their intervals: numbers, or arrays of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __getitem__(self, index):
        return Estimate(self.value[index], self.low[index], self.high[index])

    def __format__(self, spec):
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def accuracy(proxy, ground_truth, **how):
    """Ranking accuracy (Def. 1) of each prompt. proxy, ground_truth: (prompts, samples). `how`: as in `over_samples`."""
    return over_samples(
        lambda p, r, g: metrics.ranking_accuracy(r, g, p[..., :, None] * p[..., None, :]), proxy, ground_truth, **how
    )


def variance(rewards, **how):
    """Reward variance (Def. 2) of each prompt, in squared units of the reward. rewards: (prompts, samples)."""
    return over_samples(lambda p, r: metrics.reward_variance(r, p) / _different(p), rewards, **how)


def covariance(proxy, ground_truth, **how):
    """Covariance of two rewards for each prompt, in the product of their units. proxy, ground_truth: (prompts,
    samples).
    """
    return over_samples(lambda p, r, g: metrics.reward_covariance(r, g, p) / _different(p), proxy, ground_truth, **how)


def over_samples(statistic, *rewards, level=0.95, resamples=2000, seed=0):
    """`statistic(probs, *rewards of one prompt)` for each prompt at equal probs, with percentile intervals over its
    samples.

    rewards: each (prompts, samples). Returns an `Estimate` of arrays (prompts,). ValueError for fewer than two samples.
    """
    rewards = [np.atleast_2d(np.asarray(r, dtype=float)) for r in rewards]
    samples = rewards[0].shape[-1]
    if samples < 2:
        raise ValueError(f"rewards must hold at least two samples of each prompt, got {samples}; draw more.")

    equal = np.full(samples, 1 / samples)
    drawn = np.random.default_rng(seed).multinomial(samples, equal, size=resamples) / samples
    drawn = drawn[(drawn > 0).sum(-1) > 1]  # one sample drawn every time makes no pair
    tails = [50 - 50 * level, 50 + 50 * level]
    low, high = np.transpose([np.percentile(statistic(drawn, *prompt), tails) for prompt in zip(*rewards)])
    return Estimate(np.array([statistic(equal, *prompt) for prompt in zip(*rewards)]), low, high)


def over_prompts(values, *, level=0.95, resamples=9999, seed=0):
    """The mean of one value a prompt, with a BCa bootstrap interval over prompts. values: (prompts,). Returns an
    `Estimate` of numbers.

    Prompts are drawn again, not samples: the noise within a prompt is part of how values differ between prompts.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"values must be one finite number for each of at least two prompts, got shape {values.shape}."
        )
    if np.ptp(values) == 0:
        return Estimate(values[0], values[0], values[0])
    found = bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=resamples, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Estimate(values.mean(), found.low, found.high)


def _different(p):
    """The chance that two draws from p are different samples: by it, a variance under p becomes one over such pairs."""
    return 1 - (p**2).sum(-1)
