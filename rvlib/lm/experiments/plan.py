"""`rvlib run RECIPE --dry-run`: what a run would do, how much memory, disk and time it asks for, and what is missing here.

    rvlib run scale-8b --dry-run              on the GPU here, or on `MACHINE`
    rvlib run scale-8b --dry-run --gpus 4     what is trained shared out over four

Memory and time are those of `cost`, for the longest prompts and replies that a recipe allows; hours for prompts of 200 tokens, which
few exceed. Nothing is downloaded: sizes of the models in the shipped recipes are in `cost.MODELS`, others are asked of the hub.
"""

import os
import shutil
import types

from rvlib import _checks
from rvlib.files import RESULTS
from rvlib.lm import need
from rvlib.lm.data import sources, tiny
from rvlib.lm.experiments import cost
from rvlib.lm.experiments.cost import GB, MODELS, SHARE, Size
from rvlib.lm.models import SMOLLM2
from rvlib.lm.training import KEPT_CHECKPOINTS

MACHINE = cost.MACHINES["H100"]  # where there is no GPU to ask
GATED = ("meta-llama/", "google/")  # need a token of somebody who accepted the licence
ADAPTER = types.SimpleNamespace(rank=16, alpha=32)
TOLD = (
    "paper-4.1-pythia-1b",
    "paper-4.1-pythia-2.8b",
    "paper-4.2-llama-1b",
    "paper-4.2-llama-3b",
    "scale-8b-lora",
    "scale-8b",
)  # in the book
NEEDS_GPU = 0.9e9  # parameters of a policy from which on nobody waits for a CPU
PROMPTS = {
    "ultrafeedback": 41419,
    "ultrafeedback-chosen": 41419,
    "alpacafarm": 10000,
    "demo-preferences": 300,
    "demo-instructions": 999,
}  # at most 512 tokens
LIGHTER = (  # changes that make a run smaller, the mildest first
    {"micro_batch": 1},
    {"batch_size": 8},
    {"gradient_checkpointing": True},
    {"frozen_dtype": "bfloat16"},
    {"optimizer": "adam8bit", "weights_dtype": "bfloat16", "compute_dtype": "bfloat16"},
)


def size(name):
    """The `Size` of a model, by its name. OSError, one sentence, for one that neither `MODELS` nor the hub knows."""
    if name in MODELS:
        return MODELS[name]
    try:
        config = need("transformers").AutoConfig.from_pretrained(name)
        with need("torch").device("meta"):
            model = need("transformers").AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise OSError(
            f"The size of {name!r} must be known to plan, but its configuration did not load ({str(error).splitlines()[0]})."
        ) from error
    return shape(model)


