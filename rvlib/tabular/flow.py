"""Gradient flow on the RLHF objective of a softmax policy.

    dθ/dt = (1/|S|) π_θ ⊙ ( r^KL - E_{π_θ} r^KL ),   θ(0) = θ_ref,   r^KL = r - λ ln(π_θ/π_ref)
                                                                                     Lemma 7, arXiv 2503.15477

In u = θ - θ_ref the bracket is the centring of g = r - λu, since r^KL and g differ by a constant. The Jacobian is then
diagonal plus rank two, with a = π ⊙ (g - E_π g):

    J = diag(a - λπ) - a πᵀ - π aᵀ + λ π πᵀ

so an implicit step costs O(n), and a method for stiff problems costs no more than one for gentle ones. Ours is the
extrapolated linearly implicit Euler method (Deuflhard, SIAM Review 27, 1985; Hairer & Wanner, Solving ODEs II, IV.9),
at a fixed order, with steps of each problem's own: `benchmarks/flow.py` sets it beside SciPy's integrators.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks
from rvlib.metrics import reward_variance
from rvlib.tabular.policy import kl_divergence, rlhf_gradient, softmax

_ORDER = 8  # columns of the extrapolation table: a step has order 8, its error estimate order 7
_TOLERANCE = 1e-11  # largest accepted estimate of a step's error, in u, relative to 1 + |u|
_MAX_STEPS = 20_000
FOREVER = 1e300  # a flow that has neither gained nor provably stopped by then never will, in double precision


@dataclass(frozen=True)
class Problem:
    """A batch of flows in the time τ = t/|S|: logits0 and reward (B, n), centred at τ = 0, and kl_coef (B, 1)."""

    logits0: NDArray[np.float64]
    reward: NDArray[np.float64]
    kl_coef: NDArray[np.float64]

    def __getitem__(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "Problem":
        return Problem(self.logits0[index], self.reward[index], self.kl_coef[index])

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

    def step(self, u: NDArray[np.float64], h: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
    """A step of each problem in `index` (K,): `start` and `length` (K,), u `before` it and the `increment` (K, n)."""

    index: NDArray[np.intp]
    start: NDArray[np.float64]
    before: NDArray[np.float64]
    length: NDArray[np.float64]
    increment: NDArray[np.float64]

    @property
    def after(self) -> NDArray[np.float64]:
        """u at the steps' ends, (K, n)."""
        return self.before + self.increment


def march(problem: Problem, t_max: NDArray[np.float64], alive: NDArray[np.bool_]) -> Iterator[Steps]:
    """Integrate to t_max (B,), yielding after each round the `Steps` of the problems that made one.

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
            yield Steps(index, start, before, length, increment)
    raise RuntimeError(
        f"gradient flow: not finished after {_MAX_STEPS} steps; shorten t_max (it reached t/|S| = "
        f"{t[alive].min():.3g})."
    )


@dataclass(frozen=True)
class States:
    """Policies on a gradient flow at times t, of any shape (...), and what they earn there.

    logits (..., n); reward, reference_logits and ground_truth_reward broadcast against it, kl_coef against t.
    """

    t: NDArray[np.float64]
    logits: NDArray[np.float64]
    reward: NDArray[np.float64]
    reference_logits: NDArray[np.float64]
    ground_truth_reward: NDArray[np.float64]
    kl_coef: NDArray[np.float64]

    @cached_property
    def probs(self) -> NDArray[np.float64]:
        """π_θ(t), (..., n)."""
        return softmax(self.logits)

    @cached_property
    def proxy(self) -> NDArray[np.float64]:
        """Expected proxy reward E_π r, without the KL term, (...)."""
        return (self.probs * self.reward).sum(-1)

    @cached_property
    def ground_truth(self) -> NDArray[np.float64]:
        """Expected ground truth reward E_π r_G, (...); the proxy's where no ground truth was given."""
        return (self.probs * self.ground_truth_reward).sum(-1)

    @cached_property
    def variance(self) -> NDArray[np.float64]:
        """Reward variance of the proxy under π_θ(t) (Def. 2), (...)."""
        return reward_variance(self.reward, self.probs)

    @cached_property
    def kl(self) -> NDArray[np.float64]:
        """KL(π_θ(t) ‖ π_θ(0)) in nats, (...)."""
        return kl_divergence(self.probs, softmax(self.reference_logits))

    @cached_property
    def gradient_norm(self) -> NDArray[np.float64]:
        """Euclidean norm of ∇_θ φ(θ(t); x), (...): one prompt's gradient, not divided by |S|."""
        return np.linalg.norm(rlhf_gradient(self.logits, self.reward, self.reference_logits, self.kl_coef), axis=-1)


