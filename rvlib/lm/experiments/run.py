"""`rvlib run RECIPE`: the stages of a recipe in order, each skipped when it is done, and a run that was cut off gone on with.

    sft → samples → labels → reward models → measure → policy gradient (with evaluations) → report

A run is a folder: recipe.json claims it, `lock` keeps a second run out, and each stage writes what it made and, last, a manifest
(versions, commit, hardware, time). Killed at any moment, the same command goes on and, on a CPU, ends with the same numbers.
"""

import argparse
import contextlib
import errno
import gc
import json
import pathlib
import sys
import time
from dataclasses import replace
from functools import cached_property

import accelerate.utils.memory
import filelock
import numpy as np

from rvlib import metrics
from rvlib.cli import Defaults, sentence
from rvlib.files import data_folder, write_whole
from rvlib.lm import origin, processes
from rvlib.lm.experiments import plan, report, stages
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.models import policies, reward_models
from rvlib.lm.models.adapters import add_adapter
from rvlib.lm.training.policy_gradient import train_policy


class Run:
    """A recipe and its folder. ValueError, one sentence, if the folder holds a run of another recipe."""

    def __init__(self, recipe, folder):
        self.recipe, self.folder = recipe, pathlib.Path(folder)
        processes.only_first(self._claim)

    def _claim(self):
        recipe = self.recipe
        self.folder.mkdir(parents=True, exist_ok=True)
        path, ours = self.folder / "recipe.json", recipe.model_dump(mode="json")
        if path.exists():
            theirs = recipes.Recipe.model_validate_json(path.read_text())
            differ = [key for key in recipes.deviations(recipe, theirs)]
            if differ:
                raise ValueError(
                    f"The folder {self.folder} holds a run of another recipe, which differs in {', '.join(differ)}; choose another with --folder, or delete it."
                )
        write_whole(path, lambda partial: partial.write_text(json.dumps(ours, indent=1)))

    @contextlib.contextmanager
    def stage(self, name):
        if processes.world() > 1:
            gc.collect()  # modules that are shared out hold on to each other: their memory is the next stage's
        yield Stage(self.folder / name)

    @contextlib.contextmanager
    def lock(self):
        """Keep every other process out of the folder. RuntimeError, one sentence, if one is in it."""
        lock = filelock.FileLock(self.folder / "lock", timeout=0)

        def acquire():
            try:
                lock.acquire()
            except filelock.Timeout:
                raise RuntimeError(
                    f"The folder {self.folder} is in use by another run; wait for it, or choose another with --folder."
                ) from None

        processes.only_first(acquire)
        try:
            yield
        finally:
            lock.release()

    @cached_property
    def _ground_truth(self):
        spec = self.recipe.ground_truth
        return self._load(spec.model, spec)

    def _load(self, name, spec):
        return reward_models.load_reward_model(
            name, dtype=self.recipe.runtime.frozen_dtype, trust_remote_code=spec.trust_remote_code
        )

    def ground_truth(self):
        """The ground truth reward, a function of prompts and lists of replies."""
        return self._ground_truth

    def reward(self, key, name):
        """The reward model `key` as it teaches policy `name`, before normalisation: a function of prompts and lists of replies."""
        spec = self.recipe.reward_models[key]
        if spec.scale is None:
            folder = stages.reward_model(self, key, name) if spec.on_policy is not None else spec.model
            return self._load(folder, spec)
        scaled, judge = self._scaled(spec.share), self.ground_truth()
        return lambda prompts, replies: (
            judge(prompts, replies) * np.array([[spec.scale if p.name in scaled else 1.0] for p in prompts])
        )

    def _scaled(self, share):
        """Names of the prompts of policy gradient whose ground truth is scaled: `share` of them, every prompt at 1."""
        prompts = stages.split(self).prompts
        picked = np.random.default_rng(8122).permutation(len(prompts))[: round(share * len(prompts))]
        return {prompts[i].name for i in picked}

    def teacher(self, key, name):
        """The same, normalised: what policy gradient maximises."""
        normalizer = metrics.Normalizer(**stages.measure(self, name)[key]["normalizer"])
        score = self.reward(key, name)
        return lambda prompts, replies: normalizer.transform(score(prompts, replies))

    def judged(self, name):
        """The ground truth in the units of the measured replies of policy `name`: normalised jointly, as the paper's figures are."""
        truth, judge = metrics.Normalizer.fit(np.array(stages.labels(self, name)["measure"])), self.ground_truth()
        return lambda prompts, replies: truth.transform(judge(prompts, replies))

    def policy_gradient(self, key, name, seed):
        """Train policy `name` on teacher `key`; returns the log, a list of dictionaries."""
        with self.stage(f"policy-gradient/{name}/{key}/seed-{seed}") as stage:
            path = stage.folder / "curve.json"
            if stage.todo:
                start = self.folder / f"sft/{name}/model"
                policy, lora = (
                    policies.load_policy(start, dtype=self.recipe.dtype(name)),
                    self.recipe.policies[name].lora,
                )
                reference = None if lora else policies.load_policy(start, dtype=self.recipe.runtime.frozen_dtype)
                if lora:
                    add_adapter(policy, lora, seed)
                prompts = stages.split(self).prompts
                trainer = train_policy(
                    policy,
                    reference,
                    self.teacher(key, name),
                    self.judged(name),
                    prompts,
                    self.recipe,
                    stage.folder,
                    seed=seed,
                    label=f"{name} on {key}, seed {seed}",
                )
                lines = trainer.lines()
                processes.only_first(lambda: write_whole(path, lambda partial: partial.write_text(json.dumps(lines))))
                trainer.whole_model()
                policies.save(replace(policy, sharing=trainer.adam), stage.folder / "model")
                stage.done(tokens=sum(line.get("reply_tokens", 0) for line in lines))
                trainer.finish()
        return json.loads(path.read_text())


