"""`rvlib run RECIPE --jobs N`: a recipe's trainings by policy gradient, N concurrently, each in a process of its own.

Each process takes the next training that is not done. It runs on the GPU of its number, with its share of that GPU's
memory, and has its share of the CPU's threads. Its random numbers are those that it would have alone. If one training
fails the others go on, and all failures are reported at the end. A process ends when the process that started it ends,
for whatever reason.
"""

import concurrent.futures
import contextlib
import gc
import math
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from tqdm import tqdm

from rvlib.files import read_lines
from rvlib.lm.experiments.planning import plan
from rvlib.lm.experiments.run_folder import Run
from rvlib.lm.experiments.trainings import Training, steps

POLL = 0.5  # seconds between looks at how far the trainings are


def memory_share(jobs: int) -> float:
    """The share of a GPU's memory that each of so many trainings has: all of it if every one has a GPU of its own."""
    on_one_gpu = math.ceil(jobs / max(torch.cuda.device_count(), 1))
    return 1.0 if on_one_gpu == 1 else plan.USABLE / on_one_gpu


def side_by_side(run: Run, waiting: Sequence[Training], jobs: int) -> list[Exception]:
    """Run the trainings, `jobs` concurrently; returns the errors of those that failed.

    Each error has a note: the folder of its training within the run's.
    """
    run.forget()  # the trainings need the memory that this process holds on the GPU
    gc.collect()
    torch.cuda.empty_cache()
    context = multiprocessing.get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    place, threads = context.Value("i", 0), max(torch.get_num_threads() // jobs, 1)
    executor = concurrent.futures.ProcessPoolExecutor(
        jobs, context, _begin, (run, place, threads, memory_share(jobs), watched)
    )
    try:
        futures = {executor.submit(_train, training): training for training in waiting}
        _show_progress(run, waiting, futures, jobs)
        executor.shutdown()  # the processes have nothing left to do, and end as Python does
        return _failures(run, futures)
    finally:
        held.close()  # ends the processes, also those that are in the middle of a training
        executor.shutdown(cancel_futures=True)


def _show_progress(
    run: Run, waiting: Sequence[Training], futures: dict[concurrent.futures.Future[None], Training], jobs: int
) -> None:
    """One bar of the steps of all trainings, until all have ended. KeyboardInterrupt for Ctrl-C."""
    pending: set[concurrent.futures.Future[None]] = set(futures)
    all_steps = steps(run)
    description = f"{len(waiting)} trainings, {jobs} concurrently"
    with _interrupted() as interrupted, tqdm(total=all_steps * len(waiting), desc=description, unit="step") as bar:
        while pending:
            if interrupted.is_set():
                raise KeyboardInterrupt
            _, pending = concurrent.futures.wait(pending, timeout=POLL)
            bar.n = sum(all_steps if training.done(run) else _steps_done(training.folder(run)) for training in waiting)
            bar.set_postfix_str(f"{len(futures) - len(pending)} ended")


@contextlib.contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets. Raised wherever it comes, KeyboardInterrupt can be lost in a destructor."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # which alone hears of signals
        yield interrupted
        return
    handler = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, handler)


def _steps_done(folder: pathlib.Path) -> int:
    """How many steps of a training its log has."""
    try:
        return sum("loss" in line for line in read_lines(folder / "log.jsonl"))
    except FileNotFoundError:  # not begun, or its log is being written anew
        return 0


def _failures(run: Run, futures: dict[concurrent.futures.Future[None], Training]) -> list[Exception]:
    """The errors of the trainings that failed; one for all those that a process which was killed has left undone."""
    errors: list[Exception] = []
    for future, training in futures.items():
        error = future.exception()
        if isinstance(error, concurrent.futures.process.BrokenProcessPool):
            left = sum(not training.done(run) for training in futures.values())
            message = (
                f"All trainings must be done, but a process ended as if it was killed and {left} are left; "
                "make room in the machine's memory or lower --jobs, and run the same command: it goes on."
            )
            return [*errors, RuntimeError(message)]
        if isinstance(error, Exception):
            error.add_note(str(training.folder(run).relative_to(run.folder)))
            errors.append(error)
    return errors


# ---- in each of the processes ----------------------------------------------------------------------------------------


_run: Run


def _begin(run: Run, place: Any, threads: int, share: float, watched: Connection) -> None:
    """Make this process one of the trainings': its GPU, its memory, its threads, and its end."""
    global _run
    _run = run
    _run.progress = False  # one bar for all is shown by the process that started this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides when to end
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()
    with place.get_lock():
        number, place.value = place.value, place.value + 1
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
        torch.cuda.set_per_process_memory_fraction(share)


def _end_with_parent(watched: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        watched.recv()
    os._exit(1)  # whatever it is doing: every file is written whole or not at all


def _train(training: Training) -> None:
    training.do(_run)
