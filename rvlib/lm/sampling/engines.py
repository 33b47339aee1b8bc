"""Engines that do not sample in a padded batch: transformers' continuous batching, and vLLM by TRL's classes.

A padded batch (`generation.generate`) runs until its last reply ends, and what has ended waits. In continuous batching
another takes its place: at most `batch_size` replies are drawn at a time, however many are asked for, so a place is
empty only at the end, and keys and values lie in pages of a common cache. Fast attention over pages is that of the
flash-attn package, if it is installed; without it transformers masks one long row, which is slower. Random numbers come
from torch's generator, and all replies are asked for before the first is drawn, so that the same seed gives the same
ones; another `batch_size` gives others.

A vLLM server has GPUs of its own, and gets the policy's weights whenever they have changed:

    VLLM_SERVER_DEV_MODE=1 vllm serve RUN/sft/NAME/model --weight-transfer-config '{"backend": "nccl"}'
    rvlib run RECIPE --set runtime.engine=vllm --set runtime.server=http://localhost:8000

Its replies are not the same again from the same seed. Of several processes the first alone talks to it.

With `runtime.engine=vllm-colocate`, vLLM runs in this process and on its GPU: it wakes for each batch, is given the
weights as they are, and gives its memory back afterwards.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import accelerate
import torch
import transformers
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from rvlib.lm import processes
from rvlib.lm.models.policies import Policy

# Engines that draw a padded batch as a whole; the others keep to `batch_size` by themselves.
PADDED = ("auto", "graph", "generate")
PAGE = 256  # tokens of a page, as transformers has them
COLOCATED_SHARE = 0.3  # of the GPU's memory, for vLLM while it samples: TRL's default
COLOCATED_TOKENS = 4096  # of a prompt and a reply, unless they have more


def resolved(engine: str, model: transformers.PreTrainedModel) -> str:
    """The engine that a name stands for: "auto" is "graph" on a GPU of one process, and "generate" elsewhere."""
    if engine == "auto":
        return "graph" if model.device.type == "cuda" and processes.world() == 1 else "generate"
    return engine


def continuous(
    model: Any,
    prompt_ids: Sequence[list[int]],
    num_generations: int,
    *,
    eos_token_ids: list[int],
    batch_size: int,
    max_new_tokens: int,
    temperature: float,
) -> list[list[int]]:
    """`num_generations` replies to each prompt, a flat list of lists of ids, each with its ending token if it has one.

    model: a causal model of transformers, which has `init_continuous_batching`. RuntimeError, in one sentence, if the
    engine stops before all are drawn; an OutOfMemoryError is raised as it is.
    """
    pages = math.ceil((max(map(len, prompt_ids)) + max_new_tokens) / PAGE)
    generation_config = transformers.GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        num_return_sequences=num_generations,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos_token_ids,
    )
    batching = ContinuousBatchingConfig(
        num_blocks=batch_size * (pages + 1),
        max_batch_tokens=max(batch_size, PAGE),
        max_requests_per_batch=batch_size,
        seed=int(torch.randint(2**31, ())),
    )
    manager = model.init_continuous_batching(generation_config=generation_config, continuous_batching_config=batching)
    request_ids = manager.add_requests(prompt_ids, max_new_tokens=max_new_tokens)
    total = len(prompt_ids) * num_generations
    outputs: dict[str, Any] = {}
    try:
        manager.start()
        while len(outputs) < total and (output := _next(manager)):
            outputs[output.request_id] = output
    finally:
        manager.stop(hard_stop=len(outputs) < total)
        manager.destroy()
    error = manager.background_thread_status.fatal_error or next(
        (output.error for output in outputs.values() if output.error), None
    )
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if error or len(outputs) < total:
        raise RuntimeError(
            f"All {total} replies must be drawn, but continuous batching stopped at {len(outputs)} "
            f"({error or 'its thread ended'}); draw by the engine generate "
            "(runtime.engine of a recipe, --engine of an audit)."
        )
    # The other replies to a prompt are made from its first.
    suffixes = [*(f"__child#{i}" for i in range(num_generations - 1)), ""]
    return [outputs[request_id + suffix].generated_tokens for request_id in request_ids for suffix in suffixes]


def served(
    policy: Policy,
    prompt_ids: Sequence[list[int]],
    num_generations: int,
    *,
    server: str | None,
    eos_token_ids: list[int],
    max_new_tokens: int,
    temperature: float,
) -> list[list[int]]:
    """The same, drawn by a vLLM server at the address `server`, which is first sent the weights if it has others.

    ModuleNotFoundError or ConnectionError, in one sentence, for a package or a server that is not there.
    """
    client = _client(server, policy)
    stamp = [(id(value), value._version) for value in policy.model.parameters()]  # torch counts changes of each
    if client.stamp != stamp or processes.world() > 1:  # gathered weights are not counted
        client.update_model_params(policy.model)
        client.reset_prefix_cache()
        client.stamp = stamp
    # No seed: vLLM would give every prompt the same random numbers.
    return client.generate(
        prompt_ids,
        n=num_generations,
        temperature=temperature,
        max_tokens=max_new_tokens,
        logprobs=None,
        generation_kwargs={"stop_token_ids": eos_token_ids, "skip_special_tokens": False},
    )["completion_ids"]


def colocated(
    policy: Policy,
    prompt_ids: Sequence[list[int]],
    num_generations: int,
    *,
    eos_token_ids: list[int],
    batch_size: int,
    max_new_tokens: int,
    temperature: float,
) -> list[list[int]]:
    """The same, drawn by vLLM in this process, at most `batch_size` at a time, with the policy's present weights.

    ModuleNotFoundError, in one sentence, if the package is not there.
    """
    tokens = max(max(map(len, prompt_ids)) + max_new_tokens, COLOCATED_TOKENS)
    generation = _in_process(policy, tokens, batch_size)
    generation.model, generation.temperature = policy.model, temperature
    generation.max_completion_length = max_new_tokens
    generation.generation_kwargs = {"stop_token_ids": eos_token_ids, "skip_special_tokens": False}
    repeated = [ids for ids in prompt_ids for _ in range(num_generations)]
    return [list(ids) for ids in generation.generate(repeated, None, num_generations)[1]]


_in_this_process: dict[tuple[Any, ...], Any] = {}


def _in_process(policy: Policy, tokens: int, batch_size: int) -> Any:
    """TRL's vLLM in this process for a folder of weights; one for another folder or of another size makes room."""
    key = (policy.model.name_or_path, tokens, batch_size)
    if key not in _in_this_process:
        _in_this_process.clear()
        import trl.generation.vllm_generation  # slow to import, and only this engine needs it

        try:
            _in_this_process[key] = trl.generation.vllm_generation.VLLMGeneration(
                model=policy.model,
                accelerator=accelerate.Accelerator(),
                processing_class=policy.tokenizer,
                mode="colocate",
                gpu_memory_utilization=COLOCATED_SHARE,
                max_model_length=tokens,
                max_num_seqs=batch_size,
                enable_sleep_mode=True,  # it takes the weights anew whenever it wakes
                logprobs=None,
            )
        except ImportError as error:
            raise _no_vllm() from error
    return _in_this_process[key]


