"""Every bound of the paper and of the book, one function each: how large or small a gradient or a time can be.

    Lemma 8   ‖∇φ‖₁ ≤ Var^{1/2}                     Prop. 3     t_γ ≥ 2|S| (1 - e^{-γ/2}) Var^{-1/2}    tabular
    Prop. 2   ‖∇φ‖₂ ≤ 6 M^{1/3} L J Var^{1/3}       Theorem 4   t_γ ≥ min{...}/(8 L²J²) (E Var)^{-1/3}  autoregressive
    Prop. 4   t_γ ≤ 4|S||Y⁺|/((1-ρ)δ) (1/π(Y⁺) - 1/ρ)                                                   tabular

These names are those of the paper, arXiv 2503.15477. Labels such as `thm-sharper` are those of the book's results; its
concordance lists both. Arguments are numbers or arrays that broadcast, and results have their common shape,
unless a docstring says otherwise. Times are in the units of the flow dθ/dt = ∇φ(θ), with φ the mean over |S| prompts.
"""

from dataclasses import dataclass

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
    the logits' Jacobian over outputs and positions. reward_bound: M > 1 with r^KL in [-M, M].
    """
    variance = _checks.real("variance", variance, low=0.0)
    length = _checks.real("length", length, low=1.0)
    jacobian_norm = _checks.real("jacobian_norm", jacobian_norm, low=0.0)
    reward_bound = _checks.real("reward_bound", reward_bound, above=1.0)
    return (6 * np.cbrt(reward_bound * variance) * length * jacobian_norm)[()]


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


def variance_growth_bound(variance: ArrayLike, length: ArrayLike, jacobian_norm: ArrayLike) -> NDArray[np.float64]:
    """Largest d/dt Var of r^KL for an autoregressive policy, 24 L² J² Var^{4/3} (the paper's Lemma 5).

    It holds while r^KL is in [-8, 8]. Arguments as in `slow_time_bound`; variance: the present one, of r^KL, a mean
    over the training prompts.
    """
    variance = _checks.real("variance", variance, low=0.0)
    length = _checks.real("length", length, low=1.0)
    jacobian_norm = _checks.real("jacobian_norm", jacobian_norm, low=0.0)
    return (24 * length**2 * jacobian_norm**2 * variance ** (4 / 3))[()]


def horizon(
    variance: ArrayLike, length: ArrayLike, jacobian_norm: ArrayLike, kl_coef: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """Time up to which r^KL stays in [-8, 8] from a start with r_RM in [-1, 1] (the paper's Lemma 6).

        (1 - e^{-7/(3λ)}) / (8 L² J² Var^{1/3})

    Arguments as in `slow_time_bound`; inf where the variance is 0.
    """
    return slow_time_bound(variance, np.inf, length, jacobian_norm, kl_coef)


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


def tabular_variance_growth_bound(variance: ArrayLike, n_prompts: ArrayLike = 1) -> NDArray[np.float64]:
    """Largest d/dt Var of r^KL for a tabular policy, Var^{3/2}/|S|, for every λ >= 0.

    The book's `lem-growth`, from the proof of the paper's Prop. 3.
    """
    n_prompts = _checks.real("n_prompts", n_prompts, low=1.0)
    return (_checks.real("variance", variance, low=0.0) ** 1.5 / n_prompts)[()]


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


def tabular_fast_time_bound(
    probs: ArrayLike,
    reward: ArrayLike,
    ground_truth: ArrayLike,
    gain: float,
    good_outputs: ArrayLike,
    kl_coef: float = 0.0,
    n_prompts: int = 1,
) -> float:
    """Greatest t_γ of the ground truth reward for a tabular policy with a good teacher (the paper's Prop. 4).

    probs, reward, ground_truth: (n,), one prompt's initial policy and rewards in [-1, 1]. good_outputs: indices, or a
    mask, of the outputs Y⁺. gain: γ > 0. Returns a float. ValueError naming the condition of the proposition that
    fails.
    """
    return _fast_time(4.0, 5.0, probs, reward, ground_truth, gain, good_outputs, kl_coef, n_prompts)


def sharper_tabular_fast_time_bound(
    probs: ArrayLike,
    reward: ArrayLike,
    ground_truth: ArrayLike,
    gain: float,
    good_outputs: ArrayLike,
    kl_coef: float = 0.0,
    n_prompts: int = 1,
) -> float:
    """Two fifths of `tabular_fast_time_bound`, under a weaker condition on other outputs: the book's `thm-fast`."""
    return _fast_time(1.6, 1.25, probs, reward, ground_truth, gain, good_outputs, kl_coef, n_prompts)


def _fast_time(
    constant: float,
    growth: float,
    probs: ArrayLike,
    reward: ArrayLike,
    ground_truth: ArrayLike,
    gain: float,
    good_outputs: ArrayLike,
    kl_coef: float,
    n_prompts: int,
) -> float:
    """constant · |S||Y⁺|/((1-ρ)δ) (1/π(Y⁺) - 1/ρ), during which a disliked set's probability grows at a rate of at most
    `growth`.
    """
    probs, reward, ground_truth = _checks.broadcast(
        probs=_checks.probabilities("probs", probs),
        reward=_checks.array("reward", reward, low=-1.0, high=1.0),
        ground_truth=_checks.array("ground_truth", ground_truth, low=-1.0, high=1.0),
    )
    if probs.ndim > 1:
        raise ValueError(
            f"probs must be one prompt's, of shape (outputs,), got shape {probs.shape}; call once a prompt."
        )
    gain, kl_coef = _checks.number("gain", gain, above=0.0), _checks.number("kl_coef", kl_coef, low=0.0)
    n_prompts = _checks.whole("n_prompts", n_prompts)
    good = _mask("good_outputs", good_outputs, probs.size)
    count, mass = int(good.sum()), float(probs[good].sum())
    proxy_start, truth_start = float(probs @ reward), float(probs @ ground_truth)

    def require(condition: bool, requirement: str) -> None:
        if not condition:
            raise ValueError(f"good_outputs do not meet the paper's Prop. 4: {requirement}")

    require(
        ground_truth[good].min() > truth_start + gain,
        f"their ground truth must exceed V_G(0) + γ = {truth_start + gain:.6g}, got {ground_truth[good].min():.6g}.",
    )
    require(
        reward[good].min() > proxy_start,
        f"their reward must exceed V_RM(0) = {proxy_start:.6g}, got {reward[good].min():.6g}.",
    )
    rho = (truth_start + gain + 1) / (ground_truth[good].min() + 1)
    delta = (1 - rho) * (reward[good].max() - proxy_start) - np.ptp(reward[good])
    require(delta > 0, f"δ must be positive, got {delta:.6g}: their rewards are too far apart or too near V_RM(0).")
    least = float(probs.min())
    require(least > 0, "every output must have positive probability, got a probability of 0.")
    largest_kl = mass * (1 - rho) * delta / (8 * count * (2 * np.log(1 / least) + 1 / (2 * np.e)))
    require(kl_coef <= largest_kl, f"kl_coef must be at most {largest_kl:.6g}, got {kl_coef:.6g}.")
    wait = constant * count / ((1 - rho) * delta) * (1 / mass - 1 / rho)
    bad = float(probs[~good & (reward > proxy_start)].sum())
    largest_bad = mass**2 * (1 - rho) * delta / (16 * count) * np.exp(-growth * wait)
    require(
        bad <= largest_bad,
        f"the other outputs whose reward exceeds V_RM(0) must have probability at most {largest_bad:.6g}, got "
        f"{bad:.6g}.",
    )
    return n_prompts * max(wait, 0.0)


def _mask(name: str, outputs: ArrayLike, size: int) -> NDArray[np.bool_]:
    """Indices or booleans as a mask (size,) with at least one output in it."""
    outputs = np.atleast_1d(outputs)
    if not outputs.size:
        raise ValueError(f"{name} must name at least one output, got none.")
    mask = np.zeros(size, dtype=bool)
    try:
        mask[outputs] = True
    except (IndexError, ValueError):
        raise ValueError(f"{name} must be indices below {size}, or {size} booleans, got {outputs!r}.") from None
    if not mask.any():
        raise ValueError(f"{name} must name at least one output, got none.")
    return mask


def accurate_but_slow_time_bound(gain: ArrayLike, slowness: ArrayLike, n_prompts: ArrayLike = 1) -> NDArray[np.float64]:
    """Least t_γ under the slow reward model of the paper's Theorem 5, 2|S| (1 - e^{-γ/2}) T.

    It holds for any policy, measured reward and λ. gain: γ > 0. slowness: T >= 1, as given to `accurate_but_slow`.
    """
    return tabular_slow_time_bound(_checks.real("slowness", slowness, low=1.0) ** -2.0, gain, n_prompts)


def inaccurate_but_fast_time_bound(
    probs: ArrayLike, ground_truth: ArrayLike, gain: float, best: int, kl_coef: float = 0.0, n_prompts: int = 1
) -> float:
    """Greatest t_γ under the fast reward model of the paper's Theorem 5, 4|S|/(1-ρ)⁴ (1/π(y^γ) - 1/ρ).

    probs, ground_truth: (n,). best: index of y^γ, whose ground truth exceeds V_G(0) + γ. Returns a float. ValueError
    naming the condition that fails.
    """
    output = _good_output(probs, ground_truth, gain, best)
    prob, rho, least = output.prob, output.rho, output.least_prob
    largest_kl = prob * (1 - rho) ** 4 / (8 * (1 / (2 * np.e) - 2 * np.log(least)))
    _require_kl(kl_coef, largest_kl, "the paper's Theorem 5")
    if rho == 1:  # in double precision: the output is hardly better than the gain asks for
        return np.inf
    return _checks.whole("n_prompts", n_prompts) * max(4 / (1 - rho) ** 4 * (1 / prob - 1 / rho), 0.0)


def matching_teacher_time_bound(
    probs: ArrayLike,
    ground_truth: ArrayLike,
    gain: float,
    best: int,
    least_prob: float,
    kl_coef: float = 0.0,
    n_prompts: int = 1,
) -> float:
    """Greatest t_γ if the teacher's only good output, `best`, has probability at least c (the paper's Theorem 6).

        t_γ ≤ 2|S|/(1-ρ)³ (1/c - 1/ρ)    if λ ≤ c (1-ρ)³ / (16 (1/(2e) - 2 ln min π))

    probs, ground_truth: (n,). least_prob: c in (0, 1), at most π(best). Returns a float. ValueError naming what fails.
    """
    output = _good_output(probs, ground_truth, gain, best)
    prob, rho, least = output.prob, output.rho, output.least_prob
    c = _checks.number("least_prob", least_prob, above=0.0, high=1.0)
    if prob < c:
        raise ValueError(f"least_prob must be at most the probability of output {best}, {prob:.6g}, got {c:.6g}.")
    _require_kl(kl_coef, c * (1 - rho) ** 3 / (16 * (1 / (2 * np.e) - 2 * np.log(least))), "the paper's Theorem 6")
    if rho == 1:  # as above
        return np.inf
    return _checks.whole("n_prompts", n_prompts) * max(2 / (1 - rho) ** 3 * (1 / c - 1 / rho), 0.0)


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


# κ of the book's `lem-gradients-grow`: the gradients of a softmax policy grow at most at this rate.
_GROWTH = 8 / 5


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


@dataclass(frozen=True)
class _GoodOutput:
    """An output y^γ that is good enough for a gain: π(y^γ), ρ, and the least probability of any output."""

    prob: float
    rho: float
    least_prob: float


def _good_output(probs: ArrayLike, ground_truth: ArrayLike, gain: float, best: int) -> _GoodOutput:
    """Output `best` as a y^γ; ValueError unless it is good enough for the gain."""
    probs = _checks.probabilities("probs", probs)
    truth = _checks.array("ground_truth", ground_truth, low=-1.0, high=1.0)
    probs, truth = _checks.broadcast(probs=probs, ground_truth=truth)
    good = np.flatnonzero(_mask("best", best, probs.shape[-1]))[0]
    target = float(probs @ truth) + _checks.number("gain", gain, above=0.0)
    if not truth[good] > target:
        raise ValueError(f"best must have a ground truth above V_G(0) + γ = {target:.6g}, got {truth[good]:.6g}.")
    return _GoodOutput(float(probs[good]), float((target + 1) / (truth[good] + 1)), float(probs.min()))


def _require_kl(kl_coef: float, largest: float, theorem: str) -> None:
    if not _checks.number("kl_coef", kl_coef, low=0.0) <= largest:
        raise ValueError(f"kl_coef must be at most {largest:.6g} for {theorem}, got {float(kl_coef):.6g}.")
