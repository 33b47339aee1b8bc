"""What policy gradient on a language model costs, from the shapes of the models: bytes of memory by part, and seconds.

    weights + gradients + moments = N (4 + 4 + 8) bytes in 32 bits
                                    N (4 + 2 + 4 + 2 + 8) with bfloat16 copies of 32-bit weights
                                    N (2 + 2 + 2.03) in bfloat16 with stochastic rounding and 8-bit moments

Time is that of a roofline: 2 N operations for each token that is scored, 6 N for each in training (2 N more if
activations are computed twice, 2 N fewer if only an adapter is trained). Sampling reads all weights and half a full
cache once for each token of the longest reply. Each stage runs at the share of the GPU's stated rates that was measured
for it (`rates`, `Machine.shares`). A page computes the same (web/cost.mjs). A small model takes longer than that, since
launching a kernel takes a time of its own (`launching`), which a plan counts too.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from rvlib.files import RESULTS
from rvlib.lm.sampling import LOGITS_AT_ONCE

GB = 1e9
PRICE = 3.0  # dollars for an hour of a GPU: an assumption
BYTES = {"float32": 4, "bfloat16": 2}
# Bytes of both moments, a parameter; in 8 bits a block of 256 shares a 32-bit scale.
MOMENTS = {"adam": 8, "adam8bit": 2 + 2 * 4 / 256}
# Sampling, scoring and training take turns, so only the largest of these groups of parts counts.
TURNS = (("KV cache", "gathered weights"), ("scoring",), ("activations",))
USUAL_PROMPT_TOKENS = 200  # few prompts have more; for time alone, since memory is for the longest
# 16 token steps of 64 rows through SmolLM2-135M's 30 layers by `generate`, profiled on an H200 on 2026-11-26 (`profile`
# in benchmarks/results/gpu-h200-llama-3.1-8b.json): 16,642 launches, 376 ms on the host and 49 ms on the GPU.
KERNELS_PER_LAYER = 16_642 / 16 / 30  # of a forward pass; a backward pass has about twice as many
LAUNCH_SECONDS = 0.376 / 16_642  # of a kernel that Python launches
REPLAY_SECONDS = 0.049 / 16_642  # of a kernel as small as these on the GPU, as when a CUDA graph replays it


@dataclass(frozen=True)
class Size:
    """The shape of a language model; by default that of Llama 3.1 8B's layers."""

    parameters: float
    layers: int = 32
    width: int = 4096
    keys: int = 1024  # width of a token's keys, and of its values
    vocabulary: int = 128256
    inner: int = 14336  # width of the feed-forward layers
    matrices: int = 3  # of a feed-forward layer; 2 without a gate

    def adapter(self, rank: int) -> int:
        """Parameters of adapters of `rank` on every linear layer: rank × (inputs + outputs) for each."""
        attention = 2 * (2 * self.width) + 2 * (self.width + self.keys)
        return rank * self.layers * (attention + self.matrices * (self.width + self.inner))


@dataclass(frozen=True)
class Shares:
    """What share of a GPU's stated rates the stages of a step reach: see `rates`."""

    sampling: dict[str, float]  # of the bandwidth, by engine
    scoring: float  # of the matrix rate
    updating: float
    gpu: str  # on which this was measured
    dates: dict[str, str]  # when: by engine, and of "scoring" and "updating"

    def measured_engine(self, engine: str) -> str:
        """The engine itself if it was measured, else the best of those that were."""
        return engine if engine in self.sampling else max(self.sampling, key=lambda name: self.sampling[name])

    def of_engine(self, engine: str) -> float:
        """The share of the bandwidth that an engine reaches, or what stands for it (`measured_engine`)."""
        return self.sampling[self.measured_engine(engine)]

    def days(self, engine: str) -> list[str]:
        """When the shares of sampling by an engine, of scoring and of updating were measured, in order."""
        return sorted({self.dates[part] for part in (self.measured_engine(engine), "scoring", "updating")})


RATES = {gpu: Shares(**shares) for gpu, shares in json.loads((RESULTS / "rates.json").read_text("utf-8")).items()}


