"""Sampling by replaying one token step, which on a GPU is captured as a CUDA graph.

`generate` of transformers launches every kernel of a token step from Python and asks the GPU at every step whether all
replies have ended, so the GPU waits for Python. Here the step (`token_step.TokenStep`: the forward pass of one token on
a cache of fixed size, drawing the next token, writing it, moving on) is captured once for each size and replayed; every
`STEPS_BETWEEN_LOOKS` steps the host counts the replies that have ended. When half of them have, the others are moved
together and the step goes on with half of the rows. The keys and values of a prompt are computed once and copied to
each of its replies. A CPU runs the same code without capture.
"""

import itertools
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import transformers
from transformers.cache_utils import DynamicCache

from rvlib.lm import processes
from rvlib.lm.sampling import token_step
from rvlib.lm.sampling.token_step import TokenStep

STEPS_BETWEEN_LOOKS = 16
KEPT_BYTES = 2**32  # of keys and values that are kept, with their graphs, for the next call


StepShape = tuple[int, int, int]  # of a step: rows, places of the cache, tokens that end a reply


@dataclass(frozen=True)
class Sampled:
    """Replies as token ids, (replies, max_new_tokens), and ln π of each up to its end, (replies,) in nats."""

    completion_ids: torch.Tensor
    logprobs: torch.Tensor


@dataclass(frozen=True)
class CapturedSteps:
    """A model's captured steps by size, and the addresses of the weights that their graphs read."""

    stamp: tuple[list[int], list[bool]]  # the addresses, and which adapters are off
    steps: dict[StepShape, TokenStep]


_captured: weakref.WeakKeyDictionary[transformers.PreTrainedModel, CapturedSteps] = weakref.WeakKeyDictionary()
_failed: weakref.WeakKeyDictionary[transformers.PreTrainedModel, str] = weakref.WeakKeyDictionary()  # the reason


def unsupported(model: transformers.PreTrainedModel) -> str | None:
    """Why this engine cannot sample a model, in words that follow "since"; None if it can."""
    name, kinds = type(model).__name__, set(getattr(model.config.get_text_config(), "layer_types", None) or [])
    if model in _failed:
        return _failed[model]
    if processes.world() > 1:
        return "its weights are shared out over several processes"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{name} does not let another attention function take the place of its own"
    if kinds - {"full_attention", "sliding_attention"}:
        return f"{name} has layers of the kinds {', '.join(sorted(kinds))}"
    if any("dynamic" in str(getattr(module, "rope_type", "")) for module in model.modules()):
        return f"{name} changes its rotary embedding with the length"
    return None


def sample(
    model: transformers.PreTrainedModel,
    prompts: Mapping[str, torch.Tensor],
    num_generations: int,
    *,
    eos_token_ids: list[int],
    max_new_tokens: int,
    temperature: float,
    on_tokens: Callable[[int], object] = lambda count: None,
) -> Sampled | None:
    """`num_generations` replies to each prompt from torch's default generator, those to one prompt in a row.

    prompts: "input_ids" and "attention_mask", (prompts, length), padded on the left. on_tokens: as in
    `generation.complete`. None, after a warning that says why, for a model that this engine cannot run.
    """
    if not (reason := unsupported(model)):
        generators = [torch.default_generator, *(torch.cuda.default_generators[i] for i in processes.cuda_devices())]
        states = [generator.get_state() for generator in generators]
        try:
            return _sample(model, prompts, num_generations, eos_token_ids, max_new_tokens, temperature, on_tokens)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, AttributeError) as error:  # of torch, for what no graph can hold; of the model
            reason = _failed[model] = f"a token step did not run ({str(error).splitlines()[0]})"
            for generator, state in zip(generators, states):
                generator.set_state(state)
    warnings.warn(f"The model is sampled by the slower engine generate, since {reason}.", stacklevel=2)
    return None


@torch.inference_mode()
def _sample(
    model: transformers.PreTrainedModel,
    prompts: Mapping[str, torch.Tensor],
    num_generations: int,
    eos_token_ids: list[int],
    max_new_tokens: int,
    temperature: float,
    on_tokens: Callable[[int], object],
) -> Sampled:
    attention_mask = prompts["attention_mask"]
    prefill = model(
        input_ids=prompts["input_ids"],
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=DynamicCache(),
        use_cache=True,
        logits_to_keep=1,
    )
    start, rows = attention_mask.shape[1], len(attention_mask) * num_generations
    stop = start + max_new_tokens
    size = (rows, -(-stop // token_step.BLOCK) * token_step.BLOCK, len(eos_token_ids))
    steps = _captured_steps(model)
    step = steps.pop(size, None) or TokenStep(prefill.past_key_values.layers, *size)
    step.start(prefill, attention_mask, eos_token_ids, temperature)
    del prefill
    for length in range(start + 1, stop):
        if (length - start) % STEPS_BETWEEN_LOOKS == 0:
            on_tokens(STEPS_BETWEEN_LOOKS)
            if not step.shrink():
                break
        step.advance(model, length)
    steps[size] = step
    while steps and sum(step.nbytes for step in steps.values()) > KEPT_BYTES:
        del steps[next(iter(steps))]  # the least recently used
    order = step.order.argsort()
    return Sampled(step.input_ids[order, start:stop], step.logprobs[order])


def _captured_steps(model: transformers.PreTrainedModel) -> dict[StepShape, TokenStep]:
    """A model's captured steps by size; none if its weights have moved in memory, or its adapter was switched."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    off = [getattr(module, "disable_adapters", None) for module in model.modules()]  # of peft's layers, a boolean
    stamp = ([tensor.data_ptr() for tensor in tensors], [switch for switch in off if isinstance(switch, bool)])
    if model not in _captured or _captured[model].stamp != stamp:
        _captured[model] = CapturedSteps(stamp, {})
    return _captured[model].steps
