"""The peaks of memory of large recipes, as PyTorch counts them, beside what the planner says. No GPU is needed.

How it is counted. The real architecture, at its real size, goes through the real code under `FakeTensorMode`, which
knows every tensor's shape and holds none of its numbers, while `Counter` adds up the storages that are alive.
*Learning*: two micro-batches of the longest prompts and replies that the recipe allows, so that gradients are there
while activations are, with Adam's moments. *Scoring*: the log-probabilities of as many such replies as the recipe puts
through at once. Models that are only read are left out of both sides. It cannot count what a GPU's allocator wastes,
CUDA's own memory, and what a kernel takes inside one operation.

The step of 8-bit Adam is made of many operations, or of a few if it is compiled, as it is on a GPU. What it takes on
top is measured: the process's peak of memory during a step on one matrix, compiled for this machine and not.

    python benchmarks/memory.py [FILE]          writes benchmarks/results/memory.json, or FILE
"""

import argparse
import json
import pathlib
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_map_only
from tqdm import tqdm

from rvlib.files import write_text
from rvlib.lm import origin
from rvlib.lm.experiments import cost
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments.bench.architectures import ARCHITECTURES
from rvlib.lm.experiments.planning import sizes
from rvlib.lm.models import policies
from rvlib.lm.models.adapters import add_adapter
from rvlib.lm.optim import adam
from rvlib.lm.sampling.log_probs import reply_log_probs
from rvlib.lm.training.trainer import Trainer

RECIPES = {
    "scale-8b": "llama-3.1-8b",
    "scale-8b-lora": "llama-3.1-8b",
    "paper-4.2-llama-3b": "llama-3.2-3b",
    "paper-4.2-llama-1b": "llama-3.2-1b",
    "paper-4.1-pythia-2.8b": "pythia-2.8b",
    "paper-4.1-pythia-1b": "pythia-1b",
}
# What these recipes leave to the planner, as it was set on a GPU of 141 GB when it was measured there.
SETTINGS = ["runtime.gradient_checkpointing=true", "runtime.micro_batch=8", "runtime.batch_size=32"]
MATRIX = (16384, 2048)


class Counter(TorchDispatchMode):
    """Bytes of the storages that are alive, `now` and at their `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def see(self, tensor: torch.Tensor) -> None:
        """Count the storage of a tensor, once, for as long as it is alive."""
        storage = tensor.untyped_storage()
        if storage not in self.known and not is_traceable_wrapper_subclass(tensor):  # such a one is made of others
            self.known.add(storage)
            self.now += storage.nbytes()
            weakref.finalize(storage, self.forget, storage.nbytes())

    def forget(self, nbytes: int) -> None:
        """Take off a storage that is freed."""
        self.now -= nbytes

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count what an operation returns."""
        output = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.see, output)
        self.peak = max(self.peak, self.now)
        return output


def count(
    name: str, architecture: str, layers: int | None = None, changes: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """{"learning", "scoring": {"counted", "planned": bytes}} of the policy of recipe `name` with `changes`.

    layers: how many of the architecture's (None: all).
    """
    recipe = recipes.load(name, [*(SETTINGS if name.startswith("scale-8b") else []), *changes])
    runtime, (key, spec) = recipe.runtime, next(iter(recipe.policies.items()))
    prompt_ids, completion_ids = [1] * recipe.data.max_tokens, [2] * recipe.policy_gradient.max_new_tokens
    config = ARCHITECTURES[architecture] | ({"num_hidden_layers": layers} if layers else {})
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**config), dtype=getattr(torch, recipe.dtype(key))
        )
        policy = policies.Policy(model, None, {})
        size = replace(sizes.size(spec.model), parameters=model.num_parameters(), layers=config["num_hidden_layers"])
        if spec.lora:
            add_adapter(policy, spec.lora)
    make_tables(runtime)

    def logprobs_of(count: int) -> torch.Tensor:
        return reply_log_probs(policy, [prompt_ids] * count, [completion_ids] * count)

    with FakeTensorMode(allow_non_fake_inputs=True), Counter() as counter, tempfile.TemporaryDirectory() as folder:
        model.to_empty(device="cpu").tie_weights()
        trainer = Trainer(model, folder, 1e-7, runtime)

        def learn() -> None:
            for _ in range(2):
                trainer.adam.backward(lambda: logprobs_of(runtime.micro_batch).sum())

        learn()
        with torch.compiler.set_stance("force_eager"):
            trainer.adam.optimizer.step()  # now there are moments
        trainer.adam.optimizer.zero_grad(set_to_none=True)
        counter.peak = counter.now
        learn()
        learning, counter.peak = counter.peak, counter.now
        with torch.no_grad():
            before = counter.now
            logprobs_of(runtime.batch_size)
        scoring = counter.peak - before
    return {
        kind: {"counted": counted, "planned": planned}
        for (kind, planned), counted in zip(planned_bytes(recipe, key, size).items(), (learning, scoring))
    }


