"""Continuous batching by transformers: as a reply ends, another takes its place, and keys and values lie in pages of a common cache.

A padded batch (`sample.generate`) runs until its last reply ends, and what has ended waits. Here at most `rows` replies are under way,
of however many are asked for, so a place is empty only at the very end. Fast attention over pages is that of the flash-attn
package, if it is installed; without it transformers masks one long row, which is slower.

Replies are drawn one token at a time from the same distribution as everywhere. Their random numbers come from torch's generator, and all
are asked for before the first is drawn, so that the same seed gives the same replies; another number of `rows` gives others.
"""

import math

from rvlib.lm import need

PAGE = 256  # tokens of a page, as transformers has them


def continuous(model, prompts, count, *, ends, rows, max_new_tokens, temperature):
    """`count` replies to each of `prompts` (lists of token ids), a flat list of lists of ids, each with its ending token if it has one.

    ends: ids that end a reply. RuntimeError, in one sentence, if the engine stops before all are drawn; memory that ran out is told
    as torch tells it.
    """
    torch, config = need("torch"), need("transformers.generation.configuration_utils")
    pages = math.ceil((max(map(len, prompts)) + max_new_tokens) / PAGE)
    how = config.GenerationConfig(do_sample=True, temperature=temperature, top_k=0, top_p=1.0, num_return_sequences=count, max_new_tokens=max_new_tokens, eos_token_id=ends)
    batching = config.ContinuousBatchingConfig(num_blocks=rows * (pages + 1), max_batch_tokens=max(rows, PAGE), max_requests_per_batch=rows, seed=int(torch.randint(2**31, ())))
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
    error = manager.background_thread_status.fatal_error or next((one.error for one in found.values() if one.error), None)
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if error or len(found) < total:
        raise RuntimeError(f"All {total} replies must be drawn, but continuous batching stopped at {len(found)} ({error or 'its thread ended'}); set limits.engine to generate.")
    kinds = [*(f"__child#{i}" for i in range(count - 1)), ""]  # the other replies to a prompt are made from its first
    return [found[name + kind].generated_tokens for name in names for kind in kinds]


def _next(manager):
    """The next reply that is finished, or None when there will be none."""
    while True:
        one = manager.get_result(timeout=1)
        if one is not None and one.is_finished():
            return one
        if one is None and not manager.is_running():
            return None
