"""The teachers of a run: how each reward model of its recipe gives rewards, and what is measured of it.

`recipe.reward_models` has a class for each kind of reward model. Here each kind has a function that makes its rewards
(`rewards_of`); where a kind is trained in the run, one that trains it (`prepare`); and where something may be wrong
with it, one that says so before a run begins (`check`). `measure` has the properties of each teacher before policy
gradient, `teacher` and `normalized_ground_truth` the rewards with which a policy is trained and evaluated.
"""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvlib import estimates, metrics
from rvlib.lm import processes
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.experiments import stages, teacher_choice
from rvlib.lm.experiments.recipe import (
    AlteredGroundTruth,
    DiscreteGroundTruth,
    LengthPraisingGroundTruth,
    NamedRewardModel,
    NoisyGroundTruth,
    RewardModelSettings,
    SaturatedGroundTruth,
    ScaledGroundTruth,
    TrainedRewardModel,
)
from rvlib.lm.experiments.run_folder import Run
from rvlib.lm.experiments.run_once import Product, stage
from rvlib.lm.models import RewardFunction, reward_models
from rvlib.results import rounded

PER_PROMPT = ("reward_variance", "on_policy_accuracy", "on_policy_chance", "covariance")
Array = NDArray[np.float64]
Alteration = Callable[[Array, Sequence[Sequence[str]]], Array]
"""Of the normalised ground truth, (prompts, replies), and the replies' texts; what it gives has the same shape."""


@functools.singledispatch
def check(spec: RewardModelSettings, run: Run) -> None:
    """Raise, before the long part of a run, the errors of data and models that would come up in it."""


@functools.singledispatch
def prepare(spec: RewardModelSettings, run: Run, key: str, name: str) -> None:
    """Train the reward model `key` as it teaches policy `name`, if it is trained in the run."""


@functools.singledispatch
def rewards_of(spec: RewardModelSettings, run: Run, key: str, name: str) -> RewardFunction:
    """The rewards with which the reward model `key` teaches policy `name`, before normalisation."""
    raise NotImplementedError(f"rewards_of must be registered for each kind of reward model, got {type(spec)}.")


@functools.singledispatch
def alteration(spec: AlteredGroundTruth, run: Run, name: str) -> Alteration:
    """The function of the ground truth and of the replies that such a reward model is."""
    raise NotImplementedError(f"alteration must be registered for each kind of it, got {type(spec)}.")


# ---- trained in the run, or finished ---------------------------------------------------------------------------------


@check.register
def _(spec: TrainedRewardModel, run: Run) -> None:
    stages.check_pairs(run, spec.training_pairs(len(stages.split(run).pairs)))


@prepare.register
def _(spec: TrainedRewardModel, run: Run, key: str, name: str) -> None:
    _trained(spec, run, key, name)


@rewards_of.register
def _(spec: TrainedRewardModel, run: Run, key: str, name: str) -> RewardFunction:
    return run.load_reward_model(_trained(spec, run, key, name))


def _trained(spec: TrainedRewardModel, run: Run, key: str, name: str) -> pathlib.Path:
    return stages.reward_model(run, key, spec.policy or name, spec)


@check.register
def _(spec: NamedRewardModel, run: Run) -> None:
    check_reward_model(run, spec.model, spec.trust_remote_code)


@rewards_of.register
def _(spec: NamedRewardModel, run: Run, key: str, name: str) -> RewardFunction:
    return run.load_reward_model(spec.model, spec.trust_remote_code)


def check_reward_model(
    run: Run, model: str, trust_remote_code: bool = False, role: str = reward_models.REWARD_MODEL
) -> None:
    """Raise what loading a reward model by its name, or a call of it, would raise on the prompts of this run.

    Only as far as that is known before weights are fetched.
    """
    split = stages.split(run)
    pairs = [*split.pairs, *split.held_out]
    if model == "similarity" and not all(pair.prompt.reference_reply for pair in pairs):
        raise ValueError(
            f"Similarity compares with a reference reply, got prompts of {run.recipe.data.preferences} without "
            "one; choose another reward model or other data."
        )
    processes.only_first(
        lambda: reward_models.check_reward_model(model, trust_remote_code=trust_remote_code, role=role)
    )


# ---- computed from the ground truth ----------------------------------------------------------------------------------


