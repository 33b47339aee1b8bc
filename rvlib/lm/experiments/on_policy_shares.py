"""How much of a ground truth do reward models learn over the shares of on-policy pairs? Found without policy gradient.

    python -m rvlib.lm.experiments.on_policy_shares [KEY…]

The stages of recipe `small-shares-cpu` up to `teachers.measure`, in the folder of its run. It goes on if stopped, and
writes the book's file. With names of reward models it only trains these, so that several processes can share the work
once the replies are drawn.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rvlib import metrics
from rvlib.files import data_folder, write_text
from rvlib.lm import origin
from rvlib.lm.experiments import recipe, stages, teachers
from rvlib.lm.experiments.ground_truths import interval, measured
from rvlib.lm.experiments.run_folder import Run
from rvlib.results import ON_POLICY_SHARES

RECIPE = "small-shares-cpu"
REPORTED = ("off_policy_accuracy", "off_policy_chance", "reward_variance", "covariance")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the reward models, or those that are named; if all, measure them and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("keys", nargs="*", metavar="KEY", help="train these reward models alone")
    keys = parser.parse_args(arguments).keys
    run = Run(recipe.load(RECIPE), data_folder() / "runs" / RECIPE)
    (policy,) = run.recipe.policies
    stages.sft(run, policy)
    stages.draw(run, policy)
    stages.labels(run, policy)
    for key in keys or run.recipe.reward_models:
        teachers.prepare(run.recipe.reward_models[key], run, key, policy)
    if not keys:
        write_text(ON_POLICY_SHARES, json.dumps(results(run, policy), indent=1) + "\n")


def results(run: Run, policy: str) -> dict[str, Any]:
    """What the book reads: what is known of each reward model, and how they differ in accuracy over chance.

    An interval is [mean, low, high] over the measured prompts; that of a difference, {"KEY": {"another KEY": interval
    of the first less the second}}, is paired over them.
    """
    truth = np.array(stages.labels(run, policy)["measure"])
    reward_models, over_chance = {}, {}
    for key, teacher in teachers.measure(run, policy).items():
        spec, rewards = run.recipe.reward_models[key], np.array(teacher["rewards"])
        assert isinstance(spec, recipe.TrainedRewardModel)
        over_chance[key] = metrics.ranking_accuracy(rewards, truth) - metrics.chance_accuracy(rewards, truth)
        reward_models[key] = {
            "on_policy_share": spec.on_policy,
            "pairs": len(stages.preferences(run, policy, spec.on_policy)),
            **measured(truth, rewards),
            **{name: [round(x, 5) for x in teacher[name]] for name in REPORTED},
        }
    differences: dict[str, dict[str, list[float]]] = {key: {} for key in over_chance}
    for first, second in combinations(over_chance, 2):
        differences[first][second] = interval(over_chance[first] - over_chance[second])
    prompts, replies = truth.shape
    return {
        "made": {"recipe": run.recipe.model_dump(mode="json", exclude_none=True)} | origin.record(),
        "prompts": prompts,
        "replies": replies,
        "reward_models": reward_models,
        "differences": differences,
    }


if __name__ == "__main__":
    main()
