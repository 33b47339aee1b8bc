"""`rvlib run RECIPE`: the stages of a recipe in order, each skipped when done, and a run that was cut off gone on with.

    sft → samples → labels → reward models → measure → policy gradient (with evaluations) → report

A run is a folder: recipe.json claims it, `lock` keeps a second run out, and each stage writes what it made and, last, a
manifest (versions, commit, hardware, time). Killed at any moment, the same command goes on and, on a CPU, ends with the
same numbers. Policy gradient's trainings depend on no other: `--jobs N` runs N concurrently, and `--part I/N` every
N-th of them, for a job of an array.
"""

import argparse
import contextlib
import errno
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import accelerate.utils.memory
import filelock
import numpy as np
from numpy.typing import NDArray

from rvlib import _checks, metrics
from rvlib._terminal import Defaults, sentence
from rvlib.files import data_folder, write_text
from rvlib.lm import processes
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.experiments import dry_run, plan, run_report, stages
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments.jobs import Part, Training, memory_share, side_by_side, trainings
from rvlib.lm.experiments.recipe import Recipe
from rvlib.lm.experiments.run_once import Product, stage
from rvlib.lm.models import RewardFunction, policies, reward_models
from rvlib.lm.models.adapters import add_adapter
from rvlib.lm.models.reward_functions import FunctionReward
from rvlib.lm.optim.frozen import share_out
from rvlib.lm.training.policy_gradient import train_policy

# What a run may raise for a reason that one sentence explains. A missing package is among them, so that only one of
# several processes reports it.
EXPECTED = (OSError, RuntimeError, ModuleNotFoundError, ValueError, FloatingPointError, MemoryError)


class Run:
    """A recipe and its folder. ValueError, one sentence, if the folder holds a run of another recipe."""

    recipe: Recipe
    folder: pathlib.Path
    progress = True  # whether a training shows a bar of its own

    def __init__(self, recipe: Recipe, folder: str | pathlib.Path) -> None:
        self.recipe, self.folder = recipe, pathlib.Path(folder)
        processes.only_first(self._claim)

    def _claim(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.folder / "recipe.lock"):  # jobs of an array begin together
            self._claim_locked()

    def _claim_locked(self) -> None:
        path = self.folder / "recipe.json"
        if path.exists():
            try:
                claimed = recipes.validated(json.loads(path.read_text()))
            except ValueError as error:
                raise ValueError(
                    f"The folder {self.folder} must hold a run whose recipe.json this version reads, but: {error} "
                    "Choose another with --folder, or delete it."
                ) from None
            if differ := recipes.deviations(self.recipe, claimed):
                raise ValueError(
                    f"The folder {self.folder} holds a run of another recipe, which differs in {', '.join(differ)}; "
                    "choose another with --folder, or delete it."
                )
        write_text(path, json.dumps(self.recipe.model_dump(mode="json"), indent=1))

    @contextlib.contextmanager
    def lock(self, folder: pathlib.Path | None = None, *, wait: bool = False) -> Iterator[None]:
        """Keep every other process out of the run's folder, or of one in it.

        wait: for a process that is in it. RuntimeError, one sentence, if one is in it and this is not to wait.
        """
        folder = folder or self.folder
        lock = filelock.FileLock(folder / "lock", timeout=-1 if wait else 0)

        def acquire() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except filelock.Timeout:
                raise RuntimeError(
                    f"The folder {folder} is in use by another run; wait for it, or choose another with --folder."
                ) from None

        processes.only_first(acquire)
        try:
            yield
        finally:
            lock.release()

    def forget(self) -> None:
        """Free the models that are kept from stage to stage."""
        self.__dict__.pop("_ground_truth", None)

    @cached_property
    def _ground_truth(self) -> RewardFunction:
        ground_truth = self.recipe.ground_truth
        return self.load_reward_model(ground_truth.model, ground_truth.trust_remote_code, reward_models.GROUND_TRUTH)

    def ground_truth(self) -> RewardFunction:
        """The ground truth reward."""
        return self._ground_truth

    def load_reward_model(
        self,
        model: str | pathlib.Path,
        trust_remote_code: bool = False,
        role: str = reward_models.REWARD_MODEL,
    ) -> RewardFunction:
        """A reward model by its name or folder, in the precision of what is only read."""
        runtime = self.recipe.runtime
        reward = reward_models.load_reward_model(
            str(model), dtype=runtime.frozen_dtype, trust_remote_code=trust_remote_code, role=role
        )
        if isinstance(reward, FunctionReward):
            return reward
        return replace(reward, sharing=share_out(reward.model, runtime.frozen_placement))

    def check_reward_model(
        self, model: str, trust_remote_code: bool = False, role: str = reward_models.REWARD_MODEL
    ) -> None:
        """Raise what `load_reward_model`, or a call of what it gives, would raise on the prompts of this run.

        Only as far as that is known before weights are fetched.
        """
        split = stages.split(self)
        pairs = [*split.pairs, *split.held_out]
        if model == "similarity" and not all(pair.prompt.reference for pair in pairs):
            raise ValueError(
                f"Similarity compares with a reference reply, got prompts of {self.recipe.data.preferences} without "
                "one; choose another reward model or other data."
            )

        def check() -> None:
            reward_models.check_reward_model(model, trust_remote_code=trust_remote_code, role=role)

        processes.only_first(check)

    def reward(self, key: str, name: str) -> RewardFunction:
        """The reward model `key` as it teaches policy `name`, before normalisation."""
        return self.recipe.reward_models[key].build(self, key, name)

    def teacher(self, key: str, name: str) -> RewardFunction:
        """The same, normalised: what policy gradient maximises."""
        normalizer = metrics.Normalizer(**stages.measure(self, name)[key]["normalizer"])
        return _normalized(self.reward(key, name), normalizer)

    def judged(self, name: str) -> RewardFunction:
        """The ground truth in the units of the measured replies of policy `name`, as the paper's figures are.

        These rewards are normalised jointly.
        """
        normalizer = metrics.Normalizer.fit(np.array(stages.labels(self, name)["measure"]))
        return _normalized(self.ground_truth(), normalizer)

    @stage("policy-gradient/{name}/{key}/seed-{seed}", makes="curve.json")
    def policy_gradient(self, key: str, name: str, seed: int, folder: pathlib.Path) -> Product:
        """Train policy `name` on teacher `key`; the stage returns the log, a list of dictionaries."""
        label = f"{name} on {key}, seed {seed}" if self.progress else None
        runtime, start, lora = self.recipe.runtime, self.folder / f"sft/{name}/model", self.recipe.policies[name].lora
        teacher, judge = self.teacher(key, name), self.judged(name)  # before the policy takes its memory
        policy = policies.load_policy(start, dtype=self.recipe.dtype(name))
        reference = None if lora else policies.load_policy(start, dtype=runtime.frozen_dtype)
        if reference:
            reference = replace(reference, sharing=share_out(reference.model, runtime.frozen_placement))
        if lora:
            add_adapter(policy, lora, seed)
        prompts = stages.split(self).prompts
        trainer = train_policy(
            policy,
            reference,
            teacher,
            judge,
            prompts,
            self.recipe,
            folder,
            seed=seed,
            label=label,
        )
        log = trainer.lines()
        trainer.whole_model()
        policies.save(replace(policy, sharing=trainer.adam), folder / "model")
        return Product(log, {"tokens": sum(line.get("reply_tokens", 0) for line in log)}, trainer)

    def train(self, training: Training, *, progress: bool = True) -> None:
        """Run a training, with or without a progress bar of its own, and keep every other process out of its folder."""
        with self.lock(training.folder(self)):
            self.progress = progress
            self.policy_gradient(training.key, training.name, training.seed)

    def steps(self) -> int:
        """How many steps a training has."""
        return self.recipe.policy_gradient.steps(len(stages.split(self).prompts))

    def check(self) -> None:
        """Raise before the long part what data and reward models by name would raise in it."""
        stages.split(self)
        for spec in self.recipe.reward_models.values():
            spec.check(self)
        ground_truth = self.recipe.ground_truth
        self.check_reward_model(ground_truth.model, ground_truth.trust_remote_code, reward_models.GROUND_TRUTH)


