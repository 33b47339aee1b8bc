"""Taylor series of gradient flows, by which `integrator` takes its explicit steps.

Everything is a sum of products of series, so each coefficient follows from those before it (Jorba & Zou, Experimental
Mathematics 14, 2005). The series are in a clock ζ with dτ/dζ = c = 1/(±a_b + λ π_b + 1/left), where τ = t/|S|,
a = du/dτ for u = θ - θ_ref, and b is the output that moves fastest at the start. While θ_b follows ln τ, as it does for
λ = 0, ζ follows it too, and a step multiplies the time. With g = r - λu, measured from the output that is likeliest at
the start, so that a policy that is almost sure loses no digits, and ρ = c π,

    v = du/dζ = ρ (g - m),   dρ/dζ = ρ (v - σ),   dg/dζ = -λ v

Of the two numbers m keeps Σ v = 0, and σ keeps the clock's definition, in which c = Σ ρ. A term costs two products of
series for each output.

For λ = 0 two numbers say where all outputs are, since exp(-θ) stays affine in the reward: with p = π at the start,
e = exp(u - u_0) and F = Σ p e,

    1/e = 1 - p (g s - ω),   ds/dτ = 1/F,   dω/dτ = m/F,   F m = Σ p e g
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TERMS = 20
_POWERS = np.arange(1.0, TERMS + 1)[:, None]
_LONGEST = 8.0  # longest step in ζ: one suffices for a flow that does not move
_BLOCK = 16_384  # entries of u that are read off together


@dataclass(frozen=True)
class Clock:
    """The time τ - τ_0 of B flows as a series in ζ from its first power on, (TERMS, B).

    It holds up to a ζ of each flow, (B,).
    """

    tau: NDArray[np.float64]
    reach: NDArray[np.float64]

    @property
    def duration(self) -> NDArray[np.float64]:
        """The time up to which each series holds, (B,)."""
        return (self.tau * self.reach**_POWERS).sum(0)

    def zeta(self, flow: NDArray[np.intp], duration: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ζ of these flows after these times, (Q,).

        By Newton's method on the increasing τ(ζ), and by bisection outside its bracket.
        """
        tau = self.tau[:, flow]
        low, high = np.zeros(len(flow)), self.reach[flow]
        zeta = np.minimum(duration / tau[0], high)
        for _ in range(80):
            terms = tau * zeta ** (_POWERS - 1)
            excess = terms.sum(0) * zeta - duration
            low, high = np.where(excess <= 0, zeta, low), np.where(excess >= 0, zeta, high)
            previous, zeta = zeta, zeta - excess / (terms * _POWERS).sum(0)
            zeta = np.where((zeta >= low) & (zeta <= high), zeta, (low + high) / 2)
            if (np.abs(zeta - previous) <= 1e-9 * zeta).all():  # the error is about the square of the last step
                break
        return zeta


