"""rvlib's gradient flow beside SciPy's and diffrax's integrators on the same problems, at equal error, in one run.

Each method, rvlib's too, has the loosest tolerance of a ladder at which the probabilities it returns at 41 times,
spaced evenly in log t, are within `ERROR` of the reference. SciPy's implicit methods get the analytic Jacobian. The
reference is rvlib's own flow at a hundredth of its default tolerance, which the tests hold to 40-digit arithmetic.
Times are seconds of all cores together, which other programs on the machine change little; SciPy uses one core, rvlib
and diffrax all, so they gain on the wall besides. A heat map's problems are asked for their policies at the horizon
alone. diffrax takes part where it is installed (`pip install diffrax`): all problems of a batch under one `jax.vmap`,
compiled before the clock starts.

rvlib is not the fastest everywhere. On the batch of 500 problems of 20 outputs diffrax takes 0.72 times its seconds of
all cores, and 0.20 s against 0.31 s on the wall. On the two heat maps it takes 10 and 4 times as many as rvlib.
(results/flow.json of 27 November 2026, two cores.)

    python benchmarks/flow.py [FILE]            writes benchmarks/results/flow.json, or FILE
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from rvlib.tabular import gradient_flow, integrator, softmax

ERROR = 1e-8
LADDER = [1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13]
SHORT = 0.5
LONGEST = 8.0  # seconds after which a method's climb up the ladder is given up

TIMES = 41


class Problem(NamedTuple):
    """A batch of gradient flows, and at how many times up to the horizon their policies are asked for."""

    name: str
    problems: int
    outputs: int
    kl_coef: float
    horizon: float
    num_times: int = TIMES


PROBLEMS = [
    Problem("10 outputs, λ = 0", 1, 10, 0.0, 1e3),
    Problem("10 outputs, λ = 0, long", 1, 10, 0.0, 1e8),
    Problem("50 outputs, λ = 0.05", 1, 50, 0.05, 1e4),
    Problem("200 outputs, λ = 0.1, stiff", 1, 200, 0.1, 1e6),
    Problem("5,000 outputs, λ = 0", 1, 5000, 0.0, 1e3),
    Problem("500 problems of 20 outputs, λ = 0.05", 500, 20, 0.05, 1e3),
    Problem("heat map of 10,000 problems of 64 outputs, λ = 0", 10_000, 64, 0.0, 100.0, 1),
    Problem("heat map of 10,000 problems of 64 outputs, λ = 0.05", 10_000, 64, 0.05, 100.0, 1),
]


def rvlib_flow(
    logits: NDArray[np.float64],
    reward: NDArray[np.float64],
    kl_coef: float,
    times: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.float64]:
    """Probabilities (problems, times, outputs) by rvlib, at a tolerance of its own."""
    default, integrator._TOLERANCE = integrator._TOLERANCE, tolerance
    try:
        return gradient_flow(logits, reward, times[-1], kl_coef=kl_coef)(times).probs
    finally:
        integrator._TOLERANCE = default


def scipy_flow(
    method: str,
    logits: NDArray[np.float64],
    reward: NDArray[np.float64],
    kl_coef: float,
    times: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.float64]:
    """One problem's probabilities (times, outputs) by solve_ivp, on the same reduced equation that rvlib integrates."""

    def field(_: float, u: NDArray[np.float64]) -> NDArray[np.float64]:
        probs = softmax(logits + u)
        g = reward - kl_coef * u
        return probs * (g - probs @ g)

    def jacobian(_: float, u: NDArray[np.float64]) -> NDArray[np.float64]:
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


@functools.cache
def _diffrax_solver(method: str, kl_coef: float) -> Callable[..., Any]:
    """The compiled solution of a batch, whose arguments are logits, rewards, times and a tolerance."""
    import diffrax  # not among the requirements
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def field(_: Any, u: Any, problem: Any) -> Any:
        logits, reward = problem
        probs = jax.nn.softmax(logits + u)
        g = reward - kl_coef * u
        return probs * (g - probs @ g)

    def solve(logits: Any, reward: Any, times: Any, tolerance: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            getattr(diffrax, method)(),
            0.0,
            times[-1],
            None,
            jnp.zeros_like(logits),
            (logits, reward),
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            max_steps=100_000,
            throw=False,
        )
        return jax.nn.softmax(logits + solution.ys)

    return jax.jit(jax.vmap(solve, in_axes=(0, 0, None, None)))


def diffrax_flows(
    method: str,
    logits: NDArray[np.float64],
    reward: NDArray[np.float64],
    kl_coef: float,
    times: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.float64]:
    """Probabilities (problems, times, outputs) by one of diffrax's solvers."""
    return np.asarray(_diffrax_solver(method, kl_coef)(logits, reward, times, tolerance))


