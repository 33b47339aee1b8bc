"""`python -m rvlib.lm.enumerable.study`: Prop. 2 and Theorem 4 against transformers that can be summed exactly.

    ‖∇φ‖ ≤ 6 M^{1/3} L J Var^{1/3},        t_γ ≥ min{1 - e^{-γ/9}, 1 - e^{-7/(3λ)}} / (8 L²J²) · (mean Var)^{-1/3}

`one_transformer` trains one transformer under three teachers; `many_transformers` draws two hundred transformers and
rewards. Both return what was measured, not whether a bound holds. The book's chapter reads what the command wrote with
`rvlib.results.load_enumerated_transformers`, without torch.
"""

import json
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rvlib.files import write_text
from rvlib.lm.enumerable.enumeration import Enumeration, integrate_flow
from rvlib.lm.origin import record_of_command
from rvlib.metrics import ranking_accuracy
from rvlib.results import ENUMERATED_TRANSFORMERS, ManyTransformers, OneTransformer, rounded
from rvlib.tabular import autoregressive


class Shape(NamedTuple):
    """The size of an `Enumeration`."""

    vocabulary: int
    length: int
    prompts: int


GROUPS = [Shape(2, 2, 2), Shape(3, 2, 1), Shape(2, 3, 2), Shape(3, 3, 1)]
TEACHERS = ["the truth", "right order, small marks", "half wrong"]


def one_transformer(seed: int = 0, *, kl_coef: float = 1e-3, points: int = 41) -> OneTransformer:
    """One transformer (3 tokens from 3, so 27 outputs), trained by each of TEACHERS.

    The second teacher gives 0.03 times the true reward, the third a random one to half of the outputs. Times go from 0
    to a teacher's own end; the steps of the proof are those halfway through the third's.
    """
    rng, teachers = np.random.default_rng(seed), len(TEACHERS)
    enumeration = Enumeration(vocabulary=3, length=3, hidden=8)
    vectors = np.repeat(enumeration.start([[seed]], spread=0.3), teachers, 0)
    truth = rng.uniform(-1, 1, enumeration.outputs)
    wrong = rng.permutation(enumeration.outputs) < enumeration.outputs // 2
    reward = np.stack([truth, 0.03 * truth, np.where(wrong, rng.uniform(-1, 1, truth.size), truth)])[:, None]
    gradient = enumeration.mean_gradient(vectors, reward, enumeration.logits(vectors), np.zeros(teachers))
    slope = np.linalg.norm(gradient, axis=-1)
    path = integrate_flow(enumeration, vectors, reward, 2 / (slope * slope[0]), kl_coef=kl_coef, points=points)
    half = points // 2
    steps = autoregressive.proof_steps(
        path.logits[half, 2, 0], path.kl_reward[half, 2, 0], enumeration.jacobian(path.vectors[half, 2:])[0, 0]
    )
    return {
        "length": enumeration.length,
        "vocabulary": enumeration.vocabulary,
        "parameters": enumeration.num_parameters,
        "kl_coef": kl_coef,
        "accuracy": ranking_accuracy(reward[:, 0], truth),
        "steps": [{name: float(value) for name, value in chain.items()} for chain in steps],
        "t": path.t.T,
        "proxy": path.expected(reward)[..., 0].T,
        "ground_truth": path.expected(truth)[..., 0].T,
        "variance": path.variance[..., 0].T,
        "gradient_norm": np.stack([path.gradient_norm(k)[:, 0] for k in range(points)], 1),
        "jacobian_norm": np.stack([path.jacobian_norm(k)[:, 0] for k in range(points)], 1),
        "largest": np.abs(path.kl_reward).max(-1)[..., 0].T,
    }


def many_transformers(
    per_group: int = 50, *, groups: Sequence[Shape] = GROUPS, points: int = 21, seed: int = 0
) -> ManyTransformers:
    """Random transformers, rewards and KL coefficients, `per_group` of each size."""
    rows: list[NDArray[np.float64]] = []
    times: list[list[float]] = []
    chains: tuple[list[dict[str, NDArray[np.float64]]], list[dict[str, NDArray[np.float64]]]] = ([], [])
    for group, (vocabulary, length, prompts) in enumerate(groups):
        rng = np.random.default_rng([seed, group])
        enumeration = Enumeration(vocabulary, length, prompts, hidden=4)
        spreads = rng.choice([0.2, 0.5, 0.8], per_group)
        vectors = np.concatenate([enumeration.start([[seed, group, i]], spread) for i, spread in enumerate(spreads)])
        scale = 10 ** rng.uniform(-2, 0, (per_group, 1, 1))
        reward = scale * rng.uniform(-1, 1, (per_group, prompts, enumeration.outputs))
        measured = np.sign(reward) * rng.choice([1, 1, 1, -1], reward.shape)
        kl_coef = scale[:, 0, 0] * rng.choice([0.0, 0.1, 1.0], per_group)
        gradient = enumeration.mean_gradient(vectors, reward, enumeration.logits(vectors), kl_coef)
        slope = np.linalg.norm(gradient, axis=-1)
        path = integrate_flow(
            enumeration,
            vectors,
            reward,
            0.2 * scale[:, 0, 0] / slope**2,
            kl_coef=kl_coef,
            points=points,
            tolerance=1e-4,
        )
        seen = np.linspace(0, points - 1, 5).astype(int)
        norms = np.stack([path.jacobian_norm(k) for k in seen])
        for k, norm in zip((0, points - 1), norms[[0, -1]]):
            jacobian = enumeration.jacobian(path.vectors[k])
            for chain, steps in zip(chains, autoregressive.proof_steps(path.logits[k], path.kl_reward[k], jacobian)):
                chain.append({name: values.ravel() for name, values in steps.items()})
            largest = np.abs(path.kl_reward[k]).max(-1)
            columns = [np.full(norm.shape, length), path.variance[k], path.gradient_norm(k), norm, largest]
            rows.append(np.stack([column.ravel() for column in columns]))
        level = path.expected(measured)[..., 0]
        gain = 0.5 * (level.max(0) - level[0])
        for i in np.flatnonzero(gain > 1e-9):
            after = int(np.argmax(level[:, i] >= level[0, i] + gain[i]))  # between the points before and at it: a line
            share = (level[0, i] + gain[i] - level[after - 1, i]) / (level[after, i] - level[after - 1, i])
            reached = path.t[after - 1, i] + share * (path.t[after, i] - path.t[after - 1, i])
            times.append(
                [length, path.variance[0, i].mean(), gain[i], reached, norms[seen <= after, i].max(), kl_coef[i]]
            )
    names = ("length", "variance", "gradient_norm", "jacobian_norm", "largest")
    return {
        "gradient": dict(zip(names, np.concatenate(rows, 1))),
        "time": dict(zip(("length", "variance", "gain", "time", "jacobian_norm", "kl_coef"), np.array(times).T)),
        "steps": [{name: np.concatenate([part[name] for part in chain]) for name in chain[0]} for chain in chains],
    }


def main() -> None:
    """Compute both, and write the file that `rvlib.results.load_enumerated_transformers` reads."""
    torch.set_num_threads(1)  # tensors this small are slower on many
    start = time.perf_counter()
    content = {"example": rounded(one_transformer()), "survey": rounded(many_transformers())}
    made = record_of_command("python -m rvlib.lm.enumerable.study", time.perf_counter() - start)
    write_text(ENUMERATED_TRANSFORMERS, json.dumps({"made": made} | content) + "\n")
    print(f"Numbers: {ENUMERATED_TRANSFORMERS}")


if __name__ == "__main__":
    main()
