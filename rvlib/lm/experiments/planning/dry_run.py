"""`rvlib run RECIPE --dry-run`: what a run would do, what memory, disk and time it asks for, and what is missing here.

    rvlib run scale-8b --dry-run                       on the GPU here, or on `plan.MACHINE`
    rvlib run scale-8b --dry-run --gpus 4              what is trained shared out over four
    python -m rvlib.lm.experiments.planning.dry_run    the plans that the book shows

Nothing is downloaded.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, TypedDict

from rvlib import _checks
from rvlib.files import RESULTS, write_text
from rvlib.lm.data import sources, tiny
from rvlib.lm.experiments import cost
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments.cost import GB
from rvlib.lm.experiments.planning import plan, sizes
from rvlib.lm.experiments.planning.planned_stages import PlannedStage, Planner
from rvlib.lm.experiments.recipe import LoRA, Recipe
from rvlib.lm.experiments.table import Table
from rvlib.lm.models import SMOLLM2
from rvlib.lm.training import KEPT_CHECKPOINTS
from rvlib.results import SmallPlan

GATED = ("meta-llama/", "google/")  # need a token of somebody who accepted the licence
ADAPTER = LoRA(rank=16, alpha=32)
RECIPES_IN_BOOK = (
    "paper-4.1-pythia-1b",
    "paper-4.1-pythia-2.8b",
    "paper-4.2-llama-1b",
    "paper-4.2-llama-3b",
    "scale-8b-lora",
    "scale-8b",
)
SMALL_IN_BOOK = ("small-4.1", "small-4.2", "small-study")
JOBS = (1, 8)  # trainings at once, for which the book has the minutes of the small recipes
NEEDS_GPU = 0.9e9  # parameters from which on a policy is too slow on a CPU
LIGHTER: tuple[dict[str, Any], ...] = (  # changes to `runtime` that make a run smaller, the mildest first
    {"micro_batch": 1},
    {"batch_size": 8},
    {"gradient_checkpointing": True},
    {"frozen_dtype": "bfloat16"},
    {"optimizer": "adam8bit", "weights_dtype": "bfloat16", "compute_dtype": "bfloat16"},
)


def lighter(recipe: Recipe, have: float, gpus: int = 1) -> str:
    """What would make a recipe fit into `have` bytes, in words.

    The first changes of `LIGHTER` that are enough, else adapters, else more GPUs.
    """

    def fits(recipe: Recipe, gpus: int) -> bool:
        return plan.largest(plan.plan(recipe, gpus)).peak * GB <= have

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

    runtime = recipe.runtime
    parameters = max(sizes.size(policy.model).parameters for policy in recipe.policies.values())
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
        whole = sizes.size(spec.model).parameters
        moved = sizes.size(spec.model).adapter(spec.lora.rank) if spec.lora else whole
        teachers = sum(reward_model.is_trained_from(name) for reward_model in reward_models)
        made += [whole] * (1 + teachers) + [moved] * len(reward_models) * len(recipe.seeds)
        trained += [moved, *[whole] * bool(spec.demonstrations or teachers)]
        downloads.add(spec.model)
    stored = cost.BYTES[runtime.weights_dtype]
    # A new checkpoint is whole before the oldest goes.
    checkpoints = (KEPT_CHECKPOINTS + 1) * max(trained) * (stored + cost.MOMENTS[runtime.optimizer])
    downloaded = sum(sizes.size(name).parameters for name in downloads - {tiny.TINY, SMOLLM2})
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
    parent = next(place for place in [folder, *folder.parents] if place.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        lacks.append(
            f"The disk of {folder} must have {needed / GB:.0f} GB free for models and checkpoints, "
            f"got {free / GB:.0f} GB; make room, or choose another --folder."
        )
    stage = plan.largest(stages)
    have, where = plan.memory_here()
    if stage.peak * GB > have:
        part = stage.largest_part
        lacks.append(
            f"{where} must have {stage.peak:.1f} GB for {stage.name}, of which {part} "
            f"take{'' if part.endswith('s') else 's'} {stage.memory[part]:.1f}, got {have / GB:.1f} GB; "
            f"{lighter(recipe, have, gpus)}."
        )
    return lacks


def show(recipe: Recipe, folder: pathlib.Path, gpus: int = 1, jobs: int = 1) -> str | None:
    """Print the plan; returns what is missing as one text, or None where nothing is.

    gpus: that share what is trained; jobs: trainings by policy gradient at once on one GPU. ValueError for several GPUs
    where one is all it can use.
    """
    from rich.console import Console  # slow to import, and only a dry run prints
    from rich.markup import escape

    gpus = _checks.whole("gpus", gpus)
    if gpus > 1 and recipe.runtime.optimizer == "adam8bit":
        raise ValueError(
            "runtime.optimizer must be adam with several GPUs, over which 32-bit weights are shared, got adam8bit "
            f"with {gpus}; add --set runtime.optimizer=adam --set runtime.weights_dtype=float32."
        )
    resolved = plan.choose(recipe, plan.memory_here()[0], gpus)
    stages, console = plan.plan(resolved, gpus), Console(highlight=False)
    stage = plan.largest(stages)
    console.print(f"[bold]{escape(recipe.title)}[/bold]")
    console.print(f"→ {escape(str(folder))}\n", soft_wrap=True)
    hours = plan.hours(stages)
    unit, of_an_hour, digits = ("hours", 1, 2) if hours >= 1 else ("minutes", 60, 1)
    rows = [[s.name, _amount(s.peak), s.largest_part, _amount(s.hours * of_an_hour, digits)] for s in stages]
    rows.append(["all", "", "", _amount(hours * of_an_hour)])
    if jobs > 1:
        rows.append([f"all, {jobs} trainings at once", "", "", _amount(plan.hours(stages, jobs) * of_an_hour)])
    stage_table = Table("stages", ["stage", "GB", "mostly", unit], rows)
    console.print(stage_table.in_terminal(console.width, numbers=("GB", unit)))
    on_each = f" on each of {gpus} GPUs" if gpus > 1 else ""
    console.print(f"\n[bold]{escape(stage.name)}: {stage.peak:.1f} GB{on_each} at the peak[/bold]")
    parts = Table("memory", ["part", "GB"], [[part, _amount(amount)] for part, amount in stage.memory.items()])
    console.print(parts.in_terminal(console.width, numbers=("GB",)))
    if auto := recipe.runtime.auto():
        settings = ", ".join(f"{field}={str(getattr(resolved.runtime, field)).lower()}" for field in auto)
        console.print(f"\nChosen for this memory, as the recipe asks: {settings}.")
    machine = plan.machine_here()
    shares, engine = machine.shares, Planner(resolved, gpus, machine).engine
    console.print(
        "\nKV cache, scoring and activations take turns: the largest of them counts. Times are estimates for "
        f"{machine.name}, at the shares of its stated rates that were measured on an {shares.gpu} on "
        f"{' and '.join(shares.days(engine))}: sampling {shares.of_engine(engine):.0%} of the bandwidth (by the engine "
        f"{shares.measured_engine(engine)}), scoring {shares.scoring:.0%} and "
        f"learning {shares.updating:.0%} of the matrix rate, but no faster than kernels are launched. Files take "
        f"{_amount(disk(recipe) / GB)} GB: models that are downloaded and made, and checkpoints. Nothing was "
        "downloaded."
    )
    return "\n".join(missing(resolved, folder, stages, gpus)) or None


def _amount(number: float, digits: int = 1) -> str:
    """A number as a table of a dry run has it, in which what is too small to be shown is not 0."""
    smallest = 10**-digits
    return f"<{smallest:g}" if 0 < number < smallest / 2 else f"{number:.{digits}f}"


class BookPlan(TypedDict):
    """What a large recipe takes on one GPU, as the book reads it."""

    title: str
    machine: str  # the smallest GPU that it fits
    runtime: dict[str, bool | int | str]  # of `recipe.CHOOSABLE`, as the planner sets them for that GPU
    stage: str  # the largest
    parts: dict[str, float]  # its memory, GB
    peak: float  # GB
    hours: dict[str, float]  # of the whole recipe, by GPU


def plans() -> dict[str, BookPlan]:
    """The plans of `RECIPES_IN_BOOK`."""
    plans: dict[str, BookPlan] = {}
    for name in RECIPES_IN_BOOK:
        recipe = recipes.load(name)
        # The smallest GPU that it fits, for the memory; each GPU for its hours.
        fits = [
            m
            for m in (plan.MACHINE, cost.MACHINES["H200"])
            if plan.largest(plan.plan(recipe, machine=m)).peak * GB <= m.memory
        ]
        machine = (fits or [plan.MACHINE])[0]
        stage = plan.largest(plan.plan(recipe, machine=machine))
        plans[name] = {
            "title": recipe.title,
            "machine": machine.name,
            "runtime": {
                field: getattr(plan.choose(recipe, machine.memory).runtime, field) for field in recipes.CHOOSABLE
            },
            "stage": stage.name,
            "parts": {part: round(amount, 1) for part, amount in stage.memory.items()},
            "peak": round(stage.peak, 1),
            "hours": {
                key: round(plan.hours(plan.plan(recipe, machine=machine)), 1) for key, machine in cost.MACHINES.items()
            },
        }
    return plans


def small_plans() -> dict[str, SmallPlan]:
    """The plans of `SMALL_IN_BOOK`, for `plan.MACHINE`."""
    plans: dict[str, SmallPlan] = {}
    for name in SMALL_IN_BOOK:
        recipe = recipes.load(name)
        stages = plan.plan(recipe, machine=plan.MACHINE)
        plans[name] = {
            "gpu": plan.MACHINE.name,
            "minutes": {str(jobs): round(60 * plan.hours(stages, jobs), 1) for jobs in JOBS},
            "disk": round(disk(recipe) / GB, 1),
        }
    return plans


if __name__ == "__main__":
    for name, content in (("plans.json", plans()), ("small_plans.json", small_plans())):
        write_text(RESULTS / name, json.dumps(content, indent=1) + "\n")