def planned_bytes(recipe: recipes.Recipe, key: str, size: cost.Size) -> dict[str, float]:
    """{"learning", "scoring": bytes} as the planner has it, of policy `key`, which has the shape `size`."""
    runtime, lora = recipe.runtime, recipe.policies[key].lora
    prompt, reply = recipe.data.max_tokens, recipe.policy_gradient.max_new_tokens
    rank, compute_dtype = lora.rank if lora else None, runtime.compute_dtype
    parts = cost.training_state(
        size, optimizer=runtime.optimizer, weights_dtype=runtime.weights_dtype, compute_dtype=compute_dtype, rank=rank
    )
    activations = cost.gradient_pass(
        size,
        runtime.micro_batch,
        prompt,
        reply,
        compute_dtype=compute_dtype,
        gradient_checkpointing=runtime.gradient_checkpointing,
        rank=rank,
    )
    return {
        "learning": sum(parts.values()) + activations,
        "scoring": cost.log_prob_pass(size, runtime.batch_size, prompt, reply, compute_dtype=compute_dtype),
    }


def make_tables(runtime: recipes.RuntimeSettings) -> None:
    """A step of Adam on a few numbers: torchao makes tables of real numbers at the first step, and keeps them."""
    value = torch.nn.Parameter(torch.zeros(4096))
    optimizer = adam.make_adam([value], 1e-7, runtime)
    optimizer.param_groups[0]["params"][0].grad = torch.zeros(4096)
    with torch.compiler.set_stance("force_eager"):
        optimizer.step()


def step_bytes(stance: str) -> float:
    """Bytes a parameter that a step of 8-bit Adam on one matrix takes on top of what it keeps. On Linux.

    stance: of torch's compiler, "default" or "force_eager".
    """
    value = torch.nn.Parameter(torch.randn(MATRIX).bfloat16())
    optimizer = adam.make_adam([value], 1e-4, recipes.load("scale-8b").runtime)
    for _ in range(2):  # the first compiles, and makes the moments
        value.grad = torch.randn(MATRIX).bfloat16()
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = status("VmRSS")
        with torch.compiler.set_stance(stance):
            optimizer.step()
    return (status("VmHWM") - before) / value.numel()


def status(key: str) -> int:
    """Bytes of this process's memory, by the kernel's name for them."""
    return 1024 * next(
        int(line.split()[1])
        for line in pathlib.Path("/proc/self/status").read_text().splitlines()
        if line.startswith(key)
    )


def main(out: pathlib.Path) -> None:
    """Count every recipe, write the numbers to `out` and print them."""
    result: dict[str, Any] = {"made": origin.record(), "counted": {}}
    for name in tqdm(RECIPES, unit="recipe"):
        result["counted"][name] = count(name, RECIPES[name])
    result["step_bytes_a_parameter"] = {"compiled": step_bytes("default"), "not compiled": step_bytes("force_eager")}
    write_text(out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["counted"] | result["step_bytes_a_parameter"], indent=1), f"\nWritten to {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    results = ROOT / "benchmarks/results/memory.json"
    parser.add_argument("file", nargs="?", type=pathlib.Path, default=results, help="where the results are written")
    main(parser.parse_args().file)
