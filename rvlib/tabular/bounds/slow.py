"""How long a gain takes at least: lower bounds on t_γ, from the reward variance or from the initial gradient."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks
from rvlib.tabular.bounds.growth import tabular_gradient_bound

# κ of the book's `lem-gradients-grow`: the gradients of a softmax policy grow at most at this rate.
_GROWTH = 8 / 5


def tabular_slow_time_bound(variance: ArrayLike, gain: ArrayLike, n_prompts: ArrayLike = 1) -> NDArray[np.float64]:
    """Least t_γ of a tabular policy, 2|S| (1 - e^{-γ/2}) / √Var, for any reward in [-1, 1] (the paper's Prop. 3).

    variance: reward variance of the proxy for the prompt under the initial policy, >= 0; where it is 0 the bound is
    inf. gain: γ > 0 of the measured reward. n_prompts: |S|. It holds for every λ >= 0. Twice it holds too: the book's
    `thm-sharper`.
    """
    deviation = tabular_gradient_bound(variance)
    gain, n_prompts = _checks.real("gain", gain, above=0.0), _checks.real("n_prompts", n_prompts, low=1.0)
    with np.errstate(divide="ignore"):
        return (2 * n_prompts * -np.expm1(-gain / 2) / deviation)[()]


def slow_time_bound(
    variance: ArrayLike, gain: ArrayLike, length: ArrayLike, jacobian_norm: ArrayLike, kl_coef: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """Least t_γ of an autoregressive policy, for any reward in [-1, 1] (the paper's Theorem 4).

        min{ 1 - e^{-γ/9}, 1 - e^{-7/(3λ)} } / (8 L² J²) · Var^{-1/3}

    variance: mean over the training prompts of the proxy's reward variance under the initial policy, >= 0; where it is
    0 the bound is inf. gain: γ > 0. length: L >= 1. jacobian_norm: J > 0, the largest along the trajectory up to t_γ.
    kl_coef: λ >= 0.
    """
    variance = _checks.real("variance", variance, low=0.0)
    gain, length = _checks.real("gain", gain, above=0.0), _checks.real("length", length, low=1.0)
    jacobian_norm = _checks.real("jacobian_norm", jacobian_norm, above=0.0)
    kl_coef = _checks.real("kl_coef", kl_coef, low=0.0)
    with np.errstate(divide="ignore", over="ignore"):
        reach = np.minimum(-np.expm1(-gain / 9), -np.expm1(-7 / (3 * kl_coef)))
        return (reach / (8 * length**2 * jacobian_norm**2 * np.cbrt(variance)))[()]


def sharper_slow_time_bound(
    variance: ArrayLike, gain: ArrayLike, length: ArrayLike, jacobian_norm: ArrayLike
) -> NDArray[np.float64]:
    """Least t_γ of an autoregressive policy, 2 (1 - e^{-γ√L}) / (L^{3/2} J² √Var).

    The book's `thm-slow-deviation`. It holds for any measured reward in [-1, 1] and any λ >= 0. Arguments as in
    `slow_time_bound`, whose bound is at most a sixteenth of it. The proxy may have values of any size.
    """
    deviation = tabular_gradient_bound(variance)
    gain, length = _checks.real("gain", gain, above=0.0), _checks.real("length", length, low=1.0)
    jacobian_norm = _checks.real("jacobian_norm", jacobian_norm, above=0.0)
    with np.errstate(divide="ignore"):
        return (-2 * np.expm1(-gain * np.sqrt(length)) / (length**1.5 * jacobian_norm**2 * deviation))[()]


def horizon(
    variance: ArrayLike, length: ArrayLike, jacobian_norm: ArrayLike, kl_coef: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """Time up to which r^KL stays in [-8, 8] from a start with r_RM in [-1, 1] (the paper's Lemma 6).

        (1 - e^{-7/(3λ)}) / (8 L² J² Var^{1/3})

    Arguments as in `slow_time_bound`; inf where the variance is 0.
    """
    return slow_time_bound(variance, np.inf, length, jacobian_norm, kl_coef)


def accurate_but_slow_time_bound(gain: ArrayLike, slowness: ArrayLike, n_prompts: ArrayLike = 1) -> NDArray[np.float64]:
    """Least t_γ under the slow reward model of the paper's Theorem 5, 2|S| (1 - e^{-γ/2}) T.

    It holds for any policy, measured reward and λ. gain: γ > 0. slowness: T >= 1, as given to `accurate_but_slow`.
    """
    return tabular_slow_time_bound(_checks.real("slowness", slowness, low=1.0) ** -2.0, gain, n_prompts)


def mismatched_teacher_time_bound(
    gain: ArrayLike, slowness: ArrayLike, n_prompts: ArrayLike = 1
) -> NDArray[np.float64]:
    """Least t_γ under the teacher whose only good output has probability at most T^-2 (the paper's Theorem 6).

    (|S|/√2) (1 - e^{-γ/2}) T
    """
    gain, slowness = _checks.real("gain", gain, above=0.0), _checks.real("slowness", slowness, low=1.0)
    return (_checks.real("n_prompts", n_prompts, low=1.0) / np.sqrt(2) * -np.expm1(-gain / 2) * slowness)[()]


def two_marks_time_bound(liked: ArrayLike, gain: ArrayLike, n_prompts: ArrayLike = 1) -> NDArray[np.float64]:
    """Least t_γ, λ = 0, under a teacher that gives 1 to some outputs and -1 to all others.

        |S| (1 - e^{-2γ}) / (4 π_0(liked))

    liked: π_0 of the outputs with reward 1, in [0, 1]. gain: γ > 0, of any reward in [-1, 1]. The book's
    `thm-two-marks`: if the rewarded outputs are rare, the time grows like the inverse variance, and the bound of
    `thm-policy-specific` like its square root.
    """
    liked, gain = _checks.real("liked", liked, low=0.0, high=1 + 1e-9), _checks.real("gain", gain, above=0.0)
    with np.errstate(divide="ignore"):
        return (_checks.real("n_prompts", n_prompts, low=1.0) * -np.expm1(-2 * gain) / (4 * liked))[()]


def gradient_slow_time_bound(
    gradient_norm: ArrayLike, gain: ArrayLike, n_prompts: ArrayLike = 1
) -> NDArray[np.float64]:
    """Least t_γ, λ = 0, from the initial gradient: |S| (1 - e^{-√2 κγ})/(κ ‖g‖₂), κ = 8/5.

    It holds for any measured reward in [-1, 1]. gradient_norm: ‖g‖₂ >= 0 of one prompt's V_RM in its logits, at the
    start. gain: γ > 0. inf where the gradient is 0. The book's `thm-gradient-time`.
    """
    norm, gain = _checks.real("gradient_norm", gradient_norm, low=0.0), _checks.real("gain", gain, above=0.0)
    with np.errstate(divide="ignore"):
        return (
            _checks.real("n_prompts", n_prompts, low=1.0) * -np.expm1(-np.sqrt(2) * _GROWTH * gain) / (_GROWTH * norm)
        )[()]


def gradient_time_bounds(
    probs: ArrayLike, reward: ArrayLike, measured: ArrayLike, gain: ArrayLike, n_prompts: ArrayLike = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(least, greatest) t_γ, λ = 0, from the gradients g, u of both rewards at the start.

        t = |S|/(κ ‖g‖) · 2/(1 + cw + √((1 + cw)² ± 4(1 ∓ c)w)),     c = cos(g, u),   w = ‖u‖/(κγ),   κ = 8/5

    with the upper signs for the least; both approach |S| γ/⟨g, u⟩ as γ → 0; the greatest is inf unless cw > 1 and the
    root is real. probs, reward, measured: (..., n), rewards of any size; gain: γ > 0, (...). The book's
    `thm-gradient-time`.
    """
    probs, reward, measured = _checks.broadcast(
        probs=_checks.probabilities("probs", probs),
        reward=_checks.array("reward", reward),
        measured=_checks.array("measured", measured),
    )
    gain, n_prompts = _checks.real("gain", gain, above=0.0), _checks.real("n_prompts", n_prompts, low=1.0)
    # Pair by pair, since r - V cancels to nothing for an output that is nearly certain.
    g, u = (probs * ((r[..., :, None] - r[..., None, :]) * probs[..., None, :]).sum(-1) for r in (reward, measured))
    size, worth = np.linalg.norm(g, axis=-1), np.linalg.norm(u, axis=-1) / (_GROWTH * gain)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.clip(np.nan_to_num((g * u).sum(-1) / (size * np.linalg.norm(u, axis=-1))), -1, 1)
        middle = 1 + cosine * worth
        root = middle**2 - 4 * (1 + cosine) * worth
        least = 2 / (middle + np.sqrt(middle**2 + 4 * (1 - cosine) * worth))
        greatest = np.where((cosine * worth > 1) & (root >= 0), 2 / (middle + np.sqrt(root)), np.inf)
        return tuple((n_prompts * z / (_GROWTH * size))[()] for z in (least, greatest))
