"""`rvlib run RECIPE --dry-run`: what a run would do, what memory, disk and time it asks for, and what is missing here.

    rvlib run scale-8b --dry-run              on the GPU here, or on `MACHINE`
    rvlib run scale-8b --dry-run --gpus 4     what is trained shared out over four

Memory and time are those of `cost`, for the longest prompts and replies that a recipe allows; hours for prompts of 200
tokens, which few exceed. What a recipe leaves to the planner ("auto" under `runtime`) `choose` sets. Nothing is
downloaded: sizes of the models in the shipped recipes are in `cost.MODELS`, others are asked of the hub. torch and
transformers are imported only where this machine or the hub is asked.
"""

import functools
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rvlib import _checks
from rvlib.files import RESULTS
from rvlib.lm.data import sources, tiny
from rvlib.lm.experiments import cost
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments.cost import GB, MODELS, Machine, Size
from rvlib.lm.experiments.recipe import LoRA, PolicySettings, Recipe, RewardModelSettings
from rvlib.lm.models import SMOLLM2
from rvlib.lm.training import KEPT_CHECKPOINTS

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PreTrainedModel

MACHINE = cost.MACHINES["H100"]  # where there is no GPU to ask
GATED = ("meta-llama/", "google/")  # need a token of somebody who accepted the licence
USABLE = 0.95  # of a GPU's memory: the rest is CUDA's own, and pieces too small for use
ADAPTER = LoRA(rank=16, alpha=32)
TOLD = (
    "paper-4.1-pythia-1b",
    "paper-4.1-pythia-2.8b",
    "paper-4.2-llama-1b",
    "paper-4.2-llama-3b",
    "scale-8b-lora",
    "scale-8b",
)  # in the book
MOST_ROWS = 512  # replies at once, of a planner's choice
NEEDS_GPU = 0.9e9  # parameters of a policy from which on nobody waits for a CPU
PROMPTS = {
    "ultrafeedback": 41419,
    "ultrafeedback-chosen": 41419,
    "alpacafarm": 10000,
    "demo-preferences": 300,
    "demo-instructions": 999,
}  # at most 512 tokens
LIGHTER: tuple[dict[str, Any], ...] = (  # changes to `runtime` that make a run smaller, the mildest first
    {"micro_batch": 1},
    {"batch_size": 8},
    {"gradient_checkpointing": True},
    {"frozen_dtype": "bfloat16"},
    {"optimizer": "adam8bit", "weights_dtype": "bfloat16", "compute_dtype": "bfloat16"},
)


@dataclass(frozen=True)
class PlannedStage:
    """A stage as it is foreseen: its name, GB of memory by part, and hours, on each GPU."""

    name: str
    memory: dict[str, float]
    hours: float

    @property
    def peak(self) -> float:
        """GB that are there at once."""
        return cost.total(self.memory)

    @property
    def largest_part(self) -> str:
        """What takes most of its memory."""
        return max(self.memory, key=lambda part: self.memory[part])


@functools.lru_cache
def size(name: str) -> Size:
    """The `Size` of a model, by its name. OSError, one sentence, for one that neither `MODELS` nor the hub knows."""
    if name in MODELS:
        return MODELS[name]
    import torch  # only for a model that is not in the shipped recipes
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise OSError(
            f"The size of {name!r} must be known to plan, but its configuration did not load "
            f"({str(error).splitlines()[0]})."
        ) from error
    return shape(model)


def shape(model: "PreTrainedModel") -> Size:
    """The `Size` of a causal language model that is there."""
    config: Any = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    gated = any("gate" in module for module, _ in model.named_modules())
    return Size(
        model.num_parameters(),
        config.num_hidden_layers,
        config.hidden_size,
        heads * head_dim,
        config.vocab_size,
        config.intermediate_size,
        3 if gated else 2,
    )


