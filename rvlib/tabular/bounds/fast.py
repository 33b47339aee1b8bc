"""How long a gain takes at most: upper bounds on t_γ under a good teacher, each with the conditions that it needs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks


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
    """The time constant · |S||Y⁺|/((1-ρ)δ) (1/π(Y⁺) - 1/ρ).

    During it, a disliked set's probability grows at a rate of at most `growth`.
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