@dataclass(frozen=True)
class Machine:
    """A GPU as its maker states it, and the shares of its rates that were measured on it, or else on an H200."""

    name: str
    memory: float  # bytes
    bfloat16: float  # dense matrix operations a second
    float32: float
    bandwidth: float  # of memory, bytes a second

    @property
    def shares(self) -> Shares:
        """What share of these rates the stages reach."""
        return RATES.get(self.name, RATES["H200"])


MODELS = {
    "tiny": Size(93_248, 2, 64, 64, 86, 128),
    "SmolLM2-135M-Instruct": Size(134_515_008, 30, 576, 192, 49152, 1536),
    "EleutherAI/pythia-1b": Size(1_011_781_632, 16, 2048, 2048, 50304, 8192, 2),
    "EleutherAI/pythia-2.8b": Size(2_775_208_960, 32, 2560, 2560, 50304, 10240, 2),
    "meta-llama/Llama-3.2-1B": Size(1_235_814_400, 16, 2048, 512, 128256, 8192),
    "meta-llama/Llama-3.2-1B-Instruct": Size(1_235_814_400, 16, 2048, 512, 128256, 8192),
    "meta-llama/Llama-3.2-3B": Size(3_212_749_824, 28, 3072, 1024, 128256, 8192),
    "meta-llama/Llama-3.2-3B-Instruct": Size(3_212_749_824, 28, 3072, 1024, 128256, 8192),
    "meta-llama/Llama-3.1-8B": Size(8_030_261_248),
    "meta-llama/Llama-3.1-8B-Instruct": Size(8_030_261_248),
    "Ray2333/GRM-Llama3.2-3B-rewardmodel-ft": Size(3_212_752_896, 28, 3072, 1024, 128256, 8192),
    "Ray2333/GRM-gemma2-2B-rewardmodel-ft": Size(2_614_344_192, 26, 2304, 1024, 256000, 9216),
    "weqweasdas/RM-Gemma-2B": Size(2_506_174_464, 18, 2048, 256, 256000, 16384),
    "allenai/llama-3-tulu-2-8b-uf-mean-rm": Size(7_504_928_768),
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": Size(7_511_000_000),  # with its gating layers, rounded
    "sentiment": Size(0),
    "positivity": Size(0),
    "similarity": Size(22_713_216, 6, 384, 384, 30522, 1536, 2),
}
MACHINES = {
    "H200": Machine("H200", 141e9, 989e12, 67e12, 4.8e12),
    "H100": Machine("H100", 80e9, 989e12, 67e12, 3.35e12),
    "A100": Machine("A100", 80e9, 312e12, 19.5e12, 2.04e12),
}


def named(architecture: str) -> str | None:
    """The model of `MODELS` that has an architecture by its short name, "llama-3.1-8b"; None where there is none."""
    return next(
        (name for name in MODELS if name.rpartition("/")[2].lower() in (architecture, f"{architecture}-instruct")), None
    )


def layer_activations(size: Size, tokens: int, longest: int, compute_dtype: str = "bfloat16") -> float:
    """Bytes that one layer keeps for the gradient, of `tokens` tokens in rows of `longest`.

    Of Llama: eight tensors of its width, two more in 32 bits for its norms, four of its inner width (two without a
    gate), and its mask.
    """
    nbytes = BYTES[compute_dtype]
    wide, inner = (8 * nbytes + 8) * size.width, 2 * (size.matrices - 1) * nbytes * size.inner
    return tokens * (wide + inner + nbytes * longest + 8)


def activations(
    size: Size, tokens: int, longest: int, *, compute_dtype: str = "bfloat16", gradient_checkpointing: bool = False
) -> float:
    """Bytes that a forward pass keeps for the gradient, logits left out.

    Of each layer all, or with checkpointing its input alone. longest: tokens of the longest row.
    """
    nbytes = BYTES[compute_dtype]
    kept = (
        tokens * nbytes * size.width
        if gradient_checkpointing
        else layer_activations(size, tokens, longest, compute_dtype)
    )
    return size.layers * kept + tokens * (4 + nbytes) * size.width