@dataclass(frozen=True)
class Timed:
    """A result, and what the fastest run took: seconds of all cores together, and seconds on the wall."""

    result: NDArray[np.float64]
    core_s: float
    wall_s: float


def timed(function: Callable[[], NDArray[np.float64]]) -> Timed:
    """The fastest of nine runs in `SHORT` seconds, or of two."""
    began, runs = time.process_time(), []
    while len(runs) < 2 or (len(runs) < 9 and time.process_time() - began < SHORT):
        core, wall = time.process_time(), time.perf_counter()
        result = function()
        runs.append((time.process_time() - core, time.perf_counter() - wall))
        if runs[0][0] > LONGEST / 2:
            break
    return Timed(result, min(core for core, _ in runs), min(wall for _, wall in runs))


def climb(integrate: Callable[..., NDArray[np.float64]], reference: NDArray[np.float64]) -> dict[str, float] | None:
    """The fastest way to `ERROR` up the ladder: seconds, error and tolerance.

    None if there is none in LONGEST seconds.
    """
    began = time.process_time()
    for tolerance in LADDER if len(reference) < 1000 else LADDER[4:]:  # a looser one has never sufficed for so many
        run = timed(functools.partial(integrate, tolerance=tolerance))
        error = float(np.abs(run.result - reference).max())
        if error <= ERROR:
            return {"s": run.core_s, "wall_s": run.wall_s, "error": error, "tolerance": tolerance}
        if time.process_time() - began > max(LONGEST, 6 * run.core_s):
            return None
    return None


def main(path: pathlib.Path) -> None:
    """Time every problem by every method and write `path`."""
    rng, load = np.random.default_rng(0), os.getloadavg()[0]
    rows = []
    for name, problems, outputs, kl_coef, horizon, num_times in PROBLEMS:
        logits, reward = 2 * rng.normal(size=(problems, outputs)), rng.uniform(-1, 1, (problems, outputs))
        times = np.geomspace(1e-4 * horizon, horizon, num_times) if num_times > 1 else np.array([horizon])
        reference = rvlib_flow(logits, reward, kl_coef, times, integrator._TOLERANCE / 100)
        own = functools.partial(rvlib_flow, logits, reward, kl_coef, times)
        row = {"problem": name, "rvlib": climb(own, reference)}
        if problems > 1:
            run = timed(functools.partial(own, integrator._TOLERANCE))
            row["rvlib"]["by_default"] = {"s": run.core_s, "wall_s": run.wall_s}
        for method in ("DOP853", "LSODA", "Radau", "BDF"):
            if outputs > 1000 and method != "DOP853":
                continue  # their dense Jacobians of 5,000 outputs hold 25 million entries
            if problems > 1000 and method in ("Radau", "BDF"):
                continue  # hundreds of times slower
            solved = min(problems, 20)  # the rest of a batch costs SciPy the same again
            peer = functools.partial(scipy_flows, method, logits[:solved], reward[:solved], kl_coef, times)
            row[method] = climb(peer, reference[:solved])
            if row[method]:
                row[method]["s"] *= problems / solved
                row[method]["wall_s"] *= problems / solved
        if problems > 1 and importlib.util.find_spec("diffrax"):
            peer = functools.partial(diffrax_flows, "Dopri8", logits, reward, kl_coef, times)
            peer(tolerance=LADDER[0])  # compiles
            row["diffrax Dopri8"] = climb(peer, reference)
        for method, result in row.items():
            if method not in ("problem", "rvlib") and result:
                result["times_rvlib"] = result["s"] / row["rvlib"]["s"]
        rows.append(row)
        peers = (
            f"{method} {result['times_rvlib']:.1f}×{' (ahead)' * (result['times_rvlib'] < 1)}"
            if result
            else f"{method} not in {LONGEST:.0f} s"
            for method, result in row.items()
            if method not in ("problem", "rvlib")
        )
        print(f"{name}: rvlib {row['rvlib']['s']:.4f} s; " + ", ".join(peers), flush=True)
        result = {
            "what": __doc__.split("\n")[0],
            "allowed_error": ERROR,
            "rows": rows,
            "scipy": scipy.__version__,
            "diffrax": importlib.metadata.version("diffrax") if importlib.util.find_spec("diffrax") else None,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores; load {load:.1f} before",
            "date": time.strftime("%Y-%m-%d"),
        }
        path.write_text(json.dumps(result, indent=1) + "\n")  # a run that is cut short keeps its rows
    print(f"written to {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    results = pathlib.Path(__file__).parent / "results" / "flow.json"
    parser.add_argument("file", nargs="?", type=pathlib.Path, default=results, help="where the results are written")
    main(parser.parse_args().file)
