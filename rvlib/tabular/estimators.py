"""Policy gradients from k samples, as training has them: REINFORCE, RLOO and GRPO on a tabular policy.

    ĝ = (1/k) Σ_i A_i ∇_θ ln π(y_i) = (1/k) Σ_i A_i (e_{y_i} - π),     y_1 … y_k ~ π, a group

    rloo           A_i = r_i - mean of the other k - 1 rewards     Ahmadian et al. 2024, arXiv 2402.14740
    grpo           A_i = (r_i - mean) / (deviation + 1e-4)         Shao et al. 2024, arXiv 2402.03300; TRL adds 1e-4
    dr_grpo        A_i = r_i - mean                                Dr. GRPO: Liu et al. 2025, arXiv 2503.20783
    reinforce      A_i = r_i                                       Williams 1992

REINFORCE's and RLOO's are unbiased for ∇φ = π ⊙ (r - E r); dr_grpo is (k-1)/k of rloo, sample by sample. r is the
KL-regularised reward, the KL term being part of the reward as in the paper's RLOO.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks
from rvlib.tabular.policy import kl_reward, softmax

RNG = int | Sequence[int] | np.random.Generator  # what numpy.random.default_rng takes
_STD_FLOOR = 1e-4  # TRL's, added to the group's standard deviation (ddof=1)


def _centred(rewards: NDArray[np.float64], algorithm: str) -> NDArray[np.float64]:
    """Rewards less their group's mean, (..., k)."""
    if rewards.shape[-1] < 2:
        raise ValueError(f"rewards must hold groups of at least two samples for {algorithm}, got 1; sample more.")
    return rewards - rewards.mean(-1, keepdims=True)


