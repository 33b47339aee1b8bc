"""How a gradient flow is integrated: by its Taylor series, and where it is stiff by implicit steps.

In u = θ - θ_ref and τ = t/|S| the flow is du/dτ = a = π ⊙ (g - E_π g) with g = r - λu, since r^KL and g differ by a
constant.

**Taylor series.** With e = exp(θ - max θ) at the start of a step and Z = Σ e, everything is a sum of products:

    Z a = e ⊙ (g - m),   m = (e·g)/Z,   e' = e ⊙ u',   g' = -λ u'

so each coefficient of the series follows from those before it (Jorba & Zou, Experimental Mathematics 14, 2005). The
series are in a clock ζ with dτ/dζ = 1/(±a_b + λ π_b + 1/left), where b is the output that moves fastest at the start:
while b follows ln τ, as it does for λ = 0, ζ follows it too, and a step multiplies the time instead of adding to it.
The series hold the flow at all times within the step.

**Implicit steps.** When λτ is large what moves slowly is all that is left, but an explicit step is still bound by what
moved fast. The Jacobian is diagonal plus rank two,

    J = diag(a - λπ) - a πᵀ - π aᵀ + λ π πᵀ

so an implicit step costs O(n). Ours is the extrapolated linearly implicit Euler method (Deuflhard, SIAM Review 27,
1985; Hairer & Wanner, Solving ODEs II, IV.9), at a fixed order.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

TERMS = 20  # of the Taylor series
_ORDER = 8  # columns of the extrapolation table: an implicit step has order 8, its error estimate order 7
_TOLERANCE = 1e-11  # largest accepted estimate of a step's error, in u, relative to 1 + |u|
_STIFF = 500.0  # λτ from which steps are implicit: before it, an explicit method makes some 40 steps more
_LONGEST = 8.0  # longest step in ζ: one suffices for a flow that does not move
_MAX_STEPS = 20_000
_CHUNK = 16_384  # entries of u that are integrated together: their series fit the caches

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Series:
    """Taylor series of B flows from now on, in a clock ζ of each: u (TERMS + 1, B, n), τ - τ_0 (TERMS + 1, B), and the
    ζ up to which they hold (B,).
    """

    u: NDArray[np.float64]
    tau: NDArray[np.float64]
    reach: NDArray[np.float64]

    @property
    def duration(self) -> NDArray[np.float64]:
        """The time τ - τ_0 up to which each series holds, (B,)."""
        return (self.tau * self.reach ** np.arange(TERMS + 1)[:, None]).sum(0)

    def at(self, zeta: NDArray[np.float64]) -> NDArray[np.float64]:
        """u - u_0 (B, n) of each flow at its ζ (B,)."""
        return np.einsum("kb,kbn->bn", zeta ** np.arange(1.0, TERMS + 1)[:, None], self.u[1:])

    def moved(self, flow: NDArray[np.intp], duration: NDArray[np.float64]) -> NDArray[np.float64]:
        """u - u_0 of the flows with these indices, each after its duration: (Q, n) from (Q,) and (Q,)."""
        outputs, powers = self.u.shape[-1], np.arange(1.0, TERMS + 1)[:, None]
        moves = np.empty((len(flow), outputs))
        block = max(1, _CHUNK // outputs)
        for start in range(0, len(flow), block):
            part = slice(start, start + block)
            zeta = self.clock(flow[part], duration[part])
            np.einsum("kq,kqn->qn", zeta**powers, self.u[1:, flow[part]], out=moves[part])
        return moves

    def clock(self, flow: NDArray[np.intp], duration: NDArray[np.float64]) -> NDArray[np.float64]:
        """ζ at each duration, (Q,): Newton's method on the increasing τ(ζ), with bisection outside the bracket."""
        tau, powers = self.tau[1:, flow], np.arange(1.0, TERMS + 1)[:, None]
        low, high = np.zeros(len(flow)), self.reach[flow]
        zeta = np.minimum(duration / tau[0], high)
        for _ in range(80):
            terms = tau * zeta ** (powers - 1)
            excess = terms.sum(0) * zeta - duration
            low, high = np.where(excess <= 0, zeta, low), np.where(excess >= 0, zeta, high)
            previous, zeta = zeta, zeta - excess / (terms * powers).sum(0)
            zeta = np.where((zeta >= low) & (zeta <= high), zeta, (low + high) / 2)
            if (np.abs(zeta - previous) <= 1e-9 * zeta).all():  # the error is about the square of the last step
                break
        return zeta


