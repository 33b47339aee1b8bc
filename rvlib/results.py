"""Numbers that the book reads: what the library's long commands wrote into `rvlib/data/results`, as arrays.

It needs no torch. Each record says how and when it was `made`: command, date, versions, settings.
"""

import json
import pathlib
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from rvlib.files import RESULTS

REAL_POLICY = RESULTS / "real_policy.json"
ENUMERATED_TRANSFORMERS = RESULTS / "enumerated_transformers.json"
RARITY = RESULTS / "rarity.json"
REMEDIES_ON_TRANSFORMERS = RESULTS / "remedies.json"
TEACHING = RESULTS / "teaching.json"
GROUND_TRUTHS = RESULTS / "ground_truths.json"
ON_POLICY_SHARES = RESULTS / "on_policy_shares.json"
SMALL_PLANS = RESULTS / "small_plans.json"

Array = NDArray[np.float64]


class RealPolicy(TypedDict):
    """Replies of the book's policy, and their rewards by two fixed functions: arrays (prompts, replies)."""

    made: dict[str, Any]
    names: list[str]  # of the prompts
    own: dict[str, dict[str, Any]]  # the rows of our own prompts by name, with text, reference and replies
    sentiment: Array
    similarity: Array
    tokens: NDArray[np.int64]  # how many a reply has
    ended: NDArray[np.bool_]  # whether it ended by itself
    log_probs: Array  # ln π(y|x), nats
    same_as: NDArray[np.int64]  # the first reply with the same text


class OneTransformer(TypedDict):
    """A transformer trained by each of several teachers: arrays (teachers, times) where nothing else is said."""

    length: int
    vocabulary: int
    parameters: int
    kl_coef: float
    accuracy: Array  # (teachers,)
    steps: list[dict[str, float]]  # the two chains of `autoregressive.proof_steps`, {step: value}
    t: Array
    proxy: Array
    ground_truth: Array
    variance: Array
    gradient_norm: Array
    jacobian_norm: Array
    largest: Array  # of the absolute values of r^KL


class ManyTransformers(TypedDict):
    """Random transformers against the bounds, {name: (rows,)}.

    gradient: length, variance, gradient_norm, jacobian_norm, largest, a row for each model and prompt, at the start and
    at the end of a training. time: length, variance (mean over prompts, at the start), gain, time, jacobian_norm (the
    largest of five along the way), kl_coef, a row for each model whose measured reward rose. steps: the two chains of
    `autoregressive.proof_steps` for the rows of gradient.
    """

    gradient: dict[str, Array]
    time: dict[str, Array]
    steps: list[dict[str, Array]]


class EnumeratedTransformers(TypedDict):
    """Transformers whose outputs can all be summed over."""

    made: dict[str, Any]
    example: OneTransformer
    survey: ManyTransformers


class RarityTimes(TypedDict):
    """What rare praise costs transformers, by three ways of ascent: arrays (models,)."""

    probability: Array  # π of the praised output at the start
    flow: Array  # time of gradient flow
    natural: Array  # time of the natural gradient
    adam: Array  # steps of Adam
    learning_rate: float  # of Adam
    parameters: int  # of a transformer


class Rarity(RarityTimes):
    """`RarityTimes`, and how and when they were measured."""

    made: dict[str, Any]


class RemedyOutcome(TypedDict):
    """How training under one remedy went: arrays (worlds,), those of `rvlib.tabular.remedies.TrainingResult`."""

    accuracy: Array
    variance: Array
    steps: Array  # until the gain; inf where it was not reached
    gained: Array
    lost_again: Array


class RemediesOnTransformers(TypedDict):
    """Small transformers trained by Adam under each remedy."""

    made: dict[str, Any]
    remedies: dict[str, RemedyOutcome]


class LearntGroundTruth(TypedDict):
    """What a reward model learnt of one ground truth; lists are [mean, low, high] over prompts."""

    pairs: int  # that it was trained on
    correlation: float  # pooled, within prompts
    accuracy: list[float]
    chance: list[float]
    over_chance: list[float]
    ties: list[float]
    variance: list[float]


class GroundTruths(TypedDict):
    """Candidates for a ground truth, compared by what a reward model learns of them."""

    made: dict[str, Any]
    prompts: int
    replies: int
    candidates: dict[str, LearntGroundTruth]


