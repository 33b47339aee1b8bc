"""Attention of a token step: one new token of each reply, on the keys and values that are filled.

The query heads that share a key head are treated as queries of that head: under a mask, transformers' own attention may
copy keys and values for each query head instead (`repeat_kv`).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers

_NAME = "rvlib_token_step"


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    bias: Callable[[int | None], torch.Tensor],
    capped: bool,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one token a row, called as transformers does: query (rows, heads, 1, d) to (rows, 1, heads, d)."""
    if kwargs.get("s_aux") is not None:
        raise RuntimeError("attention sinks are not in it")
    queries = query.unflatten(1, (key.shape[1], -1)).squeeze(3)  # (rows, key heads, query heads of each, d)
    if softcap is None or not capped:
        states = torch.nn.functional.scaled_dot_product_attention(
            queries, key, value, attn_mask=bias(sliding_window), scale=scaling
        )
    else:
        scores = softcap * torch.tanh(queries @ key.mT * scaling / softcap) + bias(sliding_window)
        states = scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    return states.flatten(1, 2).unsqueeze(1), None


transformers.AttentionInterface.register(_NAME, attention)


@contextlib.contextmanager
def attention_of_a_step(config: Any) -> Iterator[str]:
    """Within this context the attention of a model of this config is `attention`; gives the name of its own."""
    own, config._attn_implementation = config._attn_implementation, _NAME
    try:
        yield own
    finally:
        config._attn_implementation = own