@dataclass(frozen=True)
class Trajectory(States):
    """A gradient flow: `States` at the integrator's own times t (..., K), and, by calling it, at any others.

    The problems of a batch each have their own times; a flow with fewer repeats its last.
    """

    n_prompts: int

    def __call__(self, t: ArrayLike) -> States:
        """`States` at t, a number or (M,) numbers in [0, t_max].

        Each is one step from the integrator's last time before it, so as exact as the flow itself.
        """
        times = _checks.real("t", t, low=0.0, high=float(self.t[..., -1].min()))
        if times.ndim > 1:
            raise ValueError(f"t must be a number or one axis of numbers, got shape {times.shape}.")
        batch, outputs, asked = self.t.shape[:-1], self.logits.shape[-1], times.reshape(-1)
        knots = self.t.reshape(-1, self.t.shape[-1])
        flows = np.repeat(np.arange(len(knots)), asked.size)
        last = np.concatenate([np.searchsorted(row, asked, side="right") - 1 for row in knots])
        u = (self.logits - self.reference_logits).reshape(len(knots), -1, outputs)[flows, last]
        length = (np.tile(asked, len(knots)) - knots[flows, last]) / self.n_prompts
        reference_logits, reward = (x.reshape(-1, outputs) for x in (self.reference_logits, self.reward))
        problem = problem_of(reference_logits, reward, self.kl_coef.reshape(-1))
        moved = length > 0
        u[moved] += problem[flows][moved].step(u[moved], length[moved])[0]
        # Without an axis of times the constants lose theirs.
        aligned = [
            x if times.ndim else x.squeeze(len(batch))
            for x in (self.reward, self.reference_logits, self.ground_truth_reward, self.kl_coef)
        ]
        u = u.reshape(*batch, *times.shape, outputs)
        return States(np.broadcast_to(times, u.shape[:-1]), aligned[1] + u, aligned[0], *aligned[1:])


def gradient_flow(
    logits: ArrayLike,
    reward: ArrayLike,
    t_max: ArrayLike,
    *,
    ground_truth: ArrayLike | None = None,
    kl_coef: ArrayLike = 0.0,
    n_prompts: int = 1,
) -> Trajectory:
    """Train a tabular policy by exact gradient flow from `logits`, which are also the reference, until time t_max.

    logits, reward, ground_truth: (..., n), finite; kl_coef λ >= 0 and t_max > 0: numbers or (...); n_prompts: |S|, by
    which the gradient is divided. Leading axes are independent problems, integrated together. Returns a `Trajectory`.
    Probabilities and rewards are within 1e-8 of the exact ones (tested up to logits of ±50, λ = 10 and t = 1e8).
    ValueError on bad arguments. The book's `def-flow`, by the paper's Lemma 7.
    """
    logits, reward, ground_truth = _checks.broadcast(
        logits=_checks.array("logits", logits),
        reward=_checks.array("reward", reward),
        ground_truth=_checks.array("ground_truth", reward if ground_truth is None else ground_truth),
    )
    n_prompts, batch, outputs = _checks.whole("n_prompts", n_prompts), logits.shape[:-1], logits.shape[-1]
    kl_coef, t_max = per_problem(
        batch,
        kl_coef=_checks.real("kl_coef", kl_coef, low=0.0),
        t_max=_checks.real("t_max", t_max, high=FOREVER, above=0.0),
    )
    problem = problem_of(logits.reshape(-1, outputs), reward.reshape(-1, outputs), kl_coef)
    flows = len(t_max)
    times, states = [[0.0] for _ in range(flows)], [[np.zeros(outputs)] for _ in range(flows)]
    for steps in march(problem, t_max / n_prompts, np.ones(flows, dtype=bool)):
        for i, end, state in zip(steps.index, steps.start + steps.length, steps.after):
            times[i].append(end * n_prompts)
            states[i].append(state)
    for i in range(flows):
        times[i][-1] = t_max[i]
    knots = max(map(len, times))
    t = np.array([row + row[-1:] * (knots - len(row)) for row in times]).reshape(*batch, knots)
    u = np.array([row + row[-1:] * (knots - len(row)) for row in states]).reshape(*batch, knots, outputs)
    reward, logits, ground_truth = (x[..., None, :] for x in (reward, logits, ground_truth))
    return Trajectory(t, logits + u, reward, logits, ground_truth, kl_coef.reshape(*batch, 1), n_prompts)


def centred(logits: NDArray[np.float64], reward: NDArray[np.float64]) -> NDArray[np.float64]:
    """`reward` less its expectation under the policy of `logits`, both (B, n)."""
    reward = reward - reward[:, :1]
    return reward - (softmax(logits) * reward).sum(-1, keepdims=True)


def problem_of(logits: NDArray[np.float64], reward: NDArray[np.float64], kl_coef: NDArray[np.float64]) -> Problem:
    """The batch of flows from logits on rewards (B, n), at kl_coef (B,)."""
    return Problem(logits, centred(logits, reward), kl_coef[:, None])


def per_problem(batch: tuple[int, ...], **numbers: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Each number or (...) array as a flat (B,) array, one entry a problem; ValueError, naming what does not fit."""
    for name, value in numbers.items():
        try:
            yield np.broadcast_to(value, batch).reshape(-1)
        except ValueError:
            raise ValueError(
                f"{name} must be a number or fit the prompts' shape {batch}, got shape {value.shape}."
            ) from None
