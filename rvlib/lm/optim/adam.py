"""Adam, and how it trains a large policy in little memory: 8-bit moments, stochastic rounding, recomputed activations.

    round_s(w) = the neighbour of w above with probability (w - below)/(above - below), else the one below
    E round_s(w) = w

A step of 1e-7 is far below half the distance between bfloat16 numbers near a weight, so rounding to the nearest gives
the old weight back, always. With stochastic rounding it moves rarely, but then by the whole distance, and on average by
the step. So bfloat16 weights (2 bytes a parameter) with their gradient (2) and two moments of 8 bits (2) do the work of
32-bit weights (16 bytes in all). Rounding and moments are torchao's, low-rank adapters are peft's, recomputation is
transformers'.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.utils.checkpoint
import transformers
import transformers.modeling_layers

from rvlib.lm.models.policies import WeightAccess
from rvlib.lm.seeding import torch_seed
from rvlib.lm.settings import RuntimeSettings

ADAM, ADAM8 = "adam", "adam8bit"


class LossModule(torch.nn.Module):
    """A model as a module whose forward pass is a loss of it, for engines that gather weights when a module is called.

    A loss may use parts of the model, its layers and its head, that no forward pass of the model's own would.
    """

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss_of: Callable[[], torch.Tensor]) -> torch.Tensor:
        """loss_of(), a number."""
        return loss_of()


class Adam(WeightAccess):
    """Adam on a model's parameters, all of them in this process: the optimizer of a `Trainer`.

    A step of 1e-7 is lost in a bfloat16 weight. So Adam moves 32-bit weights, of which the model has rounded copies, or
    bfloat16 weights with stochastic rounding. If several processes share the weights, `fsdp2` or `zero3` takes its
    place.
    """

    model: transformers.PreTrainedModel
    runtime: RuntimeSettings
    parameters: dict[str, torch.Tensor]  # that are moved, by name
    optimizer: Any

    def __init__(self, model: transformers.PreTrainedModel, learning_rate: float, runtime: RuntimeSettings) -> None:
        self.model, self.runtime = model, runtime
        copies = runtime.compute_dtype == "bfloat16" and runtime.weights_dtype == "float32"
        self.parameters = {
            name: value.detach().float().clone() if copies else value
            for name, value in model.named_parameters()
            if value.requires_grad
        }
        # Not the buffers: rotary frequencies stay in 32 bits, as in a model that is loaded.
        for value in model.parameters():
            value.data = value.data.to(getattr(torch, runtime.compute_dtype))
        self.optimizer = make_adam(self.parameters.values(), learning_rate, runtime)

    def backward(self, loss_of: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Add the gradient of loss_of(), a number; returns it."""
        with gradient_checkpointing(self.model, self.runtime.gradient_checkpointing):
            loss = loss_of()
            loss.backward()
        for name, copy in self._copies():  # gradients of rounded copies become those of the weights, in 32 bits
            value = self.parameters[name]
            if copy.grad is not None:
                value.grad = copy.grad.float() if value.grad is None else value.grad.add_(copy.grad)
                copy.grad = None
        return loss.detach()

    def step(self, *seed_path: int) -> float:
        """Move the weights by their clipped gradients, and drop the gradients; returns the norm that they had.

        If the norm is not finite, nothing is moved. seed_path: of stochastic rounding.
        """
        norm: Any = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.runtime.max_grad_norm)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if math.isfinite(norm):
            with stochastic_rounding(self.model.device, *seed_path):
                self.optimizer.step()
            # The fused kernel on a GPU does not count the change itself.
            torch.autograd.graph.increment_version(self.parameters.values())
            self._round()
        self.zero_grad()
        return norm

    def zero_grad(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        for _, copy in self._copies():
            copy.grad = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights and moments for a file: {"model/NAME": tensor, "adam/NAME/MOMENT": tensor}."""
        tensors = {f"model/{name}": value.detach() for name, value in self.parameters.items()}
        for name, value in self.parameters.items():
            tensors |= {f"adam/{name}/{key}": moment for key, moment in flat_state(self.optimizer.state[value]).items()}
        return tensors

    def load(self, keys: Collection[str], get: Callable[[str], torch.Tensor]) -> None:
        """Take weights and moments from a file that has `keys`, get(key) of them the tensor."""
        for name, value in self.parameters.items():
            value.copy_(get(f"model/{name}"))
            prefix = f"adam/{name}/"
            moments = {key.removeprefix(prefix): get(key) for key in keys if key.startswith(prefix)}
            if moments:
                self.optimizer.state[value] = unflat_state(moments, value, bool(self.optimizer.defaults.get("fused")))
        self._round()

    def restore(self) -> None:
        """Put the weights that Adam moved into the model, in place of their rounded copies."""
        for name, copy in self._copies():
            copy.data = self.parameters[name].data

    def close(self) -> None:
        """Free the moments."""
        self.optimizer.state.clear()

    def _round(self) -> None:
        """Round the weights into the model's copies again."""
        with torch.no_grad():
            for name, copy in self._copies():
                copy.copy_(self.parameters[name])

    def _copies(self) -> list[tuple[str, torch.nn.Parameter]]:
        """(name, parameter) of the model's rounded copies of the weights."""
        return [
            (name, copy) for name, copy in self.model.named_parameters() if self.parameters.get(name, copy) is not copy
        ]


def make_adam(
    parameters: Iterable[torch.Tensor], learning_rate: float, runtime: RuntimeSettings
) -> torch.optim.Optimizer:
    """Adam on tensors: 32-bit moments, or for `runtime.optimizer` "adam8bit" 8-bit ones, rounded at random."""
    parameters = list(parameters)
    if runtime.optimizer == ADAM:
        # On a GPU one kernel does it; the default there takes the memory of all weights again for each of its steps.
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, fused=parameters[0].is_cuda or None)
    import torchao.optim  # slow to import, and only these recipes need it

    return torchao.optim.AdamW8bit(parameters, lr=learning_rate, weight_decay=0.0, bf16_stochastic_round=True)


