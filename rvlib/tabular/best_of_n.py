"""Best-of-N, exactly: draw n outputs from the policy, keep the one that the reward model likes best.

    P(the best of n has proxy level l) = F_l^n - F_{l-1}^n,    F_l = P_{y~π}(r(y) ≤ the l-th smallest proxy reward)

Given the level, the kept output is distributed as π restricted to that level: a tie is broken evenly among the samples,
which are exchangeable, and what else a sample is does not depend on how many others reached its level. Two bounds stand
beside it, proved in the chapter "Where accuracy is everything": how far from π it can move, and what a reward model's
mistakes cost.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks


def best_of_n_probs(probs: ArrayLike, reward: ArrayLike, n: int) -> NDArray[np.float64]:
    """Distribution (outputs,) of the output that Best-of-n keeps, by the book's `prop-best-of-n`.

    probs and reward: (outputs,); n >= 1 samples. Only the ranking by the reward matters, the book's `cor-ranking-only`.
    """
    probs, reward = _checks.broadcast(
        probs=_checks.probabilities("probs", probs), reward=_checks.array("reward", reward)
    )
    if probs.ndim > 1:
        raise ValueError(
            f"probs must be one prompt's, of shape (outputs,), got shape {probs.shape}; call once a prompt."
        )
    n = _checks.whole("n", n)
    level = np.unique(reward, return_inverse=True)[1]
    mass = np.bincount(level, probs)
    # From the top down, so that F_l^n - F_{l-1}^n keeps its digits where F is near 1: F_l = 1 - (mass above l).
    above = np.append(np.cumsum(mass[::-1])[::-1][1:], 0.0).clip(0, 1)
    with np.errstate(divide="ignore"):
        power = np.exp(n * np.log1p(-above))
    kept = np.diff(power, prepend=0.0).clip(0)
    return np.where(probs > 0, probs / np.where(mass > 0, mass, 1)[level] * kept[level], 0.0)


def best_of_n(probs: ArrayLike, reward: ArrayLike, ground_truth: ArrayLike, n: int) -> float:
    """Expected ground truth reward of the output that Best-of-n under `reward` keeps, exact, ties split evenly.

    probs, reward, ground_truth: (outputs,); n >= 1. Returns a float. With a reward that ranks as the ground truth does
    it is the expected maximum of n samples (the paper's Prop. 1), which grows with n as `cor-diminishing-returns` says.
    What n = 2 gains is the book's `prop-best-of-two`. ValueError on bad arguments.
    """
    truth = _checks.array("ground_truth", ground_truth)
    kept, truth = _checks.broadcast(probs=best_of_n_probs(probs, reward, n), ground_truth=truth)
    return float(kept @ truth)


def best_of_n_kl_bound(n: int) -> float:
    """Largest KL divergence of Best-of-n from the policy, in nats: ln n - (n - 1)/n, the book's `prop-best-of-n-kl`.

    n >= 1 samples. Returns a float. For any policy and reward; it is approached as the reward's levels become many and
    none has much probability.
    """
    n = _checks.whole("n", n)
    return float(np.log(n) - (n - 1) / n)


def best_of_n_loss_bound(probs: ArrayLike, reward: ArrayLike, ground_truth: ArrayLike, n: int) -> float:
    """Most ground truth reward that mistakes of `reward` can cost: E max of n samples, less what Best-of-n gets.

        n(n-1)/2 · E[ w |r_G(y) - r_G(y')| H(y, y')^(n-2) ],    y, y' ~ π

    w: 1 if the rewards order y and y' in opposite ways, 1/2 if `reward` alone ties them, else 0. H: probability that
    another sample has no reward and no ground truth above the pair's best. Arguments as in `best_of_n`. Exact for n = 1
    and n = 2. The book's `prop-mistakes-cost`.
    """
    probs, reward, truth = _checks.broadcast(
        probs=_checks.probabilities("probs", probs),
        reward=_checks.array("reward", reward),
        ground_truth=_checks.array("ground_truth", ground_truth),
    )
    if probs.ndim > 1:
        raise ValueError(
            f"probs must be one prompt's, of shape (outputs,), got shape {probs.shape}; call once a prompt."
        )
    n = _checks.whole("n", n)
    # Entry [kept, missed]: each pair stands once, with the output that is truly better as the one missed.
    stake = probs[:, None] * probs * (truth - truth[:, None]).clip(0)
    wrong = (reward[:, None] > reward) + 0.5 * (reward[:, None] == reward)
    nothing_better = (probs * (reward <= reward[:, None])) @ (truth[:, None] <= truth)
    return n * (n - 1) * float((stake * wrong * nothing_better.clip(0, 1) ** max(n - 2, 0)).sum())
