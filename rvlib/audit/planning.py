"""What an audit will take, said before it begins: the size of each model, and about how long it samples or scores.

Seconds are those of `rvlib.lm.experiments.cost`: of a GPU that it knows at the share of the stated rates that was
measured there, elsewhere at the same share of what two short measurements find. A token is taken for four characters,
and a reply for as long as it may be. The time to load weights is not counted.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from rvlib.lm import processes
from rvlib.lm.experiments import cost
from rvlib.lm.models.loading import AdapterBase, adapter_base, quiet
from rvlib.lm.models.reward_models import FUNCTIONS

CHARACTERS = 4  # of a token
SIDE = 1024  # of the matrices that are multiplied to measure a rate


@dataclass(frozen=True)
class Planned:
    """One stage of an audit: what is done, by a model of how many parameters, and in about how many seconds.

    parameters, seconds: None where the model's configuration does not say.
    """

    stage: str
    parameters: float | None
    seconds: float | None

    def __str__(self) -> str:
        unit, scale = ("billion", 1e9) if (self.parameters or 0) >= 1e9 else ("million", 1e6)
        size = f", {self.parameters / scale:.2g} {unit} parameters" if self.parameters else ""
        return f"{self.stage}{size}: {duration(self.seconds)}"


def resolved_dtype(dtype: str) -> str:
    """The type of numbers that "auto" stands for here: "bfloat16" on a GPU that computes with it, else "float32"."""
    if dtype not in ("auto", *cost.BYTES):
        raise ValueError(f'dtype must be "auto", "float32" or "bfloat16", got {dtype!r}.')
    if dtype != "auto":
        return dtype
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def show_plan(*args: Any, **kwargs: Any) -> None:
    """Print the `plan`, in the first process."""
    stages = plan(*args, **kwargs)
    if processes.first():
        print("\n".join(map(str, stages)))


def plan(
    policy: Any,
    reward_models: Mapping[str, Any],
    texts: Sequence[str],
    num_generations: int,
    max_new_tokens: int,
    dtype: str,
    *,
    engine: str = "auto",
    machine: cost.Machine | None = None,
) -> list[Planned]:
    """The stages of an audit. policy: its name, None where nothing is drawn; reward_models: {label: name or function}.

    texts: the prompts; if their replies are known, each prompt with a reply, with 1 for `num_generations` and 0 for
    `max_new_tokens`. Functions are not planned, since their time is unknown. engine: as in `sample_replies`; machine:
    the device here by default.
    """
    machine, world = machine or _machine(dtype), processes.world()
    if engine == "auto":
        engine = "graph" if torch.cuda.is_available() else "generate"
    prompt = sum(map(len, texts)) / len(texts) / CHARACTERS
    count, stages = len(texts) * num_generations, list[Planned]()

    def scoring(size: cost.Size) -> float:
        """Seconds of a forward pass over all prompts and replies, 2 N operations a token."""
        rate = getattr(machine, dtype) * machine.shares.scoring * world
        return 2 * size.parameters * count * (prompt + max_new_tokens) / rate

    def sampling(size: cost.Size) -> float:
        """Seconds to sample all replies, and to take their log-probabilities."""
        rows = min(count, 8 * num_generations)
        shape = (size, count, rows, round(prompt), max_new_tokens)
        return cost.sampling(*shape, machine, dtype, world, engine) + scoring(size)

    def add(stage: str, size: cost.Size | None, seconds: Callable[[cost.Size], float]) -> None:
        known = (None, None) if size is None else (size.parameters, seconds(size))
        stages.append(Planned(stage, *known))

    if policy is not None:
        add(f"Sampling {count} replies of {policy}", model_size(policy, transformers.AutoModelForCausalLM), sampling)
    for label, name in reward_models.items():
        if not callable(name) and str(name) not in FUNCTIONS:
            size = model_size(name, transformers.AutoModelForSequenceClassification)
            add(f"Scoring {count} replies by {label}", size, scoring)
    return stages


def model_size(name: Any, kind: Any) -> cost.Size | None:
    """The shape of a model by its name or folder, from its configuration alone; None where that does not say it."""
    if str(name) in cost.MODELS:
        return cost.MODELS[str(name)]
    try:
        base = adapter_base(name) or AdapterBase(str(name))
        config = transformers.AutoConfig.from_pretrained(base.name, revision=base.revision, trust_remote_code=False)
        with torch.device("meta"), quiet():
            parameters = kind.from_config(config).num_parameters()
    except Exception:  # of the many kinds that loading a stranger's configuration fails by; loading itself tells
        return None
    text = config.get_text_config()
    width = getattr(text, "hidden_size", 0)
    heads = getattr(text, "num_attention_heads", 1) or 1
    keys = width // heads * (getattr(text, "num_key_value_heads", None) or heads)
    return cost.Size(parameters, getattr(text, "num_hidden_layers", 1), width, keys, text.vocab_size, 4 * width)


def duration(seconds: float | None) -> str:
    """A time in words, to two digits: "about 12 seconds", "about 3.1 hours"."""
    if seconds is None:
        return "how long cannot be told from its configuration"
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"about {seconds / length:.2g} {unit}"
    return f"about {max(seconds, 1):.0f} second{'s' * (round(seconds) > 1)}"


def _machine(dtype: str) -> cost.Machine:
    """The device here: a GPU that `cost` knows, or else one as fast as it multiplies two matrices and copies one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    for known, machine in cost.MACHINES.items():
        if known in name:
            return machine
    matrix = torch.ones(SIDE * (8 if device == "cuda" else 1), SIDE, device=device, dtype=getattr(torch, dtype))
    rate = 2 * matrix.shape[0] * SIDE**2 / _seconds(lambda: matrix @ matrix[:SIDE])
    bandwidth = 2 * matrix.nbytes / _seconds(matrix.clone)
    return cost.Machine(device, 0, rate, rate, bandwidth)


def _seconds(function: Any) -> float:
    """The shortest of a few runs, after one that is not counted."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])