class OnPolicyShare(TypedDict):
    """A reward model trained on pairs of which a share is on-policy, and its rewards."""

    on_policy_share: float
    pairs: int  # that it was trained on
    rewards: Array  # of the policy's replies, (prompts, replies)
    others_rewards: Array  # of the off-policy pairs, (prompts, 2)


class OnPolicyShares(TypedDict):
    """Reward models over the shares of on-policy pairs, before policy gradient."""

    made: dict[str, Any]
    ground_truth: Array  # of the policy's replies, (prompts, replies)
    others_ground_truth: Array  # of the off-policy pairs, (prompts, 2)
    reward_models: dict[str, OnPolicyShare]


class SmallPlan(TypedDict):
    """What a small recipe takes on one GPU, as planned and not measured."""

    gpu: str
    minutes: dict[str, float]  # by how many trainings run at once
    disk: float  # GB


def load_real_policy(path: pathlib.Path | str = REAL_POLICY) -> RealPolicy:
    """What `rvlib samples` wrote, by default for the book."""
    content = _read(path)
    rows = content["prompts"]

    def column(key: str) -> NDArray[Any]:
        return np.array([row[key] for row in rows])

    return {
        "made": content["made"],
        "names": [row["name"] for row in rows],
        "own": {row["name"]: row for row in rows if "replies" in row},
        "sentiment": column("sentiment"),
        "similarity": column("similarity"),
        "tokens": column("tokens"),
        "ended": column("ended"),
        "log_probs": column("log_probs"),
        "same_as": column("same_as"),
    }


def load_enumerated_transformers(path: pathlib.Path | str = ENUMERATED_TRANSFORMERS) -> EnumeratedTransformers:
    """What `python -m rvlib.lm.enumerable.study` wrote."""
    content = _read(path)
    return {"made": content["made"], "example": _arrays(content["example"]), "survey": _arrays(content["survey"])}


def load_rarity(path: pathlib.Path | str = RARITY) -> Rarity:
    """What `python -m rvlib.lm.enumerable.rarity` wrote."""
    content = _read(path)
    return {"made": content.pop("made")} | _arrays(content)


def load_remedies(path: pathlib.Path | str = REMEDIES_ON_TRANSFORMERS) -> RemediesOnTransformers:
    """What `python -m rvlib.lm.enumerable.remedies` wrote."""
    content = _read(path)
    for row in content["remedies"].values():
        row["steps"] = [np.inf if steps is None else steps for steps in row["steps"]]
    return {"made": content["made"], "remedies": _arrays(content["remedies"])}


def load_ground_truths(path: pathlib.Path | str = GROUND_TRUTHS) -> GroundTruths:
    """What `python -m rvlib.lm.experiments.ground_truths` wrote."""
    return _read(path)


def load_on_policy_shares(path: pathlib.Path | str = ON_POLICY_SHARES) -> OnPolicyShares:
    """What `python -m rvlib.lm.experiments.on_policy_shares` wrote."""
    content = _read(path)
    return {
        "made": content["made"],
        "ground_truth": np.array(content["ground_truth"]),
        "others_ground_truth": np.array(content["others_ground_truth"]),
        "reward_models": _arrays(content["reward_models"]),
    }


def load_small_plans(path: pathlib.Path | str = SMALL_PLANS) -> dict[str, SmallPlan]:
    """What `python -m rvlib.lm.experiments.planning.dry_run` planned for each small recipe."""
    return _read(path)


def rounded(value: Any, digits: int = 6) -> Any:
    """A tree as JSON holds it, arrays as lists, with numbers to so many digits: enough for curves and distributions."""
    if isinstance(value, dict):
        return {name: rounded(entry, digits) for name, entry in value.items()}
    if isinstance(value, (list, np.ndarray)):
        return [rounded(entry, digits) for entry in value]
    return value if isinstance(value, int) else float(f"{value:.{digits}g}")


def _read(path: pathlib.Path | str) -> Any:
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def _arrays(value: Any) -> Any:
    """Lists of numbers in a tree as arrays."""
    if isinstance(value, dict):
        return {name: _arrays(entry) for name, entry in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_arrays(entry) for entry in value]
    return np.array(value) if isinstance(value, list) else value
