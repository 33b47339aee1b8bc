"""Why sampling is slow or fast: what the host and the GPU do in one token step, engine by engine.

    python benchmarks/token_step.py --model smollm2-135m --rows 32 256
    python benchmarks/token_step.py --model llama-3.1-8b --rows 32 --engines graph static --compile-layers
    python benchmarks/token_step.py --check

For each engine, of a token step: milliseconds, the share of them in which the GPU works, kernels launched one by one
(a replayed graph is one launch), how often the host waits for an answer, and the bytes that attention copies because
each query head gets keys and values of its own (`repeat_kv`). `static` is transformers' cache of fixed size, which
`generate` compiles on a GPU: it is no engine of rvlib any more, and stays here to be compared with. Random weights, so
nothing is downloaded; prompts of 128 tokens. Without a GPU it runs a small model and
counts operations in place of kernels. --compile-layers compiles each layer before it is captured. --check measures
nothing: it ends with one sentence and status 1 if the engine graph cannot run here, or draws other than the model says.

What made `static` slow, by the sizes: at 32 rows and 768 places of Llama-3.1-8B it writes 13 GB of such copies in a
step and reads them again, 6 ms of an H200's bandwidth, where the weights take 4; 15.9 ms were measured. How much of the
other 6 is the host, this script says.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.profiler import ProfilerActivity, profile
from transformers.integrations import sdpa_attention

from rvlib.lm.experiments.bench.architectures import ARCHITECTURES
from rvlib.lm.models.policies import Policy
from rvlib.lm.sampling import cuda_graph, token_step
from rvlib.lm.sampling.generation import until_end
from rvlib.lm.sampling.log_probs import log_probs
from rvlib.lm.seeding import torch_seed

PROMPT_TOKENS, NUM_GENERATIONS = 128, 8
CHECKED_ROWS, CHECKED_STEPS = 2 * token_step.FEWEST_ROWS, 144  # over two blocks of the cache, and half of the rows
LARGEST_DIFFERENCE = 0.05  # nats, of the log-probabilities of whole replies in 32 bits
ENGINES = ("generate", "static", "graph")
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def prompts_of(model: Any, rows: int) -> dict[str, torch.Tensor]:
    """Random prompts for so many rows; the first is padded on the left, as prompts of a recipe are."""
    generator = torch.Generator(model.device).manual_seed(0)
    shape = (max(rows // NUM_GENERATIONS, 1), PROMPT_TOKENS)
    input_ids = torch.randint(1, model.config.vocab_size, shape, generator=generator, device=model.device)
    prompts = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    prompts["attention_mask"][0, : PROMPT_TOKENS // 2] = 0
    return prompts


def check(model: Any, rows: int, steps: int) -> str | None:
    """What is wrong with the engine graph for a model with weights of 32 bits, in one sentence; None if nothing is.

    Replies end, so that rows are halved, and the second and third time every step is replayed.
    """
    prompts, eos_token_ids = prompts_of(model, rows), list(range(max(model.config.vocab_size // 32, 1)))
    settings: dict[str, Any] = {"eos_token_ids": eos_token_ids, "max_new_tokens": steps, "temperature": 0.9}
    drawn = []
    for seed in (0, 1, 1, 2):
        with torch_seed(seed):
            sampled = cuda_graph.sample(model, prompts, NUM_GENERATIONS, **settings)
        if sampled is None:
            return f"The engine graph cannot run here, since {cuda_graph.unsupported(model)}."
        completions = [ids[mask].tolist() for ids, mask in zip(sampled[0], until_end(sampled[0], eos_token_ids))]
        drawn.append((completions, sampled[1].tolist()))
    if drawn[1][0] != drawn[2][0] or drawn[2][0] == drawn[3][0]:
        return "Replayed steps must draw the same replies from the same seed, and others from another, but do not."
    repeated = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(prompts["input_ids"], prompts["attention_mask"])
        for _ in range(NUM_GENERATIONS)
    ]
    policy = Policy(model, None, {})  # no text is read or written
    for completions, logprobs in drawn:
        expected = log_probs(policy, repeated, completions, temperature=settings["temperature"])
        off = max(abs(said - real) for said, real in zip(logprobs, expected))
        if not off < LARGEST_DIFFERENCE:
            return f"The engine graph must say the log-probabilities of a forward pass, but is off by {off:.3g} nats."
    return None


def sampler(engine: str, model: Any, prompts: dict[str, torch.Tensor], steps: int) -> Callable[[], Any]:
    """A function that draws `steps` tokens of each row; no token ends a reply."""
    if engine == "graph":

        def draw() -> None:
            settings: dict[str, Any] = {"eos_token_ids": [-1], "max_new_tokens": steps, "temperature": 1.0}
            if cuda_graph.sample(model, prompts, NUM_GENERATIONS, **settings) is None:
                sys.exit(f"The engine graph cannot be measured, since {cuda_graph.unsupported(model)}.")

        return draw
    cache = {"cache_implementation": "static"} if engine == "static" else {}
    return lambda: model.generate(
        **prompts,
        **cache,
        do_sample=True,
        top_k=0,
        num_return_sequences=NUM_GENERATIONS,
        max_new_tokens=steps,
        min_new_tokens=steps,
        pad_token_id=0,
    )


def measure(engine: str, model: Any, rows: int, steps: int) -> dict[str, Any]:
    """What a token step takes, and what was launched in it."""
    device, prompts = model.device, prompts_of(model, rows)
    draw = sampler(engine, model, prompts, steps)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    with torch.inference_mode():
        draw()  # compiles, captures
        wait()
        start = time.perf_counter()
        draw()
        wait()
        seconds = time.perf_counter() - start
        cuda = [ProfilerActivity.CUDA] if device.type == "cuda" else []
        with profile(activities=[ProfilerActivity.CPU, *cuda]) as trace:
            draw()
            wait()
    events = trace.events()
    called = [event.name for event in events]
    on_gpu = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    launches = sum(name in LAUNCHES for name in called) if cuda else sum(name.startswith("aten::") for name in called)
    waits = sum(name in WAITS for name in called) if cuda else called.count("aten::_local_scalar_dense")
    busy = sum(event.device_time_total for event in on_gpu) / 1e6
    return {
        "engine": engine,
        "rows": len(prompts["input_ids"]) * NUM_GENERATIONS,
        "milliseconds": round(1e3 * seconds / steps, 3),
        "gpu_idle": round(max(1 - busy / seconds, 0), 3) if cuda else None,
        "launches" if cuda else "operations": round(launches / steps, 1),
        "waits": round(waits / steps, 2),
        "copied_megabytes": round(copied(engine, model, rows, steps) / 1e6, 1),
    }


def copied(engine: str, model: Any, rows: int, steps: int) -> float:
    """Bytes of keys and values that attention writes once more in a step, for each query head its own, by the sizes.

    Under a mask transformers does so unless its `sdpa` packs the heads of one query (5.23 does, 5.17 does not, nor does
    any where it is compiled).
    """
    config = model.config
    key_heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    packs = hasattr(sdpa_attention, "pack_gqa") and engine != "static"
    if engine == "graph" or packs or key_heads == config.num_attention_heads:
        return 0.0
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    places = PROMPT_TOKENS + (steps if engine == "static" else steps / 2)
    return 2.0 * config.num_hidden_layers * rows * config.num_attention_heads * head * places * model.dtype.itemsize


def main() -> None:
    """One line of JSON for each engine and number of rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    cuda = torch.cuda.is_available()
    parser.add_argument("--model", choices=sorted(ARCHITECTURES), default="smollm2-135m" if cuda else "tiny")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 256] if cuda else [16])
    parser.add_argument("--steps", type=int, default=128 if cuda else 16)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES if cuda else ("generate", "graph"))
    parser.add_argument("--compile-layers", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    # Large weights in a check, so that what a token looks at changes what is drawn after it.
    changes = {"initializer_range": 0.1} if options.check else {}
    config = transformers.AutoConfig.for_model(**ARCHITECTURES[options.model] | changes)
    with torch.device("cuda" if cuda else "cpu"), torch_seed(0):
        model: Any = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if cuda and not options.check else torch.float32
        ).eval()
    model.generation_config.eos_token_id = None
    if options.check:
        sys.exit(check(model, CHECKED_ROWS, CHECKED_STEPS))
    if options.compile_layers:
        for layer in model.base_model.layers:
            layer.compile()
    for rows in options.rows:
        for engine in options.engines:
            print(json.dumps({"model": options.model} | measure(engine, model, rows, options.steps)), flush=True)
    print(json.dumps({"block": token_step.BLOCK, "torch": torch.__version__, "transformers": transformers.__version__}))


if __name__ == "__main__":
    main()
