"""What a reward model is measured by: accuracy (who is above whom) and reward variance (by how much, under the policy).

    accuracy   P_{(y,y')~D} [ sign(r(y) - r(y')) = sign(r_G(y) - r_G(y')) ]              Def. 1, arXiv 2503.15477
    variance   Var_{y~π} r(y) = ½ E_{y,y'~π} (r(y) - r(y'))²                              Def. 2
    harm-aware accuracy   P[ r(better) > r(worse)  or  r(worse) < E_{y~π} r(y) ]          arXiv 2604.25872

The better and the worse of a pair are so by the ground truth. Arrays have the outputs on their last axis; leading axes
are prompts and broadcast; results have the leading axes.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks


def ranking_accuracy(
    proxy: ArrayLike, ground_truth: ArrayLike, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Share of the pairs of outputs that `proxy` orders as `ground_truth` does (the paper's Def. 1).

    A tie agrees only with a tie. proxy, ground_truth: (..., n), n >= 2. weights: (..., n, n) symmetric, non-negative
    weights of the unordered pairs, whose diagonal is ignored; uniform by default, and need not sum to one. For pairs
    drawn from a policy without replacement pass the outer product of its probabilities.

    Returns (...,) values in [0, 1]. ValueError for fewer than two outputs, or weights that are not symmetric,
    negative, or zero on every pair.
    """
    proxy, ground_truth = _checks.broadcast(
        proxy=_checks.array("proxy", proxy), ground_truth=_checks.array("ground_truth", ground_truth)
    )
    outputs = proxy.shape[-1]
    if outputs < 2:
        raise ValueError("proxy must have at least two outputs, since accuracy is about pairs, got 1.")
    above_proxy, above_truth = (r[..., :, None] > r[..., None, :] for r in (proxy, ground_truth))
    # y above y' in one exactly when above in the other, and the same with y, y' exchanged: equal signs, ties included.
    agree = above_proxy == above_truth
    agree &= agree.swapaxes(-1, -2)
    if weights is None:
        return (agree.sum((-1, -2)) - outputs) / (outputs * (outputs - 1))
    weights = _checks.array("weights", weights, low=0.0)
    if weights.shape[-2:] != (outputs, outputs) or not np.allclose(weights, weights.swapaxes(-1, -2), atol=0):
        raise ValueError(f"weights must be symmetric of shape (..., {outputs}, {outputs}), got shape {weights.shape}.")
    weights = weights * ~np.eye(outputs, dtype=bool)
    total = weights.sum((-1, -2))
    if (total <= 0).any():
        raise ValueError("weights must be positive on at least one pair of different outputs, got zero on all of them.")
    try:
        return (agree * weights).sum((-1, -2)) / total
    except ValueError:
        raise ValueError(
            f"weights must have prompts that broadcast with {proxy.shape[:-1]}, got shape {weights.shape}."
        ) from None


def chance_accuracy(proxy: ArrayLike, ground_truth: ArrayLike) -> NDArray[np.float64]:
    """The mean `ranking_accuracy` of `proxy` when its rewards are dealt to the outputs in a random order.

        t t_G + (1 - t)(1 - t_G) / 2,    t, t_G: the shares of the pairs that each reward ties

    proxy, ground_truth: (..., n), n >= 2. Returns (...,): 1/2 without ties, (1 - t_G)/2 where the ground truth alone
    ties. An accuracy says something in so far as it differs from this one.
    """
    tied, tied_truth = (ranking_accuracy(np.zeros(np.shape(rewards)), rewards) for rewards in (proxy, ground_truth))
    return tied * tied_truth + (1 - tied) * (1 - tied_truth) / 2


def reward_variance(rewards: ArrayLike, probs: ArrayLike | None = None) -> NDArray[np.float64]:
    """Variance of the reward over a policy's outputs (the paper's Def. 2), in squared units of the reward.

    rewards: (..., n). With probs (..., n): the exact variance under that distribution. Without: the unbiased sample
    variance (ddof=1) of n sampled outputs, n >= 2. Returns (...,). ValueError for one sample, or probs that do not sum
    to one. Scaling the reward by c scales the result by c²: compare reward models only after a `Normalizer`.
    """
    return _covariance(probs, rewards=rewards)


def reward_covariance(proxy: ArrayLike, ground_truth: ArrayLike, probs: ArrayLike | None = None) -> NDArray[np.float64]:
    """Covariance of two rewards over a policy's outputs: exact under probs, else the unbiased sample's (ddof=1).

    proxy, ground_truth, probs: (..., n). Returns (...,), in the product of the two rewards' units. ValueError for one
    sample, or probs that do not sum to one. The paper does not use it; in the book it is a predictor of what a
    reward model teaches. `prop-pairwise` writes it as a mean over pairs.
    """
    return _covariance(probs, proxy=proxy, ground_truth=ground_truth)


def within_prompt_correlation(proxy: ArrayLike, ground_truth: ArrayLike) -> float:
    """Pearson's correlation of two rewards within prompts, pooled over the prompts, from sampled outputs.

        E_x Cov(r, r_G) / √( E_x Var(r) E_x Var(r_G) )

    It is that of all outputs after the mean of their prompt is taken off. proxy, ground_truth: (..., n), n >= 2, in any
    units; all leading axes are prompts. A prompt on which a reward has no spread stays in the means, where it adds 0;
    NaN if one of the rewards has no spread on any prompt. ValueError for one sample. The paper does not use it.
    """
    proxy, ground_truth = _checks.broadcast(
        proxy=_checks.array("proxy", proxy), ground_truth=_checks.array("ground_truth", ground_truth)
    )
    covariance = reward_covariance(proxy, ground_truth).mean()
    variances = reward_variance(proxy).mean() * reward_variance(ground_truth).mean()
    return float(covariance / np.sqrt(variances)) if variances > 0 else float("nan")