def shape(model):
    """The `Size` of a causal language model that is there."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    each = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    gated = any("gate" in module for module, _ in model.named_modules())
    return Size(
        model.num_parameters(),
        config.num_hidden_layers,
        config.hidden_size,
        heads * each,
        config.vocab_size,
        config.intermediate_size,
        3 if gated else 2,
    )


def plan(recipe, gpus=1, machine=None):
    """[(stage, GB of memory by part {part: GB}, hours)] of a recipe, on each of `gpus`; `machine`: the GPU here, or `MACHINE`."""
    machine, runtime, gradient = machine or _machine(), recipe.runtime, recipe.policy_gradient
    prompts = recipe.data.prompts or PROMPTS.get(recipe.data.preferences, 1000)
    kept = round(prompts * recipe.data.reward_model_share)
    prompt, reply = recipe.data.max_tokens, gradient.max_new_tokens
    usual, truth, stages = min(prompt, cost.USUAL), size(recipe.ground_truth.model), []
    share = {
        "optimizer": runtime.optimizer,
        "dtype": runtime.weights_dtype,
        "compute": runtime.compute_dtype,
        "gpus": gpus,
    }
    work, read = (
        {"compute": runtime.compute_dtype, "checkpointing": runtime.gradient_checkpointing},
        cost.BYTES[runtime.frozen_dtype],
    )

    def trained(of, rows, reply):
        return cost.learning(of, **share) | {"activations": cost.updating(of, rows, prompt, reply, **work)}

    def hours(passes, tokens, parameters):  # of 2 N operations each
        return 2 * passes * tokens * parameters / (getattr(machine, runtime.compute_dtype) * SHARE * gpus) / 3600

    learnt = 3 + runtime.gradient_checkpointing
    for name, spec in recipe.policies.items():
        policy, number = size(spec.model), recipe.dtype(name)
        if spec.demonstrations:
            count = spec.count or PROMPTS.get(spec.demonstrations, prompts)
            stages.append(
                (
                    f"sft/{name}",
                    trained(policy, runtime.micro_batch, reply),
                    hours(learnt * recipe.sft.epochs, count * (usual + reply), policy.parameters),
                )
            )
        replies = 2 * kept * recipe.draws_pairs(name) + recipe.measure.prompts * recipe.measure.outputs
        memory = {"weights": policy.parameters * cost.BYTES[number], "ground truth": truth.parameters * read}
        memory |= {
            "KV cache": runtime.batch_size * (prompt + reply) * policy.layers * policy.keys * 2 * cost.BYTES[number]
        }
        memory |= {"scoring": cost.reading(policy, runtime.batch_size, prompt, reply, compute=number)}
        time = cost.sampling(policy, replies, runtime.batch_size, usual, reply, machine, number, gpus) / 3600 + hours(
            1, replies * (usual + reply), policy.parameters + truth.parameters
        )
        stages.append((f"samples and labels/{name}", memory, time))
        for key, rm in recipe.reward_models.items():
            teacher = size(rm.model) if rm.model else truth if rm.scale is not None else policy
            if rm.on_policy is not None:
                time = hours(2 * learnt * recipe.reward_training.epochs, kept * (usual + reply), policy.parameters)
                stages.append((f"reward-models/{key}", trained(policy, 2 * runtime.micro_batch, 0), time))
            rank = spec.lora.rank if spec.lora else None
            loaded = None if rm.scale is not None else teacher  # the ground truth is there already
            memory = cost.memory(
                policy,
                loaded,
                truth,
                micro_batch=runtime.micro_batch,
                rows=runtime.batch_size,
                prompt=prompt,
                reply=reply,
                frozen=runtime.frozen_dtype,
                checkpointing=runtime.gradient_checkpointing,
                rank=rank,
                **share,
            )
            steps = max(round(gradient.epochs * (prompts - kept) / gradient.batch_size), 1)
            one = sum(
                cost.step(
                    policy,
                    teacher,
                    batch=gradient.batch_size,
                    rows=runtime.batch_size,
                    prompt=usual,
                    reply=reply,
                    machine=machine,
                    rank=rank,
                    gpus=gpus,
                    **work,
                ).values()
            )
            seen = (
                recipe.evaluation.prompts
                * recipe.evaluation.outputs
                * (gradient.epochs * recipe.evaluation.per_epoch + 1)
            )
            judged = (
                cost.sampling(policy, seen, runtime.batch_size, usual, reply, machine, runtime.compute_dtype, gpus)
                / 3600
            )
            judged += hours(1, seen * (usual + reply), 2 * policy.parameters + teacher.parameters + truth.parameters)
            stages.append((f"policy-gradient/{name}/{key}", memory, (steps * one / 3600 + judged) * len(recipe.seeds)))
    return [
        (stage, {part: amount / GB for part, amount in memory.items() if amount}, time)
        for stage, memory, time in stages
    ]


def largest(stages):
    """(stage, {part: GB}, GB at its peak) of the stage that takes most memory."""
    stage, memory, _ = max(stages, key=lambda some: cost.total(some[1]))
    return stage, memory, cost.total(memory)


def lighter(recipe, have, gpus=1):
    """What would make a recipe fit `have` bytes, in words: the fewest of `LIGHTER` in their order, then adapters, then more GPUs."""
    runtime, changed, already = recipe.runtime, {}, recipe.runtime.model_dump()
    for change in LIGHTER:
        if gpus > 1 and "optimizer" in change:
            continue
        milder = {
            key: value
            for key, value in change.items()
            if already[key] != value and not (key in ("batch_size", "micro_batch") and already[key] < value)
        }
        runtime, changed = runtime.model_copy(update=milder), changed | milder
        smaller = recipe.model_copy(update={"runtime": runtime})
        if largest(plan(smaller, gpus))[2] * GB <= have:
            return "it would fit with " + " ".join(
                f"--set runtime.{key}={str(value).lower()}" for key, value in changed.items()
            )
    adapters = {name: spec.model_copy(update={"lora": spec.lora or ADAPTER}) for name, spec in recipe.policies.items()}
    if largest(plan(smaller.model_copy(update={"policies": adapters}), gpus))[2] * GB <= have:
        return "it would fit with all of runtime made small and adapters in place of the weights, as in scale-8b-lora"
    full = recipe.model_copy(
        update={"runtime": runtime.model_copy(update={"optimizer": "adam", "weights_dtype": "float32"})}
    )
    count = next((n for n in (2, 4, 8, 16) if n > gpus and largest(plan(full, n))[2] * GB <= have), None)
    return (
        f"it would fit {count} such GPUs with runtime.micro_batch=1, runtime.batch_size=8 and runtime.gradient_checkpointing=true"
        if count
        else "choose a smaller model"
    )


def hardware(recipe):
    """Sentences on why a recipe cannot run on this machine, whatever its memory: it needs a GPU and there is none, or one without bfloat16."""
    torch, runtime = need("torch"), recipe.runtime
    parameters = max(size(p.model).parameters for p in recipe.policies.values())
    if not torch.cuda.is_available():
        lack = f"A policy of {parameters / 1e9:.1f} billion parameters must have a GPU, but none is seen here; install its driver and torch's CUDA build, or choose small-4.1 or tiny-4.1."
        return [lack] if parameters >= NEEDS_GPU else []
    if "bfloat16" in (
        runtime.weights_dtype,
        runtime.compute_dtype,
        runtime.frozen_dtype,
    ) and not torch.cuda.is_bf16_supported(including_emulation=False):
        change = " ".join(
            f"--set runtime.{key}={value}"
            for key, value in {
                "weights_dtype": "float32",
                "compute_dtype": "float32",
                "frozen_dtype": "float32",
                "optimizer": "adam",
            }.items()
        )
        return [
            f"The GPU must have bfloat16 arithmetic for this recipe, but the {torch.cuda.get_device_name()} has not; use an A100 or a later one, or add {change}."
        ]
    return []


def disk(recipe):
    """Bytes of files of a run at its end and when it saves: what it downloads (4 a weight, as some are stored), each model it makes, the checkpoints of the largest that it trains."""
    runtime, downloads, made, trained = recipe.runtime, {recipe.ground_truth.model}, [], []
    for name, spec in recipe.policies.items():
        whole = size(spec.model).parameters
        moved = size(spec.model).adapter(spec.lora.rank) if spec.lora else whole
        teachers = [
            key for key, rm in recipe.reward_models.items() if rm.on_policy is not None and (rm.policy or name) == name
        ]
        made += [whole] * (1 + len(teachers)) + [moved] * len(recipe.reward_models) * len(recipe.seeds)
        trained += [moved, *[whole] * bool(spec.demonstrations or teachers)]
        downloads |= {spec.model, *(rm.model for rm in recipe.reward_models.values() if rm.model)}
    stored = cost.BYTES[runtime.weights_dtype]
    checkpoints = (
        (KEPT_CHECKPOINTS + 1) * max(trained) * (stored + cost.MOMENTS[runtime.optimizer])
    )  # a new one is whole before the oldest goes
    return (
        4 * sum(size(name).parameters for name in downloads - {tiny.TINY, SMOLLM2}) + stored * sum(made) + checkpoints
    )


def missing(recipe, folder, stages, gpus=1):
    """Sentences on what this machine lacks for a plan: a GPU, sources, a token, disk, memory."""
    lacks, names = (
        hardware(recipe),
        [p.model for p in recipe.policies.values()]
        + [r.model for r in recipe.reward_models.values() if r.model]
        + [recipe.ground_truth.model],
    )
    for source in {recipe.data.preferences, *(p.demonstrations for p in recipe.policies.values() if p.demonstrations)}:
        if source not in sources.SOURCES and not os.path.exists(source):
            lacks.append(
                f"The source of examples {source!r} must be a .jsonl file or one of {', '.join(sources.SOURCES)}; name one."
            )
    gated = sorted({name for name in names if name.startswith(GATED)})
    if gated and not need("huggingface_hub").get_token():
        lacks.append(
            f"{', '.join(gated)} must be downloaded with a token of somebody who accepted the licence, but none is set; run `hf auth login`."
        )
    wanted = disk(recipe)
    parent = next(p for p in [folder, *folder.parents] if p.exists())
    free = shutil.disk_usage(parent).free
    if wanted > free:
        lacks.append(
            f"The disk of {folder} must have {wanted / GB:.0f} GB free for models and checkpoints, got {free / GB:.0f} GB; make room, or choose another --folder."
        )
    stage, memory, peak = largest(stages)
    have, where = _memory()
    if peak * GB > have:
        part, amount = max(memory.items(), key=lambda item: item[1])
        lacks.append(
            f"{where} must have {peak:.1f} GB for {stage}, of which {part} take{'' if part.endswith('s') else 's'} {amount:.1f}, got {have / GB:.1f} GB; {lighter(recipe, have, gpus)}."
        )
    return lacks


def show(recipe, folder, gpus=1):
    """Print the plan; returns what is missing as one text, or None where nothing is. ValueError for several GPUs where one is all it can use."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    gpus = _checks.whole("gpus", gpus)
    if gpus > 1 and recipe.runtime.optimizer == "adam8bit":
        raise ValueError(
            f"runtime.optimizer must be adam with several GPUs, over which 32-bit weights are shared, got adam8bit with {gpus}; add --set runtime.optimizer=adam --set runtime.weights_dtype=float32."
        )
    stages, console = plan(recipe, gpus), Console()
    table = Table(
        Column("stage", overflow="fold"),
        "memory, GB",
        "largest parts, GB",
        "hours",
        title=escape(f"{recipe.title} → {folder}"),
    )
    for stage, memory, time in stages:
        parts = sorted(memory.items(), key=lambda item: -item[1])[:3]
        table.add_row(
            stage,
            f"{cost.total(memory):.1f}",
            ", ".join(f"{part} {amount:.1f}" for part, amount in parts),
            f"{time:.2f}",
        )
    table.add_row("all", "", "", f"{sum(time for *_, time in stages):.1f}")
    console.print(table)
    stage, memory, peak = largest(stages)
    parts = Table(
        "part",
        "GB",
        title=f"{stage}: {peak:.1f} GB{' on each of ' + str(gpus) + ' GPUs' if gpus > 1 else ''} at the peak",
    )
    for part, amount in memory.items():
        parts.add_row(part, f"{amount:.1f}")
    console.print(parts)
    console.print(
        f"KV cache, scoring and activations take turns: the largest of them counts. Hours are estimates, not measured: for {_machine().name} at {SHARE:.0%} of its stated rates. Files take {disk(recipe) / GB:.1f} GB: models that are downloaded and made, and checkpoints. Nothing was downloaded."
    )
    return "\n".join(missing(recipe, folder, stages, gpus)) or None


