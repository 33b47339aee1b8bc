"""A softmax policy over finitely many outputs: its expectations, its RLHF objective and the gradient of that objective.

    φ(θ) = E_{y~π_θ} r(y) - λ KL(π_θ ‖ π_ref),    ∇φ(θ) = π_θ ⊙ ( r^KL - E_{π_θ} r^KL )       Lemma 7, arXiv 2503.15477
    r^KL = r - λ ln(π_θ/π_ref)

One prompt at a time: leading axes are prompts and broadcast. The 1/|S| of an average over prompts is left to the
caller.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, rel_entr
from scipy.special import softmax as _softmax

from rvlib import _checks


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Probabilities (..., n) of finite logits (..., n): a tabular policy of the book's `def-policy`."""
    return _softmax(_checks.array("logits", logits), axis=-1)


def expectation(probs: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """E_{y~probs} values(y): (...,) from probs and values (..., n)."""
    probs, values = _checks.broadcast(
        probs=_checks.probabilities("probs", probs), values=_checks.array("values", values)
    )
    return (probs * values).sum(-1)


def kl_divergence(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """KL(p ‖ q) in nats: (...,) from distributions (..., n); infinite where p puts mass that q does not."""
    p, q = _checks.broadcast(p=_checks.probabilities("p", p), q=_checks.probabilities("q", q))
    return np.maximum(rel_entr(p, q).sum(-1), 0.0)


def kl_reward(
    logits: ArrayLike, reward: ArrayLike, reference_logits: ArrayLike, kl_coef: ArrayLike
) -> NDArray[np.float64]:
    """The KL-regularised reward r - λ ln(π/π_ref), (..., n), whose mean under π is the objective of `def-objective`."""
    logits, reward, reference_logits = _checks.broadcast(
        logits=_checks.array("logits", logits),
        reward=_checks.array("reward", reward),
        reference_logits=_checks.array("reference_logits", reference_logits),
    )
    kl_coef = _checks.real("kl_coef", kl_coef, low=0.0)
    log_ratio = log_softmax(logits, axis=-1) - log_softmax(reference_logits, axis=-1)
    try:
        return reward - kl_coef[..., None] * log_ratio
    except ValueError:
        raise ValueError(
            f"kl_coef must be a number or fit the prompts' shape {reward.shape[:-1]}, got shape {kl_coef.shape}."
        ) from None


def rlhf_objective(
    logits: ArrayLike, reward: ArrayLike, reference_logits: ArrayLike, kl_coef: ArrayLike
) -> NDArray[np.float64]:
    """φ(θ; x) = E_π r - λ KL(π ‖ π_ref): (...,).

    logits, reward, reference_logits: (..., n); kl_coef: λ >= 0, (...). The book's `def-objective`.
    """
    regularised = kl_reward(logits, reward, reference_logits, kl_coef)
    return (softmax(logits) * regularised).sum(-1)


def rlhf_gradient(
    logits: ArrayLike, reward: ArrayLike, reference_logits: ArrayLike, kl_coef: ArrayLike
) -> NDArray[np.float64]:
    """∇_θ φ(θ; x), (..., n), by the paper's Lemma 7; it sums to zero over the outputs."""
    regularised = kl_reward(logits, reward, reference_logits, kl_coef)
    probs = softmax(logits)
    return probs * (regularised - (probs * regularised).sum(-1, keepdims=True))
