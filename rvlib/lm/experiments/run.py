"""`rvlib run RECIPE`: the stages of a recipe in order, each skipped when done, and a run that was cut off gone on with.

    sft → samples → labels → reward models → measure → policy gradient (with evaluations) → report

A run is a folder (`run_folder`), into which each stage (`stages`, `teachers`, `trainings`) writes what it made and,
last, a manifest (versions, commit, hardware, time). Killed at any moment, the same command goes on and, on a CPU, ends
with the same numbers. Policy gradient's trainings depend on no other: `--jobs N` runs N concurrently, and `--part I/N`
every N-th of them, for a job of an array.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

import accelerate.utils.memory
import filelock
from tqdm import tqdm

from rvlib import _checks
from rvlib._terminal import Defaults, is_disk_full, sentence
from rvlib.files import data_folder, write_text
from rvlib.lm import processes
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments import run_report, stages, teachers
from rvlib.lm.experiments.cost import GB
from rvlib.lm.experiments.jobs import memory_share, side_by_side
from rvlib.lm.experiments.planning import dry_run, plan
from rvlib.lm.experiments.recipe import Recipe
from rvlib.lm.experiments.report import Report
from rvlib.lm.experiments.run_folder import Run
from rvlib.lm.experiments.trainings import Part, Training, trainings
from rvlib.lm.models import reward_models

# What a run may raise for a reason that one sentence explains. A missing package is among them, so that only one of
# several processes reports it.
EXPECTED = (OSError, RuntimeError, ModuleNotFoundError, ValueError, FloatingPointError, MemoryError)


def run(recipe: Recipe, folder: str | pathlib.Path, *, jobs: int = 1, part: Part | None = None) -> Report | None:
    """All stages of `recipe` in `folder`; returns the report.

    jobs: how many trainings by policy gradient run concurrently. part: of these trainings, for one of several jobs that
    have the folder in common: the first to come does the stages before them while the others wait, and the last to end
    writes the report; the others return None. An ExceptionGroup has the errors of those trainings that failed.
    """
    processes.check(recipe.runtime.engine, recipe.runtime.optimizer)
    if jobs > 1 and processes.world() > 1:
        raise ValueError(
            f"jobs must be 1 where several processes share one training, got {jobs}; leave --jobs out, or start one "
            "process."
        )
    run = Run(recipe, folder)
    run.recipe = _planned(run, recipe, "stages", plan.memory_here()[0])
    if part is None:
        with run.lock():
            _prepare(run)
            _train(run, recipe, trainings(run), jobs)
            return run_report.write(run)
    with run.lock(wait=True):
        _prepare(run)
    _train(run, recipe, part.of(trainings(run)), jobs)
    with run.lock(wait=True):
        through = processes.only_first(lambda: all(training.done(run) for training in trainings(run)))
        return run_report.write(run) if through else None


def check(run: Run) -> None:
    """Raise before the long part what data and reward models by name would raise in it."""
    stages.split(run)
    for spec in run.recipe.reward_models.values():
        teachers.check(spec, run)
    ground_truth = run.recipe.ground_truth
    teachers.check_reward_model(run, ground_truth.model, ground_truth.trust_remote_code, reward_models.GROUND_TRUTH)


def _prepare(run: Run) -> None:
    """The stages before policy gradient."""
    if not (run.folder / "report.json").exists():
        check(run)
    for name in run.recipe.policies:
        stages.sft(run, name)
        stages.draw(run, name)
        stages.labels(run, name)
    for name in run.recipe.policies:
        for key, spec in run.recipe.reward_models.items():
            teachers.prepare(spec, run, key, name)
        teachers.measure(run, name)


def _train(run: Run, recipe: Recipe, to_run: Sequence[Training], jobs: int) -> None:
    """Policy gradient, one training after another or `jobs` concurrently, each planned for its share of the memory."""
    waiting = [training for training in to_run if not training.done(run)]
    jobs = max(min(jobs, len(waiting)), 1)
    run.recipe = _planned(run, recipe, "trainings", plan.memory_here()[0] * memory_share(jobs))
    if jobs == 1:
        for training in to_run:
            training.do(run)
        return
    if errors := side_by_side(run, waiting, jobs):
        raise ExceptionGroup("Some trainings failed; the others are done.", errors)


def _planned(run: Run, recipe: Recipe, part: str, memory: float) -> Recipe:
    """The recipe with what it leaves to the planner, chosen when a part of the run first begins, and kept from then on.

    Replies are drawn batch by batch, so other sizes would give other replies. part: "stages" or "trainings", a key of
    runtime.json. memory: bytes that are here now; if they are fewer than what is kept needs, a sentence says so.
    """
    path, auto, world = run.folder / "runtime.json", recipe.runtime.auto(), processes.world()

    def with_sizes(sizes: dict[str, int]) -> Recipe:
        return recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update=sizes)})

    def kept() -> dict[str, int]:
        with filelock.FileLock(run.folder / "recipe.lock"):  # jobs of an array begin together
            parts = json.loads(path.read_text()) if path.exists() else {}
            if part not in parts:
                chosen = plan.choose(recipe, memory, world).runtime
                parts[part] = {name: getattr(chosen, name) for name in auto}
                write_text(path, json.dumps(parts, indent=1))
            elif not (run.folder / "report.json").exists():
                peak = plan.largest(plan.plan(with_sizes(parts[part]), world)).peak
                if peak * GB > plan.USABLE * memory:
                    tqdm.write(
                        f"The run in {run.folder} must go on with the sizes with which it began, which by the plan "
                        f"take {peak:.1f} GB, but there are {plan.USABLE * memory / GB:.1f} GB; if memory runs out, "
                        "use fewer --jobs or a larger GPU, or begin again in another --folder."
                    )
            return parts[part]

    return with_sizes(processes.only_first(kept)) if auto else recipe


def main(arguments: Sequence[str] | None = None) -> None:
    """`rvlib run`. Exits with one sentence for what is missing or wrong."""
    options = _parser().parse_args(arguments)
    folder = options.folder or data_folder() / "runs" / pathlib.Path(options.recipe).name.removesuffix(".yaml")
    recipe = None
    try:
        processes.start()
        recipe = recipes.load(options.recipe, options.set)
        if options.dry_run:
            sys.exit(
                processes.only_first(
                    lambda: dry_run.show(recipe, folder, options.gpus, _checks.whole("jobs", options.jobs))
                )
            )
        if lacks := dry_run.hardware(recipe):
            sys.exit(processes.exit_message("\n".join(lacks)))
        part = Part.parse(options.part) if options.part else None
        through = run(recipe, folder, jobs=_checks.whole("jobs", options.jobs), part=part)
    except KeyboardInterrupt:
        sys.exit(processes.exit_message(f"Stopped; the same command goes on from the last checkpoint in {folder}."))
    except EXPECTED as error:
        sys.exit(processes.exit_message(_explained(error, recipe, options.recipe, folder)))
    except ExceptionGroup as group:
        if unexpected := group.split(EXPECTED)[1]:
            raise unexpected from None
        explained = [
            ": ".join([*getattr(error, "__notes__", []), _explained(error, recipe, options.recipe, folder)])
            for error in group.exceptions
            if isinstance(error, EXPECTED)  # as all are here
        ]
        sys.exit("\n".join(explained))
    if processes.first():
        print(f"Run: {folder}")
        print(f"Report: {folder / 'report.html'}" if through else "The part that ends last writes the report.")
    processes.stop()


def _parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="rvlib run", description=description, formatter_class=Defaults)
    parser.add_argument("recipe", help="a recipe's name (`rvlib recipes` lists them), or a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the recipe")
    parser.add_argument("--folder", type=pathlib.Path, help="of the run (default: runs/RECIPE in the data folder)")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="trainings by policy gradient that run concurrently, on one GPU or on one each",
    )
    parser.add_argument(
        "--part", metavar="I/N", help="do every N-th of these trainings alone, from the I-th, as a job of an array does"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, what it needs and what is missing"
    )
    parser.add_argument(
        "--gpus", type=int, default=1, help="of a dry run: over how many GPUs what is trained is shared out"
    )
    return parser


def _explained(error: Exception, recipe: Recipe | None, name: str, folder: pathlib.Path) -> str:
    """One of the `EXPECTED` errors as a sentence that says what to do."""
    if is_disk_full(error):
        return f"The disk of {folder} is full; make room and run the same command: it goes on from its last checkpoint."
    if isinstance(error, (OSError, ModuleNotFoundError)):
        return sentence(error)
    if recipe is None or not accelerate.utils.memory.should_reduce_batch_size(error):
        return str(error)
    largest = plan.largest(plan.plan(recipe, processes.world()))
    return (
        f"Memory ran out ({str(error).splitlines()[0]}); the plan's largest stage is {largest.name} with "
        f"{largest.peak:.1f} GB, of which {largest.largest_part} take most: see `rvlib run {name} --dry-run`, and "
        "lower runtime.batch_size."
    )
