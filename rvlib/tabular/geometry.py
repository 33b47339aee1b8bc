"""Other geometries for the same objective: the natural gradient, what lies between it and logits, and Adam.

    natural gradient   dθ/dt = r^KL - E_π r^KL,           dφ/dt = Var_π r^KL
    its solution       π_t ∝ π_ref exp(s r),              s = (1 - e^{-λt})/λ, or t where λ = 0
    the book's flow    dθ/dt = π ⊙ (r^KL - E_π r^KL),     dφ/dt = Σ π² (r^KL - E_π r^KL)²

The natural gradient is F(θ)⁺∇φ with the Fisher information F = diag(π) - ππᵀ of the softmax (Amari 1998, Kakade 2001);
for a tabular policy it is mirror ascent with the KL divergence. Everything here is for one prompt, |S| = 1.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad_vec

from rvlib import _checks
from rvlib.tabular.policy import rlhf_gradient, softmax

_BISECTIONS = 200  # halvings of a bracket: to the last digit of a double


def natural_gradient_flow(
    logits: ArrayLike, reward: ArrayLike, times: ArrayLike, *, kl_coef: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """The policy at each time under the natural gradient, exactly: probabilities (..., times, n).

    logits: of the initial policy, which is the reference; reward: (..., n) each. times: (times,), all >= 0. kl_coef: λ
    >= 0, (...). ValueError on bad arguments.
    """
    logits, reward = _checks.broadcast(logits=_checks.array("logits", logits), reward=_checks.array("reward", reward))
    times, kl_coef = _checks.real("times", times, low=0.0), _checks.real("kl_coef", kl_coef, low=0.0)
    tilt = _tilt(np.atleast_1d(times), kl_coef[..., None])
    return softmax(logits[..., None, :] + tilt[..., None] * _below_best(reward)[..., None, :])


def natural_time_to_gain(
    logits: ArrayLike, reward: ArrayLike, gain: ArrayLike, *, kl_coef: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """The time t_γ that the natural gradient takes to raise the expectation of `reward` itself by `gain`: (...).

    logits, reward: (..., n). gain: γ > 0. kl_coef: λ >= 0. inf where the gain is never reached: above r_max - V(0), or
    above what the KL penalty leaves. ValueError on bad arguments.
    """
    logits, reward = _checks.broadcast(logits=_checks.array("logits", logits), reward=_checks.array("reward", reward))
    gain, kl_coef = _checks.real("gain", gain, above=0.0), _checks.real("kl_coef", kl_coef, low=0.0)
    deviation = _below_best(reward)
    goal = (softmax(logits) * deviation).sum(-1) + gain  # of V - r_max, hence at most 0

    def short(tilt: NDArray[np.float64]) -> NDArray[np.bool_]:
        return (softmax(logits + tilt[..., None] * deviation) * deviation).sum(-1) < goal

    low, high = np.zeros(goal.shape), np.full(goal.shape, 1e-3)
    reachable = goal < 0
    while (growing := reachable & short(high)).any():
        high = np.where(growing, 2 * high, high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = short(middle)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        # s = (1 - e^{-λt})/λ solved for t; a tilt of 1/λ or more is never reached.
        time = np.where(
            kl_coef > 0, -np.log1p(-np.minimum(kl_coef * high, 1.0)) / np.where(kl_coef > 0, kl_coef, 1), high
        )
    return np.where(reachable, time, np.inf)[()]


def natural_slow_time_bound(variance: ArrayLike, gain: ArrayLike, reward_range: ArrayLike) -> NDArray[np.float64]:
    """Least t_γ under the natural gradient, (2/R) ln(1 + Rγ/(2√Var)), for any measured reward in [-1, 1]; ours.

    variance: reward variance of the proxy under the initial policy, >= 0; where it is 0 the bound is inf. gain: γ > 0.
    reward_range: R, the largest less the least value of the proxy, >= 0; at R = 0 the limit γ/√Var is meant. It holds
    for every λ >= 0.
    """
    deviation = np.sqrt(_checks.real("variance", variance, low=0.0))
    gain, reward_range = _checks.real("gain", gain, above=0.0), _checks.real("reward_range", reward_range, low=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = gain / deviation
        time = np.where(reward_range > 0, 2 * np.log1p(reward_range * ratio / 2) / reward_range, ratio)
    return np.where(deviation > 0, time, np.inf)[()]


def natural_shortfall_bound(probability: ArrayLike, time: ArrayLike) -> NDArray[np.float64]:
    """Most that V is short of the best reward under the natural gradient without penalty: ln(1/P₀)/t.

    probability: P₀ in (0, 1], the initial probability of the outputs of the best reward. time: t > 0. The standard
    bound for mirror ascent.
    """
    probability = _checks.real("probability", probability, above=0.0, high=1.0)
    return (-np.log(probability) / _checks.real("time", time, above=0.0))[()]


def two_output_time(start: ArrayLike, end: float, gap: float = 2.0, power: float = 1.0) -> NDArray[np.float64]:
    """Time in which the better of two outputs rises from probability `start` to `end` under dθ/dt = π^power ⊙ a.

        ∫ dp / ( gap · p(1-p) · [ p^power (1-p) + (1-p)^power p ] )          a = r - E_π r

    start: (...), in (0, end); end: in (0, 1). gap: the difference of the two rewards, > 0. power: 0 for the natural
    gradient, 1 for the book's flow, anything >= 0 between and beyond: the gradient in the metric diag(π^{1-power}).
    """
    start = _checks.real("start", start, above=0.0)
    end, gap = float(_checks.real("end", end, above=0.0)), float(_checks.real("gap", gap, above=0.0))
    power = float(_checks.real("power", power, low=0.0))
    if end >= 1 or (start >= end).any():
        raise ValueError(
            f"start must be below end and end below 1, got {start.max()} and {end}; choose 0 < start < end < 1."
        )
    low, high = np.log(start / (1 - start)), np.log(end / (1 - end))

    def slowness(share: float) -> NDArray[np.float64]:  # in the logit of p, of which dp/(p(1-p)) is the differential
        p = 1 / (1 + np.exp(-(low + share * (high - low))))
        return (high - low) / (gap * (p**power * (1 - p) + (1 - p) ** power * p))

    return quad_vec(slowness, 0.0, 1.0, epsrel=1e-10)[0]


def steps_to_gain(
    logits: ArrayLike,
    reward: ArrayLike,
    gain: float,
    *,
    optimizer: str = "adam",
    learning_rate: float = 0.01,
    max_steps: int = 100_000,
) -> NDArray[np.int64]:
    """Steps of exact policy gradient until the expectation of `reward` has risen by `gain`: (...), -1 if it has not.

    logits, reward: (..., n). optimizer: "sgd", which adds learning_rate × ∇V, "natural", which adds learning_rate ×
    (r - V), or "adam", with PyTorch's defaults β = (0.9, 0.999) and ε = 1e-8. ValueError for another name.
    """
    logits, reward = _checks.broadcast(logits=_checks.array("logits", logits), reward=_checks.array("reward", reward))
    learning_rate = float(_checks.real("learning_rate", learning_rate, above=0.0))
    if optimizer not in ("sgd", "natural", "adam"):
        raise ValueError(f"optimizer must be sgd, natural or adam, got {optimizer!r}.")
    goal = (softmax(logits) * reward).sum(-1) + float(_checks.real("gain", gain, above=0.0))
    theta, first, second = logits.copy(), np.zeros_like(logits), np.zeros_like(logits)
    steps = np.full(goal.shape, -1)
    for step in range(1, _checks.whole("max_steps", max_steps) + 1):
        probs = softmax(theta)
        if optimizer == "natural":
            update = reward - (probs * reward).sum(-1, keepdims=True)
        else:
            update = rlhf_gradient(theta, reward, logits, 0.0)
        if optimizer == "adam":
            first, second = 0.9 * first + 0.1 * update, 0.999 * second + 0.001 * update**2
            update = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        theta = theta + learning_rate * update
        reached = (softmax(theta) * reward).sum(-1) >= goal
        steps[(steps < 0) & reached] = step
        if (steps > 0).all():
            break
    return steps[()]


def _tilt(times: NDArray[np.float64], kl_coef: NDArray[np.float64]) -> NDArray[np.float64]:
    """s(t) = (1 - e^{-λt})/λ, or t where λ = 0."""
    safe = np.where(kl_coef > 0, kl_coef, 1.0)
    return np.where(kl_coef > 0, -np.expm1(-kl_coef * times) / safe, times)


def _below_best(reward: NDArray[np.float64]) -> NDArray[np.float64]:
    return reward - reward.max(-1, keepdims=True)
