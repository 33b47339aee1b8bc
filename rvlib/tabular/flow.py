"""Gradient flow on the RLHF objective of a softmax policy, and t_γ, the time it takes to gain γ in reward.

    dθ/dt = (1/|S|) π_θ ⊙ ( r^KL - E_{π_θ} r^KL ),   θ(0) = θ_ref,   r^KL = r - λ ln(π_θ/π_ref)     Lemma 7, arXiv 2503.15477
    t_γ   = min { t : E_{π_θ(t)} r ≥ E_{π_θ(0)} r + γ }

In u = θ - θ_ref the bracket is the centring of g = r - λu, since r^KL and g differ by a constant. The Jacobian is then
diagonal plus rank two, with a = π ⊙ (g - E_π g):

    J = diag(a - λπ) - a πᵀ - π aᵀ + λ π πᵀ

so an implicit step costs O(n), and a method for stiff problems costs no more than one for gentle ones. Ours is the
extrapolated linearly implicit Euler method (Deuflhard, SIAM Review 27, 1985; Hairer & Wanner, Solving ODEs II, IV.9), at
a fixed order, with steps of each problem's own: `benchmarks/flow.py` sets it beside SciPy's integrators.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize.elementwise import find_root
from scipy.special import log_softmax

from rvlib import _checks
from rvlib.metrics import reward_variance
from rvlib.tabular.policy import kl_divergence, rlhf_gradient, softmax

_ORDER = 8  # columns of the extrapolation table: a step has order 8, its error estimate order 7
_TOLERANCE = 1e-11  # largest accepted estimate of a step's error, in u, relative to 1 + |u|
_MAX_STEPS = 20_000
_FOREVER = 1e300  # a flow that has neither gained nor provably stopped by then never will, in double precision


@dataclass(frozen=True)
class Problem:
    """A batch of flows in the time τ = t/|S|: logits0 and reward (B, n), kl_coef (B, 1). The reward is centred under the initial policy."""

    logits0: np.ndarray
    reward: np.ndarray
    kl_coef: np.ndarray

    def __getitem__(self, index):
        return Problem(self.logits0[index], self.reward[index], self.kl_coef[index])

    def field(self, u):
        """π and a = π ⊙ (g - E_π g) at u (..., B, n).

        Everything is a difference to the likeliest output, so that neither a policy that is almost sure nor a reward that λu
        almost cancels loses digits.
        """
        logits = self.logits0 + u
        top = logits.argmax(-1)[..., None]
        probs = np.exp(logits - np.take_along_axis(logits, top, -1))
        probs /= probs.sum(-1, keepdims=True)
        reward = np.broadcast_to(self.reward, u.shape)
        g = reward - np.take_along_axis(reward, top, -1) - self.kl_coef * (u - np.take_along_axis(u, top, -1))
        g -= (probs * g).sum(-1, keepdims=True)
        return probs, probs * g

    def step(self, u, h):
        """One step of length h (B,) from u (B, n): the increment of u, and the estimate of its error relative to `_TOLERANCE` (B,)."""
        probs, a = self.field(u)
        parts = np.arange(1, _ORDER + 1.0)  # the j-th row of the table takes j implicit Euler steps of length h/j
        lengths = h[:, None] / parts[:, None, None]
        # Sherman-Morrison-Woodbury for I - hJ = D - U C Uᵀ with U = [a, π]: one division, two dot products and a 2 × 2 system.
        inverse = 1 / (1 - lengths * (a - self.kl_coef * probs))
        a_scaled, probs_scaled = a * inverse, probs * inverse
        m_aa = self.kl_coef + lengths * (a * a_scaled).sum(-1, keepdims=True)
        m_ap = 1 + lengths * (a * probs_scaled).sum(-1, keepdims=True)
        m_pp = lengths * (probs * probs_scaled).sum(-1, keepdims=True)
        scale = lengths / (m_aa * m_pp - m_ap**2)

        def solve(rows, b):
            along_a, along_p = (a_scaled[rows] * b).sum(-1, keepdims=True), (probs_scaled[rows] * b).sum(-1, keepdims=True)
            y_a = scale[rows] * (m_pp[rows] * along_a - m_ap[rows] * along_p)
            y_p = scale[rows] * (m_aa[rows] * along_p - m_ap[rows] * along_a)
            x = inverse[rows] * b - y_a * a_scaled[rows] - y_p * probs_scaled[rows]
            # The flow keeps Σ u. What rounding adds to it comes from the likely outputs, where h λ π is large, and goes back there.
            return x - probs * x.sum(-1, keepdims=True)

        table = solve(slice(None), lengths * a)
        for taken in range(1, _ORDER):
            rows = slice(taken, None)
            table[rows] += solve(rows, lengths[rows] * self.field(u + table[rows])[1])
        for column in range(1, _ORDER):
            ratio = parts[column:] / parts[:-column] - 1
            previous = table[-1].copy()
            table[column:] += (table[column:] - table[column - 1 : -1]) / ratio[:, None, None]
        error = (np.abs(table[-1] - previous) / (1 + np.abs(u))).max(-1) / _TOLERANCE
        return table[-1], np.where(np.isfinite(error), error, np.inf)


def _march(problem, t_max, alive):
    """Integrate to t_max (B,), yielding after each round (index, t, u, h, increment) of the problems whose step was accepted.

    A problem goes on while its entry of `alive`, which the caller may clear between rounds, is true.
    """
    t, u = np.zeros(len(t_max)), np.zeros_like(problem.logits0)
    probs, a = problem.field(u)
    with np.errstate(divide="ignore"):
        h = 0.1 / (np.abs(a).max(-1) + problem.kl_coef[:, 0] * probs.max(-1))
    alive &= t_max > 0
    for _ in range(_MAX_STEPS):
        index = np.flatnonzero(alive)
        if not index.size:
            return
        left = t_max[index] - t[index]
        length = np.minimum(h[index], left)
        with np.errstate(all="ignore"):  # a step that overflows has an infinite error and is taken again, shorter
            increment, error = problem[index].step(u[index], length)
            factor = np.clip(0.9 * error ** (-1 / _ORDER), 0.1, 6.0)
        accepted = error <= 1
        h[index] = np.where(accepted & (length == left), h[index], length * factor)
        index, length, increment = index[accepted], length[accepted], increment[accepted]
        if index.size:
            start, before = t[index], u[index]
            t[index] = np.where(length == left[accepted], t_max[index], start + length)
            u[index] += increment
            alive[index[t[index] >= t_max[index]]] = False
            yield index, start, before, length, increment
    raise RuntimeError(f"gradient flow: not finished after {_MAX_STEPS} steps; shorten t_max (it reached t/|S| = {t[alive].min():.3g}).")


@dataclass(frozen=True)
class States:
    """Policies on a gradient flow at times t, of any shape (...), and what they earn there.

    logits (..., n); reward, reference_logits and ground_truth_reward broadcast against it, kl_coef against t.
    """

    t: np.ndarray
    logits: np.ndarray
    reward: np.ndarray
    reference_logits: np.ndarray
    ground_truth_reward: np.ndarray
    kl_coef: np.ndarray

    @cached_property
    def probs(self):
        """π_θ(t), (..., n)."""
        return softmax(self.logits)

    @cached_property
    def proxy(self):
        """Expected proxy reward E_π r, without the KL term, (...)."""
        return (self.probs * self.reward).sum(-1)

    @cached_property
    def ground_truth(self):
        """Expected ground truth reward E_π r_G, (...); the proxy's where no ground truth was given."""
        return (self.probs * self.ground_truth_reward).sum(-1)

    @cached_property
    def variance(self):
        """Reward variance of the proxy under π_θ(t) (Def. 2), (...)."""
        return reward_variance(self.reward, self.probs)

    @cached_property
    def kl(self):
        """KL(π_θ(t) ‖ π_θ(0)) in nats, (...)."""
        return kl_divergence(self.probs, softmax(self.reference_logits))

    @cached_property
    def gradient_norm(self):
        """Euclidean norm of ∇_θ φ(θ(t); x), (...): one prompt's gradient, not divided by |S|."""
        return np.linalg.norm(rlhf_gradient(self.logits, self.reward, self.reference_logits, self.kl_coef), axis=-1)


