"""How much of a ground truth do reward models learn over the shares of on-policy pairs? Found without policy gradient.

    python -m rvlib.lm.experiments.on_policy_shares [KEY…]

The stages of recipe `small-shares-cpu` up to `teachers.measure`, in the folder of its run. It goes on if stopped, and
writes the book's file. With names of reward models it only trains these, so that several processes can share the work
once the replies are drawn.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from rvlib.files import data_folder, write_text
from rvlib.lm import origin
from rvlib.lm.experiments import recipe, stages, teachers
from rvlib.lm.experiments.run_folder import Run
from rvlib.results import ON_POLICY_SHARES, rounded

RECIPE = "small-shares-cpu"


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
        write_text(ON_POLICY_SHARES, json.dumps(measured(run, policy)) + "\n")


def measured(run: Run, policy: str) -> dict[str, Any]:
    """What the book reads: ground truth and rewards of the measured replies, each a list of lists.

    The policy's own are (prompts, replies); those of the off-policy pairs, "others_…", are (prompts, 2).
    """
    ground_truth, teachers_measured = stages.labels(run, policy), teachers.measure(run, policy)
    reward_models = {}
    for key, spec in run.recipe.reward_models.items():
        assert isinstance(spec, recipe.TrainedRewardModel)
        reward_models[key] = {
            "on_policy_share": spec.on_policy,
            "pairs": len(stages.preferences(run, policy, spec.on_policy)),
            "rewards": teachers_measured[key]["rewards"],
            "others_rewards": teachers_measured[key]["off_policy_rewards"],
        }
    return {
        "made": {"recipe": run.recipe.model_dump(mode="json", exclude_none=True)} | origin.record(),
        "ground_truth": rounded(ground_truth["measure"]),
        "others_ground_truth": rounded(ground_truth["measure_off_policy"]),
        "reward_models": reward_models,
    }


if __name__ == "__main__":
    main()