def plan(recipe: Recipe, gpus: int = 1, machine: Machine | None = None) -> list[PlannedStage]:
    """The stages of a recipe, on each of `gpus`; machine: the GPU here, or `MACHINE`.

    What the recipe leaves to the planner is what `choose` takes for that GPU's memory.
    """
    machine = machine or _machine()
    recipe = choose(recipe, machine.memory, gpus, machine)
    foreseen, stages = _Plan(recipe, gpus, machine), []
    for name, policy in recipe.policies.items():
        if policy.demonstrations:
            stages.append(foreseen.sft(name, policy))
        stages += [foreseen.samples(name, policy), foreseen.labels(name)]
        for key, reward_model in recipe.reward_models.items():
            if reward_model.trained:
                stages.append(foreseen.reward_model(key, policy))
            stages.append(foreseen.policy_gradient(name, policy, key, reward_model))
    return stages


def choose(recipe: Recipe, memory: float, gpus: int = 1, machine: Machine | None = None) -> Recipe:
    """The recipe with each field of `runtime` that is "auto" set so that the run is fastest and fits.

    memory: bytes of each of `gpus`, of which `USABLE` is taken. Of what is equally fast, the largest micro-batch and
    the fewest replies at once. Where nothing fits, what takes least memory.
    """
    auto = recipe.runtime.auto()
    if not auto:
        return recipe
    candidates = []
    for values in itertools.product(*(_values(recipe, field) for field in auto)):
        settings = dict(zip(auto, values))
        runtime = recipe.runtime.model_copy(update=settings)
        resolved = recipe.model_copy(update={"runtime": runtime})
        stages = plan(resolved, gpus, machine)
        peak, hours = largest(stages).peak * GB, sum(stage.hours for stage in stages)
        order = (hours, -runtime.micro_batch, runtime.batch_size)
        candidates.append(((False, *order) if peak <= USABLE * memory else (True, peak, *order), resolved))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _values(recipe: Recipe, field: str) -> list[Any]:
    """What a field that is "auto" may be: powers of two, as far as they can be of use to the recipe."""
    if field == "gradient_checkpointing":
        return [False, True]
    gradient, measure, evaluation = recipe.policy_gradient, recipe.measure, recipe.evaluation
    if field == "micro_batch":
        most = gradient.batch_size // gradient.num_mini_batches
    else:
        replies = (measure.prompts * measure.outputs, evaluation.prompts * evaluation.outputs)
        most = min(max(gradient.batch_size, *replies), MOST_ROWS)
    return [2**power for power in range(most.bit_length())]


