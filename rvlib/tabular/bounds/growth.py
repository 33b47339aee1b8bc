"""How large a gradient can be, how fast a variance or a probability can grow, and how far parameters can move."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks


def tabular_gradient_bound(variance: ArrayLike) -> NDArray[np.float64]:
    """Largest ℓ1 norm of one prompt's ∇φ(θ; x) for a tabular policy, √Var of r^KL (the paper's Lemma 8).

    variance: >= 0, in squared units of the reward. At the start r^KL = r_RM, so Var is the reward variance.
    """
    return np.sqrt(_checks.real("variance", variance, low=0.0))[()]


def gradient_norm_bound(
    variance: ArrayLike, length: ArrayLike, jacobian_norm: ArrayLike, reward_bound: ArrayLike
) -> NDArray[np.float64]:
    """Largest ‖∇φ(θ; x)‖₂ for an autoregressive policy, 6 M^{1/3} L J Var^{1/3} (the paper's Prop. 2).

    variance: of r^KL under the policy, >= 0. length: L >= 1 tokens. jacobian_norm: J >= 0, the largest spectral norm of
    the logits' Jacobian over outputs and positions. reward_bound: M >= 0 with r^KL in [-M, M]; the paper
    asks for M > 1, which its proof does not need.
    """
    variance = _checks.real("variance", variance, low=0.0)
    length = _checks.real("length", length, low=1.0)
    jacobian_norm = _checks.real("jacobian_norm", jacobian_norm, low=0.0)
    reward_bound = _checks.real("reward_bound", reward_bound, low=0.0)
    return (6 * np.cbrt(reward_bound * variance) * length * jacobian_norm)[()]


def sharper_gradient_norm_bound(
    variance: ArrayLike, length: ArrayLike, jacobian_norm: ArrayLike
) -> NDArray[np.float64]:
    """Largest Euclidean norm of ∇φ(θ; x) for an autoregressive policy, J √(L Var/2), for rewards of any size.

    The book's `thm-deviation-gradient`, which is attained. Arguments as in `gradient_norm_bound`, whose bound is at
    least 6√(2L) times as large.
    """
    length = _checks.real("length", length, low=1.0)
    jacobian_norm = _checks.real("jacobian_norm", jacobian_norm, low=0.0)
    return (jacobian_norm * np.sqrt(length * _checks.real("variance", variance, low=0.0) / 2))[()]


def variance_growth_bound(variance: ArrayLike, length: ArrayLike, jacobian_norm: ArrayLike) -> NDArray[np.float64]:
    """Largest d/dt Var of r^KL for an autoregressive policy, 24 L² J² Var^{4/3} (the paper's Lemma 5).

    It holds while r^KL is in [-8, 8]. Arguments as in `slow_time_bound`; variance: the present one, of r^KL, a mean
    over the training prompts.
    """
    variance = _checks.real("variance", variance, low=0.0)
    length = _checks.real("length", length, low=1.0)
    jacobian_norm = _checks.real("jacobian_norm", jacobian_norm, low=0.0)
    return (24 * length**2 * jacobian_norm**2 * variance ** (4 / 3))[()]


def tabular_variance_growth_bound(variance: ArrayLike, n_prompts: ArrayLike = 1) -> NDArray[np.float64]:
    """Largest d/dt Var of r^KL for a tabular policy, Var^{3/2}/|S|, for every λ >= 0.

    The book's `lem-growth`, from the proof of the paper's Prop. 3.
    """
    n_prompts = _checks.real("n_prompts", n_prompts, low=1.0)
    return (_checks.real("variance", variance, low=0.0) ** 1.5 / n_prompts)[()]


def movement_bound(
    variance: ArrayLike, time: ArrayLike, length: ArrayLike, jacobian_norm: ArrayLike
) -> NDArray[np.float64]:
    """Largest Euclidean ‖θ(t) - θ(0)‖ of an autoregressive policy, before `horizon` (the paper's Lemma 5).

        (3 / (2LJ)) ln( 1 / (1 - 8 L² J² Var^{1/3} t) )

    variance: of the start, as in `slow_time_bound`. time: t >= 0. inf from the time on at which the variance may have
    blown up.
    """
    time, length = _checks.real("time", time, low=0.0), _checks.real("length", length, low=1.0)
    jacobian_norm = _checks.real("jacobian_norm", jacobian_norm, above=0.0)
    spent = 8 * length**2 * jacobian_norm**2 * np.cbrt(_checks.real("variance", variance, low=0.0)) * time
    return (-1.5 / (length * jacobian_norm) * _log1m(spent))[()]


def tabular_movement_bound(variance: ArrayLike, time: ArrayLike, n_prompts: ArrayLike = 1) -> NDArray[np.float64]:
    """Largest ℓ1 norm of θ(t) - θ(0) for one prompt of a tabular policy (proof of the paper's Prop. 3).

        2 ln( 1 / (1 - √Var t/(2|S|)) )

    variance: the proxy's reward variance at the start. time: t >= 0. inf from the time on at which the variance may
    have blown up.
    """
    time, n_prompts = _checks.real("time", time, low=0.0), _checks.real("n_prompts", n_prompts, low=1.0)
    return (-2 * _log1m(tabular_gradient_bound(variance) * time / (2 * n_prompts)))[()]


def _log1m(spent: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(1 - spent), -inf from 1 on."""
    with np.errstate(divide="ignore"):
        return np.log1p(-np.minimum(spent, 1.0))


def tabular_mass_bound(
    mass: ArrayLike, time: ArrayLike, min_prob: ArrayLike, kl_coef: ArrayLike = 0.0, n_prompts: ArrayLike = 1
) -> NDArray[np.float64]:
    """Largest probability π_t(A) of a set of outputs whose initial probability is `mass` (the paper's Lemma 10).

        π_t(A) ≤ π_0(A) exp( (4 + 2λ ln(1/min_y π_0(y))) t/|S| )

    mass: π_0(A) in [0, 1]. time: t >= 0. min_prob: min_y π_0(y) in (0, 1].
    """
    return _mass_bound(4.0, mass, time, min_prob, kl_coef, n_prompts)


def sharper_tabular_mass_bound(
    mass: ArrayLike, time: ArrayLike, min_prob: ArrayLike, kl_coef: ArrayLike = 0.0, n_prompts: ArrayLike = 1
) -> NDArray[np.float64]:
    """As `tabular_mass_bound`, with 1 in place of 4: the book's `lem-mass`."""
    return _mass_bound(1.0, mass, time, min_prob, kl_coef, n_prompts)


def _mass_bound(
    rate: float, mass: ArrayLike, time: ArrayLike, min_prob: ArrayLike, kl_coef: ArrayLike, n_prompts: ArrayLike
) -> NDArray[np.float64]:
    mass, time = _checks.real("mass", mass, low=0.0, high=1 + 1e-9), _checks.real("time", time, low=0.0)
    min_prob = _checks.real("min_prob", min_prob, above=0.0, high=1.0)
    kl_coef, n_prompts = _checks.real("kl_coef", kl_coef, low=0.0), _checks.real("n_prompts", n_prompts, low=1.0)
    with np.errstate(divide="ignore"):
        return np.exp(np.minimum(np.log(mass) + (rate - 2 * kl_coef * np.log(min_prob)) * time / n_prompts, 0.0))[()]
