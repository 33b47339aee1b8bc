"""`python -m rvlib.lm.enumerable.remedies`: the remedies of `rvlib.tabular.remedies` on small transformers under Adam.

Eight transformers (eight prompts, three tokens from three) are trained with sampled groups under each remedy. All
prompts share the parameters, as in a language model. The chapter on remedies reads the file through `rvlib.results`.
"""

import json
import time

import numpy as np
import torch
from numpy.typing import NDArray

from rvlib.files import write_text
from rvlib.lm.enumerable.enumeration import Enumeration
from rvlib.lm.origin import record_of_command
from rvlib.results import REMEDIES_ON_TRANSFORMERS
from rvlib.tabular import autoregressive
from rvlib.tabular.remedies import REMEDIES, make_worlds, train

Array = NDArray[np.float64]
WORLDS, STEPS, LEARNING_RATE, GAIN = 8, 200, 3e-3, 0.3


class Transformers:
    """One transformer for each world, trained by Adam with PyTorch's defaults: `rvlib.tabular.remedies.Policies`."""

    def __init__(self, enumeration: Enumeration, vectors: Array) -> None:
        self.enumeration = enumeration
        self.parameters = torch.tensor(vectors, requires_grad=True)
        self.initial_logits = enumeration.logits(vectors)
        self.adam: torch.optim.Adam | None = None

    def probs(self) -> Array:
        """The probabilities of all outputs, (worlds, prompts, 27)."""
        return np.exp(autoregressive.log_probs(self.enumeration.logits(self.parameters.detach().numpy())))

    def step(self, update: Array, learning_rate: float) -> None:
        """Take one step of Adam along Σ update · ∇ ln π."""
        self.adam = self.adam or torch.optim.Adam([self.parameters], lr=learning_rate, maximize=True)
        vectors = self.parameters.detach().numpy()
        # ∇ Σ π r with r = update/π held fixed.
        gradient = self.enumeration.mean_gradient(
            vectors, update / self.probs(), self.initial_logits, np.zeros(len(update))
        )
        self.parameters.grad = torch.from_numpy(gradient)
        self.adam.step()


def main() -> None:
    """Train under every remedy, and write the file that `rvlib.results.load_remedies` reads."""
    torch.set_num_threads(1)  # tensors this small are slower on many
    clock = time.perf_counter()
    enumeration = Enumeration(3, 3, prompts=8, hidden=8)
    vectors = enumeration.start([[0, i] for i in range(WORLDS)], spread=0.6)
    worlds = make_worlds(logits=autoregressive.log_probs(enumeration.logits(vectors)), seed=0)
    rows = {}
    for name, remedy in REMEDIES.items():
        policies = Transformers(enumeration, vectors)
        outcome = train(worlds, remedy, policies=policies, steps=STEPS, learning_rate=LEARNING_RATE)
        steps = outcome.steps_to_gain(GAIN)
        rows[name] = {
            "accuracy": outcome.accuracy.round(4).tolist(),
            "variance": outcome.variance.round(4).tolist(),
            "steps": [int(step) if np.isfinite(step) else None for step in steps],
            "gained": outcome.gained.round(4).tolist(),
            "lost_again": outcome.lost_again.round(4).tolist(),
        }
        print(f"{name}: gained {outcome.gained.mean():.3f}", flush=True)
    made = record_of_command("python -m rvlib.lm.enumerable.remedies", time.perf_counter() - clock) | {
        "worlds": len(vectors),
        "parameters": enumeration.num_parameters,
        "steps": STEPS,
        "learning_rate": LEARNING_RATE,
        "gain": GAIN,
    }
    write_text(REMEDIES_ON_TRANSFORMERS, json.dumps({"made": made, "remedies": rows}) + "\n")
    print(f"Numbers: {REMEDIES_ON_TRANSFORMERS}")


if __name__ == "__main__":
    main()
