"""One token step of a batch of replies that asks the host nothing, so that a CUDA graph can hold it.

All that a step reads and writes lies in tensors that keep their addresses: the tokens, the position of the next ones,
the keys and values. Attention reads only the positions that are filled, in whole blocks of `BLOCK`.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from transformers.cache_utils import Cache, StaticLayer

BLOCK = 128  # positions of the cache in a block; attention reads whole blocks
FEWEST_ROWS = 32  # fewer are not halved: a step then takes as long as reading the weights
ATTENTION = "rvlib_token_step"  # the name by which a model's config asks for `attention` and its masks
# What some models give their attention beyond scores and a mask: sinks, biases, and which keys are read at all.
BEYOND_A_MASK = ("s_aux", "sinks", "position_bias", "indices", "block_indices")


class TokenStep(Cache):
    """Replies between two tokens, and the step to the next. The model is given it as its cache of keys and values.

    prompt_layers: the keys and values of prompts, layer by layer, for their shapes; rows: how many replies; length:
    places for a prompt and a reply. A step works on the first `self.rows` replies and the first `self.span` places,
    and the last tokens are at `self.position`, (1,), which is counted on the device.
    """

    def __init__(
        self, prompt_layers: Sequence[Any], rows: int, length: int, eos_token_ids: Sequence[int], temperature: float
    ) -> None:
        super().__init__(layers=[StaticLayer(max_cache_len=length) for _ in prompt_layers])
        for layer, of_prompts in zip(self.layers, prompt_layers):
            layer.keys, layer.values = (
                states.new_zeros(rows, states.shape[1], length, states.shape[3])
                for states in (of_prompts.keys, of_prompts.values)
            )
            layer.is_initialized = True
        self.rows, self.span = rows, length
        with prompt_layers[0].keys.device:
            self.position, self.columns = torch.zeros(1, dtype=torch.long), torch.arange(length)
            self.input_ids, self.padding = (torch.zeros(rows, width, dtype=torch.long) for width in (length, 1))
            self.ended, self.logprobs = torch.zeros(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.float64)
            self.order = torch.zeros(rows, dtype=torch.long)  # which reply a row has
            self.eos_token_ids = torch.tensor(eos_token_ids)
            self.temperature = torch.tensor(temperature, dtype=torch.float32)
        self.graphs: dict[tuple[int, int], Callable[[], Any]] = {}
        self.pool = torch.cuda.graph_pool_handle() if self.order.is_cuda else None

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token's keys and values, as a layer asks its cache to; returns all that a step may read."""
        layer = self.layers[layer_idx]
        for cached, states in ((layer.keys, key_states), (layer.values, value_states)):
            cached[: self.rows].index_copy_(2, self.position, states)
        return layer.keys[: self.rows, :, : self.span], layer.values[: self.rows, :, : self.span]

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """Where the last tokens are, from which a model makes its masks: a tensor, so that a graph can hold it."""
        return self.position

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many places a mask has, and the first of them."""
        return self.span, 0

    def start(self, prefill: Any, attention_mask: torch.Tensor) -> None:
        """Copy the keys and values of each prompt to all of its replies, and draw their first tokens.

        prefill: what the model returned for the prompts, padded on the left; attention_mask: (prompts, length).
        """
        self.rows, (prompts, length) = len(self.order), attention_mask.shape
        for layer, prompt_layer in zip(self.layers, prefill.past_key_values.layers):
            for cached, states in ((layer.keys, prompt_layer.keys), (layer.values, prompt_layer.values)):
                of_replies = cached[:, :, :length].unflatten(0, (prompts, -1))
                of_replies.copy_(states[:, None].expand_as(of_replies))
        self.position.fill_(length)
        self.padding.copy_((attention_mask == 0).sum(-1, keepdim=True).repeat_interleave(self.rows // prompts, 0))
        self.order.copy_(torch.arange(self.rows))
        self.ended.zero_()
        self.logprobs.zero_()
        self.draw(prefill.logits[:, -1].repeat_interleave(self.rows // prompts, 0))

    def draw(self, logits: torch.Tensor) -> None:
        """Draw a token of each row from its logits, (rows, vocabulary), and write it: the largest of ln π + Gumbel."""
        log_softmax = (logits.float() / self.temperature).log_softmax(-1)
        tokens = (log_softmax - torch.empty_like(log_softmax).exponential_().log_()).argmax(-1, keepdim=True)
        logprobs = log_softmax.gather(-1, tokens).squeeze(-1).double()
        self.logprobs[: self.rows].add_(logprobs.masked_fill(self.ended[: self.rows], 0))
        self.input_ids[: self.rows].index_copy_(1, self.position, tokens)
        self.ended[: self.rows].logical_or_((tokens == self.eos_token_ids).any(-1))

    def step(self, model: transformers.PreTrainedModel) -> None:
        """The step itself, from the last tokens drawn to the next."""
        config, padding, position = model.config.get_text_config(), self.padding[: self.rows], self.position
        attended: list[Any] = []
        own, config._attn_implementation = config._attn_implementation, ATTENTION
        try:
            logits = model(
                input_ids=self.input_ids[: self.rows].index_select(1, position),
                attention_mask=self.columns[: self.span] >= padding,
                position_ids=position - padding,
                past_key_values=self,
                use_cache=True,
                on_attention=attended.append,
                capped=own != "sdpa",  # which, in some versions of transformers, leaves `softcap` out
            ).logits
        finally:
            config._attn_implementation = own
        if len(attended) < len(self.layers):
            raise RuntimeError("not every layer attends as it is told")
        position.add_(1)
        self.draw(logits[:, -1])

    def advance(self, model: transformers.PreTrainedModel, length: int) -> None:
        """Draw the next token, after which `length` positions are filled. The first step of a size also captures it."""
        self.span = min(-(-length // BLOCK) * BLOCK, len(self.columns))
        if (size := (self.rows, self.span)) in self.graphs:
            self.graphs[size]()
        elif replay := run_and_capture(lambda: self.step(model), self.pool):
            self.graphs[size] = replay

    def shrink(self) -> int:
        """How many replies have not ended. If they fit into half of the rows, they are moved there."""
        rows = half = self.rows
        unfinished = rows - int(self.ended[:rows].sum())
        while half > FEWEST_ROWS and unfinished <= (half + 1) // 2:
            half = (half + 1) // 2
        if half < rows:
            order = self.ended[:rows].byte().argsort(stable=True)
            for buffer in (self.input_ids, self.padding, self.ended, self.logprobs, self.order):
                buffer[:rows] = buffer[order]
            for layer in self.layers:
                for states in (layer.keys, layer.values):
                    states[:half, :, : self.span] = states[order[:half], :, : self.span]
            self.rows = half
        return unfinished


def mask_of_a_step(
    *,
    q_offset: torch.Tensor,
    kv_length: int,
    mask_function: Callable[..., torch.Tensor],
    attention_mask: torch.Tensor,
    dtype: torch.dtype,
    **kwargs: Any,
) -> torch.Tensor:
    """What is added to the scores, (rows, 1, 1, places): -inf where a token does not look, by the model's own rule.

    Called as transformers does where a model makes its masks. transformers' own masks ask the host whether there is
    any padding. attention_mask: (rows, places), false for padding.
    """
    if kwargs.get("use_vmap"):
        raise RuntimeError("its mask is not that of a causal model")
    columns = torch.arange(kv_length, device=attention_mask.device)
    seen = attention_mask & mask_function(None, None, q_offset, columns)
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, -torch.inf)[:, None, None]


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    on_attention: Callable[[Any], object],
    capped: bool,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one token a row, called as transformers does: query (rows, heads, 1, d) to (rows, 1, heads, d).

    The query heads that share a key head are treated as queries of that head: under a mask, transformers' own attention
    may copy keys and values for each query head instead (`repeat_kv`).
    """
    if any(kwargs.get(name) is not None for name in BEYOND_A_MASK):
        raise RuntimeError("its attention has more than scores and a mask")
    on_attention(module)
    by_key_head = (key.shape[1], -1)  # (rows, key heads, query heads of each, d or span)
    queries = query.unflatten(1, by_key_head).squeeze(3)
    mask = attention_mask if attention_mask.shape[1] == 1 else attention_mask.unflatten(1, by_key_head).squeeze(3)
    if softcap is None or not capped:
        states = torch.nn.functional.scaled_dot_product_attention(queries, key, value, attn_mask=mask, scale=scaling)
    else:
        scores = softcap * torch.tanh(queries @ key.mT * scaling / softcap) + mask
        states = scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    return states.flatten(1, 2).unsqueeze(1), None


transformers.AttentionInterface.register(ATTENTION, attention)
transformers.AttentionMaskInterface.register(ATTENTION, mask_of_a_step)


def run_and_capture(step: Callable[[], None], pool: Any) -> Callable[[], None] | None:
    """Run step(), and return a function that replays it as one CUDA graph with memory from `pool`; None without a GPU.

    RuntimeError for what no graph can hold. What makes the host wait for the GPU is found while step() runs for the
    first time. After a capture that failed, `torch.cuda.graph` leaves its own stream the current one, and the GPU's
    random generator (in some versions of PyTorch) unusable; here both are as they were before. Graphs that were
    captured earlier read the numbers of the old generator: they must not be replayed.
    """
    if pool is None:
        step()
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    before = generator.clone_state()
    try:
        with torch.cuda.graph(graph, pool=pool):
            step()
    except Exception:
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(before)
        raise
    return graph.replay