@dataclass(frozen=True)
class _Plan:
    """What the stages of a recipe take on `gpus` of a machine, one method a kind of stage."""

    recipe: Recipe
    gpus: int
    machine: Machine

    @property
    def prompts(self) -> int:
        return self.recipe.data.prompts or PROMPTS.get(self.recipe.data.preferences, 1000)

    @property
    def pairs(self) -> int:
        """Prompts kept for reward models."""
        return round(self.prompts * self.recipe.data.reward_model_share)

    @property
    def prompt(self) -> int:
        """Tokens of the longest prompt."""
        return self.recipe.data.max_tokens

    @property
    def usual(self) -> int:
        """Tokens of a usual prompt."""
        return min(self.prompt, cost.USUAL)

    @property
    def reply(self) -> int:
        """Tokens of the longest reply."""
        return self.recipe.policy_gradient.max_new_tokens

    @property
    def passes_of_learning(self) -> int:
        """Forward passes that a step on a row takes as long as."""
        return 3 + self.recipe.runtime.gradient_checkpointing

    @property
    def ground_truth(self) -> Size:
        return size(self.recipe.ground_truth.model)

    @property
    def shared_out(self) -> dict[str, Any]:
        runtime = self.recipe.runtime
        return {
            "optimizer": runtime.optimizer,
            "dtype": runtime.weights_dtype,
            "compute": runtime.compute_dtype,
            "gpus": self.gpus,
        }

    @property
    def arithmetic(self) -> dict[str, Any]:
        runtime = self.recipe.runtime
        return {"compute": runtime.compute_dtype, "checkpointing": runtime.gradient_checkpointing}

    def hours(self, share: float, passes: float, tokens: float, parameters: float) -> float:
        """Of so many passes over tokens, of 2 N operations each, at a share of the matrix rate."""
        rate = getattr(self.machine, self.recipe.runtime.compute_dtype) * share * self.gpus
        return 2 * passes * tokens * parameters / rate / 3600

    def sampling_hours(self, policy: Size, replies: int, dtype: str) -> float:
        runtime = self.recipe.runtime
        prompt, reply, rows = self.usual, self.reply, runtime.batch_size
        seconds = cost.sampling(policy, replies, rows, prompt, reply, self.machine, dtype, self.gpus, runtime.engine)
        return seconds / 3600

    def trained(self, model: Size, rows: int, reply: int) -> dict[str, float]:
        """Bytes by part while a whole model learns from `rows` at once."""
        activations = cost.updating(model, rows, self.prompt, reply, **self.arithmetic)
        return cost.learning(model, **self.shared_out) | {"activations": activations}

    def sft(self, name: str, policy: PolicySettings) -> PlannedStage:
        model = size(policy.model)
        demonstrations = policy.count or PROMPTS.get(policy.demonstrations or "", self.prompts)
        return _stage(
            f"sft/{name}",
            self.trained(model, self.recipe.runtime.micro_batch, self.reply),
            self.hours(
                self.machine.shares.updating,
                self.passes_of_learning * self.recipe.sft.epochs,
                demonstrations * (self.usual + self.reply),
                model.parameters,
            ),
        )

    def samples(self, name: str, policy: PolicySettings) -> PlannedStage:
        runtime, model, dtype = self.recipe.runtime, size(policy.model), self.recipe.dtype(name)
        memory = {
            "weights": model.parameters * cost.BYTES[dtype],
            "KV cache": runtime.batch_size
            * (self.prompt + self.reply)
            * model.layers
            * model.keys
            * 2
            * cost.BYTES[dtype],
            "scoring": cost.reading(model, runtime.batch_size, self.prompt, self.reply, compute=dtype),
        }
        replies = self.replies(name)
        scoring = self.hours(self.machine.shares.scoring, 1, replies * (self.usual + self.reply), model.parameters)
        return _stage(f"samples/{name}", memory, self.sampling_hours(model, replies, dtype) + scoring)

    def labels(self, name: str) -> PlannedStage:
        runtime, truth = self.recipe.runtime, self.ground_truth
        tokens = runtime.batch_size * (self.prompt + self.reply)
        memory = {
            "ground truth": truth.parameters * cost.BYTES[runtime.frozen_dtype],
            "scoring": cost.judging(truth, tokens, runtime.frozen_dtype) if truth.parameters else 0,
        }
        replies = self.replies(name)
        hours = self.hours(self.machine.shares.scoring, 1, replies * (self.usual + self.reply), truth.parameters)
        return _stage(f"labels/{name}", memory, hours)

    def replies(self, name: str) -> int:
        """Replies of a policy that are drawn and labelled before policy gradient."""
        measure = self.recipe.measure
        return 2 * self.pairs * self.recipe.draws_pairs(name) + measure.prompts * measure.outputs

    def reward_model(self, key: str, policy: PolicySettings) -> PlannedStage:
        model, passes = size(policy.model), 2 * self.passes_of_learning * self.recipe.reward_training.epochs
        return _stage(
            f"reward-models/{key}",
            self.trained(model, 2 * self.recipe.runtime.micro_batch, 0),
            self.hours(self.machine.shares.updating, passes, self.pairs * (self.usual + self.reply), model.parameters),
        )

    def policy_gradient(
        self, name: str, policy: PolicySettings, key: str, reward_model: RewardModelSettings
    ) -> PlannedStage:
        recipe, runtime, gradient = self.recipe, self.recipe.runtime, self.recipe.policy_gradient
        model, truth, rank = size(policy.model), self.ground_truth, policy.lora.rank if policy.lora else None
        teacher = reward_model.size(model, truth, size)
        memory = cost.memory(
            model,
            teacher if reward_model.holds_weights else None,
            truth,
            micro_batch=runtime.micro_batch,
            rows=runtime.batch_size,
            prompt=self.prompt,
            reply=self.reply,
            frozen=runtime.frozen_dtype,
            placement=runtime.frozen_placement,
            checkpointing=runtime.gradient_checkpointing,
            rank=rank,
            **self.shared_out,
        )
        steps = gradient.steps(self.prompts - self.pairs)
        seconds_a_step = cost.step(
            model,
            teacher,
            batch=gradient.batch_size,
            rows=runtime.batch_size,
            prompt=self.usual,
            reply=self.reply,
            machine=self.machine,
            rank=rank,
            gpus=self.gpus,
            engine=runtime.engine,
            **self.arithmetic,
        )
        evaluation = recipe.evaluation
        evaluations = round(gradient.epochs * evaluation.per_epoch) + 1
        replies = evaluation.prompts * evaluation.outputs * evaluations
        evaluating = self.sampling_hours(model, replies, runtime.compute_dtype) + self.hours(
            self.machine.shares.scoring,
            1,
            replies * (self.usual + self.reply),
            2 * model.parameters + teacher.parameters + truth.parameters,
        )
        hours = steps * sum(seconds_a_step.values()) / 3600 + evaluating
        return _stage(f"policy-gradient/{name}/{key}", memory, hours * len(recipe.seeds))


