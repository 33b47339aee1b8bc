"""DeepSpeed's ZeRO-3 in place of FSDP2.

    accelerate launch --config_file rvlib/accelerate/zero3.yaml -m rvlib run RECIPE

Each process keeps 1/world of the 32-bit weights, their gradients and Adam's moments, and of the weights in
`runtime.compute_dtype`; a layer's weights are gathered when it is used. Adam is torch's, as everywhere here, and
checkpoints are the same files of whole tensors, so that a run goes on under FSDP2 or in one process. Stage 3 alone;
parts may wait in the host's memory, not on a disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import accelerate
import torch
import transformers

from rvlib.lm import processes
from rvlib.lm.optim import adam
from rvlib.lm.settings import RuntimeSettings

# Set before DeepSpeed is imported, so that it compiles nothing on a CPU.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
os.environ.setdefault("DS_ACCELERATOR", DEVICE)
# DeepSpeed still calls deprecated names of torch.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")

import deepspeed  # noqa: E402
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK  # noqa: E402

logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
if DEVICE == "cpu":
    vars(deepspeed.ops)["__compatible_ops__"] = {}


class Zero3(adam.Adam):
    """The same by an engine of DeepSpeed."""

    model: Any  # its parameters have what DeepSpeed keeps of each
    parameters: dict[str, Any]

    def __init__(self, model: transformers.PreTrainedModel, learning_rate: float, runtime: RuntimeSettings) -> None:
        self.model, self.runtime = model, runtime
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        moved = list(self.parameters.values())
        for value in model.parameters():  # those below an adapter stay in the precision of the arithmetic
            value.data = value.data.to(torch.float32 if value.requires_grad else getattr(torch, runtime.compute_dtype))
        # DeepSpeed would make 32-bit weights of rounded ones.
        exact = [self._part(value.detach()).cpu().clone() for value in moved]
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        config = {
            "zero_optimization": _zero_optimization() | {"overlap_comm": False},
            "bf16": {"enabled": runtime.compute_dtype == "bfloat16"},
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
            "gradient_clipping": runtime.max_grad_norm,
            "managed_gradient_accumulation": False,  # a step is where `step` is called, whatever came before it
            "train_micro_batch_size_per_gpu": 1,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        optimizer = adam.make_adam(moved, learning_rate, runtime)
        self.engine, *_ = deepspeed.initialize(
            model=adam.LossModule(model), optimizer=optimizer, config=config, dist_init_required=False
        )
        for name, buffer in model.named_buffers():  # rotary frequencies stay in 32 bits
            buffer.data = buffers[name].to(buffer.device)
        for value, part in zip(moved, exact, strict=True):
            deepspeed.utils.safe_set_local_fp32_param(value, part)
        for flat in self.engine.optimizer.fp32_partitioned_groups_flat:
            # Moments as torch would make them at the first step.
            counter = torch.zeros((), device=flat.device if optimizer.defaults["fused"] else "cpu")
            optimizer.state[flat] = {
                "step": counter,
                "exp_avg": torch.zeros_like(flat),
                "exp_avg_sq": torch.zeros_like(flat),
            }
        self.optimizer = self.engine.optimizer

    def backward(self, loss_of: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Add the gradient of loss_of(), a number; returns it."""
        with adam.gradient_checkpointing(self.model, self.runtime.gradient_checkpointing):
            loss = self.engine(loss_of)
            self.engine.backward(loss * processes.world())  # the engine takes a mean over the processes
        return loss.detach()

    def step(self, *seed_path: int) -> float:
        """Move the weights by their clipped gradients, and drop the gradients; returns the norm that they had.

        DeepSpeed moves nothing if the norm is not finite.
        """
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights and moments for a file, whole in the first process, by the same names. All must call it."""
        utils, step = deepspeed.utils, self._steps()[0].cpu()
        tensors = {
            f"model/{name}": _first(utils.safe_get_full_fp32_param(value)) for name, value in self.parameters.items()
        }
        for name, value in self.parameters.items():
            tensors[f"adam/{name}/step"] = step.clone()
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"adam/{name}/{key}"] = _first(utils.safe_get_full_optimizer_state(value, key))
        return tensors

    def load(self, keys: Collection[str], get: Callable[[str], torch.Tensor]) -> None:
        """Take weights and moments from a file that has `keys`, get(key) of them the tensor."""
        for name, value in self.parameters.items():
            full = get(f"model/{name}")
            deepspeed.utils.safe_set_local_fp32_param(value, self._part(full))
            with deepspeed.zero.GatheredParameters([value], modifier_rank=0):
                value.data.copy_(full)
            for key in ("exp_avg", "exp_avg_sq"):
                if f"adam/{name}/{key}" in keys:
                    deepspeed.utils.safe_set_local_optimizer_state(value, self._part(get(f"adam/{name}/{key}")), key)
        done = max((float(get(key)) for key in keys if key.endswith("/step")), default=0.0)
        for counter in self._steps():
            counter.fill_(done)

    def close(self) -> None:
        """Free the engine, to which the model's hooks and a list of DeepSpeed still refer."""
        self.engine.destroy()
        FWD_MODULE_STACK.clear()
        del self.engine, self.optimizer

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """All weights in each process, in the precision of the arithmetic, gathered once, not for each token."""
        offload = self.optimizer.parameter_offload
        with torch.no_grad(), deepspeed.zero.GatheredParameters(self.model.parameters()):
            # The hooks would drop a layer's weights after its use. This is what TRL does to sample.
            for value in self.model.parameters():
                value.ds_active_sub_modules.clear()
            for hook in [*offload.forward_hooks, *offload.backward_hooks]:
                hook.remove()
            offload.forward_hooks, offload.backward_hooks = [], []
            try:
                yield
            finally:
                offload._register_deepspeed_module(offload.module)

    def weights(self) -> dict[str, torch.Tensor]:
        """{name: whole tensor} in the first process, in 32 bits where Adam moved such. All must call it."""
        whole: dict[int, torch.Tensor] = {}  # tied ones stay one
        shards = self.model.state_dict(keep_vars=True)
        for value in shards.values():
            if id(value) not in whole:
                with deepspeed.zero.GatheredParameters([value]):
                    full = deepspeed.utils.safe_get_full_fp32_param(value) if value.requires_grad else value.detach()
                    whole[id(value)] = _first(full)
        return {name: whole[id(value)] for name, value in shards.items()}

    def _part(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part of a whole tensor that this process keeps, flat: 1/world of it, rounded up, zeros at the end."""
        flat = tensor.float().flatten()
        world = processes.world()
        padding = -flat.numel() % world
        return torch.nn.functional.pad(flat, (0, padding)).chunk(world)[processes.rank()]

    def _steps(self) -> list[torch.Tensor]:
        """How many steps Adam has done, by which it corrects its moments: a tensor for each group of parameters."""
        return [state["step"] for state in self.optimizer.optimizer.state.values()]


def _zero_optimization() -> dict[str, Any]:
    """The settings of this name that DeepSpeed gets by accelerate's configuration.

    ValueError, one sentence, unless they are those of stage 3 without a disk.
    """
    settings = accelerate.DeepSpeedPlugin().deepspeed_config["zero_optimization"]
    disk = any((settings.get(f"offload_{part}") or {}).get("device") == "nvme" for part in ("optimizer", "param"))
    if settings["stage"] != 3 or disk:
        raise ValueError(
            "DeepSpeed must share the weights by its stage 3, in memory, "
            f"got {'offloading to nvme' if disk else 'stage ' + str(settings['stage'])}; "
            "launch with rvlib/accelerate/zero3.yaml."
        )
    return settings


def _first(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the CPU in the first process, an empty one in the others."""
    return tensor.cpu().clone() if processes.first() else tensor.new_empty(0, device="cpu")