@dataclass(frozen=True)
class Trajectory(States):
    """A gradient flow: `States` at the integrator's own times t (..., K), and, by calling it, at any others.

    The problems of a batch each have their own times; a flow with fewer repeats its last.
    """

    n_prompts: int

    def __call__(self, t):
        """`States` at t, a number or (M,) numbers in [0, t_max]: one step from the integrator's last time before each, so as exact as the flow itself."""
        times = _checks.real("t", t, low=0.0, high=float(self.t[..., -1].min()))
        if times.ndim > 1:
            raise ValueError(f"t must be a number or one axis of numbers, got shape {times.shape}.")
        batch, outputs, wanted = self.t.shape[:-1], self.logits.shape[-1], times.reshape(-1)
        knots = self.t.reshape(-1, self.t.shape[-1])
        flows = np.repeat(np.arange(len(knots)), wanted.size)
        last = np.concatenate([np.searchsorted(row, wanted, side="right") - 1 for row in knots])
        u = (self.logits - self.reference_logits).reshape(len(knots), -1, outputs)[flows, last]
        length = (np.tile(wanted, len(knots)) - knots[flows, last]) / self.n_prompts
        problem = _problem(*(x.reshape(-1, outputs) for x in (self.reference_logits, self.reward)), self.kl_coef.reshape(-1))
        moved = length > 0
        u[moved] += problem[flows][moved].step(u[moved], length[moved])[0]
        # Without an axis of times the constants lose theirs.
        aligned = [x if times.ndim else x.squeeze(len(batch)) for x in (self.reward, self.reference_logits, self.ground_truth_reward, self.kl_coef)]
        u = u.reshape(*batch, *times.shape, outputs)
        return States(np.broadcast_to(times, u.shape[:-1]), aligned[1] + u, aligned[0], *aligned[1:])