def _normalized(reward: RewardFunction, normalizer: metrics.Normalizer) -> RewardFunction:
    def rewards(prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        return normalizer.transform(reward(prompts, replies))

    return rewards


def run(
    recipe: Recipe, folder: str | pathlib.Path, *, jobs: int = 1, part: Part | None = None
) -> dict[str, Any] | None:
    """All stages of `recipe` in `folder`; returns the report, a dictionary (`run_report.make`).

    jobs: how many trainings by policy gradient run concurrently. part: of these trainings, for one of several jobs that
    have the folder in common: the first to come does the stages before them while the others wait, and the last to end
    writes the report; the others return None. An ExceptionGroup has the errors of those trainings that failed.
    """
    processes.check(recipe.runtime)
    if jobs > 1 and processes.world() > 1:
        raise ValueError(
            f"jobs must be 1 where several processes share one training, got {jobs}; leave --jobs out, or start one "
            "process."
        )
    run = Run(recipe, folder)
    run.recipe = plan.choose(recipe, plan.memory_here()[0], processes.world())
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


def _prepare(run: Run) -> None:
    """The stages before policy gradient."""
    if not (run.folder / "report.json").exists():
        run.check()
    for name in run.recipe.policies:
        stages.sft(run, name)
        stages.draw(run, name)
        stages.labels(run, name)
    for name in run.recipe.policies:
        for key, spec in run.recipe.reward_models.items():
            spec.prepare(run, key, name)
        stages.measure(run, name)


def _train(run: Run, recipe: Recipe, to_run: Sequence[Training], jobs: int) -> None:
    """Policy gradient, one training after another or `jobs` concurrently, each planned for its share of the memory."""
    waiting = [training for training in to_run if not training.done(run)]
    jobs = min(jobs, len(waiting))
    if jobs <= 1:
        for training in to_run:
            run.train(training)
        return
    run.recipe = plan.choose(recipe, plan.memory_here()[0] * memory_share(jobs))
    if errors := side_by_side(run, waiting, jobs):
        raise ExceptionGroup("Some trainings failed; the others are done.", errors)


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
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
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
