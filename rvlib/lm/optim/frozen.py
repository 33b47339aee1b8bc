"""Models that are not trained (ref_policy, reward models, ground truth), sharded over the processes.

    rvlib run RECIPE --set runtime.frozen_placement=shared     each process keeps 1/world of each weight on its GPU
    rvlib run RECIPE --set runtime.frozen_placement=host       in the host's memory, until it is used

While such a model is used, every process has all of its weights, gathered once and not for each layer, as it has the
policy's while it samples; afterwards they are dropped. It works with FSDP2 and with ZeRO-3 alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from rvlib.lm import processes
from rvlib.lm.models.policies import WeightAccess


@dataclass(frozen=True)
class _Shard:
    """A weight of a model, its shape, and the part of its numbers that this process keeps, padded to equal length."""

    weight: torch.nn.Parameter
    shape: torch.Size
    part: torch.Tensor


class FrozenShards(WeightAccess):
    """1/world of each weight of a model in each process. All must enter `whole` equally often."""

    def __init__(self, model: torch.nn.Module, *, host: bool) -> None:
        world, self.depth, self.shards = processes.world(), 0, []
        for weight in model.parameters():  # each once, tied ones too
            flat = weight.detach().flatten()
            padded = torch.nn.functional.pad(flat, (0, -flat.numel() % world))
            part = padded.chunk(world)[processes.rank()].clone()
            if host:
                part = part.cpu().pin_memory() if weight.is_cuda else part.cpu()
            self.shards.append(_Shard(weight, weight.shape, part))
        self._drop()

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """All weights in each process."""
        if self.depth == 0:
            self._gather()
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0:
                self._drop()

    def _gather(self) -> None:
        for shard in self.shards:
            part = shard.part.to(shard.weight.device, non_blocking=True)
            whole = part.new_empty(processes.world() * part.numel())
            # As bytes, which every backend knows.
            torch.distributed.all_gather_into_tensor(whole.view(torch.uint8), part.view(torch.uint8))
            shard.weight.data = whole[: shard.shape.numel()].view(shard.shape)

    def _drop(self) -> None:
        for shard in self.shards:
            shard.weight.data = shard.weight.data.new_empty(0)


def share_out(model: torch.nn.Module, placement: str) -> WeightAccess:
    """How a process comes by the weights of a model that is not trained.

    placement: `runtime.frozen_placement` of a recipe; a single process always has the whole weights.
    """
    if processes.world() == 1 or placement == "whole":
        return WeightAccess()
    return FrozenShards(model, host=placement == "host")
