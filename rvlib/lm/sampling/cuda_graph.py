"""Sampling by replaying one token step, which on a GPU is captured as a CUDA graph.

`generate` of transformers launches every kernel of a token step from Python and asks the GPU at every step whether all
replies have ended, so the GPU waits for Python. Here the step (`token_step.TokenStep`: the forward pass of one token on
a cache of fixed size, drawing the next token, writing it, moving on) is captured once for each size and replayed; every
`STEPS_BETWEEN_LOOKS` steps the host counts the replies that have ended. When half of them have, the others are moved
together and the step goes on with half of the rows. The keys and values of a prompt are computed once and copied to
each of its replies. A CPU runs the same code without capture.
"""

import contextlib
import itertools
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping

import torch
import transformers
from transformers.cache_utils import DynamicCache

from rvlib.lm import processes
from rvlib.lm.sampling import token_step
from rvlib.lm.sampling.token_step import TokenStep

STEPS_BETWEEN_LOOKS = 16
KEPT_BYTES = 2**32  # of keys and values that are kept, with their graphs; more would take scoring and learning memory

Stamp = tuple[list[int], list[bool]]  # the addresses of a model's weights, and which of its adapters are off
StepShape = tuple[int, int, float, *tuple[int, ...]]  # rows, places of the cache, temperature, tokens that end a reply

CapturedSteps = tuple[Stamp, dict[StepShape, TokenStep]]  # by shape, with the stamp of the weights their graphs read

_captured: weakref.WeakKeyDictionary[transformers.PreTrainedModel, CapturedSteps] = weakref.WeakKeyDictionary()
_failed: weakref.WeakKeyDictionary[transformers.PreTrainedModel, str] = weakref.WeakKeyDictionary()  # the reason


def unsupported(model: transformers.PreTrainedModel) -> str | None:
    """Why this engine cannot sample a model, in words that follow "since"; None if it can."""
    name, kinds = type(model).__name__, set(getattr(model.config.get_text_config(), "layer_types", None) or [])
    devices = {parameter.device for parameter in model.parameters()}
    if model in _failed:
        return _failed[model]
    if processes.world() > 1:
        return "its weights are shared out over several processes"
    if len(devices) > 1 or {device.index for device in devices} - {None, *processes.cuda_devices()}:
        return "its weights are not all on this process's device"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{name} does not let another attention function take the place of its own"
    if kinds - {"full_attention", "sliding_attention"}:
        return f"{name} has layers of the kinds {', '.join(sorted(kinds))}"
    if any("dynamic" in str(getattr(module, "rope_type", "")) for module in model.modules()):
        return f"{name} changes its rotary embedding with the length"
    return None


@torch.inference_mode()
def sample(
    model: transformers.PreTrainedModel,
    prompts: Mapping[str, torch.Tensor],
    num_generations: int,
    *,
    eos_token_ids: list[int],
    max_new_tokens: int,
    temperature: float,
    on_tokens: Callable[[int], object] = lambda count: None,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """`num_generations` replies to each prompt from torch's default generator, those to one prompt in a row.

    prompts: "input_ids" and "attention_mask", (prompts, length), padded on the left. on_tokens: as in
    `generation.complete`. Returns the replies as token ids, (replies, max_new_tokens), and ln π of each up to its end,
    (replies,) in nats. None, after a warning that says why, for a model that this engine cannot run.
    """
    if not unsupported(model):
        with _noting_failure(model):
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
            places = -(-stop // token_step.BLOCK) * token_step.BLOCK
            shape, steps = (rows, places, temperature, *eos_token_ids), _captured_steps(model)
            step = steps.pop(shape, None)
            if step is None:
                step = TokenStep(prefill.past_key_values.layers, rows, places, eos_token_ids, temperature)
            step.start(prefill, attention_mask)
            del prefill
            for length in range(start + 1, stop):
                if (length - start) % STEPS_BETWEEN_LOOKS == 0:
                    on_tokens(STEPS_BETWEEN_LOOKS)
                    if not step.shrink():
                        break
                step.advance(model, length)
            steps[shape] = step
            while steps and sum(step.nbytes for step in steps.values()) > KEPT_BYTES:
                del steps[next(iter(steps))]  # the least recently used
            order = step.order.argsort()
            return step.input_ids[order, start:stop], step.logprobs[order]
    warnings.warn(f"The model is sampled by the slower engine generate, since {unsupported(model)}.", stacklevel=3)
    return None


@contextlib.contextmanager
def _noting_failure(model: transformers.PreTrainedModel) -> Iterator[None]:
    """Within this context what keeps a step from running goes to `_failed`, and random numbers are as they were."""
    generators = [torch.default_generator, *(torch.cuda.default_generators[i] for i in processes.cuda_devices())]
    states = [generator.get_state() for generator in generators]
    try:
        yield
    except (RuntimeError, TypeError, AttributeError, ValueError, LookupError) as error:  # of torch, or of the model
        _captured.clear()  # of all models: after a capture that failed their graphs draw the wrong random numbers
        if isinstance(error, torch.OutOfMemoryError):
            raise
        _failed[model] = f"a token step did not run ({str(error).partition(chr(10))[0]})"
        for generator, state in zip(generators, states):
            generator.set_state(state)


def _captured_steps(model: transformers.PreTrainedModel) -> dict[StepShape, TokenStep]:
    """A model's captured steps by shape; none if its weights have moved in memory, or its adapter was switched."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    off = [getattr(module, "disable_adapters", None) for module in model.modules()]  # of peft's layers, a boolean
    stamp = ([tensor.data_ptr() for tensor in tensors], [switch for switch in off if isinstance(switch, bool)])
    if model not in _captured or _captured[model][0] != stamp:
        _captured[model] = stamp, {}
    return _captured[model][1]
