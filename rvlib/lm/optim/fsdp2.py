"""PyTorch's FSDP2: `accelerate launch --config_file rvlib/accelerate/fsdp2.yaml -m rvlib run RECIPE`.

Each process keeps 1/world of the 32-bit weights, their gradients and Adam's moments; a layer's weights are gathered, in
`runtime.compute_dtype`, when it is used. In accelerate's configuration `fsdp_reshard_after_forward: false` keeps
gathered weights from forward to backward, and `fsdp_offload_params: true` keeps what is shared out in the memory of the
host.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import accelerate
import torch
import torch.distributed.fsdp
import torch.distributed.tensor
import transformers

from rvlib.lm import processes
from rvlib.lm.optim import adam
from rvlib.lm.settings import RuntimeSettings


class Fsdp2(adam.Adam):
    """The same on weights, gradients and moments that are spread over the processes."""

    model: Any  # its parameters are DTensors, those of its layers apart from the others, which are the root's
    parameters: dict[str, Any]

    def __init__(self, model: transformers.PreTrainedModel, learning_rate: float, runtime: RuntimeSettings) -> None:
        fsdp = torch.distributed.fsdp
        plugin = accelerate.FullyShardedDataParallelPlugin(fsdp_version=2)
        self.model, self.runtime, self.reshard = model, runtime, plugin.reshard_after_forward
        if isinstance(plugin.cpu_offload, fsdp.CPUOffloadPolicy):
            plugin.cpu_offload = fsdp.CPUOffloadPolicy(pin_memory=model.device.type == "cuda")
        sharding = {
            "mesh": torch.distributed.device_mesh.init_device_mesh(model.device.type, (processes.world(),)),
            "mp_policy": fsdp.MixedPrecisionPolicy(
                param_dtype=getattr(torch, runtime.compute_dtype), reduce_dtype=torch.float32
            ),
            "offload_policy": plugin.cpu_offload,
            "reshard_after_forward": self.reshard,
        }
        for value in model.parameters():  # those below an adapter stay in the precision of the arithmetic
            value.data = value.data.to(torch.float32 if value.requires_grad else getattr(torch, runtime.compute_dtype))
        layers = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
        self.root: Any = adam.LossModule(model)
        module: Any
        for module in [*layers, self.root]:
            fsdp.fully_shard(module, **sharding)
            module.set_gradient_divide_factor(1.0)  # a sum, not a mean: losses are divided by the number of all rows
            module.set_force_sum_reduction_for_comms(True)
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.optimizer = adam.make_adam(self.parameters.values(), learning_rate, runtime)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights and moments for a file, whole in the first process, by the same names. All must call it."""
        return {key: _first(tensor) for key, tensor in super().tensors().items()}

    def load(self, keys: Collection[str], get: Callable[[str], torch.Tensor]) -> None:
        """Take weights and moments from a file that has `keys`, get(key) of them the whole tensor."""
        super().load(keys, lambda key: get(key) if key.endswith("/step") else self._part(key.split("/")[1], get(key)))

    def backward(self, loss_of: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Add the gradient of loss_of(), a number; returns it."""
        return super().backward(lambda: self.root(loss_of))

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """All weights in each process, in the precision of the arithmetic, gathered once, not for each token."""
        shards = [module for module in self.root.modules() if isinstance(module, torch.distributed.fsdp.FSDPModule)]
        with torch.no_grad():
            self.root(lambda: None)  # it is the root of its layers only after a first call
        self.root.set_reshard_after_forward(False)
        for module in shards:
            module.unshard()
        try:
            yield
        finally:
            for module in shards:
                module.reshard()
            self.root.set_reshard_after_forward(self.reshard)

    def weights(self) -> dict[str, torch.Tensor]:
        """{name: whole tensor} in the first process, in 32 bits. All must call it."""
        shards = self.model.state_dict(keep_vars=True)
        whole = {id(value): _first(value.detach()) for value in shards.values()}  # tied ones stay one
        return {name: whole[id(value)] for name, value in shards.items()}

    def _part(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A whole tensor that all have, spread as the parameter of that name is, and where it is."""
        parameter = self.parameters[name]
        return torch.distributed.tensor.distribute_tensor(
            tensor, parameter.device_mesh, parameter.placements, src_data_rank=None
        ).to(parameter.device)


def _first(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor whole, on the CPU in the first process and empty in the others if it is spread; otherwise as it is.

    All must call it.
    """
    if not hasattr(tensor, "full_tensor"):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if processes.first() else full.new_empty(0, device="cpu")