def _rloo(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    num_samples = rewards.shape[-1]
    return _centred(rewards, "rloo") * num_samples / (num_samples - 1)


def _grpo(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    return _centred(rewards, "grpo") / (rewards.std(-1, ddof=1, keepdims=True) + _STD_FLOOR)


def _dr_grpo(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    return _centred(rewards, "dr_grpo")


def _reinforce(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    return rewards


@dataclass(frozen=True)
class Estimator:
    """An advantage estimator: its label in figures, and A_i of each sample from the rewards of its group, (..., k)."""

    label: str
    advantages: Callable[[NDArray[np.float64]], NDArray[np.float64]]


# The one list of algorithms: recipes, the choices of the explorable and the tests of its JavaScript port follow it.
ADVANTAGES = {
    "rloo": Estimator("RLOO", _rloo),
    "grpo": Estimator("GRPO", _grpo),
    "dr_grpo": Estimator("Dr. GRPO", _dr_grpo),
    "reinforce": Estimator("REINFORCE", _reinforce),
}
ESTIMATORS = ("reinforce", *(name for name in ADVANTAGES if name != "reinforce"))  # in a figure, the plainest first


def advantages(rewards: ArrayLike, algorithm: str) -> NDArray[np.float64]:
    """A_i of each sample, (..., k), from the rewards (..., k) of groups of k samples.

    ValueError for an algorithm not in `ADVANTAGES`, or fewer than two samples where a group is compared within itself.
    """
    checked = _checks.array("rewards", rewards)
    if algorithm == "grpo_unscaled":
        raise ValueError("algorithm must be dr_grpo for GRPO without the division, got its old name 'grpo_unscaled'.")
    if algorithm not in ADVANTAGES:
        raise ValueError(f"algorithm must be one of {', '.join(ADVANTAGES)}, got {algorithm!r}.")
    return ADVANTAGES[algorithm].advantages(checked)


def sample_outputs(probs: ArrayLike, num_samples: int, rng: RNG, draws: int | None = None) -> NDArray[np.intp]:
    """Indices of outputs drawn from probs (..., n), (..., num_samples); with `draws`, (..., draws, num_samples).

    rng: a Generator, or a seed of one: anything that numpy.random.default_rng takes.
    """
    probs, num_samples = _checks.probabilities("probs", probs), _checks.whole("num_samples", num_samples)
    groups = () if draws is None else (_checks.whole("draws", draws),)
    uniform = np.random.default_rng(rng).random((*probs.shape[:-1], *groups, num_samples))
    edges = np.cumsum(probs, -1)
    flat = uniform.reshape(-1, uniform.size // max(edges.size // probs.shape[-1], 1))
    rows = edges.reshape(-1, probs.shape[-1])
    outputs = np.stack([np.searchsorted(row / row[-1], u, side="right") for row, u in zip(rows, flat, strict=True)])
    return outputs.reshape(uniform.shape)


def gradient_estimate(logits: ArrayLike, outputs: ArrayLike, advantages: ArrayLike) -> NDArray[np.float64]:
    """ĝ, (..., n), from logits (..., n), sampled output indices (..., k) and their advantages (..., k).

    The axes before the last broadcast.
    """
    logits = _checks.array("logits", logits)
    outputs, advantages = np.broadcast_arrays(outputs, _checks.array("advantages", advantages))
    if outputs.min() < 0 or outputs.max() >= logits.shape[-1]:
        raise ValueError(f"outputs must be indices below {logits.shape[-1]}, got {outputs.min()} to {outputs.max()}.")
    batch, n = outputs.shape[:-1], logits.shape[-1]
    scattered = np.zeros((*batch, n)).reshape(-1, n)
    rows = np.repeat(np.arange(len(scattered)), outputs.shape[-1])
    np.add.at(scattered, (rows, outputs.ravel()), advantages.ravel())
    return (scattered.reshape(*batch, n) - softmax(logits) * advantages.sum(-1, keepdims=True)) / outputs.shape[-1]


def estimate_gradient(
    logits: ArrayLike,
    reward: ArrayLike,
    num_samples: int,
    rng: RNG,
    *,
    algorithm: str = "rloo",
    reference_logits: ArrayLike | None = None,
    kl_coef: ArrayLike = 0.0,
    draws: int | None = None,
) -> NDArray[np.float64]:
    """An estimate of ∇φ(θ; x) from one group of `num_samples` outputs a prompt, (..., n), or `draws` of them.

    logits, reward, reference_logits (the logits by default): (..., n). algorithm: one of `ADVANTAGES`. ValueError on
    bad arguments. Compare `rlhf_gradient`, its expectation for "reinforce" and "rloo" by the book's `prop-unbiased`.
    """
    logits = _checks.array("logits", logits)
    regularised = kl_reward(logits, reward, logits if reference_logits is None else reference_logits, kl_coef)
    probs = np.broadcast_to(softmax(logits), regularised.shape)
    outputs = sample_outputs(probs, num_samples, rng, draws)
    if draws is not None:
        regularised, logits = regularised[..., None, :], logits[..., None, :]
    rewards = np.take_along_axis(
        np.broadcast_to(regularised, (*outputs.shape[:-1], regularised.shape[-1])), outputs, -1
    )
    return gradient_estimate(logits, outputs, advantages(rewards, algorithm))


def signal_to_noise(
    probs: ArrayLike, reward: ArrayLike, num_samples: int, noise: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """‖E ĝ‖₂ over the root of E ‖ĝ - E ĝ‖₂² for k samples with the advantages A_i = r(y_i) + ξ_i - E r, exact.

        SNR² = k ‖g‖² / ( E[(a² + τ²) ‖e_y - π‖²] - ‖g‖² ),    g = π ⊙ a,  a = r - E r,  ξ_i independent, of mean 0

    probs, reward: (..., n). num_samples: k >= 1. noise: τ >= 0, the standard deviation of ξ, in units of the reward. 0
    where the reward has no spread. It does not change when reward and noise are multiplied by the same number. The
    book's `prop-snr`.
    """
    probs, reward = _checks.broadcast(
        probs=_checks.probabilities("probs", probs), reward=_checks.array("reward", reward)
    )
    num_samples, noise = _checks.whole("num_samples", num_samples), _checks.real("noise", noise, low=0.0)
    a = reward - reward[..., :1]  # so that equal rewards deviate by 0 exactly
    a = a - (probs * a).sum(-1, keepdims=True)
    signal = ((probs * a) ** 2).sum(-1)
    lengths = 1 - 2 * probs + (probs**2).sum(-1, keepdims=True)  # ‖e_y - π‖²
    spread = (probs * (a**2 + np.asarray(noise)[..., None] ** 2) * lengths).sum(-1) - signal
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(signal > 0, np.sqrt(num_samples * signal / np.maximum(spread, 0)), 0.0)[()]


def no_spread_probability(probs: ArrayLike, reward: ArrayLike, num_samples: int) -> float:
    """Probability that all k samples of a group have the same reward, so that its gradient is 0: Σ_levels mass^k.

    probs, reward: (n,); num_samples: k >= 1. Returns a float. The book's `prop-no-spread`, and for rewards of two
    values `prop-first-spread`: 1 over the probability that is left is the mean number of steps up to the first spread.
    """
    probs, reward = _checks.broadcast(
        probs=_checks.probabilities("probs", probs), reward=_checks.array("reward", reward)
    )
    mass = np.bincount(np.unique(reward, return_inverse=True)[1], probs)
    return float((mass ** _checks.whole("num_samples", num_samples)).sum())
