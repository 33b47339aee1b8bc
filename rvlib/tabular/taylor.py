"""Taylor series of gradient flows, by which `integrator` takes its explicit steps.

Everything is a sum of products of series, so each coefficient follows from those before it (Jorba & Zou, Experimental
Mathematics 14, 2005). At the start of a step let p = π, and let g be measured from the likeliest output, so that a
policy that is almost sure loses no digits. Along the step, in u = θ - θ_ref and τ = t/|S|,

    e = exp(u - u_0),   F = Σ p e,   m = Σ p e g / F,   F du/dτ = p e (g - m)

The series are in a clock ζ with dτ/dζ = 1/(±a_b + λ p_b + 1/left), where a = du/dτ and b is the output that moves
fastest at the start. While θ_b follows ln τ, as it does for λ = 0, ζ follows it too, and a step multiplies the time.

For λ = 0 two numbers say where all outputs are, since exp(-θ) stays affine in the reward:

    1/e = 1 - p (g σ - ω),   dσ/dτ = 1/F,   dω/dτ = m/F
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
    """The time τ - τ_0 of B flows as a series in ζ from its first power on, (TERMS, B), and the ζ up to which it holds,
    (B,).
    """

    tau: NDArray[np.float64]
    reach: NDArray[np.float64]

    @property
    def duration(self) -> NDArray[np.float64]:
        """The time up to which each series holds, (B,)."""
        return (self.tau * self.reach**_POWERS).sum(0)

    def zeta(self, flow: NDArray[np.intp], duration: NDArray[np.float64]) -> NDArray[np.float64]:
        """ζ of these flows after these times, (Q,): Newton's method on the increasing τ(ζ), bisection outside its
        bracket.
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
    """B flows from now on. For λ > 0, `moves` is the series of u - u_0 from its first power on, (TERMS, B, n); for
    λ = 0 it is empty, and `sigma`, `omega` (TERMS, B) and p, g (B, n) say the same.
    """

    clock: Clock
    p: NDArray[np.float64]
    g: NDArray[np.float64]
    moves: NDArray[np.float64]
    sigma: NDArray[np.float64]
    omega: NDArray[np.float64]

    def at(self, flow: NDArray[np.intp] | slice, zeta: NDArray[np.float64]) -> NDArray[np.float64]:
        """u - u_0 (Q, n) of these flows at these ζ (Q,)."""
        powers = zeta**_POWERS
        if self.moves.size:
            return np.einsum("kq,kqn->qn", powers, self.moves[:, flow])
        sigma, omega = ((powers * x[:, flow]).sum(0)[:, None] for x in (self.sigma, self.omega))
        return -np.log1p(-self.p[flow] * (self.g[flow] * sigma - omega))

    def moved(self, flow: NDArray[np.intp], duration: NDArray[np.float64]) -> NDArray[np.float64]:
        """u - u_0 (Q, n) of these flows after these times (Q,)."""
        outputs = self.p.shape[-1]
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
    top: NDArray[np.intp],
    tolerance: float,
) -> Series:
    """Flows with λ > 0 from probabilities p and g (B, n), measured from the likeliest output `top` (B,): kl_coef
    (B, 1), the time `left` until they end (B,). The last terms of the series are within tolerance × scale (B, n).
    """
    flows = len(p)
    # A flow alone has no axis of flows: NumPy's numbers are faster than its arrays of one.
    batch, row = ((flows,), (np.arange(flows),)) if flows > 1 else ((), ())
    p, g, kl_coef, scale = (x.reshape(*batch, -1) for x in (p, g, kl_coef, scale))
    left, top = left.reshape(batch)[()], top.reshape(batch)[()]
    # The last column is for numbers of the flow as a whole: F beside p e and F a, dτ/dζ beside du/dζ.
    pe, fa, velocity, gs = np.empty((4, TERMS, *batch, p.shape[-1] + 1))
    mean, inverse = np.empty((2, TERMS, *batch))  # inverse: dτ/dζ / F
    pe[0, ..., :-1], pe[0, ..., -1], gs[0, ..., :-1], gs[0, ..., -1] = p, 1.0, g, 0.0
    slowing = np.repeat(-kl_coef, p.shape[-1] + 1, -1)
    slowing[..., -1] = 0.0
    for k in range(TERMS):
        peg = _product(pe[: k + 1], gs[k::-1])
        average = np.add.reduce(peg, -1)
        if k:
            known = _dot(mean[:k], pe[k:0:-1])
            average = average - known[..., -1]
            peg -= known
        mean[k] = average
        np.subtract(peg, average[..., None] * pe[0], out=fa[k])
        fa[k, ..., -1] = pe[k, ..., -1]
        if k == 0:
            fastest = (*row, np.abs(fa[0, ..., :-1]).argmax(-1))
            moving = fa[0][fastest]
            sign = np.where(moving < 0, -1.0, 1.0)
            rest = kl_coef[..., 0] * p[fastest] + 1 / left
            rate = sign * moving + rest
            turn = 1 / rate
            np.multiply(turn[..., None], fa[0], out=velocity[0])
        else:
            known = _dot(inverse[:k], fa[k:0:-1])
            turn = -(sign * known[fastest] + rest * known[..., -1]) / rate
            np.add(known, turn[..., None] * fa[0], out=velocity[k])
        inverse[k] = turn
        if k + 1 < TERMS:
            following, now = pe[k + 1], velocity[k]
            np.multiply(_product(pe[: k + 1], velocity[k::-1]), 1 / (k + 1), out=following)
            following[..., -1] = np.add.reduce(following[..., :-1], -1)
            np.multiply(now - now[(*row, top)][..., None], slowing / (k + 1), out=gs[k + 1])
    moves = velocity.reshape(TERMS, flows, -1) / _POWERS[:, :, None]
    sizes = [(np.abs(move) / scale).max(-1) for move in moves[-2:, :, :-1]]
    p, g, none = p.reshape(flows, -1), g.reshape(flows, -1), np.empty((0, 0))
    return Series(_clock(moves[:, :, -1], sizes, tolerance), p, g, moves[:, :, :-1], none, none)


