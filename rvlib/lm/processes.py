"""Several processes on one run, one for each GPU: `accelerate launch --config_file rvlib/accelerate/fsdp2.yaml -m rvlib run RECIPE`.

Every process runs the same stages on its share of the work, and the first alone writes checkpoints, models, results and logs:

    samples                         each process draws every world-th batch and writes its file
    rewards of replies              each scores every world-th prompt
    a batch of policy gradient      each draws every world-th chunk of `limits.rows` replies, seeded by its place in the batch;
                                    of a vLLM server the first process asks them all
    a step of Adam                  each takes the gradient of every world-th row; they are summed
    weights, gradients and moments  FSDP2 keeps 1/world of each in a process and gathers a layer's weights when they are used

No random number depends on how many processes there are, and checkpoints are files of whole tensors, so a run may go on with
more processes or fewer. Models that are only read are whole in every process; so is the policy while it samples (`whole`). In one
process every function here is the identity. Several machines must see the run's folder as one.

What FSDP2 does DeepSpeed's ZeRO-3 does too (`zero3`), where accelerate's configuration says so.
"""

import contextlib
import datetime
import os
import sys
import types

from rvlib.lm import need


def start():
    """Join the others, if a launcher (accelerate's or torch's) started this process as one of several. ModuleNotFoundError or ValueError for what is not run here."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and world() == 1:
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # or transformers would read weights in the first process alone
        torch = need("torch")
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # Long, because a process that dies is seen by the launcher; a checkpoint of 8B is written while the others wait.
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=datetime.timedelta(hours=2))
        if by_deepspeed():
            need("rvlib.lm.zero3").sharing()


def check(limits):
    """ValueError, one sentence, for a recipe's limits that several processes can't keep."""
    if world() > 1 and limits.engine == "continuous":
        raise ValueError("The engine of several processes must be generate, static or vllm, got continuous, which is for one; set limits.engine.")
    if world() > 1 and limits.optimizer != "adam":
        raise ValueError(f"The optimizer of several processes must be adam, whose 32-bit weights and moments they share, got {limits.optimizer}; set limits.optimizer to adam and limits.dtype to float32.")


def stop():
    """Leave the others, at the end of a run: of several processes, each ends here.

    Not by Python's own end, in which a thread of gloo's that is still letting go of its last message now and then aborts the process.
    """
    if world() > 1:
        gather([])  # or one would be gone while another still talks to it
        need("torch").distributed.destroy_process_group()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(0)


def world():
    """How many processes there are."""
    distributed = sys.modules.get("torch.distributed")  # one process may do without torch
    return distributed.get_world_size() if distributed and distributed.is_available() and distributed.is_initialized() else 1


def rank():
    """The number of this process, from 0."""
    return need("torch").distributed.get_rank() if world() > 1 else 0


def first():
    """Whether this is the process that writes."""
    return rank() == 0


def said(sentence):
    """What this process exits with, for the launcher to end the others: the sentence, or 1 if another failed first, as of an error that all meet."""
    again = world() > 1 and need("torch").distributed.distributed_c10d._get_default_store().add("rvlib/failed", 1) > 1
    return 1 if again else sentence


def generators():
    """The GPU, of all that this process could see, whose random numbers are its own: [its number], or none."""
    cuda = need("torch").cuda
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
    need("torch").distributed.broadcast_object_list(found)
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
    need("torch").distributed.all_gather_object(parts, mine)
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]


def score(judge, prompts, replies):
    """judge(prompts, replies), rewards (prompts, replies), each process judging its share of the prompts."""
    mine = share(prompts)
    return need("numpy").array(gather(list(judge(mine, share(replies))) if mine else []))


def by_deepspeed():
    """Whether the weights of what is trained are shared out by DeepSpeed, not by FSDP2."""
    return world() > 1 and os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"


def total(number):
    """The sum of a number over the processes."""
    return sum(gather([number])) if world() > 1 else number


def shard(model, limits):
    """Spread `model`'s 32-bit weights over the processes by FSDP2; arithmetic in `limits.compute`, gradients added up in 32 bits.

    As accelerate's configuration says: `fsdp_reshard_after_forward: false` keeps gathered weights from forward to backward,
    `fsdp_offload_params: true` keeps what is sharded in the memory of the host. Returns whether there are several processes.
    """
    if world() == 1:
        return False
    torch, fsdp = need("torch"), need("torch.distributed.fsdp")
    plugin = need("accelerate").FullyShardedDataParallelPlugin(fsdp_version=2)
    how = {
        "mesh": torch.distributed.device_mesh.init_device_mesh(model.device.type, (world(),)),
        "mp_policy": fsdp.MixedPrecisionPolicy(param_dtype=getattr(torch, limits.compute), reduce_dtype=torch.float32),
        "offload_policy": fsdp.CPUOffloadPolicy(pin_memory=model.device.type == "cuda") if plugin.cpu_offload else fsdp.OffloadPolicy(),
        "reshard_after_forward": plugin.reshard_after_forward,
    }
    for value in model.parameters():
        value.data = value.data.float()
    layers = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
    for module in [*layers, model]:
        fsdp.fully_shard(module, **how)
        module.set_gradient_divide_factor(1.0)  # a sum, not a mean: losses are divided by the number of all rows
        module.set_force_sum_reduction_for_comms(True)
    model.through = types.MethodType(lambda self, function: function(), model)
    fsdp.register_fsdp_forward_method(model, "through")
    return True


def through(model, function):
    """function(), which uses parts of `model` by themselves, with the weights that a call of the whole would have gathered."""
    return model.through(function) if hasattr(model, "through") else function()


@contextlib.contextmanager
def whole(model):
    """All of a sharded model's weights in each process, in the precision of its arithmetic: gathered once, not for each token or batch."""
    if hasattr(model, "zero3"):
        with model.zero3.whole():
            yield
        return
    shards = _shards(model)
    if shards:
        with need("torch").no_grad():
            through(model, lambda: None)  # it is the root of its layers only after a first call
        model.set_reshard_after_forward(False)
        for module in shards:
            module.unshard()
    try:
        yield
    finally:
        if shards:
            for module in shards:
                module.reshard()
            model.set_reshard_after_forward(need("accelerate").FullyShardedDataParallelPlugin(fsdp_version=2).reshard_after_forward)


def _shards(model):
    if world() == 1:
        return []
    return [module for module in model.modules() if isinstance(module, need("torch.distributed.fsdp").FSDPModule)]


def gathered(tensor):
    """A tensor whole, on the CPU in the first process and empty in the others if it is sharded; otherwise as it is. All must call it."""
    if not hasattr(tensor, "full_tensor"):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if first() else full.new_empty(0, device="cpu")


def weights(model):
    """{name: whole tensor} of a sharded model, for the first process to save; None of one that is not. All must call it."""
    if hasattr(model, "zero3"):
        return model.zero3.weights()
    if not _shards(model):
        return None
    kept = model.state_dict(keep_vars=True)
    whole = {id(value): gathered(value.detach()) for value in kept.values()}  # tied ones stay one
    return {name: whole[id(value)] for name, value in kept.items()}


def like(tensor, value):
    """`value`, a whole tensor that all have, spread as `tensor` is, if it is sharded, and on its device."""
    if not hasattr(tensor, "full_tensor"):
        return value.to(tensor.device)
    distribute = need("torch.distributed.tensor").distribute_tensor
    return distribute(value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)
