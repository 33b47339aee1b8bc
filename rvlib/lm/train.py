"""A model under Adam and its place on disk: micro-batches, memory that runs out, checkpoints, and going on bit for bit.

    for step in learner.steps(total):          resumes, shows progress, saves
        loss = learner.update(rows, loss_of)   one step of Adam on the mean over rows of loss_of(some of them)
        learner.log(step, loss=loss)

Whatever is drawn at step n is drawn from a seed of n (`draw_from`), so weights and Adam's moments are all the state there is,
and a run that was killed ends with the very numbers of one that was not. TRL's trainers have the losses of fine-tuning and
reward modelling too; they are not used here because their checkpoints are written in place, hold pickles, and carry the state of
random generators.
"""

import contextlib
import json
import math
import os
import pathlib

from rvlib.lm import need, optimizer, processes

KEPT = 2  # checkpoints: the last, and the one before it in case the last was cut off by a full disk or a crash


class Learner:
    """Adam on `model`'s parameters, with a log and checkpoints in `folder`. limits: `recipe.Limits`.

    With several processes all call the same methods alike; the model is sharded, and checkpoints are still of whole tensors.
    """

    def __init__(self, model, folder, learning_rate, limits):
        self.folder, self.limits, self.micro_batch = pathlib.Path(folder), limits, limits.micro_batch
        self.folder.mkdir(parents=True, exist_ok=True)
        # No dropout while training: the policy that is sampled is the policy whose gradient is taken.
        self.model = model.eval() if optimizer.adapted(model) else model.eval().requires_grad_(True)
        self.adam = optimizer.of(model, learning_rate, limits)
        self.step, self.dirty = 0, False

    def steps(self, total, label):
        """The numbers of the steps still to be done, of `total`; saves now and then and at the end."""
        tqdm = need("tqdm").tqdm
        first = self.resume()
        self._cut_log(first)
        with tqdm(total=total, initial=first, desc=label, unit="step", disable=first == total or not processes.first()) as bar:
            for self.step in range(first, total):
                self.dirty = False
                yield self.step
                bar.update()
                if (self.step + 1) % self.limits.save_every == 0 or self.step + 1 == total:
                    self.save(self.step + 1)

    def update(self, rows, loss_of, length=None):
        """One step of Adam on the mean over `rows` (a list) of loss_of(some rows), a tensor with a loss for each; returns the mean.

        length(row), in tokens: micro-batches are then of rows of similar length, so that little is padded.

        Memory that runs out halves the micro-batch for good, and says so. FloatingPointError, in one sentence, for a loss that
        is not finite, after saving the weights as they were before it.
        """
        while True:
            try:
                return self._update(sorted(rows, key=length) if length and len(rows) > self.micro_batch else rows, loss_of)
            except RuntimeError as error:
                if not need("accelerate.utils.memory").should_reduce_batch_size(error):
                    raise
                if processes.world() > 1:  # the others wait for this one's part of the micro-batch
                    raise MemoryError(f"Micro-batches of {self.micro_batch} must fit in memory, but did not at step {self.step}; run again with a smaller limits.micro_batch.") from error
                self.adam.forget()
                need("accelerate.utils.memory").clear_device_cache(garbage_collection=True)
                if self.micro_batch == 1:
                    raise MemoryError(f"One row at a time must fit in memory, but did not at step {self.step}; {self._saved()}; choose a smaller model or shorter texts.") from error
                self.micro_batch //= 2
                need("tqdm").tqdm.write(f"Out of memory at step {self.step}: going on with micro-batches of {self.micro_batch}.")

    def _update(self, rows, loss_of):
        total = 0.0  # becomes a tensor that is read once, at the end: a GPU goes on while the next micro-batch is made ready
        mine, most = processes.share(rows), math.ceil(len(rows) / processes.world())
        for start in range(0, most, self.micro_batch):
            some = mine[start : start + self.micro_batch]
            # Without rows of its own left, a process still takes part in gathering the weights for the others'.
            total = total + self.adam.backward(lambda: loss_of(some or rows[:1]).sum() / len(rows) * bool(some)).double()
        total = processes.total(total.item())
        if not math.isfinite(total):
            self.adam.forget()
            raise FloatingPointError(f"The loss must be finite, got {total} at step {self.step}; {self._saved()}; lower the learning rate, or look at the rewards.")
        self.adam.step(self.step)
        self.dirty = True
        return total

    def log(self, step, **numbers):
        """Append the numbers of a step to log.jsonl, and to TensorBoard's file beside it."""
        if not processes.first():
            return
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | numbers) + "\n")
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def lines(self):
        """What the log has: a list of dictionaries, each with its `step`."""
        path = self.folder / "log.jsonl"
        return processes.only_first(lambda: read_lines(path) if path.exists() else [])

    @property
    def writer(self):
        if not hasattr(self, "_writer"):
            self._writer = need("torch.utils.tensorboard").SummaryWriter(self.folder / "tensorboard", purge_step=self.step)
        return self._writer

    def save(self, step):
        """Write weights and moments after `step` steps as one file, whole or not at all, and delete those before the last two."""
        tensors = self.adam.tensors()
        path = self.folder / f"checkpoint-{step:07d}.safetensors"
        save = need("safetensors.torch").save_file
        processes.only_first(lambda: write_whole(path, lambda partial: save(tensors, partial, metadata={"step": str(step)})))
        self._unlink(self._checkpoints()[KEPT:])

    def resume(self):
        """Load the last checkpoint that is whole, if there is any; returns how many steps were done by then."""
        path = processes.only_first(self._last_whole)
        if path is None:
            return 0
        with need("torch").no_grad(), need("safetensors").safe_open(path, "pt") as tensors:
            keys = list(tensors.keys())
            if self.limits.optimizer == optimizer.ADAM and any(key.endswith("/codes") for key in keys):
                raise ValueError(f"{path} must hold the state of 32-bit Adam, got 8-bit moments; set limits.optimizer to {optimizer.ADAM8} and limits.dtype to bfloat16 as they were, or delete it.")
            self.adam.load(keys, tensors.get_tensor)
        return int(path.stem.split("-")[1])

    def _last_whole(self):
        """The last checkpoint that is whole, or None; those that are not are deleted."""
        for path in self._checkpoints():
            try:
                with need("safetensors").safe_open(path, "pt"):  # compares the file's length with what its head says
                    return path
            except Exception as error:  # safetensors' own error type is private, and says what is cut off
                need("tqdm").tqdm.write(f"{path.name} is not whole ({error}): using the one before it.")
                path.unlink()

    def whole_model(self):
        """The model with the weights themselves, in 32 bits where Adam moved such, for it to be saved."""
        self.adam.restore()
        return self.model

    def finish(self):
        """Delete the checkpoints of training that is over: what it made has been written elsewhere."""
        if hasattr(self, "_writer"):
            self._writer.close()
        self._unlink(self._checkpoints())
        self.adam.close()

    def _checkpoints(self):
        return sorted(self.folder.glob("checkpoint-*.safetensors"), reverse=True)

    def _unlink(self, paths):
        if processes.first():
            for path in paths:
                path.unlink()

    def _saved(self):
        """Save if the weights are still those at the beginning of a step; says what there is."""
        if not self.dirty:
            self.save(self.step)
        last = self._checkpoints()
        return f"the state is saved in {last[0]}" if last else "nothing is saved yet"

    def _cut_log(self, first):
        """Drop the lines of steps that are about to be done again, a half-written one included."""
        kept = [json.dumps(line) + "\n" for line in self.lines() if line["step"] < first]
        processes.only_first(lambda: write_whole(self.folder / "log.jsonl", lambda partial: partial.write_text("".join(kept), encoding="utf-8")))


def read_lines(path):
    """The JSON lines of a file, up to the first that was cut off."""
    lines = []
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def write_whole(path, write):
    """Call write(a temporary path) and rename the result to `path`: a reader finds all of it or nothing, after a crash too."""
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def draw_from(*seed):
    """Random numbers of torch from a seed made of whole numbers, those of the caller left as they were."""
    torch, numpy = need("torch"), need("numpy")
    with torch.random.fork_rng(devices=processes.generators()):
        torch.manual_seed(int(numpy.random.SeedSequence(seed).generate_state(1, numpy.uint64)[0] >> 1))
        yield