@functools.lru_cache
def _connected(server: str | None, device: torch.device) -> Any:
    import trl.generation.vllm_client  # slow to import, and only this engine needs it

    try:
        client: Any = trl.generation.vllm_client.VLLMClient(base_url=server)
    except ImportError as error:
        raise _no_vllm() from error
    client.init_communicator(device=device)
    client.stamp = None
    return client


def _no_vllm() -> ModuleNotFoundError:
    return ModuleNotFoundError(
        "Sampling by vLLM needs the package vllm here too, which is not installed; get it with `pip install vllm`, "
        "or set runtime.engine to auto."
    )


def _client(server: str | None, policy: Policy) -> Any:
    """TRL's client of a server, one for the life of the process."""
    try:
        return _connected(server, policy.model.device)
    except OSError as error:  # of the HTTP library
        transfer = '{"backend": "nccl"}'
        command = f"VLLM_SERVER_DEV_MODE=1 vllm serve {policy.source['name']} --weight-transfer-config '{transfer}'"
        raise ConnectionError(
            f"A vLLM server must answer at {server}, but none does; start one on a GPU of its own with `{command}`, "
            "and run this again."
        ) from error


def _next(manager: Any) -> Any:
    """The next reply that is finished, or None when there will be none."""
    while True:
        output = manager.get_result(timeout=1)
        if output is not None and output.is_finished():
            return output
        if output is None and not manager.is_running():
            return None
