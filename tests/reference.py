"""A high-precision reference for gradient flow: Radau IIA collocation with 9 stages (order 17) in 40-digit arithmetic.

It shares no formula with rvlib: θ' = π ⊙ (r - λ ln(π/π_0) - E) as the paper writes it, no reduction, no centring,
another method. Outputs that start alike stay alike, so a problem of any size with few kinds of outputs costs only the
kinds.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from mpmath import exp, legendre, log, matrix, mp, mpf, polyroots, taylor
from numpy.typing import NDArray

mp.dps = 40
STAGES = 9


@cache
def collocation() -> tuple[list[mpf], NDArray[np.object_]]:
    """Nodes in (0, 1] and the matrix A of Radau IIA, exact to the working precision."""
    coefficients = [
        a - b
        for a, b in zip(
            taylor(lambda x: legendre(STAGES, x), 0, STAGES),
            [*taylor(lambda x: legendre(STAGES - 1, x), 0, STAGES - 1), 0],
        )
    ]
    nodes = sorted((root.real + 1) / 2 for root in polyroots(coefficients[::-1], maxsteps=500, extraprec=200))
    nodes[-1] = mpf(1)
    powers = matrix([[node**k for k in range(STAGES)] for node in nodes])
    integrals = matrix([[node ** (k + 1) / (k + 1) for k in range(STAGES)] for node in nodes])
    a = integrals * powers**-1
    return nodes, np.array([[a[i, j] for j in range(STAGES)] for i in range(STAGES)], dtype=object)


def probabilities(logits: Sequence[mpf], counts: Sequence[int]) -> list[mpf]:
    """π of one output of each kind."""
    weights = [exp(x - max(logits)) for x in logits]
    total = sum(c * w for c, w in zip(counts, weights))
    return [w / total for w in weights]


def velocity(
    logits: Sequence[mpf], start: Sequence[mpf], reward: Sequence[mpf], counts: Sequence[int], kl_coef: mpf
) -> list[mpf]:
    """dθ/dt of one output of each kind."""
    probs, probs0 = probabilities(logits, counts), probabilities(start, counts)
    regularised = [r - kl_coef * log(p / p0) for r, p, p0 in zip(reward, probs, probs0)]
    mean = sum(c * p * r for c, p, r in zip(counts, probs, regularised))
    return [p * (r - mean) for p, r in zip(probs, regularised)]


def flow(
    logits: Sequence[float], reward: Sequence[float], counts: Sequence[int], times: Sequence[float], kl_coef: float = 0
) -> list[list[mpf]]:
    """Logits of each kind at each of `times` (increasing; close enough that the flow is gentle between two)."""
    nodes, a = collocation()
    a_float = a.astype(float)
    start = [mpf(float(x)) for x in logits]
    reward, kl_coef = [mpf(float(r)) for r in reward], mpf(float(kl_coef))
    state, now, out, kinds = list(start), mpf(0), [], len(start)
    for time in times:
        h = mpf(float(time)) - now
        v0 = np.array(velocity(state, start, reward, counts, kl_coef), dtype=object)
        probs = np.array([float(p) for p in probabilities(state, counts)])
        velocity0, counts_ = v0.astype(float), np.asarray(counts, float)
        # d velocity / d logits at the step's start; Newton's matrix need only be good to a few digits.
        jacobian = (
            np.diag(velocity0 - float(kl_coef) * probs)
            - np.outer(velocity0, counts_ * probs)
            - np.outer(probs, counts_ * (velocity0 - float(kl_coef) * probs))
        )
        newton = np.linalg.inv(np.eye(STAGES * kinds) - float(h) * np.kron(a_float, jacobian))
        stages = np.array([[h * node * v for v in v0] for node in nodes], dtype=object) * 0
        for _ in range(200):
            f = np.array(
                [velocity([x + d for x, d in zip(state, stage)], start, reward, counts, kl_coef) for stage in stages],
                dtype=object,
            )
            residual = stages - h * a.dot(f)
            size = max(abs(x) for x in residual.ravel())
            if size < mpf(10) ** -28:
                break
            scaled = (residual / size).astype(float).ravel()
            stages = stages - (newton @ scaled).reshape(STAGES, kinds).astype(object) * size
        else:
            raise RuntimeError(f"the reference did not converge at t = {float(time):.3g}")
        state = [x + d for x, d in zip(state, stages[-1])]
        now = mpf(float(time))
        out.append(state)
    return out
