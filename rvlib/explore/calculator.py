"""The explorable of what policy gradient costs: memory by part against a GPU's, hours and money.

They are as `rvlib run RECIPE --dry-run` plans them. The page computes with web/cost.mjs, a port of
`rvlib.lm.experiments.cost`, on the sizes in web/sizes.mjs, written by `python -m rvlib.explore.calculator`.
"""

import dataclasses
import json

import traitlets

from rvlib.explore._controls import choice, main_controls, slider, toggle
from rvlib.explore._explorable import WEB, Explorable
from rvlib.lm.experiments import cost
from rvlib.lm.sampling import LOGITS_AT_ONCE

POLICIES = {
    "llama8b": ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
    "llama3b": ("Llama-3.2-3B", "meta-llama/Llama-3.2-3B"),
    "llama1b": ("Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
    "pythia3b": ("Pythia-2.8B", "EleutherAI/pythia-2.8b"),
    "pythia1b": ("Pythia-1B", "EleutherAI/pythia-1b"),
}
REWARD_MODELS = {
    "tulu": ("8B", "allenai/llama-3-tulu-2-8b-uf-mean-rm"),
    "grm": ("3B", "Ray2333/GRM-Llama3.2-3B-rewardmodel-ft"),
    "gemma": ("2B", "Ray2333/GRM-gemma2-2B-rewardmodel-ft"),
}
TRUTH = "RLHFlow/ArmoRM-Llama3-8B-v0.1"
METHODS = {  # what `cost.memory` and `cost.step` are called with
    "adam8bit": {"optimizer": "adam8bit", "weights_dtype": "bfloat16", "rank": None},
    "lora": {"optimizer": "adam", "weights_dtype": "float32", "rank": 64},
    "adam": {"optimizer": "adam", "weights_dtype": "float32", "rank": None},
}


def module() -> str:
    """The text of web/sizes.mjs."""
    sizes = {key: dataclasses.asdict(cost.MODELS[name]) for key, (_, name) in (POLICIES | REWARD_MODELS).items()} | {
        "truth": dataclasses.asdict(cost.MODELS[TRUTH])
    }
    parts = {
        "SIZES": sizes,
        "MACHINES": {key: dataclasses.asdict(machine) | _shares(machine) for key, machine in cost.MACHINES.items()},
        "METHODS": METHODS,
    }
    parts |= {
        "LOGITS": LOGITS_AT_ONCE,
        "USUAL_PROMPT_TOKENS": cost.USUAL_PROMPT_TOKENS,
        "BYTES": cost.BYTES,
        "MOMENTS": cost.MOMENTS,
    }
    return "// Shapes of models and rates of GPUs, written by `python -m rvlib.explore.calculator`.\n" + "".join(
        f"export const {name} = {json.dumps(value)};\n" for name, value in parts.items()
    )


def _shares(machine: cost.Machine) -> dict[str, dict[str, float]]:
    """The shares of a GPU's rates that the stages reach, with the engine `generate`."""
    shares = machine.shares
    return {
        "shares": {
            "sampling": shares.of_engine("generate"),
            "scoring": shares.scoring,
            "updating": shares.updating,
        }
    }


class Calculator(Explorable):
    """What a step of policy gradient costs, by model, method and GPU.

    Shown are memory by part against the GPU's, hours and money.
    """

    alt = (
        "Memory of policy gradient on Llama-3.1-8B by part, each bar beginning where the one before it ends: weights, "
        "gradients and optimiser of some 16 GB each, reference, reward model and ground truth of some 15 GB each, and "
        "on top of them the cache of sampling, the work of scoring and the activations of learning side by side. All "
        "stay left of the line at 141 GB. Below, the time of one step: sampling, scoring and learning."
    )
    caption = traitlets.Unicode(
        "Each bar begins where the one above it ends. Sampling, scoring and learning take turns, so only the longest "
        "of the last bars counts. Memory is the planner’s, for the longest prompts and replies. Time is an estimate "
        "from the shares of a GPU’s rates that were measured on one H200."
    ).tag(sync=True)
    main = main_controls("method")

    policy = choice({key: label for key, (label, _) in POLICIES.items()}, group="Policy", label="Policy")
    teacher = choice(
        {key: label for key, (label, _) in REWARD_MODELS.items()},
        group="Reward model",
        label="Size of the reward model",
    )
    method = choice(
        {"adam8bit": "all weights, 8-bit Adam", "lora": "adapters of rank 64", "adam": "all weights, 32-bit Adam"},
        group="What learns",
        label="What learns, and by which optimiser",
    )
    checkpointing = toggle(
        True,
        group="Activations",
        label="computed twice",
        help="Gradient checkpointing: each layer keeps its input alone",
    )
    gpu = choice(
        {key: f"{key}, {machine.memory / 1e9:.0f} GB" for key, machine in cost.MACHINES.items()},
        group="GPU",
        label="GPU",
    )
    gpus = slider(
        1,
        1,
        8,
        1,
        group="GPU",
        label="how many",
        whole=True,
        help="GPUs over which what learns is shared by FSDP2; 8-bit Adam runs on one",
    )
    price = slider(
        cost.PRICE,
        0.5,
        12,
        0.1,
        group="GPU",
        label="dollars an hour",
        help="Of one GPU: what yours costs, or what it could be let for",
    )
    batch = slider(
        32,
        4,
        256,
        4,
        group="A step",
        label="replies a step",
        whole=True,
        help="Replies sampled, scored and learnt from in one step",
    )
    rows = slider(
        32,
        1,
        64,
        1,
        group="A step",
        label="sampled at once",
        whole=True,
        help="runtime.batch_size: replies that are sampled or scored at once",
    )
    micro_batch = slider(
        8,
        1,
        16,
        1,
        group="A step",
        label="learnt from at once",
        whole=True,
        help="runtime.micro_batch: replies whose gradient is computed at once",
    )
    prompt = slider(
        512,
        16,
        2048,
        16,
        group="Tokens",
        label="longest prompt",
        whole=True,
        help="Tokens; for time a prompt counts as at most 200",
    )
    reply = slider(
        512,
        16,
        4096,
        16,
        group="Tokens",
        label="longest reply",
        whole=True,
        help="Tokens; every reply is taken to be as long",
    )
    replies = slider(
        16568,
        1000,
        1e6,
        0.02,
        group="Tokens",
        label="replies in all",
        log=True,
        whole=True,
        help="Learnt from in the whole run: two epochs of the paper's are 16,568",
    )


if __name__ == "__main__":
    (WEB / "sizes.mjs").write_text(module(), encoding="utf-8")