def gradient_flow(logits, reward, t_max, *, ground_truth=None, kl_coef=0.0, n_prompts=1):
    """Train a tabular policy by exact gradient flow from `logits`, which are also the reference, until time t_max.

    logits, reward, ground_truth: (..., n), finite; kl_coef λ >= 0 and t_max > 0: numbers or (...); n_prompts: |S|, by which
    the gradient is divided. Leading axes are independent problems, integrated together. Returns a `Trajectory`. Probabilities
    and rewards are within 1e-8 of the exact ones (tested up to logits of ±50, λ = 10 and t = 1e8). ValueError on bad
    arguments. Source: section 2.1 and Lemma 7, arXiv 2503.15477.
    """
    logits, reward, ground_truth = _checks.broadcast(
        logits=_checks.array("logits", logits),
        reward=_checks.array("reward", reward),
        ground_truth=_checks.array("ground_truth", reward if ground_truth is None else ground_truth),
    )
    n_prompts, batch, outputs = _checks.whole("n_prompts", n_prompts), logits.shape[:-1], logits.shape[-1]
    kl_coef, t_max = _per_problem(batch, kl_coef=_checks.real("kl_coef", kl_coef, low=0.0), t_max=_checks.real("t_max", t_max, high=_FOREVER, above=0.0))
    problem = _problem(logits.reshape(-1, outputs), reward.reshape(-1, outputs), kl_coef)
    flows = len(t_max)
    t, u = [[0.0] for _ in range(flows)], [[np.zeros(outputs)] for _ in range(flows)]
    for index, start, before, length, increment in _march(problem, t_max / n_prompts, np.ones(flows, dtype=bool)):
        for i, end, state in zip(index, start + length, before + increment):
            t[i].append(end * n_prompts)
            u[i].append(state)
    for i in range(flows):
        t[i][-1] = t_max[i]
    knots = max(map(len, t))
    t = np.array([row + row[-1:] * (knots - len(row)) for row in t]).reshape(*batch, knots)
    u = np.array([row + row[-1:] * (knots - len(row)) for row in u]).reshape(*batch, knots, outputs)
    reward, logits, ground_truth = (x[..., None, :] for x in (reward, logits, ground_truth))
    return Trajectory(t, logits + u, reward, logits, ground_truth, kl_coef.reshape(*batch, 1), n_prompts)


