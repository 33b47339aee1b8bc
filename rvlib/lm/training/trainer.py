"""A model under Adam and its place on disk: micro-batches, memory that runs out, checkpoints, and going on bit for bit.

    for step in trainer.steps(total):          resumes, shows progress, saves
        loss = trainer.update(rows, loss_of)   one step of Adam on the mean over rows of loss_of(micro-batch)
        trainer.log(step, loss=loss)

Whatever is drawn at step n is drawn from a seed of n (`seeding.torch_seed`), so weights and Adam's moments are all the
state there is, and on a CPU a run that was killed ends with the same numbers as one that was not. TRL's trainers have
the losses of fine-tuning and reward modelling too; they are not used here because their checkpoints are written in
place, hold pickles, and carry the state of random generators.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import accelerate.utils.memory
import safetensors
import safetensors.torch
import torch
import transformers
from tqdm import tqdm

from rvlib.files import read_lines, write_text, write_whole
from rvlib.lm import processes
from rvlib.lm.models.adapters import has_adapter
from rvlib.lm.models.batches import batches_of_tokens, launch_tokens
from rvlib.lm.optim import adam, make_optimizer
from rvlib.lm.settings import RuntimeSettings
from rvlib.lm.training import KEPT_CHECKPOINTS

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


Row = TypeVar("Row")
ROUNDING = 8  # in a path of seeds, where replies have 0 and evaluations 1


class _TooLarge(Exception):
    """A micro-batch for which one of the processes has no memory; raised before any of them begins with it."""


class Trainer:
    """Adam on `model`'s parameters, with a log and checkpoints in `folder`.

    runtime: of a recipe. seed: of stochastic rounding.
    With several processes all call the same methods alike; the model is sharded, and checkpoints are still of whole
    tensors. `adam` is also how a process comes by the model's weights: `dataclasses.replace(policy,
    sharing=trainer.adam)`.
    """

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        folder: str | pathlib.Path,
        learning_rate: float,
        runtime: RuntimeSettings,
        seed: int = 0,
    ) -> None:
        self.folder = pathlib.Path(folder)
        self.runtime = runtime
        self.micro_batch = runtime.micro_batch
        self.folder.mkdir(parents=True, exist_ok=True)
        # No dropout while training: the policy that is sampled is the policy whose gradient is taken.
        self.model = model.eval() if has_adapter(model) else model.eval().requires_grad_(True)
        self.adam = make_optimizer(model, learning_rate, runtime)
        self.step = 0
        self.seed = seed
        self.updates = 0  # that may have moved weights since the step began
        self.largest = (0, 0)  # tokens of the largest micro-batch so far, and the bytes that it took

    def steps(self, total: int, label: str | None) -> Iterator[int]:
        """The numbers of the steps that are left of `total`; saves every `runtime.save_every` steps and at the end.

        label: of the progress bar; without one there is no bar.
        """
        first = self.step = self.resume()  # from this step on TensorBoard's file is written again
        self._cut_log(first)
        hidden = label is None or first == total or not processes.first()
        with tqdm(total=total, initial=first, desc=label, unit="step", disable=hidden) as bar:
            for self.step in range(first, total):
                self.updates = 0
                yield self.step
                bar.update()
                if (self.step + 1) % self.runtime.save_every == 0 or self.step + 1 == total:
                    self.save(self.step + 1)

    def update(
        self,
        rows: list[Row],
        loss_of: Callable[[list[Row]], torch.Tensor],
        length: Callable[[Row], int] | None = None,
    ) -> float:
        """One step of Adam on the mean loss of `rows`; returns it. loss_of(micro-batch): a loss for each of its rows.

        length(row), in tokens: micro-batches are then of rows of similar length, and have at most as many tokens as
        `micro_batch` rows of the longest have (`batches_of_tokens`).

        If memory runs out, the micro-batch is halved for the rest of the training, with a message. Several processes
        wait for one another in the middle of a micro-batch, so each says beforehand whether it has the memory for it,
        and all halve it together. FloatingPointError, in one sentence, for a loss or a gradient that is not finite,
        after saving the weights as they were before it.
        """
        while True:
            try:
                return self._update(rows, loss_of, length)
            except _TooLarge:
                pass
            except RuntimeError as error:
                if not accelerate.utils.memory.should_reduce_batch_size(error):
                    raise
                if processes.world() > 1:  # the others wait for this one's part of the micro-batch
                    raise MemoryError(
                        f"Micro-batches of {self.micro_batch} must fit in memory, but did not at step {self.step}; "
                        "run again with a smaller runtime.micro_batch."
                    ) from error
                if self.micro_batch == 1:
                    self.adam.zero_grad()
                    raise MemoryError(
                        f"One row at a time must fit in memory, but did not at step {self.step}; {self._saved()}; "
                        "choose a smaller model or shorter texts."
                    ) from error
            self._halve()

    def _halve(self) -> None:
        """Go on with micro-batches of half the rows, and drop what has been computed of this step."""
        self.adam.zero_grad()
        accelerate.utils.memory.clear_device_cache(garbage_collection=True)
        self.micro_batch //= 2
        if processes.first():
            tqdm.write(f"Out of memory at step {self.step}: going on with micro-batches of {self.micro_batch}.")

    def _update(
        self, rows: list[Row], loss_of: Callable[[list[Row]], torch.Tensor], length: Callable[[Row], int] | None
    ) -> float:
        # Read once, at the end, so that the GPU works while the next micro-batch is prepared.
        total = torch.zeros((), dtype=torch.float64)
        lengths = [length(row) if length else 1 for row in rows]
        by_length = sorted(range(len(rows)), key=lengths.__getitem__)
        shares = [by_length[rank :: processes.world()] for rank in range(processes.world())]
        launch = launch_tokens(self.model)
        batches = [batches_of_tokens([lengths[i] for i in share], self.micro_batch, launch) for share in shares]
        own = [[shares[processes.rank()][i] for i in batch] for batch in batches[processes.rank()]]
        if len(own) == 1:
            own[0].sort()  # one micro-batch with all rows, in the order in which they came
        for number in range(max(map(len, batches))):  # every process takes part in as many
            indices = own[number] if number < len(own) else []
            tokens = len(indices) * max((lengths[i] for i in indices), default=0) if length else 0
            if processes.any_of(not self._fits(tokens)):
                raise _TooLarge
            total = total + self._backward([rows[i] for i in indices], rows, loss_of)
            self._remember(tokens)
        loss = processes.total(total.item())
        self._check_finite("loss", loss)
        self._move()
        return loss

    def _move(self) -> None:
        """Adam's step. If memory runs out in it, some weights may have moved, so it is not tried again."""
        try:
            norm = self.adam.step(self.seed, self.step, ROUNDING, self.updates)
        except RuntimeError as error:
            if not accelerate.utils.memory.should_reduce_batch_size(error):
                raise
            self.updates += 1
            raise MemoryError(
                f"Adam's step must fit in memory, but did not at step {self.step}; {self._saved()}; "
                "choose a smaller model, or runtime.optimizer adam8bit and runtime.weights_dtype bfloat16."
            ) from error
        self._check_finite("norm of the gradient", norm)
        self.updates += 1

    def _check_finite(self, what: str, number: float) -> None:
        """FloatingPointError, one sentence, if a number is not finite by which the weights have not been moved yet."""
        if not math.isfinite(number):
            self.adam.zero_grad()
            raise FloatingPointError(
                f"The {what} must be finite, got {number} at step {self.step}; {self._saved()}; "
                "lower the learning rate, or look at the rewards."
            )

    def _fits(self, tokens: int) -> bool:
        """Whether a micro-batch of so many tokens fits this process's GPU, estimated from the largest so far.

        A single row is always tried, and so is every micro-batch in a single process, which can try again.
        """
        seen, nbytes = self.largest
        if processes.world() == 1 or self.micro_batch == 1 or not torch.cuda.is_available():
            return True
        torch.cuda.reset_peak_memory_stats()
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return tokens <= seen or not seen or nbytes * tokens / seen <= torch.cuda.mem_get_info()[0] + unused

    def _remember(self, tokens: int) -> None:
        """Note what a micro-batch took, if it is the largest so far."""
        if processes.world() > 1 and torch.cuda.is_available() and tokens > self.largest[0]:
            self.largest = tokens, torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()

    def _backward(
        self, micro_batch: Sequence[Row], rows: list[Row], loss_of: Callable[[list[Row]], torch.Tensor]
    ) -> torch.Tensor:
        """Add the gradient of a micro-batch's losses over the number of all rows; returns their sum over that number.

        Without rows of its own left, a process still takes part in gathering the weights for the others'.
        """

        def loss() -> torch.Tensor:
            if not micro_batch:
                return loss_of(rows[:1]).sum() * 0.0
            return loss_of(list(micro_batch)).sum() / len(rows)

        return self.adam.backward(loss).double()

    def log(self, step: int, **numbers: float) -> None:
        """Append the numbers of a step to log.jsonl, and to TensorBoard's file beside it."""
        if not processes.first():
            return
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | numbers) + "\n")
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def lines(self) -> list[dict[str, float]]:
        """What the log has: the numbers of each line by name, `step` among them."""
        path = self.folder / "log.jsonl"
        return processes.only_first(lambda: read_lines(path) if path.exists() else [])

    @property
    def writer(self) -> SummaryWriter:
        """TensorBoard's file of this folder, made when it is first written to."""
        if not hasattr(self, "_writer"):
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only the first process needs it

            self._writer = SummaryWriter(self.folder / "tensorboard", purge_step=self.step)
        return self._writer

    def save(self, step: int) -> None:
        """Write weights and moments after `step` steps as one file, whole or not at all; keep the last two."""
        tensors, path = self.adam.tensors(), self.folder / f"checkpoint-{step:07d}.safetensors"

        def write(partial: pathlib.Path) -> None:
            safetensors.torch.save_file(tensors, partial, metadata={"step": str(step)})

        processes.only_first(lambda: write_whole(path, write))
        self._unlink(self._checkpoints()[KEPT_CHECKPOINTS:])

    def resume(self) -> int:
        """Load the last complete checkpoint, if there is one; returns how many steps were done by then."""
        path = processes.only_first(self._last_complete)
        if path is None:
            return 0
        with torch.no_grad(), safetensors.safe_open(path, "pt") as tensors:
            keys = list(tensors.keys())
            if self.runtime.optimizer == adam.ADAM and any(key.endswith("/codes") for key in keys):
                raise ValueError(
                    f"{path} must hold the state of 32-bit Adam, got 8-bit moments; set runtime.optimizer to "
                    f"{adam.ADAM8} and runtime.weights_dtype to bfloat16 as they were, or delete it."
                )
            self.adam.load(keys, tensors.get_tensor)
        return int(path.stem.split("-")[1])

    def _last_complete(self) -> pathlib.Path | None:
        """The last complete checkpoint, or None; incomplete ones are deleted."""
        for path in self._checkpoints():
            try:
                with safetensors.safe_open(path, "pt"):  # compares the file's length with what its head says
                    return path
            except Exception as error:  # safetensors' own error type is private, and says what is cut off
                tqdm.write(f"{path.name} is not whole ({error}): using the one before it.")
                path.unlink()
        return None

    def whole_model(self) -> transformers.PreTrainedModel:
        """The model with the weights that Adam moved, ready to be saved."""
        self.adam.restore()
        return self.model

    def finish(self) -> None:
        """Delete the checkpoints of a training that is over, whose result has been written elsewhere."""
        if hasattr(self, "_writer"):
            self._writer.close()
        self._unlink(self._checkpoints())
        self.adam.close()

    def _checkpoints(self) -> list[pathlib.Path]:
        return sorted(self.folder.glob("checkpoint-*.safetensors"), reverse=True)

    def _unlink(self, paths: Sequence[pathlib.Path]) -> None:
        if processes.first():
            for path in paths:
                path.unlink()

    def _saved(self) -> str:
        """Save the weights if they have not moved since the step began; returns a clause on what is saved."""
        if not self.updates:
            self.save(self.step)
        last = self._checkpoints()
        return f"the state is saved in {last[0]}" if last else "nothing is saved yet"

    def _cut_log(self, first: int) -> None:
        """Drop the lines of steps that will be done again, and a line that was cut off."""
        text = "".join(json.dumps(line) + "\n" for line in self.lines() if line["step"] < first)
        processes.only_first(lambda: write_text(self.folder / "log.jsonl", text))