def _stage(name: str, memory: dict[str, float], hours: float) -> PlannedStage:
    """A planned stage, of bytes by part."""
    return PlannedStage(name, {part: amount / GB for part, amount in memory.items() if amount}, hours)


def largest(stages: Sequence[PlannedStage]) -> PlannedStage:
    """The stage that takes most memory."""
    return max(stages, key=lambda stage: stage.peak)


def lighter(recipe: Recipe, have: float, gpus: int = 1) -> str:
    """What would make a recipe fit `have` bytes, in words.

    The fewest of `LIGHTER` in their order, then adapters, then more GPUs.
    """

    def fits(recipe: Recipe, gpus: int) -> bool:
        return largest(plan(recipe, gpus)).peak * GB <= have

    already = recipe.runtime.model_dump()
    changed: dict[str, Any] = {}
    smaller = recipe
    for change in LIGHTER:
        if gpus > 1 and "optimizer" in change:
            continue
        milder = {
            key: value
            for key, value in change.items()
            if already[key] != value and not (key in ("batch_size", "micro_batch") and already[key] < value)
        }
        changed |= milder
        smaller = smaller.model_copy(update={"runtime": smaller.runtime.model_copy(update=milder)})
        if fits(smaller, gpus):
            changes = [f"--set runtime.{key}={str(value).lower()}" for key, value in changed.items()]
            return f"it would fit with {' '.join(changes)}"
    adapters = {name: spec.model_copy(update={"lora": spec.lora or ADAPTER}) for name, spec in recipe.policies.items()}
    if fits(smaller.model_copy(update={"policies": adapters}), gpus):
        return "it would fit with all of runtime made small and adapters in place of the weights, as in scale-8b-lora"
    whole = smaller.runtime.model_copy(update={"optimizer": "adam", "weights_dtype": "float32"})
    full = recipe.model_copy(update={"runtime": whole})
    count = next((n for n in (2, 4, 8, 16) if n > gpus and fits(full, n)), None)
    if count is None:
        return "choose a smaller model"
    return (
        f"it would fit {count} such GPUs with runtime.micro_batch=1, runtime.batch_size=8 and "
        "runtime.gradient_checkpointing=true"
    )


def hardware(recipe: Recipe) -> list[str]:
    """Sentences on why a recipe cannot run on this machine, whatever its memory.

    It needs a GPU and there is none, or one without bfloat16.
    """
    import torch  # asks this machine

    runtime, parameters = recipe.runtime, max(size(policy.model).parameters for policy in recipe.policies.values())
    if not torch.cuda.is_available():
        if parameters < NEEDS_GPU:
            return []
        return [
            f"A policy of {parameters / 1e9:.1f} billion parameters must have a GPU, but none is seen here; install "
            "its driver and torch's CUDA build, or choose small-4.1 or tiny-4.1."
        ]
    dtypes = (runtime.weights_dtype, runtime.compute_dtype, runtime.frozen_dtype)
    if "bfloat16" in dtypes and not torch.cuda.is_bf16_supported(including_emulation=False):
        fields = ("weights_dtype", "compute_dtype", "frozen_dtype")
        change = " ".join([f"--set runtime.{key}=float32" for key in fields] + ["--set runtime.optimizer=adam"])
        return [
            "The GPU must have bfloat16 arithmetic for this recipe, but the "
            f"{torch.cuda.get_device_name()} has not; use an A100 or a later one, or add {change}."
        ]
    return []