def series_without_kl(
    p: NDArray[np.float64], g: NDArray[np.float64], left: NDArray[np.float64], tolerance: float
) -> Series:
    """Flows with λ = 0, as in `series`: the last terms are within the tolerance in 1/e."""
    flows = len(p)
    batch, row = ((flows,), (np.arange(flows),)) if flows > 1 else ((), ())
    p, g, left = p.reshape(*batch, -1), g.reshape(*batch, -1), left.reshape(batch)[()]
    pg = p * g
    e, inverse_e = np.empty((2, TERMS, *p.shape))  # 1/e from its first power on
    fastest_pe = np.empty((TERMS, *batch, 2))  # p e of the fastest output, and F
    slopes, velocity = np.empty((2, TERMS, *batch, 3))  # of that output, of τ and of ω: times F, and in ζ
    mean, inverse = np.empty((2, TERMS, *batch))
    e[0] = 1.0
    for k in range(TERMS):
        average = np.vecdot(pg, e[k])
        if k == 0:
            fastest = (*row, np.abs(pg - p * average[..., None]).argmax(-1))
            p_b, g_b = p[fastest], g[fastest]
        f, pe_b = np.vecdot(p, e[k]), p_b * e[k][fastest]
        fastest_pe[k, ..., 0], fastest_pe[k, ..., 1], slope = pe_b, f, g_b * pe_b
        if k:
            known = _dot(mean[:k], fastest_pe[k:0:-1])
            average, slope = average - known[..., 1], slope - known[..., 0]
        mean[k], slope = average, slope - average * p_b
        slopes[k, ..., 0], slopes[k, ..., 1], slopes[k, ..., 2] = slope, f, average
        if k == 0:
            sign = np.where(slope < 0, -1.0, 1.0)
            rate = sign * slope + 1 / left
            turn = 1 / rate
            velocity[0] = slopes[0] / rate[..., None]
        else:
            known = _dot(inverse[:k], slopes[k:0:-1])
            turn = -(sign * known[..., 0] + known[..., 1] / left) / rate
            velocity[k] = known + turn[..., None] * slopes[0]
        inverse[k] = turn
        sigma, omega = turn / (k + 1), velocity[k, ..., 2] / (k + 1)
        np.subtract(p * omega[..., None], pg * sigma[..., None], out=inverse_e[k])
        if k + 1 < TERMS:
            np.negative(_product(inverse_e[: k + 1], e[k::-1]), out=e[k + 1])
    _, tau, omega = np.moveaxis(velocity.reshape(TERMS, flows, 3) / _POWERS[:, :, None], -1, 0)
    sigma = inverse.reshape(TERMS, flows) / _POWERS
    sizes = [np.abs(term).max(-1) for term in inverse_e[-2:]]
    clock, p, g = _clock(tau, sizes, tolerance), p.reshape(flows, -1), g.reshape(flows, -1)
    return Series(clock, p, g, np.empty((0, 0, 0)), sigma, omega)


def _dot(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ_j first_j second_j (..., n), of (J, ...) and (J, ..., n)."""
    if first.ndim == 1 and second[0].size < 512:  # the products of small matrices start sooner than einsum
        return first @ second
    return np.einsum("j...,j...n->...n", first, second)


def _product(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ_j first_j ⊙ second_j (..., n), of (J, ..., n)."""
    if second[0].size < 512:
        return np.vecdot(first.T, second.T).T
    return np.einsum("j...,j...->...", first, second)


def _clock(tau: NDArray[np.float64], sizes: list[NDArray[np.float64]], tolerance: float) -> Clock:
    """The clock whose series is τ - τ_0 (TERMS, B), from its first power on. It reaches as far as the last two terms of
    all series are within the tolerance: those of what moves have the sizes (B,) at ζ = 1.
    """
    reach = np.full(tau.shape[1], _LONGEST)
    for k, size in zip((TERMS - 1, TERMS), sizes, strict=True):
        size = np.maximum(size, np.abs(tau[k - 1]) / tau[0])
        reach = np.minimum(reach, (tolerance / np.maximum(size, 1e-300)) ** (1 / k))
    return Clock(tau, reach)
