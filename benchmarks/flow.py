"""rvlib's gradient flow beside SciPy's integrators on the same problems, at equal error, in one run.

Each method, rvlib's too, has the loosest tolerance of a ladder at which the probabilities it returns at 41 times,
spaced evenly in log t, are within `ERROR` of the reference. SciPy's implicit methods get the analytic Jacobian. The
reference is rvlib's own flow at a hundredth of its default tolerance, which the tests hold to 40-digit arithmetic.

Run: python benchmarks/flow.py [results.json]
"""

import functools
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from rvlib.tabular import flow, gradient_flow, softmax

ERROR = 1e-8
LADDER = [1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13]
LONGEST = 60.0  # seconds after which a method's climb up the ladder is given up

# name, problems, outputs, λ, horizon
PROBLEMS = [
    ("10 outputs, λ = 0", 1, 10, 0.0, 1e3),
    ("10 outputs, λ = 0, long", 1, 10, 0.0, 1e8),
    ("50 outputs, λ = 0.05", 1, 50, 0.05, 1e4),
    ("200 outputs, λ = 0.1, stiff", 1, 200, 0.1, 1e6),
    ("5,000 outputs, λ = 0", 1, 5000, 0.0, 1e3),
    ("500 problems of 20 outputs, λ = 0.05", 500, 20, 0.05, 1e3),
]


def rvlib_flow(
    logits: NDArray[np.float64],
    reward: NDArray[np.float64],
    kl_coef: float,
    times: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.float64]:
    """Probabilities (problems, times, outputs) by rvlib, at a tolerance of its own."""
    default, flow._TOLERANCE = flow._TOLERANCE, tolerance
    try:
        return gradient_flow(logits, reward, times[-1], kl_coef=kl_coef)(times).probs
    finally:
        flow._TOLERANCE = default


def scipy_flow(
    method: str,
    logits: NDArray[np.float64],
    reward: NDArray[np.float64],
    kl_coef: float,
    times: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.float64]:
    """One problem's probabilities (times, outputs) by solve_ivp, on the same reduced equation that rvlib integrates."""

    def field(_, u):
        probs = softmax(logits + u)
        g = reward - kl_coef * u
        return probs * (g - probs @ g)

    def jacobian(_, u):
        probs, a = softmax(logits + u), field(_, u)
        return np.diag(a - kl_coef * probs) - np.outer(a, probs) - np.outer(probs, a) + kl_coef * np.outer(probs, probs)

    implicit = {"jac": jacobian} if method in ("Radau", "BDF", "LSODA") else {}
    solution = solve_ivp(
        field,
        (0, times[-1]),
        np.zeros_like(logits),
        method,
        t_eval=times,
        rtol=max(tolerance, 3e-14),
        atol=tolerance,
        **implicit,
    )
    return softmax(logits + solution.y.T) if solution.success else np.full((len(times), len(logits)), np.nan)


def scipy_flows(
    method: str,
    logits: NDArray[np.float64],
    reward: NDArray[np.float64],
    kl_coef: float,
    times: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.float64]:
    """Probabilities (problems, times, outputs), one problem after the other."""
    return np.array([scipy_flow(method, x, r, kl_coef, times, tolerance) for x, r in zip(logits, reward)])


def seconds(function: Callable[[], NDArray[np.float64]]) -> tuple[NDArray[np.float64], float]:
    """Result and the shortest of three runs; a long one is run once."""
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
        if best > 2:
            break
    return result, best


def climb(integrate: Callable[..., NDArray[np.float64]], reference: NDArray[np.float64]) -> dict[str, float] | None:
    """The fastest way to `ERROR` up the ladder: seconds, error and tolerance, or None if there is none in LONGEST
    seconds.
    """
    began = time.perf_counter()
    for tolerance in LADDER:
        probs, taken = seconds(functools.partial(integrate, tolerance=tolerance))
        error = float(np.abs(probs - reference).max())
        if error <= ERROR:
            return {"s": taken, "error": error, "tolerance": tolerance}
        if time.perf_counter() - began > LONGEST:
            return None
    return None


def main(path: str | pathlib.Path) -> None:
    """Time every problem by every method and write `path`."""
    rng = np.random.default_rng(0)
    rows = []
    for name, problems, outputs, kl_coef, horizon in PROBLEMS:
        logits, reward = 2 * rng.normal(size=(problems, outputs)), rng.uniform(-1, 1, (problems, outputs))
        times = np.geomspace(1e-4 * horizon, horizon, 41)
        reference = rvlib_flow(logits, reward, kl_coef, times, flow._TOLERANCE / 100)
        ours = functools.partial(rvlib_flow, logits, reward, kl_coef, times)
        row = {"problem": name, "rvlib": climb(ours, reference)}
        for method in ("DOP853", "LSODA", "Radau", "BDF"):
            if outputs > 1000 and method != "DOP853":
                continue  # their dense Jacobians of 5,000 outputs hold 25 million entries
            solved = min(problems, 20)  # the rest of a batch costs SciPy the same again
            peer = functools.partial(scipy_flows, method, logits[:solved], reward[:solved], kl_coef, times)
            row[method] = climb(peer, reference[:solved])
            if row[method]:
                row[method]["s"] *= problems / solved
                row[method]["times_rvlib"] = row[method]["s"] / row["rvlib"]["s"]
        rows.append(row)
        peers = (
            f"{m} {row[m]['times_rvlib']:.1f}×" if row[m] else f"{m} not in {LONGEST:.0f} s"
            for m in row
            if m[0].isupper()
        )
        print(f"{name}: rvlib {row['rvlib']['s']:.4f} s; " + ", ".join(peers), flush=True)
    result = {
        "what": __doc__.split("\n")[0],
        "allowed_error": ERROR,
        "rows": rows,
        "scipy": scipy.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
    }
    pathlib.Path(path).write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "results" / "flow.json")
