"""How a gradient flow is integrated: by its Taylor series, and where it is stiff by implicit steps.

In u = θ - θ_ref and τ = t/|S| the flow is du/dτ = a = π ⊙ (g - E_π g) with g = r - λu, since r^KL and g differ by a
constant. `taylor` has the series, which hold the flow at all times within a step.

When λτ is large what moves slowly is all that is left, but an explicit step is still bound by what moved fast. The
Jacobian is diagonal plus rank two,

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

from rvlib.tabular import taylor
from rvlib.tabular.taylor import Series

_ORDER = 8  # columns of the extrapolation table: an implicit step has order 8, its error estimate order 7
_TOLERANCE = 1e-11  # largest accepted estimate of a step's error, in u, relative to 1 + |u|
_STIFF = 500.0  # λτ from which steps are implicit: before it, an explicit method makes some 40 steps more
_MAX_STEPS = 20_000
_WIDTH = 16_384  # entries of u that are integrated together: their series fit the caches

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class FlowProblem:
    """A batch of flows in the time τ = t/|S|: logits0 and reward (B, n), centred at τ = 0, and kl_coef (B, 1)."""

    logits0: NDArray[np.float64]
    reward: NDArray[np.float64]
    kl_coef: NDArray[np.float64]

    def __getitem__(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "FlowProblem":
        return FlowProblem(self.logits0[index], self.reward[index], self.kl_coef[index])

    def kind(self, tau: NDArray[np.float64]) -> NDArray[np.intp]:
        """Of the step from time τ (B,): 0 explicit for λ = 0, 1 explicit for λ > 0, 2 implicit."""
        return np.where(self.kl_coef[:, 0] * tau > _STIFF, 2, np.sign(self.kl_coef[:, 0])).astype(int)

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
        """The flows' Taylor series at u (B, n), with the time `left` (B,) until they end; all have λ = 0 or none."""
        logits = self.logits0 + u
        top = logits.argmax(-1)
        row = np.arange(len(u))
        probs = np.exp(logits - logits[row, top][:, None])
        probs /= probs.sum(-1, keepdims=True)
        g = self.reward - self.reward[row, top][:, None]
        if not self.kl_coef.any():
            return taylor.series_without_kl(probs, g, left, _TOLERANCE)
        g -= self.kl_coef * (u - u[row, top][:, None])
        return taylor.series(probs, g, self.kl_coef[:, 0], left, 1 + np.abs(u), _TOLERANCE)

    def implicit_step(
        self, u: NDArray[np.float64], h: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A step of length h (B,) from u (B, n): the increment of u, (B, n), and its estimated error, (B,).

        The error is relative to `_TOLERANCE`.
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
class IntegratorSteps:
    """A step of each problem in `index` (K,).

    start, end, length: (K,). before: u before the step, and increment: what it adds, (K, n).
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
        """The u at the steps' ends, (K, n)."""
        return self.before + self.increment


def march(problem: FlowProblem, t_max: NDArray[np.float64], alive: NDArray[np.bool_]) -> Iterator[IntegratorSteps]:
    """Integrate to t_max (B,), yielding after each round the `IntegratorSteps` of the problems that made one.

    A problem goes on while its entry of `alive`, which the caller may clear between rounds, is true. One that ends
    makes room for the next, so that the rounds stay wide until few problems are left.
    """
    t, u = np.zeros(len(t_max)), np.zeros_like(problem.logits0)
    h = np.zeros(len(t_max))  # of the next implicit step
    tried = np.zeros(len(t_max), dtype=int)
    alive &= t_max > 0
    width = max(1, _WIDTH // u.shape[1])
    while (index := np.flatnonzero(alive)[:width]).size:
        if tried[index].max() == _MAX_STEPS:
            raise RuntimeError(
                f"gradient flow: not finished after {_MAX_STEPS} steps; shorten t_max (it reached t/|S| = "
                f"{t[index].min():.3g})."
            )
        tried[index] += 1
        kind = problem[index].kind(t[index])
        for rows, make_steps in (
            (index[kind == 0], _explicit_steps),
            (index[kind == 1], _explicit_steps),
            (index[kind == 2], _implicit_steps),
        ):
            steps = make_steps(problem, rows, t, u, t_max, h) if rows.size else None
            if steps and steps.index.size:
                t[steps.index], u[steps.index] = steps.end, steps.after
                alive[steps.index[steps.end >= t_max[steps.index]]] = False
                yield steps


def _explicit_steps(
    problem: FlowProblem,
    rows: NDArray[np.intp],
    t: NDArray[np.float64],
    u: NDArray[np.float64],
    t_max: NDArray[np.float64],
    h: NDArray[np.float64],
) -> IntegratorSteps:
    """A step of each of these problems as far as its Taylor series holds.

    h: its length, where an implicit one follows.
    """
    start, before, left = t[rows], u[rows], t_max[rows] - t[rows]
    with np.errstate(over="ignore", under="ignore"):
        series = problem[rows].series(before, left)
        length, zeta = series.clock.duration, series.clock.reach.copy()
        last = np.flatnonzero(length >= left)
        zeta[last], length[last] = series.clock.zeta(last, left[last]), left[last]
        increment = series.at(slice(None), zeta)
        end = start + length
    h[rows], end[last] = length, t_max[rows[last]]
    return IntegratorSteps(rows, start, end, before, length, increment, series.moved)


def _implicit_steps(
    problem: FlowProblem,
    rows: NDArray[np.intp],
    t: NDArray[np.float64],
    u: NDArray[np.float64],
    t_max: NDArray[np.float64],
    h: NDArray[np.float64],
) -> IntegratorSteps:
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
    return IntegratorSteps(
        rows, t[rows], end, before, length, increment, lambda step, x: here[step].implicit_step(before[step], x)[0]
    )


def within_steps(
    problem: FlowProblem,
    tau: NDArray[np.float64],
    u: NDArray[np.float64],
    left: NDArray[np.float64],
    step: NDArray[np.intp],
    duration: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The increments (Q, n) of steps that `march` takes from u (B, n) at τ (B,), the time `left` (B,) before the end.

    They are those of the steps with these indices (Q,) after these durations > 0 (Q,).
    """
    increment, kind = np.empty((len(step), u.shape[1])), problem.kind(tau)
    kind_of_query = kind[step]
    for explicit in (0, 1):
        rows = kind == explicit
        if rows.any():
            series = problem[rows].series(u[rows], left[rows])
            increment[kind_of_query == explicit] = series.moved(
                (np.cumsum(rows) - 1)[step[kind_of_query == explicit]], duration[kind_of_query == explicit]
            )
    implicit = kind_of_query == 2
    if implicit.any():
        rows = step[implicit]
        increment[implicit] = problem[rows].implicit_step(u[rows], duration[implicit])[0]
    return increment


def in_chunks(function: Callable[[slice], _Result], problems: int, outputs: int, widths: int = 1) -> list[_Result]:
    """The results of `function` on slices of the problems, in a thread for each core: NumPy releases Python's lock.

    A slice has at most `widths` times as many problems as `march` integrates together.
    """
    threads = os.cpu_count() or 1
    size = max(1, min(widths * _WIDTH // outputs, -(-problems // threads)))
    chunks = [slice(start, start + size) for start in range(0, problems, size)]
    if len(chunks) == 1:
        return [function(chunk) for chunk in chunks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, chunks))
