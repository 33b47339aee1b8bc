"""t_γ, the time that gradient flow takes to gain γ in expected reward, and a proof where it never does.

t_γ = min { t : E_{π_θ(t)} r ≥ E_{π_θ(0)} r + γ }                                       section 2.1, arXiv 2503.15477
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks
from rvlib.tabular.flow import FOREVER, centred, per_problem, problem_of
from rvlib.tabular.integrator import FlowProblem, IntegratorSteps, in_chunks, march
from rvlib.tabular.policy import kl_divergence, softmax


def time_to_gain(
    logits: ArrayLike,
    reward: ArrayLike,
    gain: ArrayLike,
    *,
    measured: ArrayLike | None = None,
    kl_coef: ArrayLike = 0.0,
    n_prompts: int = 1,
    t_max: ArrayLike = np.inf,
) -> NDArray[np.float64] | float:
    """t_γ: the first time at which gradient flow on `reward` has raised the expected `measured` reward by `gain`.

    logits, reward, measured: (..., n); measured is the reward whose gain counts, `reward` itself by default. gain γ >
    0, kl_coef λ >= 0, t_max: numbers or (...). Returns (...), a float for one problem, accurate to 1e-8 of itself;
    `inf` if the gain is not reached by t_max or, where t_max is infinite, ever: then the flow is followed until its
    distance to its limit, which is known, is too small for the gain. ValueError on bad arguments. Source: section 2.1,
    arXiv 2503.15477; the book's `def-time-to-gain`, by which its `def-better-teacher` compares two teachers.
    """
    logits, reward, measured = _checks.broadcast(
        logits=_checks.array("logits", logits),
        reward=_checks.array("reward", reward),
        measured=_checks.array("measured", reward if measured is None else measured),
    )
    n_prompts, batch = _checks.whole("n_prompts", n_prompts), logits.shape[:-1]
    logits, reward, measured = (x.reshape(-1, x.shape[-1]) for x in (logits, reward, measured))
    kl_coef, gain, t_max = per_problem(
        batch,
        kl_coef=_checks.real("kl_coef", kl_coef, low=0.0),
        gain=_checks.real("gain", gain, above=0.0),
        t_max=_checks.real("t_max", t_max, above=0.0),
    )
    problem, measured = problem_of(logits, reward, kl_coef), centred(logits, measured)
    tau_max = np.minimum(t_max, FOREVER) / n_prompts
    times = np.concatenate(
        in_chunks(
            lambda i: _times_to_gain(problem[i], measured[i], gain[i], tau_max[i]),
            len(gain),
            logits.shape[-1],
            widths=5,
        )
    )
    times *= n_prompts
    times[times > t_max] = np.inf
    return times.reshape(batch) if batch else float(times[0])


def _times_to_gain(
    problem: FlowProblem, measured: NDArray[np.float64], gain: NDArray[np.float64], tau_max: NDArray[np.float64]
) -> NDArray[np.float64]:
    """τ_γ of each problem (B,), inf where the gain is not reached by τ_max."""
    times, alive = np.full(len(gain), np.inf), ~_never(problem, np.zeros_like(problem.logits0), measured, gain)
    for steps in march(problem, tau_max, alive):
        index = steps.index
        crossing = _first_crossing(problem[index], measured[index], gain[index], steps)
        times[index] = steps.start + crossing
        over = np.isfinite(crossing) | _never(problem[index], steps.after, measured[index], gain[index])
        alive[index[over]] = False
    return times


def _first_crossing(
    problem: FlowProblem,
    measured: NDArray[np.float64],
    gain: NDArray[np.float64],
    steps: IntegratorSteps,
) -> NDArray[np.float64]:
    """Where within each step the expected measured reward first reaches the gain, inf where it does not."""
    crossing, near = np.full(len(gain), np.inf), _near_the_gain(problem, measured, gain, steps)
    if not near.size:
        return crossing
    # Here, since scipy.optimize takes a second to import, and most of what the library does has no need of it.
    from scipy.optimize.elementwise import find_root

    problem, measured, gain = problem[near], measured[near], gain[near]
    u, length = steps.before[near], steps.length[near]

    def excess(x: NDArray[np.float64], flow: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Measured reward above the gain and its slope, at a time x into the step of each flow."""
        u_at = u[flow].copy()
        later = np.flatnonzero(x > 0)
        u_at[later] += steps.moved(near[flow[later]], x[later])
        value, slope = _reward_and_slope(problem[flow], u_at, measured[flow])
        return value - gain[flow], slope

    # Each step at 17 points; between two of them the reward is taken to have at most one maximum, found by its slope.
    flow, grid = np.arange(near.size), np.linspace(0, 1, 17)
    values, slopes = (
        part.reshape(near.size, -1) for part in excess((length[:, None] * grid).ravel(), np.repeat(flow, grid.size))
    )
    peak = (slopes[:, :-1] > 0) & (slopes[:, 1:] < 0) & (values[:, :-1] < 0) & (values[:, 1:] < 0)
    row, column = np.nonzero(peak)
    highest = np.full(peak.shape, -1.0)
    if row.size:
        ends = length[row] * grid[column], length[row] * grid[column + 1]
        highest[row, column] = find_root(
            lambda x, i: excess(x.ravel(), i.astype(int).ravel())[1].reshape(x.shape), ends, args=(row,)
        ).x
        reaches = excess(highest[row, column], row)[0] >= 0
        highest[row[~reaches], column[~reaches]] = -1.0
    crossed = (values[:, 1:] >= 0) | (highest >= 0)
    first = crossed.argmax(1)
    low, high = length * grid[first], length * grid[first + 1]
    high = np.where(highest[flow, first] >= 0, highest[flow, first], high)
    crosses = flow[crossed.any(1)]
    if crosses.size:
        root = find_root(
            lambda x, i: excess(x.ravel(), i.astype(int).ravel())[0].reshape(x.shape),
            (low[crosses], high[crosses]),
            args=(crosses,),
        )
        crossing[near[crosses]] = root.x
    return crossing


