"""Which ground truth can a reward model of SmolLM2-135M learn from a few hundred pairs? Found without policy gradient.

Candidates are VADER's positivity, the similarity to the reference reply, and the mean of the two. Prompts, replies and
the training of a reward model on pairs of the policy's own replies are those of recipe `small-4.1-cpu`; only the ground
truth that labels the pairs differs. For the mean no third reward model is trained: its reward model is the mean of the
other two, each normalised. A candidate is good if the reward model's on-policy accuracy, on prompts that it was not
trained on, is far above its chance level, and if the ground truth ties few pairs of replies.

    python -m rvlib.lm.experiments.ground_truths

It works in the folder of the recipe's run, whose replies it takes, goes on if stopped, and writes the book's file.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from rvlib import estimates, metrics
from rvlib.files import data_folder, write_text
from rvlib.lm import origin
from rvlib.lm.experiments import recipe, stages
from rvlib.lm.experiments.run_folder import Run
from rvlib.results import GROUND_TRUTHS

RECIPE, TEACHER = "small-4.1-cpu", "on-policy-100"
CANDIDATES = ("positivity", "similarity")


class Scored(TypedDict):
    """The measured replies' rewards, (prompts, replies), as the file of a candidate keeps them."""

    truth: list[list[float]]  # by the ground truth
    rewards: list[list[float]]  # by its reward model
    pairs: int  # on how many the reward model was trained


class Measured(TypedDict):
    """What is known of a candidate: [mean, low, high] over the prompts, but for the last."""

    accuracy: list[float]  # on-policy, of its reward model
    chance: list[float]  # the accuracy that chance gives
    over_chance: list[float]
    ties: list[float]
    variance: list[float]  # reward variance, normalised
    correlation: float  # within prompts, pooled


def scored(run: Run) -> Scored:
    """Rewards of the measured replies by a candidate and by its reward model, which is trained for it."""
    path = run.folder / "scored.json"
    if not path.exists():
        (policy,) = run.recipe.policies
        truth = stages.labels(run, policy)["measure"]
        replies = [record["replies"] for record in stages.initial_replies(run, policy).measured]
        spec = recipe.TrainedRewardModel(on_policy=1.0)
        model = run.load_reward_model(stages.reward_model(run, TEACHER, policy, spec))
        rewards = model(stages.split(run).prompts[: len(truth)], replies).tolist()
        content: Scored = {"truth": truth, "rewards": rewards, "pairs": len(stages.preferences(run, policy, 1.0))}
        write_text(path, json.dumps(content))
    return json.loads(path.read_text())


def measured(ground_truth: NDArray[np.float64], rewards: NDArray[np.float64]) -> Measured:
    """What is known of a candidate by its rewards and those of its reward model, both (prompts, replies)."""
    accuracy, chance = metrics.ranking_accuracy(rewards, ground_truth), metrics.chance_accuracy(rewards, ground_truth)
    normalised = metrics.Normalizer.fit(ground_truth).transform(ground_truth)
    return {
        "accuracy": _interval(accuracy),
        "chance": _interval(chance),
        "over_chance": _interval(accuracy - chance),
        "ties": _interval(metrics.ranking_accuracy(np.zeros_like(ground_truth), ground_truth)),
        "variance": _interval(metrics.reward_variance(normalised)),
        "correlation": round(metrics.within_prompt_correlation(rewards, ground_truth), 5),
    }


def _interval(values: NDArray[np.float64]) -> list[float]:
    mean = estimates.over_prompts(values)
    return [round(float(x), 5) for x in (mean.value, mean.low, mean.high)]


def candidate(name: str, folder: pathlib.Path) -> Run:
    """The run of a ground truth: that of the recipe where it is the recipe's own, else one that shares its replies."""
    own = Run(recipe.load(RECIPE), folder)
    if own.recipe.ground_truth.model == name:
        return own
    run = Run(recipe.load(RECIPE, [f"ground_truth.model={name}"]), folder / "ground-truths" / name)
    for stage in ("sft", "samples", "others"):
        if not (run.folder / stage).exists():
            (run.folder / stage).symlink_to((folder / stage).resolve())
    return run


def main() -> None:
    """Measure all candidates and write what was found."""
    folder = data_folder() / "runs" / RECIPE
    run = Run(recipe.load(RECIPE), folder)
    (policy,) = run.recipe.policies
    stages.sft(run, policy)
    stages.draw(run, policy)
    stages.others_replies(run)
    files = {name: scored(candidate(name, folder)) for name in CANDIDATES}
    arrays = {name: (np.array(file["truth"]), np.array(file["rewards"])) for name, file in files.items()}
    truths, rewards = zip(*arrays.values())
    normalised = [metrics.Normalizer.fit(table).transform(table) for table in rewards]
    candidates: dict[str, Mapping[str, object]] = {
        name: {**measured(truth, reward), "pairs": files[name]["pairs"]} for name, (truth, reward) in arrays.items()
    }
    candidates["mix"] = measured(np.mean(truths, axis=0), np.mean(normalised, axis=0))
    made = {"recipe": run.recipe.model_dump(mode="json", exclude_none=True)} | origin.record()
    prompts, replies = truths[0].shape
    content = {"made": made, "prompts": prompts, "replies": replies, "candidates": candidates}
    write_text(GROUND_TRUTHS, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