def time_to_gain(logits, reward, gain, *, measured=None, kl_coef=0.0, n_prompts=1, t_max=np.inf):
    """t_γ: the first time at which gradient flow on `reward` has raised the expected `measured` reward by `gain`.

    logits, reward, measured: (..., n); measured is the reward whose gain counts, `reward` itself by default. gain γ > 0,
    kl_coef λ >= 0, t_max: numbers or (...). Returns (...), a float for one problem, accurate to 1e-8 of itself; `inf` if the
    gain is not reached by t_max or, where t_max is infinite, ever: then the flow is followed until its distance to its
    limit, which is known, is too small for the gain. ValueError on bad arguments. Source: section 2.1, arXiv 2503.15477.
    """
    logits, reward, measured = _checks.broadcast(
        logits=_checks.array("logits", logits),
        reward=_checks.array("reward", reward),
        measured=_checks.array("measured", reward if measured is None else measured),
    )
    n_prompts, batch = _checks.whole("n_prompts", n_prompts), logits.shape[:-1]
    logits, reward, measured = (x.reshape(-1, x.shape[-1]) for x in (logits, reward, measured))
    kl_coef, gain, t_max = _per_problem(
        batch,
        kl_coef=_checks.real("kl_coef", kl_coef, low=0.0),
        gain=_checks.real("gain", gain, above=0.0),
        t_max=_checks.real("t_max", t_max, above=0.0),
    )
    problem, measured = _problem(logits, reward, kl_coef), _centred(logits, measured)
    found, alive = np.full(len(gain), np.inf), ~_never(problem, np.zeros_like(logits), measured, gain)
    for index, start, before, length, increment in _march(problem, np.minimum(t_max, _FOREVER) / n_prompts, alive):
        crossing = _first_crossing(problem[index], measured[index], gain[index], before, length, increment)
        found[index] = (start + crossing) * n_prompts
        over = np.isfinite(crossing) | _never(problem[index], before + increment, measured[index], gain[index])
        alive[index[over]] = False
    found[found > t_max] = np.inf
    return found.reshape(batch) if batch else float(found[0])


def _first_crossing(problem, measured, gain, u, length, increment):
    """Where within each step the expected measured reward first reaches the gain, inf where it does not.

    The reward at both ends of a step and its slopes give a cubic; a step is looked at more closely only where an end or
    the cubic's maximum comes near the gain, for the measured reward may rise and fall again within a step.
    """
    left, slope_left = _reward_and_slope(problem, u, measured)
    right, slope_right = _reward_and_slope(problem, u + increment, measured)
    found = np.full(len(gain), np.inf)
    # |slopes| × length bounds how far the cubic leaves its ends.
    near = np.flatnonzero((right >= gain) | ((slope_left > 0) & (slope_right < 0) & (np.maximum(left, right) + length * np.maximum(slope_left, -slope_right) >= gain)))
    if not near.size:
        return found
    problem, measured, gain, u, length = problem[near], measured[near], gain[near], u[near], length[near]

    def excess(x, flow):
        u_at = u[flow] + np.where(x[:, None] > 0, problem[flow].step(u[flow], np.maximum(x, 1e-300))[0], 0)
        value, slope = _reward_and_slope(problem[flow], u_at, measured[flow])
        return value - gain[flow], slope

    # Each step at 17 points; between two of them the reward is taken to have one maximum at the most, found by its slope.
    flow, grid = np.arange(near.size), np.linspace(0, 1, 17)
    values, slopes = (part.reshape(near.size, -1) for part in excess((length[:, None] * grid).ravel(), np.repeat(flow, grid.size)))
    peak = (slopes[:, :-1] > 0) & (slopes[:, 1:] < 0) & (values[:, :-1] < 0) & (values[:, 1:] < 0)
    row, column = np.nonzero(peak)
    highest = np.full(peak.shape, -1.0)
    if row.size:
        ends = length[row] * grid[column], length[row] * grid[column + 1]
        highest[row, column] = find_root(lambda x, i: excess(x.ravel(), i.astype(int).ravel())[1].reshape(x.shape), ends, args=(row,)).x
        reaches = excess(highest[row, column], row)[0] >= 0
        highest[row[~reaches], column[~reaches]] = -1.0
    crossed = (values[:, 1:] >= 0) | (highest >= 0)
    some = crossed.any(1)
    first = crossed.argmax(1)
    low, high = length * grid[first], length * grid[first + 1]
    high = np.where(highest[flow, first] >= 0, highest[flow, first], high)
    keep = flow[some]
    if keep.size:
        root = find_root(lambda x, i: excess(x.ravel(), i.astype(int).ravel())[0].reshape(x.shape), (low[keep], high[keep]), args=(keep,))
        found[near[keep]] = root.x
    return found