@dataclass(frozen=True)
class Problem:
    """A batch of flows in the time τ = t/|S|: logits0 and reward (B, n), centred at τ = 0, and kl_coef (B, 1)."""

    logits0: NDArray[np.float64]
    reward: NDArray[np.float64]
    kl_coef: NDArray[np.float64]

    def __getitem__(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "Problem":
        return Problem(self.logits0[index], self.reward[index], self.kl_coef[index])

    def stiff(self, tau: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether a step from time τ (B,) is to be implicit, (B,)."""
        return self.kl_coef[:, 0] * tau > _STIFF

    def field(self, u: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """π and a = π ⊙ (g - E_π g) at u (..., B, n).

        Everything is a difference to the likeliest output, so that neither a policy that is almost sure nor a reward
        that λu almost cancels loses digits.
        """
        logits = self.logits0 + u
        top = logits.argmax(-1)[..., None]
        probs = np.exp(logits - np.take_along_axis(logits, top, -1))
        probs /= probs.sum(-1, keepdims=True)
        reward = np.broadcast_to(self.reward, u.shape)
        g = reward - np.take_along_axis(reward, top, -1) - self.kl_coef * (u - np.take_along_axis(u, top, -1))
        g -= (probs * g).sum(-1, keepdims=True)
        return probs, probs * g

    def series(self, u: NDArray[np.float64], left: NDArray[np.float64]) -> Series:
        """The flows' Taylor series at u (B, n), with the time `left` (B,) until they end; differences as in `field`."""
        flows, outputs = u.shape
        starts = np.arange(0, u.size, outputs)
        logits = self.logits0 + u
        top = starts + logits.argmax(-1)

        def pick(values: NDArray[np.float64], place: NDArray[np.intp]) -> NDArray[np.float64]:
            return values.reshape(-1).take(place)

        e, za, velocity, g = (np.empty((TERMS, flows, outputs)) for _ in range(4))
        z, mean, rate, inverse = (np.empty((TERMS, flows)) for _ in range(4))
        series, tau = np.empty((TERMS + 1, flows, outputs)), np.zeros((TERMS + 1, flows))
        series[0] = u
        e[0] = np.exp(logits - pick(logits, top)[:, None])
        g[0] = self.reward - pick(self.reward, top)[:, None] - self.kl_coef * (u - pick(u, top)[:, None])
        penalised = bool(self.kl_coef.any())
        for k in range(TERMS):
            z[k] = e[k].sum(-1)
            eg = np.einsum("jbn,jbn->bn", e[: k + 1], g[k::-1]) if penalised else e[k] * g[0]
            mean[k] = eg.sum(-1)
            if k:
                mean[k] -= np.einsum("jb,jb->b", mean[:k], z[k:0:-1])
            mean[k] /= z[0]
            np.subtract(eg, np.einsum("jb,jbn->bn", mean[: k + 1], e[k::-1]), out=za[k])
            if k == 0:
                fastest = starts + np.abs(za[0]).argmax(-1)
                sign = np.where(pick(za[0], fastest) < 0, -1.0, 1.0)
                rest = self.kl_coef[:, 0] * pick(e[0], fastest) / z[0] + 1 / left
            rate[k] = sign * pick(za[k], fastest) + rest * z[k]  # Z dζ/dτ
            inverse[k] = -np.einsum("jb,jb->b", inverse[:k], rate[k:0:-1]) / rate[0] if k else 1 / rate[0]
            tau[k + 1] = np.einsum("jb,jb->b", z[: k + 1], inverse[k::-1]) / (k + 1)
            np.einsum("jb,jbn->bn", inverse[: k + 1], za[k::-1], out=velocity[k])
            following = np.divide(velocity[k], k + 1, out=series[k + 1])
            if k + 1 < TERMS:
                np.einsum("jbn,jbn->bn", e[: k + 1], velocity[k::-1], out=e[k + 1])
                e[k + 1] /= k + 1
                if penalised:
                    np.multiply(following - pick(following, top)[:, None], -self.kl_coef, out=g[k + 1])
        # The last terms are to be within the tolerance: those left out are smaller still.
        reach, scale = np.full(flows, _LONGEST), 1 + np.abs(u)
        for k in range(TERMS - 1, TERMS + 1):
            size = np.maximum((np.abs(series[k]) / scale).max(-1), np.abs(tau[k]) / tau[1])
            reach = np.minimum(reach, (_TOLERANCE / np.maximum(size, 1e-300)) ** (1 / k))
        return Series(series, tau, reach)

    def implicit_step(
        self, u: NDArray[np.float64], h: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A step of length h (B,) from u (B, n): the increment of u, and its estimated error relative to `_TOLERANCE`
        (B,).
        """
        probs, a = self.field(u)
        parts = np.arange(1, _ORDER + 1.0)  # the j-th row of the table takes j implicit Euler steps of length h/j
        lengths = h[:, None] / parts[:, None, None]
        # Sherman-Morrison-Woodbury for I - hJ = D - U C Uᵀ with U = [a, π]: a division, dot products, a 2 × 2 system.
        inverse = 1 / (1 - lengths * (a - self.kl_coef * probs))
        a_scaled, probs_scaled = a * inverse, probs * inverse
        m_aa = self.kl_coef + lengths * (a * a_scaled).sum(-1, keepdims=True)
        m_ap = 1 + lengths * (a * probs_scaled).sum(-1, keepdims=True)
        m_pp = lengths * (probs * probs_scaled).sum(-1, keepdims=True)
        scale = lengths / (m_aa * m_pp - m_ap**2)

        def solve(rows: slice, b: NDArray[np.float64]) -> NDArray[np.float64]:
            along_a = (a_scaled[rows] * b).sum(-1, keepdims=True)
            along_p = (probs_scaled[rows] * b).sum(-1, keepdims=True)
            y_a = scale[rows] * (m_pp[rows] * along_a - m_ap[rows] * along_p)
            y_p = scale[rows] * (m_aa[rows] * along_p - m_ap[rows] * along_a)
            x = inverse[rows] * b - y_a * a_scaled[rows] - y_p * probs_scaled[rows]
            # The flow keeps Σ u. What rounding adds to it comes from the likely outputs, where hλπ is large: there.
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


@dataclass(frozen=True)
class Steps:
    """A step of each problem in `index` (K,): its `start`, `end` and `length` (K,), u `before` it and the `increment`
    (K, n).

    moved: the increment (Q, n) of the steps with these indices (Q,) after these times (Q,) since their start.
    """

    index: NDArray[np.intp]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    before: NDArray[np.float64]
    length: NDArray[np.float64]
    increment: NDArray[np.float64]
    moved: Callable[[NDArray[np.intp], NDArray[np.float64]], NDArray[np.float64]]

    @property
    def after(self) -> NDArray[np.float64]:
        """u at the steps' ends, (K, n)."""
        return self.before + self.increment


def march(problem: Problem, t_max: NDArray[np.float64], alive: NDArray[np.bool_]) -> Iterator[Steps]:
    """Integrate to t_max (B,), yielding after each round the `Steps` of the problems that made one.

    A problem goes on while its entry of `alive`, which the caller may clear between rounds, is true.
    """
    t, u = np.zeros(len(t_max)), np.zeros_like(problem.logits0)
    h = np.zeros(len(t_max))  # of the next implicit step
    alive &= t_max > 0
    for _ in range(_MAX_STEPS):
        index = np.flatnonzero(alive)
        if not index.size:
            return
        stiff = problem[index].stiff(t[index])
        for rows, take in ((index[~stiff], _explicit_steps), (index[stiff], _implicit_steps)):
            steps = take(problem, rows, t, u, t_max, h) if rows.size else None
            if steps and steps.index.size:
                t[steps.index], u[steps.index] = steps.end, steps.after
                alive[steps.index[steps.end >= t_max[steps.index]]] = False
                yield steps
    raise RuntimeError(
        f"gradient flow: not finished after {_MAX_STEPS} steps; shorten t_max (it reached t/|S| = "
        f"{t[alive].min():.3g})."
    )


def _explicit_steps(
    problem: Problem,
    rows: NDArray[np.intp],
    t: NDArray[np.float64],
    u: NDArray[np.float64],
    t_max: NDArray[np.float64],
    h: NDArray[np.float64],
) -> Steps:
    """A step of each of these problems as far as its Taylor series holds; h: its length, where an implicit one
    follows.
    """
    start, before, left = t[rows], u[rows], t_max[rows] - t[rows]
    with np.errstate(over="ignore", under="ignore"):
        series = problem[rows].series(before, left)
        length, zeta = series.duration, series.reach.copy()
        last = np.flatnonzero(length >= left)
        zeta[last], length[last] = series.clock(last, left[last]), left[last]
        end = start + length
    h[rows], end[last] = length, t_max[rows[last]]
    return Steps(rows, start, end, before, length, series.at(zeta), series.moved)


def _implicit_steps(
    problem: Problem,
    rows: NDArray[np.intp],
    t: NDArray[np.float64],
    u: NDArray[np.float64],
    t_max: NDArray[np.float64],
    h: NDArray[np.float64],
) -> Steps:
    """A step of length h of those of these problems where its estimated error allows it; h is adapted for the next."""
    left = t_max[rows] - t[rows]
    length = np.minimum(h[rows], left)
    with np.errstate(all="ignore"):  # a step that overflows has an infinite error and is taken again, shorter
        increment, error = problem[rows].implicit_step(u[rows], length)
        factor = np.clip(0.9 * error ** (-1 / _ORDER), 0.1, 6.0)
    accepted = error <= 1
    h[rows] = np.where(accepted & (length == left), h[rows], length * factor)
    end = np.where(length == left, t_max[rows], t[rows] + length)[accepted]
    rows, length, increment = rows[accepted], length[accepted], increment[accepted]
    before, here = u[rows], problem[rows]
    return Steps(
        rows, t[rows], end, before, length, increment, lambda step, x: here[step].implicit_step(before[step], x)[0]
    )


def within_steps(
    problem: Problem,
    tau: NDArray[np.float64],
    u: NDArray[np.float64],
    left: NDArray[np.float64],
    step: NDArray[np.intp],
    duration: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The increments (Q, n) of steps that `march` takes from u (B, n) at τ (B,), the time `left` (B,) before the end:
    of the steps with these indices (Q,) after these durations > 0 (Q,).
    """
    increment, stiff = np.empty((len(step), u.shape[1])), problem.stiff(tau)
    implicit = stiff[step]
    if implicit.any():
        rows = step[implicit]
        increment[implicit] = problem[rows].implicit_step(u[rows], duration[implicit])[0]
    if not implicit.all():
        series = problem[~stiff].series(u[~stiff], left[~stiff])
        increment[~implicit] = series.moved((np.cumsum(~stiff) - 1)[step[~implicit]], duration[~implicit])
    return increment


def in_chunks(function: Callable[[slice], _Result], problems: int, outputs: int) -> list[_Result]:
    """`function` of slices that make up the problems, in threads, one a core: NumPy computes without Python's lock."""
    threads = os.cpu_count() or 1
    size = max(1, min(_CHUNK // outputs, -(-problems // threads)))
    chunks = [slice(start, start + size) for start in range(0, problems, size)]
    if len(chunks) == 1:
        return [function(chunk) for chunk in chunks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, chunks))
