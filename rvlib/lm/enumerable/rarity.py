"""`python -m rvlib.lm.enumerable.rarity`: what rare praise costs a transformer, by three ways of ascent.

Each of several random transformers (3 tokens from 3, so 27 outputs) is given a reward of 1 for one output, of initial
probability p, and -1 for all others, and is trained on the exact gradient until that output has probability ½. The
chapter on geometry reads the file through `rvlib.results`, without torch.
"""

import itertools
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from rvlib.files import write_text
from rvlib.lm.enumerable.enumeration import Enumeration
from rvlib.lm.origin import record_of_command
from rvlib.results import RARITY, RarityTimes, rounded
from rvlib.tabular import autoregressive

Array = NDArray[np.float64]
GOAL = 0.5  # the probability that the praised output is to reach
VOCABULARY, LENGTH = 3, 3


class Students:
    """A batch of transformers, each with its one praised output: parameters (B, P), rewards (B, 1, 27).

    `gradient` and `natural_direction` are those of the book's `def-metric`, in the Euclidean and the Fisher metric.
    """

    def __init__(self, models: int, spread: float = 0.6) -> None:
        self.enumeration = Enumeration(VOCABULARY, LENGTH, hidden=8)
        self.vectors = self.enumeration.start([[seed] for seed in range(models)], spread)
        self.initial_logits = self.enumeration.logits(self.vectors)
        probs = self.probs(self.vectors)
        # From the likeliest output of the first model to the least likely of the last, so that p covers what there is.
        ranks = np.linspace(1, probs.shape[1] - 1, models).round().astype(int)
        self.praised = np.argsort(-probs, axis=1)[np.arange(models), ranks]
        self.reward = np.full((models, 1, probs.shape[1]), -1.0)
        self.reward[np.arange(models), 0, self.praised] = 1.0
        # Which token each output has after each of its prefixes, in the order of `autoregressive`.
        outputs = list(itertools.product(range(VOCABULARY), repeat=LENGTH))
        self.taken = np.zeros((len(outputs), self.enumeration.prefixes, VOCABULARY))
        for row, tokens in enumerate(outputs):
            first, code = 0, 0
            for depth, token in enumerate(tokens):
                self.taken[row, first + code, token] = 1
                first, code = first + VOCABULARY**depth, code * VOCABULARY + token

    def probs(self, vectors: Array) -> Array:
        """π of every output, (B, 27)."""
        return np.exp(autoregressive.log_probs(self.enumeration.logits(vectors)))[:, 0]

    def praised_probs(self, vectors: Array) -> Array:
        """π of the praised output, (B,)."""
        return self.probs(vectors)[np.arange(len(vectors)), self.praised]

    def gradient(self, vectors: Array) -> Array:
        """∇V, (B, P)."""
        return self.enumeration.mean_gradient(vectors, self.reward, self.initial_logits, np.zeros(len(vectors)))

    def natural_direction(self, vectors: Array) -> Array:
        """F⁺∇V, (B, P): the least change of parameters whose scores fit r - V best under π."""
        probs, jacobian = self.probs(vectors), self.enumeration.jacobian(vectors)[:, 0]
        token_probs = np.exp(self.enumeration.logits(vectors)[:, 0])
        token_probs /= token_probs.sum(-1, keepdims=True)
        visited = self.taken.sum(-1)[None, :, :, None]  # (1, 27, prefixes, 1)
        weights = (self.taken[None] - visited * token_probs[:, None]).reshape(len(vectors), probs.shape[1], -1)
        scores = weights @ jacobian.reshape(len(vectors), weights.shape[2], -1)
        advantages = self.reward[:, 0] - (probs * self.reward[:, 0]).sum(-1, keepdims=True)
        root = np.sqrt(probs)
        weighted = root[..., None] * scores
        gram = weighted @ weighted.swapaxes(1, 2)  # (27, 27): A⁺b = Aᵀ(AAᵀ)⁺b
        fitted = np.linalg.pinv(gram, rcond=1e-12, hermitian=True) @ (root * advantages)[..., None]
        return (weighted.swapaxes(1, 2) @ fitted)[..., 0]


def time_until_half(students: Students, step: Callable[[Array, int], tuple[Array, Array]], max_steps: int) -> Array:
    """When each student gives its praised output with probability ½: (B,), inf if it does not in `max_steps`.

    step(vectors, number of the step from 1) gives the next parameters (B, P) and how much time passed (B,). Between two
    steps the time is interpolated in the logit of the probability.
    """
    vectors, clock = students.vectors.copy(), np.zeros(len(students.vectors))
    reached = np.full(len(clock), np.inf)
    before = students.praised_probs(vectors)
    for count in range(1, max_steps + 1):
        moved, passed = step(vectors, count)
        open_ = np.isinf(reached)
        vectors[open_] = moved[open_]
        after = students.praised_probs(vectors)
        crossed = open_ & (after >= GOAL)
        logit_before, logit_after = np.log(before / (1 - before)), np.log(after / (1 - after))
        share = -logit_before[crossed] / (logit_after - logit_before)[crossed]
        reached[crossed] = clock[crossed] + share * passed[crossed]
        clock, before = clock + passed, after
        if np.isfinite(reached).all():
            break
    return reached


def rarity(models: int = 40, *, learning_rate: float = 1e-3, max_steps: int = 6000) -> RarityTimes:
    """The initial probability of the praised output and the times of three ways of ascent, each (models,).

    Gradient flow is followed by steps of length 0.02 in the parameters, the natural gradient by steps of at most 0.05
    in time and 0.2 in the parameters. Adam has `learning_rate` and PyTorch's other defaults.
    """
    students = Students(models)

    def follow_flow(vectors: Array, _: int) -> tuple[Array, Array]:
        gradient = students.gradient(vectors)
        norm = np.linalg.norm(gradient, axis=-1)
        return vectors + 0.02 * gradient / norm[:, None], 0.02 / norm

    def follow_natural(vectors: Array, _: int) -> tuple[Array, Array]:  # by the midpoint rule
        direction = students.natural_direction(vectors)
        passed = np.minimum(0.05, 0.2 / np.linalg.norm(direction, axis=-1))  # shorter where the scores nearly depend
        halfway = vectors + passed[:, None] / 2 * direction
        return vectors + passed[:, None] * students.natural_direction(halfway), passed

    parameters = torch.tensor(students.vectors, requires_grad=True)
    adam = torch.optim.Adam([parameters], lr=learning_rate, maximize=True)

    def adam_step(vectors: Array, _: int) -> tuple[Array, Array]:
        with torch.no_grad():
            parameters.copy_(torch.from_numpy(vectors))
        parameters.grad = torch.from_numpy(students.gradient(vectors))
        adam.step()
        return parameters.detach().numpy().copy(), np.ones(len(vectors))

    return {
        "probability": students.praised_probs(students.vectors),
        "flow": time_until_half(students, follow_flow, max_steps),
        "natural": time_until_half(students, follow_natural, max_steps),
        "adam": time_until_half(students, adam_step, max_steps),
        "learning_rate": learning_rate,
        "parameters": students.enumeration.num_parameters,
    }


def main() -> None:
    """Measure, and write the file that `rvlib.results.load_rarity` reads."""
    torch.set_num_threads(1)  # tensors this small are slower on many
    start = time.perf_counter()
    measured = rarity()
    made = record_of_command("python -m rvlib.lm.enumerable.rarity", time.perf_counter() - start)
    write_text(RARITY, json.dumps({"made": made} | rounded(measured)) + "\n")
    print(f"Numbers: {RARITY}")


if __name__ == "__main__":
    main()
