"""The outcome of an audit: what is known of each reward model, the order of them, and all of it as JSON holds it.

`measuring` makes the measurements and the order, `assembly` the rest; `report` shows it, and `audited` is what a user
holds.
"""

import json
import pathlib
from dataclasses import dataclass, fields
from typing import Any, NotRequired, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from rvlib.audit.probes import BestAndWorst
from rvlib.audit.statistics import Interval
from rvlib.files import RESULTS

MEASURES = {  # by which reward models may be ordered, and what a report calls them
    "covariance": "covariance",
    "preference_covariance": "covariance with the preferences",
    "reward_variance": "reward variance",
}
UNNAMED_POLICY = "the policy"  # where replies come from a file and nobody said whose they are
TRUTH_LABEL = "the ground truth"  # where it has no name of its own
BOOK = RESULTS / "audit.json"  # what the book's chapter reads
RENAMED = {  # parts of an audit of an older version
    "teachers": "reward_models",
    "reference": "ground_truth_measurements",
    "ground_truth_grade": "ground_truth_measurements",
}


class Measurements(TypedDict, total=False):
    """What is known of one reward model, as JSON holds it; `measuring.measurements_of` makes it.

    The second part is there with a ground truth, the third with preferences, the fourth with the replies' texts. Where
    an interval is None, it cannot be told.
    """

    mean: float  # of the reward, in its own unit
    scale: float  # its standard deviation over all replies, the unit of what follows
    reward_variance: Interval
    reward_variance_own_unit: Interval
    spread: list[float]  # the 10 %, 50 % and 90 % quantiles of the reward variance over prompts
    spread_of_mean: list[float]  # the same with the mean reward variance as the unit (scheme="variance")
    flat: Interval  # share of prompts with (almost) no reward variance
    prompts: int  # that differ, with at least two rewards
    unscored: int  # replies without a reward, which are left out
    group: int  # replies to a prompt from which one step of training learns
    flat_groups: Interval | None  # share of the groups of that size whose rewards are all equal
    signal_to_noise: Interval | None  # of one such group
    replies_to_halve: int | None  # replies to each prompt that would halve the interval of what orders reward models
    per_prompt: dict[str, list]  # "prompt" and "pair_prompt" number those that differ, where some come more than once

    accuracy: Interval | None
    covariance: Interval
    relative_speed: Interval | None  # the covariance in units of the ground truth's own variance
    chance: float  # the accuracy of a reward that ties as many pairs and has nothing to do with the ground truth
    tied: float  # share of the pairs of different replies
    tied_in_error: float  # the same of those pairs that the ground truth orders
    harm_aware: Interval | None  # accuracy in which a wrong order of a reply below the mean does no harm
    harm_aware_chance: float | None

    preference_accuracy: Interval
    preference_covariance: Interval
    pairs: int

    probes: dict[str, Interval]  # correlation of the reward with features of the replies, within prompts
    covariance_without_length: Interval | None
    examples: list[BestAndWorst]

    ended_alone: dict[str, Interval | None]  # these measures of the replies that were not cut off, if some were

    noise: float  # what rounding changed in a reward at most, in its own unit
    chat_template: bool  # these three of models alone: whether it has one, one reply as it read it, what to know
    example: dict[str, Any]
    notes: list[str]

    rewards: list[list[float | None]]  # (prompts, replies), None where there is none; `assemble` adds them
    preferences: list[list[float | None]]  # (pairs, 2), None where there is none


class Gap(TypedDict):
    """What separates a reward model from the next in the order, paired over prompts."""

    difference: Interval | None  # None where fewer than two prompts are known to both
    prompts: int | None  # so many would tell them apart; None where these do, or nothing would
    apart: bool


class Order(TypedDict):
    """Reward models, best first, and what they are ordered by."""

    by: str
    names: list[str]
    gaps: list[Gap]


class Made(TypedDict):
    """How an audit was made."""

    date: str
    git_commit: NotRequired[str | None]  # of this library, where a language model ran
    versions: dict[str, str]  # of packages
    device: str
    command: str | None
    seconds: dict[str, float]  # of sampling, and of scoring by each reward model