@dataclass(frozen=True)
class Series:
    """B flows from now on.

    For λ > 0, `velocity` is the series of v, (TERMS, n, B); for λ = 0 it is empty, and `s`, `omega`, from their first
    power on (TERMS, B), and p, g (n, B) say the same.
    """

    clock: Clock
    velocity: NDArray[np.float64]
    p: NDArray[np.float64]
    g: NDArray[np.float64]
    s: NDArray[np.float64]
    omega: NDArray[np.float64]

    def at(self, flow: NDArray[np.intp] | slice, zeta: NDArray[np.float64]) -> NDArray[np.float64]:
        """The u - u_0 (Q, n) of these flows at these ζ (Q,)."""
        powers = zeta**_POWERS
        if self.velocity.size:
            return np.einsum("kq,knq->qn", powers / _POWERS, self.velocity[:, :, flow])
        s, omega = ((powers * x[:, flow]).sum(0) for x in (self.s, self.omega))
        return -np.log1p(-self.p[:, flow] * (self.g[:, flow] * s - omega)).T

    def moved(self, flow: NDArray[np.intp], duration: NDArray[np.float64]) -> NDArray[np.float64]:
        """The u - u_0 (Q, n) of these flows after these times (Q,)."""
        outputs = len(self.p)
        moves, block = np.empty((len(flow), outputs)), max(1, _BLOCK // outputs)
        for start in range(0, len(flow), block):
            part = slice(start, start + block)
            moves[part] = self.at(flow[part], self.clock.zeta(flow[part], duration[part]))
        return moves


def series(
    p: NDArray[np.float64],
    g: NDArray[np.float64],
    kl_coef: NDArray[np.float64],
    left: NDArray[np.float64],
    scale: NDArray[np.float64],
    tolerance: float,
) -> Series:
    """Flows with λ > 0 from probabilities p and g (B, n), measured from the likeliest output.

    kl_coef, and the time `left` until they end: (B,). The last terms of the series are within tolerance × scale (B, n).
    """
    p, g, scale, kl_coef, left = _aligned(p, g, scale, kl_coef, left)
    rho, h, w = np.empty((3, TERMS, *p.shape))  # h = g - m, w = v - σ
    speed, sigma = np.zeros((2, TERMS, *p.shape[1:]))  # speed: c
    np.subtract(g, _product(p, g), out=h[0])
    a = p * h[0]
    fastest = _largest(np.abs(a))
    sign = np.where(a.take(fastest) < 0, -1.0, 1.0)
    speed[0] = 1 / (sign * a.take(fastest) + kl_coef * p.take(fastest) + 1 / left)
    rho[0], w[0] = p * speed[0], a * speed[0]
    rho_b = rho[0].take(fastest)
    first, scaled = w[0].copy(), np.empty_like(p)  # scaled: room for a product
    for k in range(1, TERMS):
        # First as if σ had no term k - 1: then w[k - 1] is that of v. The term that keeps the clock to its definition
        # changes the terms k of c, ρ and v by a multiple of their first.
        np.multiply(w[k - 1], -kl_coef / k, out=h[k])
        _product(rho[:k], w[k - 1 :: -1], out=rho[k])
        rho[k] *= 1 / k
        v = _product(rho[: k + 1], h[k::-1], out=w[k])
        mean, total = np.add.reduce(v, 0) / speed[0], np.add.reduce(rho[k], 0)
        change = sign * (v.take(fastest) - mean * rho_b) + kl_coef * rho[k].take(fastest) + total / left
        speed[k], sigma[k - 1] = total - change * speed[0], k * change
        h[k] -= mean
        v -= np.multiply(rho[0], mean, out=scaled)
        v -= np.multiply(first, change, out=scaled)
        rho[k] -= np.multiply(rho[0], change, out=scaled)
        w[k - 1] -= sigma[k - 1]
    velocity = np.add(w, sigma[:, None], out=w)
    sizes = [(np.abs(velocity[k - 1]) / scale).max(0) / k for k in (TERMS - 1, TERMS)]
    none = np.empty((len(p), 0))
    return Series(_clock(speed, sizes, tolerance), velocity.reshape(TERMS, len(p), -1), none, none, none, none)


def series_without_kl(
    p: NDArray[np.float64], g: NDArray[np.float64], left: NDArray[np.float64], tolerance: float
) -> Series:
    """Flows with λ = 0, as in `series`, by the book's `thm-exact-flow`: the last terms are within tolerance in 1/e."""
    p, g, left = _aligned(p, g, left)
    pg = p * g
    e, fall = np.empty((2, TERMS, *p.shape))  # fall: -1/e from its first power on
    scaled = np.empty_like(p)  # room for a product
    fastest_pe = np.empty((TERMS, 2, *p.shape[1:]))  # p e of the fastest output, and F
    slopes, velocity = np.empty((2, TERMS, 3, *p.shape[1:]))  # of that output, of τ and of ω: times F, and in ζ
    mean, inverse = np.empty((2, TERMS, *p.shape[1:]))  # inverse: c/F
    e[0] = 1.0
    for k in range(TERMS):
        f, average = _product(p, e[k]), _product(pg, e[k])
        if k == 0:
            fastest = _largest(np.abs(pg - p * average))
            p_b, g_b = p.take(fastest), g.take(fastest)
        pe_b = p_b * e[k].take(fastest)
        slope = g_b * pe_b
        fastest_pe[k, 0], fastest_pe[k, 1] = pe_b, f
        if k:
            known = _dot(mean[:k], fastest_pe[k:0:-1])
            average, slope = average - known[1], slope - known[0]
        mean[k], slope = average, slope - average * p_b
        slopes[k, 0], slopes[k, 1], slopes[k, 2] = slope, f, average
        if k == 0:
            sign = np.where(slope < 0, -1.0, 1.0)
            rate = sign * slope + 1 / left
            turn = 1 / rate
            velocity[0] = slopes[0] / rate
        else:
            known = _dot(inverse[:k], slopes[k:0:-1])
            turn = -(sign * known[0] + known[1] / left) / rate
            velocity[k] = known + turn * slopes[0]
        inverse[k] = turn
        s, omega = turn / (k + 1), velocity[k, 2] / (k + 1)
        np.multiply(pg, s, out=fall[k])
        fall[k] -= np.multiply(p, omega, out=scaled)
        if k + 1 < TERMS:
            _product(fall[: k + 1], e[k::-1], out=e[k + 1])
    sizes = [np.abs(term).max(0) for term in fall[-2:]]
    s, omega = (x.reshape(TERMS, -1) / _POWERS for x in (inverse, velocity[:, 2]))
    p, g = (x.reshape(len(p), -1) for x in (p, g))
    return Series(_clock(velocity[:, 1], sizes, tolerance), np.empty((0, 0, 0)), p, g, s, omega)


def _aligned(*arrays: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """These arrays (B, ...) with the flows as their last axis; a flow alone has none."""
    if len(arrays[0]) == 1:  # NumPy's numbers are faster than its arrays of one
        return tuple(x[0] for x in arrays)
    return tuple(np.ascontiguousarray(x.T) for x in arrays)


def _largest(x: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where each flow's largest entry (B,) of x (n, B) stands, for `take`, which is faster than indexing."""
    output = x.argmax(0)
    return output if x.ndim == 1 else output * x.shape[1] + np.arange(x.shape[1])


def _dot(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ_j first_j second_j (n, ...), of (J, ...) and (J, n, ...)."""
    if first.ndim == 1 and second[0].size < 512:  # the products of small matrices start sooner than einsum
        return first @ second
    return np.einsum("j...,jn...->n...", first, second)


def _product(
    first: NDArray[np.float64], second: NDArray[np.float64], out: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Σ_j first_j ⊙ second_j (...), of (J, ...), in `out` if given."""
    if second.size < 2048:
        return np.vecdot(first.T, second.T, out=None if out is None else out.T).T
    return np.einsum("j...,j...->...", first, second, out=out)


def _clock(speed: NDArray[np.float64], sizes: list[NDArray[np.float64]], tolerance: float) -> Clock:
    """The clock whose dτ/dζ is this series, (TERMS, B), or (TERMS,) for one flow.

    It reaches as far as the last two terms of all series are within the tolerance. sizes: the size (B,) of the last two
    terms of the velocity's series at ζ = 1.
    """
    tau = speed.reshape(TERMS, -1) / _POWERS
    reach = np.full(tau.shape[1], _LONGEST)
    for k, size in zip((TERMS - 1, TERMS), sizes, strict=True):
        size = np.maximum(size, np.abs(tau[k - 1]) / tau[0])
        reach = np.minimum(reach, (tolerance / np.maximum(size, 1e-300)) ** (1 / k))
    return Clock(tau, reach)