def _covariance(probs: ArrayLike | None, **rewards: ArrayLike) -> NDArray[np.float64]:
    """Covariance of the first and the last of the rewards, which are named for the sake of errors."""
    arrays = {name: _checks.array(name, values) for name, values in rewards.items()}
    if probs is not None:
        *pair, probs = _checks.broadcast(**arrays, probs=_checks.probabilities("probs", probs))
        # Means are of differences to the likeliest output: neither a common offset nor a policy that is almost sure
        # costs digits.
        likeliest = probs.argmax(-1)[..., None]
        pair = [values - np.take_along_axis(values, likeliest, -1) for values in pair]
        first, last = (values - (probs * values).sum(-1, keepdims=True) for values in (pair[0], pair[-1]))
        return (probs * first * last).sum(-1)
    pair = list(_checks.broadcast(**arrays))
    draws = pair[0].shape[-1]
    if draws < 2:
        name = next(iter(arrays))
        raise ValueError(
            f"{name} must hold at least two samples for a sample variance, got 1; sample more, or pass probs."
        )
    pair = [values - values[..., :1] for values in pair]  # so that equal samples deviate by 0 exactly
    first, last = (values - values.mean(-1, keepdims=True) for values in (pair[0], pair[-1]))
    return (first * last).sum(-1) / (draws - 1)


@dataclass(frozen=True)
class HarmAware:
    """Harm-aware accuracy of each prompt, and its expectation if the proxy had nothing to do with the ground truth.

    accuracy, chance: (prompts,), NaN where the ground truth orders no pair.
    """

    accuracy: NDArray[np.float64]
    chance: NDArray[np.float64]


def harm_aware_accuracy(proxy: ArrayLike, ground_truth: ArrayLike, different: ArrayLike | None = None) -> HarmAware:
    """Share of the pairs that the proxy orders rightly, or whose worse reply has less than the mean proxy reward.

    A wrong order does no harm there, since policy gradient lowers the logit of a reply below the mean (arXiv
    2604.25872).

    proxy, ground_truth: (prompts, replies), NaN where there is none. different: (prompts, replies, replies), which
    two replies differ, all by default. The mean is that of the prompt's replies; pairs that the ground truth ties are
    left out. chance is the expectation if the ground truth's values were assigned to the replies at random.
    """
    rewards, truth = np.asarray(proxy, dtype=float), np.asarray(ground_truth, dtype=float)
    present = np.isfinite(rewards) & np.isfinite(truth)
    pairs = present[:, :, None] & present[:, None, :]
    if different is not None:
        pairs &= np.asarray(different, dtype=bool)
    count = present.sum(-1, keepdims=True)
    below = rewards < np.where(present, rewards, 0.0).sum(-1, keepdims=True) / np.maximum(count, 1)
    # [prompt, y, y']: whether a pair in which y is the better reply does no harm.
    harmless = (rewards[:, :, None] > rewards[:, None, :]) | below[:, None, :]
    ordered = pairs & (truth[:, :, None] > truth[:, None, :])
    pairs &= ~np.eye(rewards.shape[-1], dtype=bool)
    orders = ordered.any((1, 2))
    with np.errstate(invalid="ignore"):
        accuracy = (harmless & ordered).sum((1, 2)) / ordered.sum((1, 2))
        chance = (harmless & pairs).sum((1, 2)) / pairs.sum((1, 2))
    return HarmAware(np.where(orders, accuracy, np.nan), np.where(orders, chance, np.nan))


@dataclass(frozen=True)
class Normalizer:
    """An affine map of a reward model's outputs, (r - mean) / scale, that makes reward models comparable.

    `Normalizer.fit(rewards)` on rewards (prompts, outputs) of the initial policy:
    scheme="joint": one mean and one standard deviation (ddof=1) over all prompts and outputs together, the paper's own
    (section 4.1, arXiv 2503.15477: 500 prompts × 10 outputs); scheme="variance": the same mean, and for scale the
    square root of the mean over prompts of the reward variance (the paper's Table 9), which makes this mean 1.
    """

    mean: float
    scale: float

    @classmethod
    def fit(cls, rewards: ArrayLike, scheme: str = "joint") -> Self:
        """Fit on rewards (..., n), n >= 2. ValueError for an unknown scheme or rewards without spread."""
        rewards = _checks.array("rewards", rewards)
        if scheme == "joint":
            scale = np.sqrt(reward_variance(rewards.ravel()))
        elif scheme == "variance":
            scale = np.sqrt(reward_variance(rewards).mean())
        else:
            raise ValueError(f'scheme must be "joint" or "variance", got {scheme!r}.')
        if not scale > 0:
            raise ValueError(
                "rewards must not all be equal, since their spread becomes the unit; got no spread at all."
            )
        return cls(float(rewards.mean()), float(scale))

    def transform(self, rewards: ArrayLike) -> NDArray[np.float64]:
        """(rewards - mean) / scale, for rewards of any shape (..., n)."""
        return (_checks.array("rewards", rewards) - self.mean) / self.scale
