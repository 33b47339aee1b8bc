"""Why sampling is slow or fast: what the host and the GPU do in one token step, engine by engine.

    python benchmarks/token_step.py --model smollm2-135m --rows 32 256
    python benchmarks/token_step.py --model llama-3.1-8b --rows 32 --engines graph static --compile-layers

For each engine, of a token step: milliseconds, the share of them in which the GPU works, kernels launched one by one
(a replayed graph is one launch), how often the host waits for an answer, and the bytes that attention copies because
each query head gets keys and values of its own (`repeat_kv`). `static` is transformers' cache of fixed size, which
`generate` compiles on a GPU: it is no engine of rvlib any more, and stays here to be compared with. Random weights, so
nothing is downloaded; prompts of 128 tokens. Without a GPU it runs a small model and
counts operations in place of kernels. --compile-layers compiles each layer before it is captured.

What made `static` slow, by the sizes: at 32 rows and 768 places of Llama-3.1-8B it writes 13 GB of such copies in a
step and reads them again, 6 ms of an H200's bandwidth, where the weights take 4; 15.9 ms were measured. How much of the
other 6 is the host, this script says.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.profiler import ProfilerActivity, profile
from transformers.integrations import sdpa_attention

from rvlib.lm.experiments.architectures import ARCHITECTURES
from rvlib.lm.sampling import cuda_graph, token_step

PROMPT_TOKENS, NUM_GENERATIONS = 128, 8
ENGINES = ("generate", "static", "graph")
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def sampler(engine: str, model: Any, prompts: dict[str, torch.Tensor], steps: int) -> Callable[[], Any]:
    """A function that draws `steps` tokens of each row; no token ends a reply."""
    if engine == "graph":
        return lambda: cuda_graph.sample(
            model, prompts, NUM_GENERATIONS, eos_token_ids=[-1], max_new_tokens=steps, temperature=1.0
        )
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
    device = model.device
    generator = torch.Generator(device).manual_seed(0)
    shape = (max(rows // NUM_GENERATIONS, 1), PROMPT_TOKENS)
    input_ids = torch.randint(1, model.config.vocab_size, shape, generator=generator, device=device)
    prompts = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    prompts["attention_mask"][0, : PROMPT_TOKENS // 2] = 0  # padding on the left, as prompts of a recipe have
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
        "rows": shape[0] * NUM_GENERATIONS,
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
    options = parser.parse_args()
    config = transformers.AutoConfig.for_model(**ARCHITECTURES[options.model])
    with torch.device("cuda" if cuda else "cpu"):
        model: Any = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if cuda else torch.float32
        ).eval()
    model.generation_config.eos_token_id = None
    if options.compile_layers:
        for layer in model.base_model.layers:
            layer.compile()
    for rows in options.rows:
        for engine in options.engines:
            print(json.dumps({"model": options.model} | measure(engine, model, rows, options.steps)), flush=True)
    print(json.dumps({"block": token_step.BLOCK, "torch": torch.__version__, "transformers": transformers.__version__}))


if __name__ == "__main__":
    main()
