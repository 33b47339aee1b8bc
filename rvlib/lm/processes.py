"""Several processes on one run, one for each GPU: `accelerate launch --config_file rvlib/accelerate/fsdp2.yaml -m rvlib run RECIPE`.

Every process runs the same stages on its share of the work, and the first alone writes checkpoints, models, results and logs:

    samples                         each process draws every world-th batch and writes its file
    rewards of replies              each scores every world-th prompt
    a batch of policy gradient      each draws every world-th chunk of `runtime.batch_size` replies, seeded by its place in the batch;
                                    of a vLLM server the first process asks them all
    a step of Adam                  each takes the gradient of every world-th row; they are summed
    weights, gradients and moments  FSDP2 keeps 1/world of each in a process and gathers a layer's weights when they are used

No random number depends on how many processes there are, and checkpoints are files of whole tensors, so a run may go on with
more processes or fewer. Models that are only read are whole in every process; so is the policy while it samples (`whole`). In one
process every function here is the identity. Several machines must see the run's folder as one.

What FSDP2 does (`fsdp2`) DeepSpeed's ZeRO-3 does too (`zero3`), where accelerate's configuration says so.
"""

import contextlib
import datetime
import os
import sys

import numpy as np
import torch


def start():
    """Join the others, if a launcher (accelerate's or torch's) started this process as one of several. ModuleNotFoundError or ValueError for what is not run here."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and world() == 1:
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = (
            "false"  # or transformers would read weights in the first process alone
        )
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # Long, because a process that dies is seen by the launcher; a checkpoint of 8B is written while the others wait.
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=datetime.timedelta(hours=2)
        )


def check(runtime):
    """ValueError, one sentence, for a recipe's runtime that several processes can't keep."""
    if world() > 1 and runtime.engine == "continuous":
        raise ValueError(
            "The engine of several processes must be generate, static or vllm, got continuous, which is for one; set runtime.engine."
        )
    if world() > 1 and runtime.optimizer != "adam":
        raise ValueError(
            f"The optimizer of several processes must be adam, whose 32-bit weights and moments they share, got {runtime.optimizer}; set runtime.optimizer to adam and runtime.weights_dtype to float32."
        )


def stop():
    """Leave the others, at the end of a run: of several processes, each ends here.

    Not by Python's own end, in which a thread of gloo's that is still letting go of its last message now and then aborts the process.
    """
    if world() > 1:
        gather([])  # or one would be gone while another still talks to it
        torch.distributed.destroy_process_group()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(0)


def world():
    """How many processes there are."""
    distributed = sys.modules.get("torch.distributed")  # one process may do without torch
    return (
        distributed.get_world_size()
        if distributed and distributed.is_available() and distributed.is_initialized()
        else 1
    )


def rank():
    """The number of this process, from 0."""
    return torch.distributed.get_rank() if world() > 1 else 0


def first():
    """Whether this is the process that writes."""
    return rank() == 0


def said(sentence):
    """What this process exits with, for the launcher to end the others: the sentence, or 1 if another failed first, as of an error that all meet."""
    again = world() > 1 and torch.distributed.distributed_c10d._get_default_store().add("rvlib/failed", 1) > 1
    return 1 if again else sentence


def generators():
    """The GPU, of all that this process could see, whose random numbers are its own: [its number], or none."""
    cuda = torch.cuda
    return [cuda.current_device()] if cuda.is_available() else []


def only_first(function):
    """function() in the first process, its result or its error in all; nobody goes on before it is done."""
    if world() == 1:
        return function()
    found = [None, None]
    if first():
        try:
            found[0] = function()
        except Exception as error:
            found[1] = error
    torch.distributed.broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return found[0]


def share(items):
    """The items of this process: every world-th."""
    return items[rank() :: world()]


def gather(mine):
    """The list of which every process has its `share`, whole and in order, in all."""
    if world() == 1:
        return mine
    parts = [None] * world()
    torch.distributed.all_gather_object(parts, mine)
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]


def score(judge, prompts, replies):
    """judge(prompts, replies), rewards (prompts, replies), each process judging its share of the prompts."""
    mine = share(prompts)
    return np.array(gather(list(judge(mine, share(replies))) if mine else []))


def by_deepspeed():
    """Whether the weights of what is trained are shared out by DeepSpeed, not by FSDP2."""
    return world() > 1 and os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"


def total(number):
    """The sum of a number over the processes."""
    return sum(gather([number])) if world() > 1 else number


def through(model, function):
    """function(), which uses parts of `model` by themselves, with the weights that a call of the whole would have gathered."""
    return model.shared_by.through(function) if hasattr(model, "shared_by") else function()


def whole(model):
    """A context in which each process has all of a model's weights, in the precision of its arithmetic, if they are shared out."""
    return model.shared_by.whole() if hasattr(model, "shared_by") else contextlib.nullcontext()


def weights(model):
    """{name: whole tensor} of a model whose weights are shared out, for the first process to save; None of another. All must call it."""
    return model.shared_by.weights() if hasattr(model, "shared_by") else None