def training_state(
    size: Size,
    *,
    optimizer: str = "adam",
    weights_dtype: str = "float32",
    compute_dtype: str = "bfloat16",
    rank: int | None = None,
    gpus: int = 1,
) -> dict[str, float]:
    """{part: bytes} of a model in training, on each of `gpus` that share it: weights, gradients, optimiser.

    weights_dtype: of the weights; compute_dtype: of the arithmetic; rank: of an adapter, if only that is trained.
    """
    trained, itemsize = size.adapter(rank) if rank else size.parameters, BYTES[weights_dtype]
    copies = 2 if (weights_dtype, compute_dtype) == ("float32", "bfloat16") else 0
    frozen = size.parameters * BYTES[compute_dtype] if rank else 0
    kept = 0 if gpus > 1 and not rank else copies  # sharded, the copies are made a layer at a time
    return {
        "weights": frozen / gpus + trained * (itemsize / gpus + kept),
        "gradients": trained * (itemsize + kept) / gpus,
        "optimiser": trained * MOMENTS[optimizer] / gpus,
    }


def gradient_pass(
    size: Size,
    batch_size: int,
    prompt: int,
    reply: int,
    *,
    compute_dtype: str = "bfloat16",
    gradient_checkpointing: bool = False,
    rank: int | None = None,
) -> float:
    """Bytes at the peak of a forward and backward pass over `batch_size` replies, beside earlier passes' gradients.

    prompt, reply: tokens of each. The activations, and the larger of two: the logits (a 32-bit number for each, two
    more for those of `LOGITS_AT_ONCE` tokens, and the new gradient of the output head if it is trained), or one layer's
    activations computed again.
    """
    tokens, longest, logits = batch_size * (prompt + reply), prompt + reply, batch_size * reply
    head = 0 if rank else size.width * BYTES[compute_dtype]
    logits_bytes = (4 * logits + 8 * min(logits, LOGITS_AT_ONCE) + head) * size.vocabulary
    recomputed = layer_activations(size, tokens, longest, compute_dtype) if gradient_checkpointing else 0
    return activations(
        size, tokens, longest, compute_dtype=compute_dtype, gradient_checkpointing=gradient_checkpointing
    ) + max(logits_bytes, recomputed)


def log_prob_pass(size: Size, batch_size: int, prompt: int, reply: int, *, compute_dtype: str = "bfloat16") -> float:
    """Bytes at the peak of a pass that takes the log-probabilities of `batch_size` replies, without a gradient.

    One layer's work, or two 32-bit copies of the logits of `LOGITS_AT_ONCE` tokens.
    """
    tokens = batch_size * (prompt + reply)
    return max(
        scoring_pass(size, tokens, compute_dtype),
        tokens * size.width * BYTES[compute_dtype] + min(batch_size * reply, LOGITS_AT_ONCE) * size.vocabulary * 8,
    )


def scoring_pass(size: Size, tokens: int, compute_dtype: str) -> float:
    """Bytes at the peak of a pass over `tokens` tokens without a gradient or logits: one layer's work."""
    return tokens * (4 * size.width + size.matrices * size.inner) * BYTES[compute_dtype]


def memory(
    policy: Size,
    reward_model: Size | None = None,
    ground_truth: Size | None = None,
    *,
    micro_batch: int,
    batch_size: int,
    prompt: int,
    reply: int,
    optimizer: str = "adam",
    weights_dtype: str = "float32",
    compute_dtype: str = "bfloat16",
    frozen_dtype: str = "bfloat16",
    frozen_placement: str = "whole",
    gradient_checkpointing: bool = False,
    rank: int | None = None,
    gpus: int = 1,
) -> dict[str, float]:
    """{part: bytes} on each GPU during policy gradient; `total` gives the peak.

    micro_batch: replies in a gradient pass; batch_size: replies sampled or scored at once; prompt, reply: tokens of the
    longest; frozen_dtype: type of the weights that are not trained; frozen_placement: where these are if there are
    several GPUs: "whole" on each, "shared" over them, or on the "host", gathered while they are used. With an adapter
    the part called reference, the frozen copy of the policy, is the policy without it.
    """
    parts = training_state(
        policy, optimizer=optimizer, weights_dtype=weights_dtype, compute_dtype=compute_dtype, rank=rank, gpus=gpus
    )
    shared = gpus > 1 and frozen_placement != "whole"
    share = {"shared": 1 / gpus, "host": 0}[frozen_placement] if shared else 1
    kept = BYTES[frozen_dtype] * share  # bytes a parameter
    gathered = policy.parameters * BYTES[compute_dtype] if gpus > 1 else 0  # while a batch is sampled and read
    if shared and not rank:
        gathered += policy.parameters * BYTES[frozen_dtype]  # the frozen copy, which reads it too
    parts["reference"] = 0 if rank else policy.parameters * kept
    parts["reward model"] = reward_model.parameters * kept if reward_model else 0
    parts["ground truth"] = ground_truth.parameters * kept if ground_truth else 0
    parts["KV cache"] = batch_size * (prompt + reply) * policy.layers * policy.keys * 2 * BYTES[compute_dtype]
    parts["gathered weights"] = gathered
    reading = [
        scoring_pass(size, batch_size * (prompt + reply), frozen_dtype) + shared * size.parameters * BYTES[frozen_dtype]
        for size in (reward_model, ground_truth)
        if size and size.parameters  # a fixed function has none
    ]
    parts["scoring"] = max(
        [gathered + log_prob_pass(policy, batch_size, prompt, reply, compute_dtype=compute_dtype), *reading]
    )
    parts["activations"] = gradient_pass(
        policy,
        micro_batch,
        prompt,
        reply,
        compute_dtype=compute_dtype,
        gradient_checkpointing=gradient_checkpointing,
        rank=rank,
    )
    return parts