def _reward_and_slope(problem, u, measured):
    """E_π measured and its derivative in τ, d/dτ E_π m = Σ_y π (m - E_π m) (a - E_π a), each (B,)."""
    probs, a = problem.field(u)
    value = (probs * measured).sum(-1)
    return value, (probs * (measured - value[:, None]) * a).sum(-1)


def _never(problem, u, measured, gain):
    """Where it is certain that the expected measured reward, now below the gain, will stay below it: (B,) booleans.

    λ > 0: the flow's limit is π_∞ ∝ π_0 exp(r/λ), and λ KL(π ‖ π_∞) = φ_∞ - φ(θ) never grows, so by Pinsker's inequality
    the reward stays within spread(measured) sqrt(KL/2) of its limit.
    λ = 0: E r never falls, so the mass off the best outputs is at most (max r - E r)/(the best's lead) from now on; among the
    best outputs e^(-θ) falls at one rate for all, so those that began likeliest gain on the others.
    """
    probs, _ = problem.field(u)
    kl_coef = problem.kl_coef[:, 0]
    with np.errstate(all="ignore"):
        limit = softmax(problem.logits0 + np.where(problem.kl_coef > 0, problem.reward / problem.kl_coef, 0.0))
        distance_kl = np.sqrt(kl_divergence(probs, limit) / 2)
        best = problem.reward == problem.reward.max(-1, keepdims=True)
        lead = (problem.reward.max(-1, keepdims=True) - np.where(best, -np.inf, problem.reward)).min(-1)
        chosen = best & (problem.logits0 == np.where(best, problem.logits0, -np.inf).max(-1, keepdims=True))
        off_best = ((problem.reward.max(-1, keepdims=True) - problem.reward) * probs).sum(-1) / lead
        distance = np.where(best.all(-1), 0.0, off_best + (probs * (best & ~chosen)).sum(-1) / (probs * chosen).sum(-1))
    still = best.all(-1)  # a constant reward without KL moves nothing
    limit = np.where(kl_coef[:, None] > 0, limit, np.where(still[:, None], probs, chosen / chosen.sum(-1, keepdims=True)))
    distance = np.where(kl_coef > 0, distance_kl, distance)
    never = (limit * measured).sum(-1) + np.ptp(measured, axis=-1) * distance < gain
    # The proxy's own supremum is not reached: without this the last digit of the sum would say that it is.
    return never | ((kl_coef == 0) & (measured == problem.reward).all(-1) & (problem.reward.max(-1) <= gain))


def _centred(logits, reward):
    """`reward` less its expectation under the policy of `logits`, both (B, n)."""
    reward = reward - reward[:, :1]
    return reward - (softmax(logits) * reward).sum(-1, keepdims=True)


def _problem(logits, reward, kl_coef):
    return Problem(logits, _centred(logits, reward), kl_coef[:, None])


def _per_problem(batch, **numbers):
    """Each number or (...) array as a flat (B,) array, one entry a problem; ValueError, naming it, if it does not fit."""
    for name, value in numbers.items():
        try:
            yield np.broadcast_to(value, batch).reshape(-1)
        except ValueError:
            raise ValueError(f"{name} must be a number or fit the prompts' shape {batch}, got shape {value.shape}.") from None
