"""PyTorch's FSDP2: `accelerate launch --config_file rvlib/accelerate/fsdp2.yaml -m rvlib run RECIPE`.

Each process keeps 1/world of the 32-bit weights, their gradients and Adam's moments; a layer's weights are gathered, in
`runtime.compute_dtype`, when it is used. In accelerate's configuration `fsdp_reshard_after_forward: false` keeps gathered weights from
forward to backward, and `fsdp_offload_params: true` keeps what is shared out in the memory of the host.
"""

import contextlib
import types

import accelerate
import torch
import torch.distributed.fsdp
import torch.distributed.tensor

from rvlib.lm import processes
from rvlib.lm.optim import adam


class Fsdp2(adam.Adam):
    """The same on weights, gradients and moments that are spread over the processes."""

    def __init__(self, model, learning_rate, runtime):
        fsdp = torch.distributed.fsdp
        plugin = accelerate.FullyShardedDataParallelPlugin(fsdp_version=2)
        self.model, self.runtime, self.reshard = model, runtime, plugin.reshard_after_forward
        if isinstance(plugin.cpu_offload, fsdp.CPUOffloadPolicy):
            plugin.cpu_offload = fsdp.CPUOffloadPolicy(pin_memory=model.device.type == "cuda")
        how = {
            "mesh": torch.distributed.device_mesh.init_device_mesh(model.device.type, (processes.world(),)),
            "mp_policy": fsdp.MixedPrecisionPolicy(
                param_dtype=getattr(torch, runtime.compute_dtype), reduce_dtype=torch.float32
            ),
            "offload_policy": plugin.cpu_offload,
            "reshard_after_forward": self.reshard,
        }
        for value in model.parameters():
            value.data = value.data.float()
        layers = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
        for module in [*layers, model]:
            fsdp.fully_shard(module, **how)
            module.set_gradient_divide_factor(1.0)  # a sum, not a mean: losses are divided by the number of all rows
            module.set_force_sum_reduction_for_comms(True)
        model.call = types.MethodType(lambda self, function: function(), model)
        fsdp.register_fsdp_forward_method(model, "call")
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.optimizer = adam.make_adam(self.parameters.values(), learning_rate, runtime)
        model.shared_by = self

    def tensors(self):
        """Weights and moments for a file, whole in the first process, by the same names. All must call it."""
        return {key: _first(tensor) for key, tensor in super().tensors().items()}

    def load(self, keys, get):
        """Take weights and moments from a file that has `keys`, get(key) of them the whole tensor."""
        super().load(keys, lambda key: get(key) if key.endswith("/step") else self._part(key.split("/")[1], get(key)))

    def through(self, function):
        """function(), which uses parts of the model by themselves, with the weights that a call of the whole would have gathered."""
        return self.model.call(function)

    @contextlib.contextmanager
    def whole(self):
        """All weights in each process, in the precision of the model's arithmetic: gathered once, not for each token or batch."""
        shards = [module for module in self.model.modules() if isinstance(module, torch.distributed.fsdp.FSDPModule)]
        with torch.no_grad():
            self.through(lambda: None)  # it is the root of its layers only after a first call
        self.model.set_reshard_after_forward(False)
        for module in shards:
            module.unshard()
        try:
            yield
        finally:
            for module in shards:
                module.reshard()
            self.model.set_reshard_after_forward(self.reshard)

    def weights(self):
        """{name: whole tensor} in the first process, in 32 bits. All must call it."""
        kept = self.model.state_dict(keep_vars=True)
        whole = {id(value): _first(value.detach()) for value in kept.values()}  # tied ones stay one
        return {name: whole[id(value)] for name, value in kept.items()}

    def _part(self, name, tensor):
        """A whole tensor that all have, spread as the parameter of that name is, and where it is."""
        like = self.parameters[name]
        return torch.distributed.tensor.distribute_tensor(
            tensor, like.device_mesh, like.placements, src_data_rank=None
        ).to(like.device)


def _first(tensor):
    """A tensor whole, on the CPU in the first process and empty in the others if it is spread; otherwise as it is. All must call it."""
    if not hasattr(tensor, "full_tensor"):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if processes.first() else full.new_empty(0, device="cpu")