def total(parts: Mapping[str, float]) -> float:
    """Bytes at the peak: all parts, but only the largest of those that one of the `TURNS` needs."""
    turns = [sum(parts.get(part, 0) for part in turn) for turn in TURNS]
    return sum(parts.values()) - sum(turns) + max(turns)


def operations(gradient_checkpointing: bool, rank: int | None = None) -> int:
    """Operations of a training step for each parameter and each token."""
    return 6 + 2 * gradient_checkpointing - 2 * bool(rank)


def step(
    policy: Size,
    reward_model: Size | None = None,
    *,
    replies: int,
    batch_size: int,
    prompt: int,
    reply: int,
    machine: Machine,
    compute_dtype: str = "bfloat16",
    gradient_checkpointing: bool = False,
    rank: int | None = None,
    gpus: int = 1,
    engine: str = "generate",
) -> dict[str, float]:
    """{"sampling", "scoring", "updating": seconds} of a step of policy gradient on `replies` replies of equal length.

    batch_size: replies sampled at once; prompt, reply: tokens of each; rank: of an adapter, if only that is trained.
    Several GPUs share the tokens of scoring and updating; they share sampling only if `replies` is more than
    `batch_size`.
    """
    rate, tokens = getattr(machine, compute_dtype) * gpus, replies * (prompt + reply)
    read = 2 * policy.parameters + (reward_model.parameters if reward_model else 0)
    learnt = operations(gradient_checkpointing, rank)
    return {
        "sampling": sampling(policy, replies, batch_size, prompt, reply, machine, compute_dtype, gpus, engine),
        "scoring": tokens * 2 * read / (rate * machine.shares.scoring),
        "updating": tokens * learnt * policy.parameters / (rate * machine.shares.updating),
    }


def sampling(
    policy: Size,
    count: int,
    batch_size: int,
    prompt: int,
    reply: int,
    machine: Machine,
    compute_dtype: str,
    gpus: int = 1,
    engine: str = "generate",
) -> float:
    """Seconds to sample `count` replies in batches of `batch_size` on each GPU."""
    tokens = math.ceil(count / (batch_size * gpus)) * reply  # drawn one after another
    nbytes = reading_bytes(policy, min(count, batch_size), prompt, reply, compute_dtype)
    return tokens * nbytes / (machine.bandwidth * machine.shares.of_engine(engine))


def launching(size: Size, passes: float, *, replayed: bool = False) -> float:
    """Seconds below which `passes` forward passes do not go, however small their batch is: those of launching kernels.

    replayed: whether a CUDA graph launches them, as in sampling by the engine graph, and not Python.
    """
    return passes * size.layers * KERNELS_PER_LAYER * (REPLAY_SECONDS if replayed else LAUNCH_SECONDS)


def reading_bytes(policy: Size, batch_size: int, prompt: float, reply: int, compute_dtype: str) -> float:
    """Bytes that a token of each of `batch_size` replies reads, on average: all weights, and half a full cache."""
    cache = batch_size * (prompt + reply) * policy.layers * policy.keys * 2 * BYTES[compute_dtype]
    return policy.parameters * BYTES[compute_dtype] + cache / 2