def _near_the_gain(
    problem: FlowProblem, measured: NDArray[np.float64], gain: NDArray[np.float64], steps: IntegratorSteps
) -> NDArray[np.intp]:
    """Indices of the steps within which the expected measured reward may reach the gain.

    The reward at both ends of a step and its slopes give a cubic; it may be reached where an end or the cubic's maximum
    comes near the gain, for the measured reward may rise and fall again within a step.
    """
    left, slope_left = _reward_and_slope(problem, steps.before, measured)
    right, slope_right = _reward_and_slope(problem, steps.after, measured)
    rises_and_falls = (slope_left > 0) & (slope_right < 0)
    # |slopes| × length bounds how far the cubic leaves its ends.
    highest = np.maximum(left, right) + steps.length * np.maximum(slope_left, -slope_right)
    return np.flatnonzero((right >= gain) | (rises_and_falls & (highest >= gain)))


def _reward_and_slope(
    problem: FlowProblem, u: NDArray[np.float64], measured: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """E_π measured and its derivative in τ, d/dτ E_π m = Σ_y π (m - E_π m) (a - E_π a), each (B,)."""
    probs, a = problem.field(u)
    value = (probs * measured).sum(-1)
    return value, (probs * (measured - value[:, None]) * a).sum(-1)


def _never(
    problem: FlowProblem, u: NDArray[np.float64], measured: NDArray[np.float64], gain: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Where it is certain that the expected measured reward, now below the gain, will stay below it: (B,) booleans.

    λ > 0: the flow's limit is π_∞ ∝ π_0 exp(r/λ), and λ KL(π ‖ π_∞) = φ_∞ - φ(θ) never grows, so by Pinsker's
    inequality the reward stays within spread(measured) sqrt(KL/2) of its limit. λ = 0: E r never falls, so the mass off
    the best outputs is at most (max r - E r)/(the best's lead) from now on; among the best outputs e^(-θ) falls at one
    rate for all, so those that began likeliest gain on the others.
    """
    probs, _ = problem.field(u)
    kl_coef = problem.kl_coef[:, 0]
    with np.errstate(all="ignore"):
        tilt = np.where(problem.kl_coef > 0, problem.reward / problem.kl_coef, 0.0)
        limit = softmax(problem.logits0 + tilt.clip(-FOREVER, FOREVER))
        distance_kl = np.sqrt(kl_divergence(probs, limit) / 2)
        best = problem.reward == problem.reward.max(-1, keepdims=True)
        lead = (problem.reward.max(-1, keepdims=True) - np.where(best, -np.inf, problem.reward)).min(-1)
        likeliest = best & (problem.logits0 == np.where(best, problem.logits0, -np.inf).max(-1, keepdims=True))
        off_best = ((problem.reward.max(-1, keepdims=True) - problem.reward) * probs).sum(-1) / lead
        distance = np.where(
            best.all(-1), 0.0, off_best + (probs * (best & ~likeliest)).sum(-1) / (probs * likeliest).sum(-1)
        )
    still = best.all(-1)  # a constant reward without KL moves nothing
    limit = np.where(
        kl_coef[:, None] > 0, limit, np.where(still[:, None], probs, likeliest / likeliest.sum(-1, keepdims=True))
    )
    distance = np.where(kl_coef > 0, distance_kl, distance)
    with np.errstate(invalid="ignore"):  # an infinite distance proves nothing, times a spread of 0 neither
        never = (limit * measured).sum(-1) + np.ptp(measured, axis=-1) * distance < gain
    # The proxy's own supremum is not reached: without this the last digit of the sum would say that it is.
    return never | ((kl_coef == 0) & (measured == problem.reward).all(-1) & (problem.reward.max(-1) <= gain))