class Stage:
    """One stage's folder; `todo` until `done` has written its manifest."""

    def __init__(self, folder):
        self.folder, self.start = folder, time.perf_counter()
        self.manifest = folder / "manifest.json"
        self.todo = processes.only_first(lambda: not self.manifest.exists())
        folder.mkdir(parents=True, exist_ok=True)

    def done(self, **what):
        record = {"seconds": round(time.perf_counter() - self.start, 1)} | what | origin.record()
        processes.only_first(
            lambda: write_whole(self.manifest, lambda partial: partial.write_text(json.dumps(record, indent=1)))
        )
        self.todo = False


def run(recipe, folder):
    """All stages of `recipe` in `folder`; returns the report, a dictionary (`rvlib.lm.experiments.report.make`)."""
    processes.check(recipe.runtime)
    this = Run(recipe, folder)
    with this.lock():
        if not (this.folder / "report.json").exists():
            _check(this)
        for name in recipe.policies:
            stages.sft(this, name)
            stages.samples(this, name)
            stages.labels(this, name)
        for name in recipe.policies:
            for key, spec in recipe.reward_models.items():
                if spec.on_policy is not None:
                    stages.reward_model(this, key, name)
            stages.measure(this, name)
        for seed in recipe.seeds:
            for name in recipe.policies:
                for key in recipe.reward_models:
                    this.policy_gradient(key, name, seed)
        return report.write(this)


def _check(this):
    """Raise before the long part what data and reward models by name would raise in it."""
    parts, specs = stages.split(this), this.recipe.reward_models.values()
    if any(spec.on_policy is not None for spec in specs):
        stages.check_batch(len(parts.pairs), this.recipe.reward_training, "pairs for reward models")
    if any(spec.model == "similarity" for spec in [this.recipe.ground_truth, *specs]) and not all(
        prompt.reference for prompt in parts.prompts
    ):
        raise ValueError(
            f"Similarity compares with a reference reply, got prompts of {this.recipe.data.preferences} without one; choose another reward model or other data."
        )

    def judges():
        for spec in [this.recipe.ground_truth, *specs]:
            if spec.model:
                reward_models.check_reward_model(spec.model, trust_remote_code=spec.trust_remote_code)

    processes.only_first(judges)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="rvlib run", description=__doc__.split("\n")[0], formatter_class=Defaults)
    parser.add_argument("recipe", help="a recipe's name (`rvlib recipes` lists them), or a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the recipe")
    parser.add_argument("--folder", type=pathlib.Path, help="of the run (default: runs/RECIPE in the data folder)")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, what it needs and what is missing"
    )
    parser.add_argument(
        "--gpus", type=int, default=1, help="of a dry run: over how many GPUs what is trained is shared out"
    )
    given = parser.parse_args(arguments)
    folder = given.folder or data_folder() / "runs" / pathlib.Path(given.recipe).name.removesuffix(".yaml")
    try:
        processes.start()
        recipe = recipes.load(given.recipe, given.set)
        if given.dry_run:
            sys.exit(processes.only_first(lambda: plan.show(recipe, folder, given.gpus)))
        if lacks := plan.hardware(recipe):
            sys.exit(processes.said("\n".join(lacks)))
        run(recipe, folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        sys.exit(
            processes.said(
                f"The disk of {folder} is full; make room and run the same command: it goes on from its last checkpoint."
                if full
                else sentence(error)
            )
        )
    except RuntimeError as error:
        if not accelerate.utils.memory.should_reduce_batch_size(error):
            sys.exit(processes.said(str(error)))
        stage, memory, peak = plan.largest(plan.plan(recipe, processes.world()))
        parts = (
            f"the plan's largest stage is {stage} with {peak:.1f} GB, of which {max(memory, key=memory.get)} take most"
        )
        sys.exit(
            processes.said(
                f"Memory ran out ({str(error).splitlines()[0]}); {parts}: see `rvlib run {given.recipe} --dry-run`, and lower runtime.batch_size."
            )
        )
    except (ValueError, ModuleNotFoundError, FloatingPointError, MemoryError) as error:
        sys.exit(processes.said(str(error)))
    except KeyboardInterrupt:
        sys.exit(processes.said(f"Stopped; the same command goes on from the last checkpoint in {folder}."))
    if processes.first():
        print(f"Run: {folder}\nReport: {folder / 'report.html'}")
    processes.stop()
