"""Write tests/cases/flow.json: flows solved in 40-digit arithmetic, which the tests of rvlib and of flow.mjs both read.

Run as `python tests/make_cases.py`, a minute or two. Rewards and probabilities of every case are the reference's, t_γ
too: the gain of a case is what the reference has gained at the case's time, so the time is known.
"""

import functools
import json
import pathlib
from typing import Any

import numpy as np
import reference
from mpmath import log, mp, mpf, sqrt

from rvlib.tabular import gradient_flow

PATH = pathlib.Path(__file__).parent / "cases" / "flow.json"

# name, outputs of each kind, spread of the logits, spread of the reward, λ, |S|, horizon
CASES = [
    ("two outputs", [1, 1], 1, 1, 0, 1, 1e3),
    ("five outputs", [1] * 5, 1, 1, 0, 1, 1e2),
    ("two prompts", [1] * 4, 1, 1, 0.1, 2, 50),
    ("a plateau", [1] * 5, 5, 1, 0, 1, 1e8),
    ("weak KL, long", [1] * 5, 2, 1, 0.05, 1, 1e8),
    ("strong KL, stiff", [1] * 5, 5, 1, 10, 1, 1e8),
    ("logits of ±50", [1] * 5, 50, 1, 0, 1, 1e8),
    ("logits of ±50, KL", [1] * 5, 50, 1, 0.3, 1, 1e8),
    ("variance 1e-12", [1] * 4, 1, 1e-6, 0, 1, 1e8),
    ("variance 1e-12, KL", [1] * 4, 1, 1e-6, 1e-3, 1, 1e8),
    ("a short time", [1] * 4, 1, 1, 0.01, 1, 1e-3),
    ("30 kinds of outputs", [1] * 30, 3, 1, 0.1, 1, 1e6),
    ("200 outputs, stiff", [1, 20, 50, 40, 89], 3, 1, 0.1, 1, 1e8),
    ("5,000 outputs", [1, 500, 1250, 1000, 2249], 2, 1, 0, 1, 1e6),
]


def measures(
    logits: list[mpf], start: list[mpf], reward: list[mpf], truth: list[mpf], counts: list[int], kl_coef: mpf
) -> dict[str, Any]:
    """What rvlib reports of a policy, from the definitions, in the reference's precision."""
    probs, probs0 = reference.probabilities(logits, counts), reference.probabilities(start, counts)

    def mean(values):
        return sum(c * p * v for c, p, v in zip(counts, probs, values))

    proxy = mean(reward)
    log_ratio = [log(p / q) for p, q in zip(probs, probs0)]
    velocity = reference.velocity(logits, start, reward, counts, kl_coef)
    return {
        "probs": probs,
        "proxy": proxy,
        "ground_truth": mean(truth),
        "variance": mean([(r - proxy) ** 2 for r in reward]),
        "kl": mean(log_ratio),
        "gradient_norm": sqrt(sum(c * v**2 for c, v in zip(counts, velocity))),
    }


def main() -> None:
    """Solve every case and write the file."""
    rng = np.random.default_rng(2503_15477)
    cases = []
    for name, counts, spread, scale, kl_coef, prompts, horizon in CASES:
        logits, reward, truth = (s * rng.uniform(-1, 1, len(counts)) for s in (spread, scale, 1))
        # The integrator under test is asked only where steps are short enough for the reference, not what is there.
        knots = gradient_flow(
            np.repeat(logits, counts), np.repeat(reward, counts), horizon / prompts, kl_coef=kl_coef
        ).t[1:]
        states = reference.flow(logits, reward, counts, knots, kl_coef)
        exact_logits, exact_reward, exact_truth = ([mpf(float(v)) for v in x] for x in (logits, reward, truth))
        report = functools.partial(
            measures,
            start=exact_logits,
            reward=exact_reward,
            truth=exact_truth,
            counts=counts,
            kl_coef=mpf(float(kl_coef)),
        )
        start = report(exact_logits)
        shown = sorted({0, len(knots) // 4, len(knots) // 2, 3 * len(knots) // 4, len(knots) - 1})
        reports = [report(states[k]) for k in shown]
        case = {
            "name": name,
            "counts": counts,
            "logits": logits.tolist(),
            "reward": reward.tolist(),
            "truth": truth.tolist(),
            "kl_coef": kl_coef,
            "n_prompts": prompts,
            "times": (knots[shown] * prompts).tolist(),
        }
        case |= {
            key: [[float(p) for p in at[key]] if key == "probs" else float(at[key]) for at in reports]
            for key in reports[0]
        }
        # A gain is asked for where the reward still moves enough to fix the time to 1e-9 in double precision.
        gains = [(float(at["proxy"] - start["proxy"]), t) for at, t in zip(reports, case["times"])]
        span = gains[-1][0]
        case["gains"], case["gain_times"] = zip(
            *[(g, t) for g, t in gains if 1e-9 < g < 0.95 * span] or [(2.5 * scale, float("inf"))]
        )
        cases.append(case)
        print(name, len(knots))
    PATH.write_text(json.dumps(cases, indent=1).replace("Infinity", '"inf"') + "\n")


if __name__ == "__main__":
    mp.dps = 40
    main()