def _machine():
    """The GPU here as a `cost.Machine`, if it is one that we know, else `MACHINE`."""
    torch = need("torch")
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return next((machine for part, machine in cost.MACHINES.items() if part in name), MACHINE)
    return MACHINE


def _memory():
    """Bytes of memory that models can take here, and of what."""
    torch = need("torch")
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1], "The GPU"
    return need("psutil").virtual_memory().total, "This machine, which has no GPU,"


def table():
    """What the large recipes take, for the book: {recipe: {"title", "stage", "parts": {part: GB}, "peak": GB, "hours": {GPU: hours}}} on one GPU."""
    from rvlib.lm.experiments import recipe

    found = {}
    for name in TOLD:
        stages = plan(recipe.load(name), machine=MACHINE)
        stage, memory, peak = largest(stages)
        hours = {
            key: round(sum(time for *_, time in plan(recipe.load(name), machine=machine)), 1)
            for key, machine in cost.MACHINES.items()
        }
        found[name] = {
            "title": recipe.load(name).title,
            "stage": stage,
            "parts": {part: round(amount, 1) for part, amount in memory.items()},
            "peak": round(peak, 1),
            "hours": hours,
        }
    return found


if __name__ == "__main__":
    import json

    path = RESULTS / "plans.json"
    path.write_text(json.dumps(table(), indent=1) + "\n", encoding="utf-8")
