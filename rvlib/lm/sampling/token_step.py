"""One token step of a batch of replies that asks the host nothing, so that a CUDA graph can hold it.

All that a step reads and writes lies in tensors that keep their addresses: the tokens, the position of the next ones,
the keys and values. Attention (`step_attention`) reads only the positions that are filled, in whole blocks of `BLOCK`.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers.cache_utils import Cache, StaticLayer

from rvlib.lm.sampling.step_attention import attention_of_a_step

BLOCK = 128  # positions of the cache in a block; attention reads whole blocks
FEWEST_ROWS = 32  # fewer are not halved: a step then takes as long as reading the weights


@dataclass
class Extent:
    """What a step works on: the first `rows` replies and the first `span` places; the last tokens are at `position`."""

    rows: int
    span: int
    position: torch.Tensor  # (1,), counted on the device


class StepCacheLayer(StaticLayer):
    """The keys and values of one layer, written at the position of an `Extent`."""

    def __init__(self, extent: Extent, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__(max_cache_len=extent.span)
        self.extent, self.is_initialized = extent, True
        shape = (extent.rows, keys.shape[1], extent.span)
        self.keys, self.values = (states.new_zeros(*shape, states.shape[3]) for states in (keys, values))

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Write one token's keys and values; returns all that a step may read."""
        rows, span = self.extent.rows, self.extent.span
        self.keys[:rows].index_copy_(2, self.extent.position, key_states)
        self.values[:rows].index_copy_(2, self.extent.position, value_states)
        return self.keys[:rows, :, :span], self.values[:rows, :, :span]


