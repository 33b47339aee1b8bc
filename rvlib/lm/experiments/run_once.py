"""Stages of a run, each done once: the last file that a stage writes is its manifest, which says that it is done.

    @stage("labels/{name}", makes="labels.json")
    def labels(run, name, folder):
        return Product(content_of_the_file)

A stage that was cut off has no manifest. It is called again, and goes on from the files that it finds in its folder.
"""

import functools
import gc
import inspect
import json
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rvlib.files import write_text
from rvlib.lm import origin, processes
from rvlib.lm.experiments.run_folder import Run
from rvlib.lm.training.trainer import Trainer


@dataclass(frozen=True)
class Product:
    """What a stage returns when it has just been done."""

    content: Any = None  # of its JSON file, if it makes one
    record: dict[str, int] = field(default_factory=dict)  # for its manifest
    trainer: Trainer | None = None  # whose checkpoints are deleted once there is a manifest


def stage(folder: str, makes: str = ".") -> Callable[[Callable[..., Product]], Callable[..., Any]]:
    """Make a function (run, names…, folder) → `Product` into a stage, a function (run, names…) that is run once.

    folder: the stage's folder within the run's, such as "labels/{name}", in which the function's parameters are filled
    in. makes: a file or a folder in it. A JSON file is written from the product's content, and the stage returns what
    is in it; a folder is written by the function itself, and the stage returns its path.
    """

    def decorate(function: Callable[..., Product]) -> Callable[..., Any]:
        _, *names, _ = inspect.signature(function).parameters

        @functools.wraps(function)
        def once(run: Run, *values: Any) -> Any:
            if processes.world() > 1:
                gc.collect()  # sharded modules refer to one another; the next stage needs their memory
            start, place = time.perf_counter(), run.folder / folder.format(**dict(zip(names, values, strict=True)))
            manifest, path = place / "manifest.json", place / makes
            done = processes.only_first(manifest.exists)
            place.mkdir(parents=True, exist_ok=True)
            if not done:
                product = function(run, *values, place)
                if path.suffix == ".json":
                    write_json(path, product.content)
                seconds = round(time.perf_counter() - start, 1)
                write_manifest(manifest, {"seconds": seconds} | product.record | origin.record())
                if product.trainer:
                    product.trainer.finish()
            return json.loads(path.read_text()) if path.suffix == ".json" else path

        return once

    return decorate


def write_manifest(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Record that a stage is done: how long it took, and with what code, versions and hardware."""
    write_json(path, record, indent=1)


def write_json(path: pathlib.Path, content: Any, **options: Any) -> None:
    """Write JSON whole, in the first process. options: of `json.dumps`."""
    processes.only_first(lambda: write_text(path, json.dumps(content, **options)))