def disk(recipe: Recipe) -> float:
    """Bytes of files of a run at its end and when it saves.

    What it downloads (4 a weight, as some are stored), each model it makes, the checkpoints of the largest that it
    trains.
    """
    runtime, reward_models = recipe.runtime, recipe.reward_models.values()
    downloads = {recipe.ground_truth.model}.union(*(reward_model.downloads() for reward_model in reward_models))
    made: list[float] = []
    trained: list[float] = []
    for name, spec in recipe.policies.items():
        whole = size(spec.model).parameters
        moved = size(spec.model).adapter(spec.lora.rank) if spec.lora else whole
        teachers = sum(reward_model.is_trained_from(name) for reward_model in reward_models)
        made += [whole] * (1 + teachers) + [moved] * len(reward_models) * len(recipe.seeds)
        trained += [moved, *[whole] * bool(spec.demonstrations or teachers)]
        downloads.add(spec.model)
    stored = cost.BYTES[runtime.weights_dtype]
    # A new checkpoint is whole before the oldest goes.
    checkpoints = (KEPT_CHECKPOINTS + 1) * max(trained) * (stored + cost.MOMENTS[runtime.optimizer])
    downloaded = sum(size(name).parameters for name in downloads - {tiny.TINY, SMOLLM2})
    return 4 * downloaded + stored * sum(made) + checkpoints


