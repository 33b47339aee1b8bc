"""`rvlib run RECIPE --dry-run`: what a run would do, how much memory, disk and time it asks for, and what is missing here.

Memory of a stage, in bytes: 16 for each parameter that is trained (32-bit weights, gradient, Adam's two moments), 4 or 2 for each
that is only read, and what one micro-batch and one batch of sampling keep. Time: 6 N floating-point operations a token trained
on, 2 N a token read, at `SHARE` of the machine's matrix rate; sampling reads all weights once for each token of the longest reply.
Nothing is downloaded: sizes of the models in the shipped recipes are in `MODELS`, others are asked of the hub.
"""

import os
import shutil
from dataclasses import dataclass

from rvlib.lm import models, need, reward_models, sources, tiny

GB = 1e9
SHARE = 0.35  # of the matrix rate and of the memory bandwidth, what such loops reach with Hugging Face models
MACHINE = {"matrix": 400e12, "bandwidth": 3e12, "words": "one H100 with bfloat16 arithmetic"}  # where there is no GPU to ask
GATED = ("meta-llama/", "google/")  # need a token of somebody who accepted the licence


@dataclass(frozen=True)
class Size:
    """Parameters, layers, width, width of keys and values, and vocabulary of a model."""

    parameters: float
    layers: int = 32
    width: int = 4096
    keys: int = 1024
    vocabulary: int = 128256


MODELS = {
    tiny.TINY: Size(0.1e6, 2, 64, 64, 90),
    models.SMOLLM2: Size(134.5e6, 30, 576, 192, 49152),
    "EleutherAI/pythia-1b": Size(1.012e9, 16, 2048, 2048, 50304),
    "EleutherAI/pythia-2.8b": Size(2.775e9, 32, 2560, 2560, 50304),
    "meta-llama/Llama-3.2-1B": Size(1.236e9, 16, 2048, 512, 128256),
    "meta-llama/Llama-3.2-1B-Instruct": Size(1.236e9, 16, 2048, 512, 128256),
    "meta-llama/Llama-3.2-3B": Size(3.213e9, 28, 3072, 1024, 128256),
    "meta-llama/Llama-3.2-3B-Instruct": Size(3.213e9, 28, 3072, 1024, 128256),
    "Ray2333/GRM-Llama3.2-3B-rewardmodel-ft": Size(3.213e9, 28, 3072, 1024, 128256),
    "Ray2333/GRM-gemma2-2B-rewardmodel-ft": Size(2.614e9, 26, 2304, 1024, 256000),
    "weqweasdas/RM-Gemma-2B": Size(2.506e9, 18, 2048, 256, 256000),
    "allenai/llama-3-tulu-2-8b-uf-mean-rm": Size(7.505e9),
    reward_models.ARMORM: Size(7.511e9),
    "sentiment": Size(0), "positivity": Size(0), "similarity": Size(22.7e6, 6, 384, 384, 30522),
}  # fmt: skip
PROMPTS = {"ultrafeedback": 41419, "ultrafeedback-chosen": 41419, "alpacafarm": 10000, "demo-preferences": 300, "demo-instructions": 999}  # at most 512 tokens