@dataclass(frozen=True)
class Outcome:
    """What came of an audit, all of it made of what JSON can hold; `audited.Audit` shows and writes it too.

    An interval is [value, low, high]. policy, sampling: as recorded. prompts: {"source", "names", "left_out",
    "fingerprints"}, and where some replies are one text "first_same", (prompts, replies), the first that each is the
    same as. ground_truth: its name, or None. replies: {"cut_off", "same"}, shares. reward_models: `Measurements`
    of each, by name; ground_truth_measurements: those of the ground truth. order: see
    `measuring.order_of_reward_models`. advice: sentences.
    """

    made: Made
    policy: dict[str, Any]
    sampling: dict[str, Any]
    prompts: dict[str, Any]
    ground_truth: str | None
    replies: dict[str, float]
    reward_models: dict[str, Measurements]
    ground_truth_measurements: Measurements | None
    order: Order
    advice: list[str]

    @classmethod
    def load(cls, path: str | pathlib.Path = BOOK) -> Self:
        """The audit in an audit.json, or in the folder that has it; the book's by default.

        ValueError, in one sentence, for a file that is damaged or of a version that this one cannot read.
        """
        path = pathlib.Path(path)
        path = path / "audit.json" if path.is_dir() else path
        try:
            contents = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"An audit must be JSON, got {path} ({str(error).rstrip('.')}); name an audit.json."
            ) from None
        if isinstance(contents, dict):
            contents = {RENAMED.get(name, name): value for name, value in contents.items()}
        names = {field.name for field in fields(cls)}
        if not isinstance(contents, dict) or set(contents) != names:
            got = "no such names" if not isinstance(contents, dict) else ", ".join(sorted(contents)) or "none"
            raise ValueError(f"An audit must have {', '.join(sorted(names))}, got {got} in {path}; audit anew.")
        audit = cls(**contents)
        check(audit, str(path))
        return audit


def check(audit: Outcome, place: str = "the audit") -> None:
    """ValueError, in one sentence, unless an audit has what a report and a comparison read; place: what to call it."""

    def require(held: bool, requirement: str) -> None:
        if not held:
            raise ValueError(f"An audit must have {requirement}, and {place} has not; audit anew.")

    for name in ("made", "policy", "sampling", "prompts", "replies", "reward_models", "order"):
        require(isinstance(getattr(audit, name), dict), f"a dictionary of {name}")
    require({"date", "versions", "device", "command", "seconds"} <= audit.made.keys(), "a record of how it was made")
    require(isinstance(audit.sampling.get("num_generations"), int), "a number of replies to each prompt")
    require(isinstance(audit.advice, list), "a list of advice")
    require(isinstance(audit.ground_truth, str | None), "a text as the name of its ground truth")
    require(isinstance(audit.policy.get("name"), str), "a policy with a name")
    require(
        (audit.ground_truth_measurements is None) == (audit.ground_truth is None),
        "measurements of the ground truth where it has one",
    )
    names: Any = audit.prompts.get("names")
    require(_texts(names), "the names of its prompts")
    require(len(audit.reward_models) > 0, "measurements of at least one reward model")
    require(
        _texts(audit.order.get("names")) and set(audit.order["names"]) == set(audit.reward_models), "an order of these"
    )
    require(audit.order.get("by") in MEASURES, "a measure that it is ordered by")
    require("fingerprints" not in audit.prompts or _texts(audit.prompts["fingerprints"], names), "a fingerprint each")
    shape = None
    for name, measured in [
        *audit.reward_models.items(),
        *([] if audit.ground_truth_measurements is None else [("the truth", audit.ground_truth_measurements)]),
    ]:
        held = (
            isinstance(measured, dict) and {"scale", "prompts", "reward_variance", audit.order["by"]} <= measured.keys()
        )
        require(held and isinstance(measured.get("per_prompt", {}), dict), f"all measurements of {name}")
        try:
            rewards = np.array([[_number(reward) for reward in row] for row in measured["rewards"]], dtype=float)
        except (KeyError, OverflowError, TypeError, ValueError):
            rewards = np.empty(0)
        shape = shape or rewards.shape
        held = rewards.ndim == 2 and rewards.shape == shape and len(rewards) == len(names)
        require(held and bool(np.isfinite(rewards).any()), f"a number or null for each reply as rewards of {name}")
    if "first_same" in audit.prompts:
        first = audit.prompts["first_same"]
        held = isinstance(first, list) and all(isinstance(row, list) for row in first)
        require(held and (len(first), *{len(row) for row in first}) == shape, "a number of each reply's text")


def _texts(values: Any, beside: Any = None) -> bool:
    """Whether these are texts, as many as `beside` if that is given."""
    texts = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return texts and (beside is None or len(values) == len(beside))


def _number(value: Any) -> float:
    """A reward as JSON holds it, NaN for null."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise TypeError
    return float("nan") if value is None else float(value)


def different_replies(audit: Outcome) -> NDArray[np.bool_] | None:
    """(prompts, replies, replies), which two replies differ as texts; None where all do, or it is not known."""
    first = audit.prompts.get("first_same")
    return None if first is None else np.not_equal(np.array(first)[:, :, None], np.array(first)[:, None, :])


def interval_of(measured: Measurements, measure: str) -> Interval:
    """[value, low, high] of one of the measures that reward models are ordered by."""
    return measured[measure]  # type: ignore[literal-required]  # a variable is no literal


def listed(values: NDArray[np.float64]) -> list[float | None]:
    """Numbers as JSON holds them, None for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