@rewards_of.register
def _(spec: ScaledGroundTruth, run: Run, key: str, name: str) -> RewardFunction:
    prompts, ground_truth = stages.split(run).prompts, run.ground_truth()
    order = np.random.default_rng(8122).permutation(len(prompts))
    scaled = {prompts[i].name for i in order[: round(spec.share * len(prompts))]}

    def rewards(prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> Array:
        scales = np.array([[spec.scale if prompt.name in scaled else 1.0] for prompt in prompts])
        return ground_truth(prompts, replies) * scales

    return rewards


@rewards_of.register
def _(spec: AlteredGroundTruth, run: Run, key: str, name: str) -> RewardFunction:
    ground_truth, alter = normalized_ground_truth(run, name), alteration(spec, run, name)

    def rewards(prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> Array:
        return alter(ground_truth(prompts, replies), replies)

    return rewards


@alteration.register
def _(spec: DiscreteGroundTruth, run: Run, name: str) -> Alteration:
    measured = np.array(stages.labels(run, name)["measure"])
    truth = metrics.Normalizer.fit(measured).transform(measured)
    cuts = np.quantile(truth, np.arange(1, spec.levels) / spec.levels)
    return lambda truth, replies: np.digitize(truth, cuts).astype(float)


@alteration.register
def _(spec: SaturatedGroundTruth, run: Run, name: str) -> Alteration:
    return lambda truth, replies: np.tanh(spec.saturation * truth)


@alteration.register
def _(spec: NoisyGroundTruth, run: Run, name: str) -> Alteration:
    return lambda truth, replies: truth + spec.noise * _each(text_noise, replies)


@alteration.register
def _(spec: LengthPraisingGroundTruth, run: Run, name: str) -> Alteration:
    measured = [record["replies"] for record in stages.initial_replies(run, name).measured]
    lengths = metrics.Normalizer.fit(_each(len, measured))
    return lambda truth, replies: truth + spec.length * lengths.transform(_each(len, replies))


def text_noise(text: str) -> float:
    """A standard normal number that the text alone decides."""
    return float(np.random.default_rng([20, *text.encode()]).normal())


def _each(function: Callable[[str], float], replies: Sequence[Sequence[str]]) -> Array:
    """A number for each reply, (prompts, replies)."""
    return np.array([[function(reply) for reply in texts] for texts in replies], dtype=float)


# ---- measured, and as policy gradient uses them ----------------------------------------------------------------------


@stage("measure/{name}", makes="measure.json")
def measure(run: Run, name: str, folder: pathlib.Path) -> Product:
    """The properties of each teacher of a policy, before policy gradient.

    {teacher: {"normalizer", "per_prompt": {property: (prompts,)}, each property: [mean, low, high], "predictors":
    `teacher_choice.predictors_of`, "rewards": (prompts, outputs), "off_policy_rewards": (prompts, 2)}}. As in the
    paper, rewards are normalised jointly on the replies on which they are measured, but those that are kept are as they
    came; `measure.scheme` chooses the normalisation in policy gradient alone, as in the paper's Table 9. Off-policy
    accuracy is over the off-policy pairs of the measured prompts, on which no reward model was trained. Each accuracy
    has beside it the accuracy by chance for as many ties (`metrics.chance_accuracy`).
    """
    recipe = run.recipe
    records = stages.initial_replies(run, name).measured
    replies = [record["replies"] for record in records]
    held_out = stages.split(run).held_out[: len(replies)]
    prompts = [pair.prompt for pair in held_out]
    ground_truth = stages.labels(run, name)
    truth = np.array(ground_truth["measure"])
    off_policy_truth = np.array(ground_truth["measure_off_policy"])
    teachers = {}
    for key, spec in recipe.reward_models.items():
        reward = rewards_of(spec, run, key, name)
        raw = processes.score(reward, prompts, replies)
        normalizers = {scheme: metrics.Normalizer.fit(raw, scheme) for scheme in ("joint", "variance")}
        normalizer = normalizers[recipe.measure.scheme]
        rewards = normalizers["joint"].transform(raw)
        off_policy = processes.score(reward, prompts, stages.off_policy_replies(run, held_out))
        properties = {
            "reward_variance": metrics.reward_variance(rewards),
            "on_policy_accuracy": metrics.ranking_accuracy(rewards, truth),
            "on_policy_chance": metrics.chance_accuracy(rewards, truth),
            "off_policy_accuracy": metrics.ranking_accuracy(off_policy, off_policy_truth),
            "off_policy_chance": metrics.chance_accuracy(off_policy, off_policy_truth),
            "covariance": metrics.reward_covariance(rewards, truth),
            "reward_variance_table_9": metrics.reward_variance(normalizers["variance"].transform(raw)),
        }
        teacher: dict[str, Any] = {"normalizer": {"mean": normalizer.mean, "scale": normalizer.scale}}
        teacher["per_prompt"] = {label: np.round(properties[label], 6).tolist() for label in PER_PROMPT}
        for label, per_prompt in properties.items():
            mean = estimates.over_prompts(per_prompt)
            teacher[label] = [float(mean.value), float(mean.low), float(mean.high)]
        teacher["predictors"] = teacher_choice.predictors_of(records, rewards, truth, off_policy, off_policy_truth)
        teacher["rewards"], teacher["off_policy_rewards"] = (rounded(r) for r in (raw, off_policy))
        teachers[key] = teacher
    return Product(teachers, record={"replies": int(truth.size)})


def teacher(run: Run, key: str, name: str) -> RewardFunction:
    """The reward model `key` as it teaches policy `name`, normalised: the proxy that policy gradient maximises."""
    normalizer = metrics.Normalizer(**measure(run, name)[key]["normalizer"])
    return _normalized(rewards_of(run.recipe.reward_models[key], run, key, name), normalizer)


def normalized_ground_truth(run: Run, name: str) -> RewardFunction:
    """The ground truth in the units of the measured replies of policy `name`, as the paper's figures are.

    These rewards are normalised jointly.
    """
    normalizer = metrics.Normalizer.fit(np.array(stages.labels(run, name)["measure"]))
    return _normalized(run.ground_truth(), normalizer)


def _normalized(reward: RewardFunction, normalizer: metrics.Normalizer) -> RewardFunction:
    def rewards(prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> Array:
        return normalizer.transform(reward(prompts, replies))

    return rewards