def size(name):
    """The `Size` of a model, by its name. OSError, one sentence, for one that neither `MODELS` nor the hub knows."""
    if name in MODELS:
        return MODELS[name]
    try:
        config = need("transformers").AutoConfig.from_pretrained(name)
        model = need("accelerate").init_empty_weights
        with model():
            parameters = need("transformers").AutoModelForCausalLM.from_config(config).num_parameters()
    except Exception as error:
        raise OSError(f"The size of {name!r} must be known to plan, but its configuration did not load ({str(error).splitlines()[0]}).") from error
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    return Size(parameters, config.num_hidden_layers, config.hidden_size, heads * config.hidden_size // config.num_attention_heads, config.vocab_size)


def plan(recipe):
    """[(stage, GB of memory by part {part: GB}, hours)] of a recipe, on one GPU; an hour is on the GPU here, or on `MACHINE`."""
    machine, limits, gradient = _machine(), recipe.limits, recipe.policy_gradient
    read = 2 if limits.frozen == "bfloat16" else 4
    prompts = recipe.data.prompts or PROMPTS.get(recipe.data.preferences, 1000)
    kept = round(prompts * recipe.data.reward_model_share)
    reply, text = gradient.max_new_tokens, gradient.max_new_tokens + min(recipe.data.max_tokens, 200)  # prompts are seldom as long as they may be
    truth, stages = size(recipe.ground_truth.model), []

    def trained(of, rows, tokens, logits):
        activations = rows * tokens * of.layers * of.width * 34 * 2 + rows * logits * of.vocabulary * 12
        return {"weights": of.parameters * 4, "gradient": of.parameters * 4, "optimiser": of.parameters * 8, "activations and logits": activations}

    def hours(flops=0.0, steps_read=0.0):
        return (flops / (machine["matrix"] * SHARE) + steps_read / (machine["bandwidth"] * SHARE)) / 3600

    def cache(of, rows):
        return rows * text * of.layers * of.keys * 2 * 4

    for name, spec in recipe.policies.items():
        policy = size(spec.model)
        if spec.demonstrations:
            count = spec.count or PROMPTS.get(spec.demonstrations, prompts)
            stages.append((f"sft/{name}", trained(policy, limits.micro_batch, text, reply), hours(6 * policy.parameters * count * text * recipe.sft.epochs)))
        replies = 2 * kept + recipe.measure.prompts * recipe.measure.outputs
        sampling = {"weights": policy.parameters * 4, "keys and values": cache(policy, limits.rows), "ground truth": truth.parameters * read}
        stages.append((f"samples and labels/{name}", sampling, hours(2 * (policy.parameters + truth.parameters) * replies * text, replies / limits.rows * reply * policy.parameters * 4)))
        for key, rm in recipe.reward_models.items():
            teacher = size(rm.model) if rm.model else truth if rm.scale is not None else policy
            if rm.on_policy is not None:
                stages.append((f"reward-models/{key}", trained(policy, 2 * limits.micro_batch, text, 0), hours(12 * policy.parameters * kept * text * recipe.reward_training.epochs)))
            count = gradient.epochs * (prompts - kept)
            seen = recipe.evaluation.prompts * recipe.evaluation.outputs * (gradient.epochs * recipe.evaluation.per_epoch + 1)
            flops = count * text * (10 * policy.parameters + 2 * teacher.parameters) + seen * text * 2 * (3 * policy.parameters + teacher.parameters + truth.parameters)
            memory = trained(policy, limits.micro_batch, text, reply) | {"reference": policy.parameters * read, "keys and values": cache(policy, min(limits.rows, 64))}
            memory |= {"reward model": teacher.parameters * read * (rm.scale is None), "ground truth": truth.parameters * read}
            steps = (count / gradient.batch + seen / limits.rows) * reply
            stages.append((f"policy-gradient/{name}/{key}", memory, hours(flops, steps * policy.parameters * 4) * len(recipe.seeds)))
    return [(stage, {part: amount / GB for part, amount in memory.items() if amount}, time) for stage, memory, time in stages]


def missing(recipe, folder, stages):
    """Sentences on what this machine lacks for a plan: packages, sources, a token, disk, memory."""
    lacks, names = [], [p.model for p in recipe.policies.values()] + [r.model for r in recipe.reward_models.values() if r.model] + [recipe.ground_truth.model]
    for source in {recipe.data.preferences, *(p.demonstrations for p in recipe.policies.values() if p.demonstrations)}:
        if source not in sources.SOURCES and not os.path.exists(source):
            lacks.append(f"The source of examples {source!r} must be a .jsonl file or one of {', '.join(sources.SOURCES)}; name one.")
    gated = sorted({name for name in names if name.startswith(GATED)})
    if gated and not need("huggingface_hub").get_token():
        lacks.append(f"{', '.join(gated)} must be downloaded with a token of somebody who accepted the licence, but none is set; run `hf auth login`.")
    largest = max((size(p.model).parameters for p in recipe.policies.values()), default=0)
    wanted = sum(4 * size(name).parameters for name in set(names) if name not in (tiny.TINY, models.SMOLLM2)) + 2 * 12 * largest
    wanted += 4 * largest * (1 + len(recipe.reward_models) * (1 + len(recipe.seeds)))
    parent = next(p for p in [folder, *folder.parents] if p.exists())
    free = shutil.disk_usage(parent).free
    if wanted > free:
        lacks.append(f"The disk of {folder} must have {wanted / GB:.0f} GB free for models and checkpoints, got {free / GB:.0f} GB; make room, or choose another --folder.")
    stage, memory, _ = max(stages, key=lambda s: sum(s[1].values()))
    have, where = _memory()
    if sum(memory.values()) * GB > have:
        part, amount = max(memory.items(), key=lambda item: item[1])
        lacks.append(f"{where} must have {sum(memory.values()):.1f} GB for {stage}, of which {part} takes {amount:.1f}, got {have / GB:.1f} GB; use a larger GPU, or lower limits.rows and limits.micro_batch.")
    return lacks


def show(recipe, folder):
    """Print the plan; returns what is missing as one text, or None where nothing is."""
    from rich.console import Console
    from rich.table import Column, Table

    stages, console = plan(recipe), Console()
    table = Table(Column("stage", overflow="fold"), "memory, GB", "largest parts, GB", "hours", title=f"{recipe.title} → {folder}")
    for stage, memory, time in stages:
        parts = sorted(memory.items(), key=lambda item: -item[1])[:3]
        table.add_row(stage, f"{sum(memory.values()):.1f}", ", ".join(f"{part} {amount:.1f}" for part, amount in parts), f"{time:.2f}")
    table.add_row("all", "", "", f"{sum(time for *_, time in stages):.1f}")
    console.print(table)
    console.print(f"Hours are estimates for {_machine()['words']} at {SHARE:.0%} of its rates. Nothing was downloaded.")
    return "\n".join(missing(recipe, folder, stages)) or None


def _machine():
    """Matrix rate (operations a second) and memory bandwidth (bytes a second) of the GPU here, if it is one that we know."""
    torch = need("torch")
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        known = {"H200": (800e12, 4.8e12), "H100": (800e12, 3.3e12), "A100": (312e12, 2e12)}
        for part, (matrix, bandwidth) in known.items():
            if part in name:
                return {"matrix": matrix, "bandwidth": bandwidth, "words": f"the {name} here"}
    return MACHINE


def _memory():
    """Bytes of memory that models can take here, and of what."""
    torch = need("torch")
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1], "The GPU"
    return need("psutil").virtual_memory().total, "This machine, which has no GPU,"
