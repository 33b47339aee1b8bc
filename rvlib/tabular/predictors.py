"""Exact predictors of a tabular policy: which of them tell before training how much true reward a teacher will bring?

    d/dt V_G = (1/|S|) ⟨g_RM, g_G⟩ = (1/|S|) ‖g_RM‖ ‖g_G‖ cos,     g = π ⊙ (r - E_π r),     at t = 0 or for λ = 0

so a teacher's pull is its size, which variance bounds, times its direction, which is agreement with the ground truth.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks
from rvlib.metrics import ranking_accuracy, reward_covariance, reward_variance

PREDICTORS = (
    "accuracy",
    "on-policy accuracy",
    "reward variance",
    "variance and accuracy",
    "deviation × (2 accuracy − 1)",
    "covariance",
    "π²-weighted covariance",
)


def exact_predictors(probs: ArrayLike, proxy: ArrayLike, ground_truth: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """{name: (...)} of `PREDICTORS`, each (...) of one teacher under one policy.

    probs, proxy, ground_truth: (..., n), broadcast. accuracy: Def. 1 with uniform pairs; on-policy: pairs drawn from
    the policy, different outputs. variance and accuracy: the mean of the variance and the on-policy accuracy, where
    the paper's Tables 2 to 9 have the mean of on- and off-policy accuracy, and normalised rewards. deviation ×
    (2 accuracy − 1): the standard deviation times the on-policy accuracy's excess. covariance: of the rewards under
    the policy. π²-weighted covariance: Σ π² (r_RM - V_RM)(r_G - V_G), which is |S| dV_G/dt at the start of training,
    by the book's `prop-law`. ValueError on bad arguments.
    """
    probs, proxy, ground_truth = _checks.broadcast(
        probs=_checks.probabilities("probs", probs),
        proxy=_checks.array("proxy", proxy),
        ground_truth=_checks.array("ground_truth", ground_truth),
    )
    uniform = ranking_accuracy(proxy, ground_truth)
    on_policy = ranking_accuracy(proxy, ground_truth, weights=probs[..., :, None] * probs[..., None, :])
    variance = reward_variance(proxy, probs)
    pulls = [probs * (r - (probs * r).sum(-1, keepdims=True)) for r in (proxy, ground_truth)]
    values = (
        uniform,
        on_policy,
        variance,
        (variance + on_policy) / 2,
        np.sqrt(variance) * (2 * on_policy - 1),
        reward_covariance(proxy, ground_truth, probs),
        (pulls[0] * pulls[1]).sum(-1),
    )
    return dict(zip(PREDICTORS, values, strict=True))


def rank_correlation(predictor: ArrayLike, outcome: ArrayLike) -> NDArray[np.float64]:
    """Spearman's correlation along the last axis, ties sharing their mean rank.

    (...) from predictor and outcome (..., teachers). An outcome may be infinite: it ranks last, or first. NaN where all
    are tied.
    """
    # Here, since scipy.stats takes a second to import, and most of what the library does has no need of it.
    from scipy.stats import rankdata  # its spearmanr gives a matrix of all pairs of rows

    a, b = (rankdata(x, axis=-1) for x in np.broadcast_arrays(predictor, outcome))
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


class MeanWithInterval(NamedTuple):
    """A mean and the ends of its interval; a tuple, so that it unpacks and goes into arrays."""

    mean: float
    low: float
    high: float


def mean_with_interval(
    values: ArrayLike, seed: int = 0, level: float = 0.95, resamples: int = 2000
) -> MeanWithInterval:
    """The mean of values (problems,), NaN left out, with a percentile bootstrap interval over whole problems."""
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[~np.isnan(numbers)]
    if not numbers.size:
        raise ValueError("values must hold at least one number, got none.")
    # What `scipy.stats.bootstrap` would give, which takes no single number.
    resampled = np.random.default_rng(seed).integers(0, numbers.size, (resamples, numbers.size))
    low, high = np.quantile(numbers[resampled].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return MeanWithInterval(float(numbers.mean()), float(low), float(high))
