"""Gradient flow on the RLHF objective of a softmax policy.

    dθ/dt = (1/|S|) π_θ ⊙ ( r^KL - E_{π_θ} r^KL ),   θ(0) = θ_ref,   r^KL = r - λ ln(π_θ/π_ref)
                                                                                     Lemma 7, arXiv 2503.15477

`rvlib.tabular.integrator` has the numerical method, and `benchmarks/flow.py` sets it beside SciPy's and diffrax's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks
from rvlib.metrics import reward_variance
from rvlib.tabular.integrator import FlowProblem, in_chunks, march, within_steps
from rvlib.tabular.policy import kl_divergence, rlhf_gradient, softmax

FOREVER = 1e300  # a flow that has neither gained nor provably stopped by then never will, in double precision


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
        batch, outputs = self.t.shape[:-1], self.logits.shape[-1]
        tau = self.t.reshape(-1, self.t.shape[-1]) / self.n_prompts
        logits = self.logits.reshape(*tau.shape, outputs)
        problem = problem_of(
            self.reference_logits.reshape(-1, outputs), self.reward.reshape(-1, outputs), self.kl_coef.reshape(-1)
        )
        tau_asked = times.reshape(-1) / self.n_prompts

        def states(flows: slice) -> NDArray[np.float64]:
            """The u (B, M, n) of these flows."""
            knots, own = tau[flows], problem[flows]
            flow = np.repeat(np.arange(len(knots)), tau_asked.size)
            last = np.concatenate([np.searchsorted(row, tau_asked, side="right") - 1 for row in knots])
            u = logits[flows][flow, last] - own.logits0[flow]
            duration = np.tile(tau_asked, len(knots)) - knots[flow, last]
            later = np.flatnonzero(duration > 0)
            if later.size:
                steps, step = np.unique(flow[later] * knots.shape[1] + last[later], return_inverse=True)
                flow, last = np.divmod(steps, knots.shape[1])
                start = knots[flow, last]
                before = logits[flows][flow, last] - own.logits0[flow]
                u[later] += within_steps(own[flow], start, before, knots[flow, -1] - start, step, duration[later])
            return u.reshape(len(knots), tau_asked.size, outputs)

        u = np.concatenate(in_chunks(states, len(tau), outputs * min(tau_asked.size, tau.shape[1])))
        # Without an axis of times the constants lose theirs.
        reward, reference_logits, ground_truth_reward, kl_coef = (
            constant if times.ndim else constant.squeeze(len(batch))
            for constant in (self.reward, self.reference_logits, self.ground_truth_reward, self.kl_coef)
        )
        u = u.reshape(*batch, *times.shape, outputs)
        return States(
            t=np.broadcast_to(times, u.shape[:-1]),
            logits=reference_logits + u,
            reward=reward,
            reference_logits=reference_logits,
            ground_truth_reward=ground_truth_reward,
            kl_coef=kl_coef,
        )


def gradient_flow(
    logits: ArrayLike,
    reward: ArrayLike,
    t_max: ArrayLike,
    *,
    ground_truth: ArrayLike | None = None,
    kl_coef: ArrayLike = 0.0,
    n_prompts: int = 1,
) -> Trajectory:
    """Train a tabular policy by exact gradient flow from `logits`, those of π_ref too, until time t_max.

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
    tau_max = t_max / n_prompts
    parts = in_chunks(lambda flows: _knots(problem[flows], tau_max[flows]), len(t_max), outputs, widths=5)
    knots = max(tau.shape[1] for tau, _ in parts)
    t, path = np.repeat(t_max[:, None], knots, 1), np.empty((len(t_max), knots, outputs))
    start = 0
    for tau, part in parts:  # a flow with fewer knots than another repeats its last
        rows, own = slice(start, start + len(tau)), tau.shape[1]
        t[rows, :own] = np.where(tau >= tau_max[rows, None], t_max[rows, None], tau * n_prompts)
        path[rows, :own], path[rows, own:] = part, part[:, -1:]
        start = rows.stop
    reward, logits, ground_truth = (x[..., None, :] for x in (reward, logits, ground_truth))
    return Trajectory(
        t=t.reshape(*batch, knots),
        logits=path.reshape(*batch, knots, outputs),
        reward=reward,
        reference_logits=logits,
        ground_truth_reward=ground_truth,
        kl_coef=kl_coef.reshape(*batch, 1),
        n_prompts=n_prompts,
    )


def _knots(problem: FlowProblem, t_max: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The integrator's own times τ (B, K) and the logits (B, K, n) there; a flow with fewer repeats its last."""
    made, rounds = np.zeros(len(t_max), dtype=int), []
    for steps in march(problem, t_max, np.ones(len(t_max), dtype=bool)):
        made[steps.index] += 1
        rounds.append((steps, made[steps.index]))
    tau = np.repeat(t_max[:, None], made.max() + 1, 1)
    logits = np.empty((*tau.shape, problem.logits0.shape[1]))
    tau[:, 0], logits[:, 0] = 0.0, problem.logits0
    for steps, place in rounds:
        tau[steps.index, place], logits[steps.index, place] = steps.end, problem.logits0[steps.index] + steps.after
    for knot in range(1, tau.shape[1]):
        ended = made < knot
        logits[ended, knot] = logits[ended, knot - 1]
    return tau, logits


def centred(logits: NDArray[np.float64], reward: NDArray[np.float64]) -> NDArray[np.float64]:
    """`reward` less its expectation under the policy of `logits`, both (B, n)."""
    reward = reward - reward[:, :1]
    return reward - (softmax(logits) * reward).sum(-1, keepdims=True)


def problem_of(logits: NDArray[np.float64], reward: NDArray[np.float64], kl_coef: NDArray[np.float64]) -> FlowProblem:
    """The batch of flows from logits on rewards (B, n), at kl_coef (B,)."""
    return FlowProblem(logits, centred(logits, reward), kl_coef[:, None])


def per_problem(batch: tuple[int, ...], **numbers: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Each number or (...) array as a flat (B,) array, one entry a problem; ValueError, naming what does not fit."""
    for name, value in numbers.items():
        try:
            yield np.broadcast_to(value, batch).reshape(-1)
        except ValueError:
            raise ValueError(
                f"{name} must be a number or fit the prompts' shape {batch}, got shape {value.shape}."
            ) from None
