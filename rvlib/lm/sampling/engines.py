"""Engines that sample otherwise than in a padded batch: continuous batching by transformers, and a vLLM server by TRL's client.

A padded batch (`sample.generate`) runs until its last reply ends, and what has ended waits. In continuous batching another takes its
place: at most `rows` replies are under way, of however many are asked for, so a place is empty only at the very end, and keys
and values lie in pages of a common cache. Fast attention over pages is that of the flash-attn package, if it is installed; without
it transformers masks one long row, which is slower. Random numbers come from torch's generator, and all replies are asked for before the first
is drawn, so that the same seed gives the same ones; another number of `rows` gives others.

A vLLM server has GPUs of its own, and gets the policy's weights whenever they have changed:

    VLLM_SERVER_DEV_MODE=1 vllm serve RUN/sft/NAME/model --weight-transfer-config '{"backend": "nccl"}'
    rvlib run RECIPE --set runtime.engine=vllm --set runtime.server=http://localhost:8000

Its replies are not the same again from the same seed. Of several processes the first alone talks to it.
"""

import functools
import math

import torch
import transformers.generation.configuration_utils

from rvlib.lm import need, processes

PADDED = ("generate", "static")  # engines that draw a whole batch at once; all others keep to `rows` by themselves
PAGE = 256  # tokens of a page, as transformers has them


def continuous(model, prompts, count, *, ends, rows, max_new_tokens, temperature):
    """`count` replies to each of `prompts` (lists of token ids), a flat list of lists of ids, each with its ending token if it has one.

    ends: ids that end a reply. RuntimeError, in one sentence, if the engine stops before all are drawn; memory that ran out is told
    as torch tells it.
    """
    config = transformers.generation.configuration_utils
    pages = math.ceil((max(map(len, prompts)) + max_new_tokens) / PAGE)
    how = config.GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        num_return_sequences=count,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
    )
    batching = config.ContinuousBatchingConfig(
        num_blocks=rows * (pages + 1),
        max_batch_tokens=max(rows, PAGE),
        max_requests_per_batch=rows,
        seed=int(torch.randint(2**31, ())),
    )
    manager = model.init_continuous_batching(generation_config=how, continuous_batching_config=batching)
    names = manager.add_requests(prompts, max_new_tokens=max_new_tokens)
    found, total = {}, len(prompts) * count
    try:
        manager.start()
        while len(found) < total and (found_one := _next(manager)):
            found[found_one.request_id] = found_one
    finally:
        manager.stop(hard_stop=len(found) < total)
        manager.destroy()
    error = manager.background_thread_status.fatal_error or next(
        (one.error for one in found.values() if one.error), None
    )
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if error or len(found) < total:
        raise RuntimeError(
            f"All {total} replies must be drawn, but continuous batching stopped at {len(found)} ({error or 'its thread ended'}); set runtime.engine to generate."
        )
    kinds = [*(f"__child#{i}" for i in range(count - 1)), ""]  # the other replies to a prompt are made from its first
    return [found[name + kind].generated_tokens for name in names for kind in kinds]


def served(policy, prompts, count, *, server, ends, max_new_tokens, temperature):
    """The same of a vLLM server at the address `server`, which is sent the weights first if they are not those it has.

    ModuleNotFoundError or ConnectionError, in one sentence, for a package or a server that is not there.
    """
    client = _client(server, policy)
    stamp = [(id(value), value._version) for value in policy.model.parameters()]  # torch counts changes of each
    if client.stamp != stamp or processes.world() > 1:  # gathered weights are not counted
        client.update_model_params(policy.model)
        client.reset_prefix_cache()
        client.stamp = stamp
    # No seed: vLLM would give every prompt the same random numbers.
    how = {"stop_token_ids": ends, "skip_special_tokens": False}
    return client.generate(
        prompts, n=count, temperature=temperature, max_tokens=max_new_tokens, logprobs=None, generation_kwargs=how
    )["completion_ids"]


@functools.lru_cache
def _connected(server, device):
    try:
        client = need("trl.generation.vllm_client").VLLMClient(base_url=server)
    except ImportError as error:
        raise ModuleNotFoundError(
            "Sampling by vLLM needs the package vllm here too, which is not installed; get it with `pip install vllm`, or set runtime.engine to continuous."
        ) from error
    client.init_communicator(device=device)
    client.stamp = None
    return client


def _client(server, policy):
    """TRL's client of a server, one for the life of the process."""
    try:
        return _connected(server, policy.model.device)
    except OSError as error:  # of the HTTP library
        start = f'VLLM_SERVER_DEV_MODE=1 vllm serve {policy.source["name"]} --weight-transfer-config \'{{"backend": "nccl"}}\''
        raise ConnectionError(
            f"A vLLM server must answer at {server}, but none does; start one on a GPU of its own with `{start}`, and run this again."
        ) from error


def _next(manager):
    """The next reply that is finished, or None when there will be none."""
    while True:
        one = manager.get_result(timeout=1)
        if one is not None and one.is_finished():
            return one
        if one is None and not manager.is_running():
            return None
