"""Several processes on one run, one for each GPU.

    accelerate launch --config_file rvlib/accelerate/fsdp2.yaml -m rvlib run RECIPE

Every process runs the same stages on its share of the work, and the first alone writes checkpoints, models, results and
logs:

    samples                         each process draws every world-th batch and writes its file
    rewards of replies              each scores every world-th prompt
    a batch of policy gradient      each draws every world-th chunk of `runtime.batch_size`, seeded by its place;
                                    of a vLLM server the first process asks them all
    a step of Adam                  each takes the gradient of every world-th row; they are summed
    weights, gradients and moments  FSDP2 keeps 1/world of each in a process and gathers a layer's weights for its use

No random number depends on how many processes there are, and checkpoints are files of whole tensors, so a run may go on
with more processes or fewer. Models that are only read are whole in every process while they are read, and at all times
unless `runtime.frozen_placement` says otherwise (`optim.frozen`); so is the policy while it samples
(`models.policies.WeightAccess`). In one process every function here is the identity. Several machines must see the
run's folder as one.

What FSDP2 does (`optim.fsdp2`) DeepSpeed's ZeRO-3 does too (`optim.zero3`), where accelerate's configuration says so.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import accelerate.utils.other
import numpy as np
import torch
from numpy.typing import NDArray

T = TypeVar("T")
U = TypeVar("U")

if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") != "true":
    # To save any model, accelerate would import a DeepSpeed that is installed: seconds, and warnings.
    accelerate.utils.other.is_deepspeed_available = lambda: False


def start() -> None:
    """Join the others, if a launcher (accelerate's or torch's) started this process as one of several."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and world() == 1:
        # Or transformers would read weights in the first process alone.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # Long, as the launcher sees a process that dies; a checkpoint of 8B is written while the others wait.
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=datetime.timedelta(hours=2)
        )


def check(engine: str, optimizer: str) -> None:
    """ValueError, one sentence, for an engine or an optimizer of a recipe that several processes can't have."""
    if world() > 1 and engine in ("continuous", "vllm-colocate"):
        raise ValueError(
            f"The engine of several processes must be auto, generate or vllm, got {engine}, which is for one; "
            "set runtime.engine."
        )
    if world() > 1 and optimizer != "adam":
        raise ValueError(
            f"The optimizer of several processes must be adam, whose 32-bit weights and moments they share, "
            f"got {optimizer}; set runtime.optimizer to adam and runtime.weights_dtype to float32."
        )


def stop() -> None:
    """End this process at the end of a run, if it is one of several.

    Python's own exit is avoided: a thread of gloo that has not finished with its last message can abort it.
    """
    if world() > 1:
        gather([])  # so that no process ends while another still sends to it
        torch.distributed.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def world() -> int:
    """How many processes there are."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return torch.distributed.get_rank() if world() > 1 else 0


def first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def exit_message(sentence: str) -> str | int:
    """What this process exits with, for the launcher to end the others: the sentence, or 1 if another failed first.

    So an error that every process meets is printed only once.
    """
    printed = world() > 1 and torch.distributed.distributed_c10d._get_default_store().add("rvlib/failed", 1) > 1
    return 1 if printed else sentence


def cuda_devices() -> list[int]:
    """The GPU of this process, whose random generator it uses: [its number], or [] without a GPU."""
    cuda = torch.cuda
    return [cuda.current_device()] if cuda.is_available() else []


def only_first(function: Callable[[], T]) -> T:
    """Call function() in the first process; its result, or its error, reaches all, which wait for it."""
    if world() == 1:
        return function()
    outcome: list[Any] = [None, None]  # the result, the error
    if first():
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
    torch.distributed.broadcast_object_list(outcome)
    result, failure = outcome
    if failure is not None:
        raise failure
    return result


def share(items: Sequence[T]) -> Sequence[T]:
    """The items of this process: every world-th."""
    return items[rank() :: world()]


def gather(items: list[T]) -> list[T]:
    """The whole list, in order and in every process, from each process's `share` of it."""
    if world() == 1:
        return items
    shares: list[Any] = [None] * world()
    torch.distributed.all_gather_object(shares, items)
    return [shares[i % len(shares)][i // len(shares)] for i in range(sum(map(len, shares)))]


def score(
    reward_function: Callable[[Sequence[T], Sequence[U]], NDArray[np.float64]],
    prompts: Sequence[T],
    replies: Sequence[U],
) -> NDArray[np.float64]:
    """reward_function(prompts, replies), an array of that shape; each process scores its share of the prompts.

    A process without a share scores the first prompt and drops the result, since all processes must take part in
    gathering the weights of a reward model that is sharded.
    """
    if not prompts:
        return np.array([])
    if own_prompts := share(prompts):
        return np.array(gather(list(reward_function(own_prompts, share(replies)))))
    reward_function(prompts[:1], replies[:1])
    return np.array(gather([]))


def by_deepspeed() -> bool:
    """Whether the weights that are trained are sharded by DeepSpeed, and not by FSDP2."""
    return world() > 1 and os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"


def any_of(condition: bool) -> bool:
    """Whether the condition holds in any of the processes. All must call it."""
    if world() == 1:
        return condition
    flag = torch.tensor(float(condition))
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)


def total(number: float) -> float:
    """The sum of a number over the processes."""
    return sum(gather([number])) if world() > 1 else number