@contextlib.contextmanager
def refusing_to_wait() -> Iterator[None]:
    """Within this context what makes the host wait for the GPU is a RuntimeError.

    No graph can hold it, and a capture that fails leaves the GPU's random numbers unusable for the rest of the process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class TokenStep:
    """Replies between two tokens, and the step to the next.

    prompt_layers: the keys and values of prompts, layer by layer, for their shapes; rows: how many replies; length:
    places for a prompt and a reply; eos_tokens: how many tokens end a reply.
    """

    def __init__(self, prompt_layers: Sequence[Any], rows: int, length: int, eos_tokens: int) -> None:
        zeros = prompt_layers[0].keys.new_zeros
        self.extent = Extent(rows, length, zeros(1, dtype=torch.long))
        self.cache = Cache(layers=[StepCacheLayer(self.extent, layer.keys, layer.values) for layer in prompt_layers])
        self.input_ids, self.padding = zeros(rows, length, dtype=torch.long), zeros(rows, 1, dtype=torch.long)
        self.ended, self.logprobs = zeros(rows, dtype=torch.bool), zeros(rows, dtype=torch.float64)
        self.order = zeros(rows, dtype=torch.long)  # which reply a row has
        self.eos_token_ids, self.temperature = zeros(eos_tokens, dtype=torch.long), zeros((), dtype=torch.float32)
        self.columns = torch.arange(length, device=self.order.device)
        self.graphs: dict[tuple[int, int], Callable[[], Any]] = {}
        self.pool = torch.cuda.graph_pool_handle() if self.order.is_cuda else None

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    def start(self, prefill: Any, attention_mask: torch.Tensor, eos_token_ids: list[int], temperature: float) -> None:
        """Copy the keys and values of each prompt to all of its replies, and draw their first tokens.

        prefill: what the model returned for the prompts, padded on the left; attention_mask: (prompts, length).
        """
        rows, (prompts, length) = len(self.order), attention_mask.shape
        for layer, prompt_layer in zip(self.cache.layers, prefill.past_key_values.layers):
            for cached, states in ((layer.keys, prompt_layer.keys), (layer.values, prompt_layer.values)):
                of_replies = cached[:, :, :length].unflatten(0, (prompts, -1))
                of_replies.copy_(states[:, None].expand_as(of_replies))
        self.extent.rows = rows
        self.extent.position.fill_(length)
        self.padding.copy_((attention_mask == 0).sum(-1, keepdim=True).repeat_interleave(rows // prompts, 0))
        self.order.copy_(torch.arange(rows))
        self.ended.zero_()
        self.logprobs.zero_()
        self.eos_token_ids.copy_(torch.tensor(eos_token_ids))
        self.temperature.fill_(temperature)
        self.draw(prefill.logits[:, -1].repeat_interleave(rows // prompts, 0))

    def draw(self, logits: torch.Tensor) -> None:
        """Draw a token of each row from its logits, (rows, vocabulary), and write it: the largest of ln π + Gumbel."""
        rows = self.extent.rows
        log_softmax = (logits.float() / self.temperature).log_softmax(-1)
        tokens = (log_softmax - torch.empty_like(log_softmax).exponential_().log_()).argmax(-1, keepdim=True)
        logprobs = log_softmax.gather(-1, tokens).squeeze(-1).double()
        self.logprobs[:rows].add_(logprobs.masked_fill(self.ended[:rows], 0))
        self.input_ids[:rows].index_copy_(1, self.extent.position, tokens)
        self.ended[:rows].logical_or_((tokens == self.eos_token_ids).any(-1))

    def step(self, model: transformers.PreTrainedModel) -> None:
        """The step itself, from the last tokens drawn to the next."""
        rows, span, position = self.extent.rows, self.extent.span, self.extent.position
        columns, padding = self.columns[:span], self.padding[:rows]
        filled = (columns >= padding) & (columns <= position)  # (rows, span)
        zeros = torch.zeros(filled.shape, dtype=self.cache.layers[0].keys.dtype, device=filled.device)

        @functools.cache
        def bias(window: int | None) -> torch.Tensor:
            """What is added to a layer's scores, (rows, 1, 1, span): -inf where its tokens do not look."""
            seen = filled if window is None else filled & (columns > position - window)
            return zeros.masked_fill(~seen, -torch.inf)[:, None, None]

        with attention_of_a_step(model.config.get_text_config()) as own_attention:
            logits = model(
                input_ids=self.input_ids[:rows].index_select(1, position),
                position_ids=position - padding,
                past_key_values=self.cache,
                use_cache=True,
                bias=bias,
                capped=own_attention != "sdpa",  # which, in some versions of transformers, leaves `softcap` out
            ).logits
        if sum(bias.cache_info()[:2]) < len(self.cache.layers):  # hits and misses: how often a layer asked for it
            raise RuntimeError("not every layer attends as it is told")
        position.add_(1)
        self.draw(logits[:, -1])

    def advance(self, model: transformers.PreTrainedModel, length: int) -> None:
        """Draw the next token, after which `length` positions are filled. The first step of a size also captures it."""
        self.extent.span = min(-(-length // BLOCK) * BLOCK, len(self.columns))
        size = (self.extent.rows, self.extent.span)
        if size in self.graphs:
            self.graphs[size]()
            return
        with refusing_to_wait() if self.pool else contextlib.nullcontext():
            self.step(model)
        if replay := capture(lambda: self.step(model), self.pool):
            self.graphs[size] = replay

    def shrink(self) -> int:
        """How many replies have not ended. If they fit into half of the rows, they are moved there."""
        rows = half = self.extent.rows
        unfinished = rows - int(self.ended[:rows].sum())
        while half > FEWEST_ROWS and unfinished <= (half + 1) // 2:
            half = (half + 1) // 2
        if half < rows:
            order = self.ended[:rows].byte().argsort(stable=True)
            for buffer in (self.input_ids, self.padding, self.ended, self.logprobs, self.order):
                buffer[:rows] = buffer[order]
            for layer in self.cache.layers:
                for states in (layer.keys, layer.values):
                    states[:half, :, : self.extent.span] = states[order[:half], :, : self.extent.span]
            self.extent.rows = half
        return unfinished


def capture(step: Callable[[], None], pool: Any) -> Callable[[], None] | None:
    """A function that replays the kernels of step() as one CUDA graph with memory from `pool`; None without a GPU."""
    if pool is None:
        return None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        step()
    return graph.replay
