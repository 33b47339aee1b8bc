"""The trainings of a run by policy gradient: a policy, on a teacher, from a seed. None depends on another."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rvlib.lm.experiments import stages, teachers
from rvlib.lm.experiments.run_folder import Run
from rvlib.lm.experiments.run_once import Product, stage
from rvlib.lm.models import policies
from rvlib.lm.models.adapters import add_adapter
from rvlib.lm.optim.frozen import share_out
from rvlib.lm.training.policy_gradient import train_policy


@dataclass(frozen=True)
class Training:
    """One training by policy gradient: a policy, on a teacher, from a seed."""

    key: str  # of the teacher
    name: str  # of the policy
    seed: int

    def folder(self, run: Run) -> pathlib.Path:
        """Its stage's folder in that of the run."""
        return run.folder / f"policy-gradient/{self.name}/{self.key}/seed-{self.seed}"

    def done(self, run: Run) -> bool:
        """Whether it is done."""
        return (self.folder(run) / "manifest.json").exists()

    def do(self, run: Run) -> None:
        """Train, if it is not done, and keep every other process out of its folder meanwhile."""
        with run.lock(self.folder(run)):
            policy_gradient(run, self.key, self.name, self.seed)


@dataclass(frozen=True)
class Part:
    """The share of a run's trainings that one job of an array runs: number `index` of `count`, from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """The `Part` of a text such as "2/8". ValueError, one sentence, for any other."""
        index, _, count = text.partition("/")
        if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
            raise ValueError(f"part must be a number and how many parts there are, as in 2/8, got {text!r}.")
        return cls(int(index), int(count))

    def of(self, trainings: Sequence[Training]) -> list[Training]:
        """Every count-th of the trainings, from the index-th."""
        return list(trainings[self.index - 1 :: self.count])


def trainings(run: Run) -> list[Training]:
    """All trainings of a run's recipe: those of the first seed first."""
    recipe = run.recipe
    return [
        Training(key, name, seed) for seed in recipe.seeds for name in recipe.policies for key in recipe.reward_models
    ]


def steps(run: Run) -> int:
    """How many steps a training has."""
    return run.recipe.policy_gradient.steps(len(stages.split(run).prompts))


@stage("policy-gradient/{name}/{key}/seed-{seed}", makes="curve.json")
def policy_gradient(run: Run, key: str, name: str, seed: int, folder: pathlib.Path) -> Product:
    """Train policy `name` on teacher `key`; the stage returns the log, a list of dictionaries."""
    label = f"{name} on {key}, seed {seed}" if run.progress else None
    runtime, start, lora = run.recipe.runtime, run.folder / f"sft/{name}/model", run.recipe.policies[name].lora
    # Before the policy takes its memory.
    teacher, ground_truth = teachers.teacher(run, key, name), teachers.normalized_ground_truth(run, name)
    policy = policies.load_policy(start, dtype=run.recipe.dtype(name))
    ref_policy = None if lora else policies.load_policy(start, dtype=runtime.frozen_dtype)
    if ref_policy:
        ref_policy = replace(ref_policy, sharing=share_out(ref_policy.model, runtime.frozen_placement))
    if lora:
        add_adapter(policy, lora, seed)
    prompts = stages.split(run).prompts
    trainer = train_policy(
        policy, ref_policy, teacher, ground_truth, prompts, run.recipe, folder, seed=seed, label=label
    )
    log = trainer.lines()
    trainer.whole_model()
    policies.save(replace(policy, sharing=trainer.adam), folder / "model")
    return Product(log, {"tokens": int(sum(line.get("reply_tokens", 0) for line in log))}, trainer)
