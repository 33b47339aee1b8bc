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

_TINY, _FOREVER = 1e-300, 1e300  # in place of 0 and ∞ where one divides


def natural_gradient_flow(
    logits: ArrayLike, reward: ArrayLike, times: ArrayLike, *, kl_coef: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """The policy at each time under the natural gradient, exactly: probabilities (..., times, n).

    logits: of the initial policy, which is π_ref too; reward: (..., n) each. times: (times,), all >= 0. kl_coef: λ
    >= 0, (...). ValueError on bad arguments. The book's `prop-natural`.
    """
    logits, reward = _checks.broadcast(logits=_checks.array("logits", logits), reward=_checks.array("reward", reward))
    times, kl_coef = _checks.real("times", times, low=0.0), _checks.real("kl_coef", kl_coef, low=0.0)
    tilt = _tilt(np.atleast_1d(times), kl_coef[..., None])
    return softmax(logits[..., None, :] + tilt[..., None] * _below_best(reward)[..., None, :])


def natural_time_to_gain(
    logits: ArrayLike,
    reward: ArrayLike,
    gain: ArrayLike,
    *,
    measured: ArrayLike | None = None,
    kl_coef: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """The first time t_γ at which the natural gradient on `reward` has raised the expectation of `measured` by `gain`.

    logits, reward, measured: (..., n); measured is the reward whose gain counts, `reward` itself by default. gain: γ >
    0. kl_coef: λ >= 0. Returns (...): inf where the gain is never reached. ValueError on bad arguments.

    The policy is known at every tilt s, so s alone is searched for: it grows by steps in which the gain cannot be
    reached, however the measured reward rises and falls, until it is reached or the limit at s = ∞ rules it out.
    """
    logits, reward, measured = _checks.broadcast(
        logits=_checks.array("logits", logits),
        reward=_checks.array("reward", reward),
        measured=_checks.array("measured", reward if measured is None else measured),
    )
    gain, kl_coef = _checks.real("gain", gain, above=0.0), _checks.real("kl_coef", kl_coef, low=0.0)
    deviation, mark = _below_best(reward), _below_best(measured)
    probs, best = softmax(logits), deviation == 0
    goal = (probs * mark).sum(-1) + gain  # at most 0, the largest mark, where it can be reached
    limit = (probs * mark * best).sum(-1) / np.maximum((probs * best).sum(-1), _TINY)  # at s = ∞
    spread = np.maximum(-mark.min(-1), _TINY)
    farthest = np.where(kl_coef > 0, 1 / np.where(kl_coef > 0, kl_coef, 1), _FOREVER)  # the supremum of s
    shape = np.broadcast_shapes(goal.shape, kl_coef.shape)
    tilt, reached, searched = np.zeros(shape), np.zeros(shape, bool), np.ones(shape, bool)
    while searched.any():
        probs = softmax(logits + tilt[..., None] * deviation)
        lead = -(probs * deviation).sum(-1)  # r_max - V
        rest = (probs * ~best).sum(-1)
        centred = deviation + lead[..., None]
        short = goal - (probs * mark).sum(-1)
        slope = (probs * mark * centred).sum(-1)
        step = _certain_step(short, slope, (probs * centred**2).sum(-1), lead, spread)
        reached |= searched & ((short <= 0) | (step <= 4e-16 * tilt))
        never = (goal >= limit - rest * limit) | (tilt >= farthest)  # the rest have marks of 0 at most
        searched &= ~reached & ~never
        tilt = np.where(searched, np.minimum(tilt + step, farthest), tilt)
    with np.errstate(divide="ignore"):
        # s = (1 - e^{-λt})/λ solved for t
        late = -np.log1p(-np.minimum(kl_coef * tilt, 1.0)) / np.where(kl_coef > 0, kl_coef, 1)
    return np.where(reached, np.where(kl_coef > 0, late, tilt), np.inf)[()]


def _certain_step(
    short: NDArray[np.float64],
    slope: NDArray[np.float64],
    variance: NDArray[np.float64],
    lead: NDArray[np.float64],
    spread: NDArray[np.float64],
) -> NDArray[np.float64]:
    """A step of s in which the mean of the measured reward cannot rise by `short`: the longer of two.

        (2/D) ln(1 + D short / (2 σ √W))                      d/ds E m <= σ √W, and √W grows by e^{Ds/2} at most
        x with short = slope x + e M W x²/2, x <= 1/D         |d²/ds² E m| = |E (m - E m)(r - V)²| <= M W

    slope: d/ds E m, the covariance of m with the proxy. variance: W of the proxy. lead: D = r_max - V, which only
    falls. spread: M, the largest less the least m, so that its deviation is σ = M/2 at most. Near the goal the second
    is Newton's.
    """
    short, deviation = np.maximum(short, 0.0), np.maximum(np.sqrt(variance) * spread, _TINY)
    lead, bend = np.maximum(lead, _TINY), np.maximum(np.e * spread * variance, _TINY)
    with np.errstate(over="ignore"):
        first = np.where(
            lead * short < 1e-9 * deviation, 2 * short / deviation, 2 * np.log1p(lead * short / deviation) / lead
        )
        second = 2 * short / np.maximum(slope + np.sqrt(slope**2 + 2 * bend * short), _TINY)
    return np.maximum(first, np.minimum(second, 1 / lead))


def natural_slow_time_bound(variance: ArrayLike, gain: ArrayLike, reward_range: ArrayLike) -> NDArray[np.float64]:
    """Least t_γ under the natural gradient, (2/R) ln(1 + Rγ/(2√Var)), for any measured reward in [-1, 1]; ours.

    variance: reward variance of the proxy under the initial policy, >= 0; where it is 0 the bound is inf. gain: γ > 0.
    reward_range: R, the largest less the least value of the proxy, >= 0; at R = 0 the limit γ/√Var is meant. It holds
    for every λ >= 0. The book's `thm-natural-slow`.
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
    bound for mirror ascent; the book's `thm-natural-rare`.
    """
    probability = _checks.real("probability", probability, above=0.0, high=1.0)
    return (-np.log(probability) / _checks.real("time", time, above=0.0))[()]


def two_output_time(start: ArrayLike, end: float, gap: float = 2.0, power: float = 1.0) -> NDArray[np.float64]:
    """Time in which the better of two outputs rises from probability `start` to `end` under dθ/dt = π^power ⊙ a.

        ∫ dp / ( gap · p(1-p) · [ p^power (1-p) + (1-p)^power p ] )          a = r - E_π r

    start: (...), in (0, end); end: in (0, 1). gap: the difference of the two rewards, > 0. power: 0 for the natural
    gradient, 1 for the book's flow, anything >= 0 between and beyond: the gradient in the metric diag(π^{1-power}).
    The book's `prop-power` says how it grows as `start` falls to 0.
    """
    start = _checks.real("start", start, above=0.0)
    end, gap = float(_checks.real("end", end, above=0.0)), float(_checks.real("gap", gap, above=0.0))
    power = float(_checks.real("power", power, low=0.0))
    if end >= 1 or (start >= end).any():
        raise ValueError(
            f"start must be below end and end below 1, got {start.max()} and {end}; choose 0 < start < end < 1."
        )
    low, high = np.log(start / (1 - start)), np.log(end / (1 - end))

    def slowness(share: float) -> NDArray[np.float64]:  # in the logit of p, whose differential is dp/(p(1-p))
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