def missing(recipe: Recipe, folder: pathlib.Path, stages: Sequence[PlannedStage], gpus: int = 1) -> list[str]:
    """Sentences on what this machine lacks for a plan: a GPU, sources, a token, disk, memory."""
    import huggingface_hub  # knows whether there is a token

    lacks = hardware(recipe)
    demonstrations = {policy.demonstrations for policy in recipe.policies.values() if policy.demonstrations}
    for source in {recipe.data.preferences} | demonstrations:
        if source not in sources.SOURCES and not os.path.exists(source):
            lacks.append(
                f"The source of examples {source!r} must be a .jsonl file or one of {', '.join(sources.SOURCES)}; "
                "name one."
            )
    models = {recipe.ground_truth.model, *(policy.model for policy in recipe.policies.values())}
    models = models.union(*(reward_model.downloads() for reward_model in recipe.reward_models.values()))
    gated = sorted(name for name in models if name.startswith(GATED))
    if gated and not huggingface_hub.get_token():
        lacks.append(
            f"{', '.join(gated)} must be downloaded with a token of somebody who accepted the licence, "
            "but none is set; run `hf auth login`."
        )
    needed = disk(recipe)
    parent = next(p for p in [folder, *folder.parents] if p.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        lacks.append(
            f"The disk of {folder} must have {needed / GB:.0f} GB free for models and checkpoints, "
            f"got {free / GB:.0f} GB; make room, or choose another --folder."
        )
    stage = largest(stages)
    have, where = _memory()
    if stage.peak * GB > have:
        part = stage.largest_part
        lacks.append(
            f"{where} must have {stage.peak:.1f} GB for {stage.name}, of which {part} "
            f"take{'' if part.endswith('s') else 's'} {stage.memory[part]:.1f}, got {have / GB:.1f} GB; "
            f"{lighter(recipe, have, gpus)}."
        )
    return lacks


def show(recipe: Recipe, folder: pathlib.Path, gpus: int = 1) -> str | None:
    """Print the plan; returns what is missing as one text, or None where nothing is.

    ValueError for several GPUs where one is all it can use.
    """
    from rich.console import Console  # slow to import, and only a dry run prints
    from rich.markup import escape

    gpus = _checks.whole("gpus", gpus)
    if gpus > 1 and recipe.runtime.optimizer == "adam8bit":
        raise ValueError(
            "runtime.optimizer must be adam with several GPUs, over which 32-bit weights are shared, got adam8bit "
            f"with {gpus}; add --set runtime.optimizer=adam --set runtime.weights_dtype=float32."
        )
    chosen = choose(recipe, _memory()[0], gpus)
    stages, console = plan(chosen, gpus), Console(highlight=False)
    stage = largest(stages)
    console.print(f"[bold]{escape(recipe.title)}[/bold]")
    console.print(f"→ {escape(str(folder))}\n", soft_wrap=True)
    rows = [(s.name, _amount(s.peak), s.largest_part, _amount(s.hours, 2)) for s in stages]
    rows.append(("all", "", "", _amount(sum(s.hours for s in stages))))
    console.print(_table(("stage", "GB", "mostly", "hours"), rows))
    on_each = f" on each of {gpus} GPUs" if gpus > 1 else ""
    console.print(f"\n[bold]{escape(stage.name)}: {stage.peak:.1f} GB{on_each} at the peak[/bold]")
    console.print(_table(("part", "GB"), [(part, _amount(amount)) for part, amount in stage.memory.items()]))
    if auto := recipe.runtime.auto():
        settings = ", ".join(f"{field}={str(getattr(chosen.runtime, field)).lower()}" for field in auto)
        console.print(f"\nChosen for this memory, as the recipe asks: {settings}.")
    machine = _machine()
    shares = machine.shares
    console.print(
        "\nKV cache, scoring and activations take turns: the largest of them counts. Hours are estimates for "
        f"{machine.name}, at the shares of its stated rates that were measured on an {shares.gpu} on {shares.date}: "
        f"sampling {shares.of_engine(recipe.runtime.engine):.0%} of the bandwidth, scoring {shares.scoring:.0%} and "
        f"learning {shares.updating:.0%} of the matrix rate. Files take {_amount(disk(recipe) / GB)} GB: models that "
        "are downloaded and made, and checkpoints. Nothing was downloaded."
    )
    return "\n".join(missing(chosen, folder, stages, gpus)) or None


def _amount(number: float, digits: int = 1) -> str:
    """A number as a table of a dry run has it, in which what is too small to be shown is not 0."""
    smallest = 10**-digits
    return f"<{smallest:g}" if 0 < number < smallest / 2 else f"{number:.{digits}f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    """A table narrow enough for a terminal of 80 columns; numbers, which are in columns of units, are on the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("GB", "hours") else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _machine() -> Machine:
    """The GPU here as a `cost.Machine`, if it is one that we know, else `MACHINE`."""
    import torch  # asks this machine

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return next((machine for model, machine in cost.MACHINES.items() if model in name), MACHINE)
    return MACHINE


def available_memory() -> float:
    """Bytes of memory that models can take here: the GPU's, or this machine's where there is none."""
    return _memory()[0]


def _memory() -> tuple[float, str]:
    """Bytes of memory that models can take here, and of what."""
    import psutil  # asks this machine
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1], "The GPU"
    return psutil.virtual_memory().total, "This machine, which has no GPU,"


def table() -> dict[str, dict[str, Any]]:
    """What the large recipes take on one GPU, for the book.

    {recipe: {"title", "stage", "parts": {part: GB}, "peak": GB, "hours": {GPU: hours}}}.
    """
    plans = {}
    for name in TOLD:
        recipe = recipes.load(name)
        # The smallest GPU that it fits, for the memory; each GPU for its hours.
        fits = [m for m in (MACHINE, cost.MACHINES["H200"]) if largest(plan(recipe, machine=m)).peak * GB <= m.memory]
        machine = (fits or [MACHINE])[0]
        stage = largest(plan(recipe, machine=machine))
        plans[name] = {
            "title": recipe.title,
            "machine": machine.name,
            "runtime": {field: getattr(choose(recipe, machine.memory).runtime, field) for field in recipes.CHOOSABLE},
            "stage": stage.name,
            "parts": {part: round(amount, 1) for part, amount in stage.memory.items()},
            "peak": round(stage.peak, 1),
            "hours": {
                key: round(sum(planned.hours for planned in plan(recipe, machine=machine)), 1)
                for key, machine in cost.MACHINES.items()
            },
        }
    return plans


if __name__ == "__main__":
    path = RESULTS / "plans.json"
    path.write_text(json.dumps(table(), indent=1) + "\n", encoding="utf-8")