@contextlib.contextmanager
def stochastic_rounding(device: torch.device, *seed_path: int) -> Iterator[None]:
    """Seed the random numbers of stochastic rounding, and leave the caller's generators as they are.

    On a CPU the step is not compiled.
    """
    with torch_seed(*seed_path), torch.compiler.set_stance("force_eager" if device.type == "cpu" else "default"):
        yield


def flat_state(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The state of one parameter as plain tensors, for a file: an 8-bit moment is its codes, scales and table."""
    tensors: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        parts = value.__tensor_flatten__()[0] if hasattr(value, "codes") else []
        tensors |= {f"{key}/{part}": getattr(value, part) for part in parts} if parts else {key: value}
    return tensors


def unflat_state(tensors: Mapping[str, torch.Tensor], value: torch.Tensor, fused: bool = False) -> dict[str, Any]:
    """What `flat_state` made, as the state of the parameter `value`, on its device, where a fused step counts too."""
    state: dict[str, Any] = {
        key: tensor if key == "step" and not fused else tensor.to(value.device) for key, tensor in tensors.items()
    }
    for name in {key.partition("/")[0] for key in state if "/" in key}:
        codes, scale, qmap = (state.pop(f"{name}/{part}") for part in ("codes", "scale", "qmap"))
        from torchao.optim.subclass_8bit import OptimState8bit  # as in `make_adam`

        state[name] = OptimState8bit(codes, scale, qmap, signed=bool(qmap.min() < 0), dtype=value.dtype)
    return state


@contextlib.contextmanager
def gradient_checkpointing(model: transformers.PreTrainedModel, on: bool = True) -> Iterator[None]:
    """Inside, each layer keeps only its input and computes the rest again in the backward pass.

    Dropout stays off, and nothing is cached.
    """
    if not on:
        yield
        return
    checkpoint, kind = torch.utils.checkpoint.checkpoint, transformers.modeling_layers.GradientCheckpointingLayer
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, kind)]
    cached = model.config.use_cache
    model.config.use_cache = False
    for layer in layers:
        layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=False)
        layer.gradient_checkpointing = layer.training = True  # not .train(), which would reach its dropout
    try:
        yield
    finally:
        model.config.use_cache = cached
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False
