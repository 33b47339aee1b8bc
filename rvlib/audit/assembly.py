"""An audit put together from rewards: of arrays, of files, or of replies that were drawn and scored here; no torch."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks
from rvlib.audit import probes, statistics
from rvlib.audit.audited import Audit
from rvlib.audit.measuring import check_size, measurements_of, order_of_reward_models, unit
from rvlib.audit.outcome import TRUTH_LABEL, UNNAMED_POLICY, Made, Measurements, listed
from rvlib.audit.statistics import Interval
from rvlib.audit.verdicts import advice
from rvlib.files import fingerprint


@dataclass(frozen=True)
class Scores:
    """Rewards of one reward model: (prompts, replies) of the policy's, NaN where there is none; (pairs, 2).

    record: what else its `Measurements` are to hold, such as how a model read its texts.
    """

    rewards: ArrayLike
    preferences: ArrayLike = ()
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredReplies:
    """What was scored: prompts (texts), replies (as many texts to each), and what is known of them.

    replies is None where only rewards are known. log_probs: (prompts, replies) of whole replies under the policy.
    pair_prompts: the prompt of each preference. names, left_out: for the report. ended: (prompts, replies),
    whether a reply ended by itself and was not cut off at the longest length.
    """

    prompts: Sequence[str]
    replies: Sequence[Sequence[str]] | None = None
    log_probs: ArrayLike | None = None
    pair_prompts: Sequence[str] = ()
    names: Sequence[str] = ()
    left_out: Sequence[str] = ()
    ended: ArrayLike | None = None


@dataclass(frozen=True)
class Records:
    """What an audit says of how it was made: see `Audit`."""

    policy: Mapping[str, Any]
    source: str
    made: Made
    sampling: Mapping[str, Any] = field(default_factory=dict)
    ground_truth: str | None = None


def assemble(
    reward_models: Mapping[str, Scores],
    truth: Scores | None,
    drawn: ScoredReplies,
    records: Records,
    *,
    group: int | None = None,
    texts: bool = True,
) -> Audit:
    """The `Audit` of reward models whose rewards are known.

    truth: the same of the ground truth, if there is one. group: replies to a prompt from which a step of training
    learns, all by default. texts: whether to keep words of replies: the best and the worst, one as each model
    read it, and the phrases that replies begin with.
    """
    for label, scores in [*reward_models.items(), *([] if truth is None else [(TRUTH_LABEL, truth)])]:
        check_size(f"Rewards of {label}", scores.rewards, scores.preferences)
    different = features = None
    if drawn.replies is not None:
        texts_of_replies = np.array(drawn.replies, dtype=object)
        different = texts_of_replies[:, :, None] != texts_of_replies[:, None, :]
        features = probes.features(drawn.replies, drawn.log_probs, texts=texts)
    prompt = np.unique(np.array(drawn.prompts, dtype=object), return_inverse=True)[1]
    ended = None if drawn.ended is None else np.asarray(drawn.ended, dtype=bool)
    truth_rewards = None if truth is None else _without_noise(truth, truth.rewards)

    def measured_of(scores: Scores, *, is_truth: bool = False) -> Measurements:
        rewards, preferences = (_without_noise(scores, table) for table in (scores.rewards, scores.preferences))
        result = measurements_of(
            rewards,
            truth_rewards,
            preferences,
            different,
            prompts=drawn.prompts,
            pair_prompts=drawn.pair_prompts or None,
            group=group,
        )
        if ended is not None and not ended.all():
            result["ended_alone"] = _ended_alone(rewards, truth_rewards, ended, different, drawn.prompts)
        if features is not None and drawn.replies is not None:
            result["probes"] = probes.correlations(rewards, features, prompt)
            if truth_rewards is not None and "length" in features:
                known, _ = statistics.jointly_known(rewards, truth_rewards)  # in the units of the covariance
                result["covariance_without_length"] = statistics.partial_covariance(
                    known / unit(known), truth_rewards / unit(truth_rewards), features["length"], prompt
                )
            if texts and not is_truth:
                result["examples"] = probes.examples(drawn.prompts, drawn.replies, rewards, truth_rewards)
        record = {key: value for key, value in scores.record.items() if texts or key != "example"}
        result["rewards"] = [listed(row) for row in rewards]
        result["preferences"] = [listed(row) for row in preferences.reshape(-1, 2)]
        return Measurements(**{**result, **record})  # type: ignore[typeddict-item]  # keys of the measurements

    measurements = {label: measured_of(scores) for label, scores in reward_models.items()}
    audit = Audit(
        made=records.made,
        policy=dict(records.policy),
        sampling=dict(records.sampling),
        prompts={
            "source": records.source,
            "names": list(drawn.names) or [f"prompt {i + 1}" for i in range(len(drawn.prompts))],
            "left_out": list(drawn.left_out),
            "fingerprints": [fingerprint(text)[:12] for text in drawn.prompts],
        },
        ground_truth=records.ground_truth if truth is not None else None,
        replies={} if ended is None else {"cut_off": float(1 - ended.mean())},
        reward_models=measurements,
        ground_truth_measurements=None if truth is None else measured_of(truth, is_truth=True),
        order=order_of_reward_models(measurements),
        advice=[],
    )
    rows = [list(row) for row in ([] if drawn.replies is None else drawn.replies)]
    audit.replies["same"] = float(np.mean([1 - len(set(row)) / len(row) for row in rows])) if rows else 0.0
    if audit.replies["same"]:
        audit.prompts["first_same"] = [[row.index(text) for text in row] for row in rows]
    audit.sampling.setdefault("num_generations", np.asarray(next(iter(reward_models.values())).rewards).shape[1])
    audit.advice.extend(advice(audit))
    return audit


def _without_noise(scores: Scores, table: ArrayLike) -> NDArray[np.float64]:
    """A table of a reward model's rewards, where what rounding alone changes is no difference."""
    return statistics.without_noise(table, scores.record.get("noise", 0.0))


def _ended_alone(
    rewards: NDArray[np.float64],
    truth: NDArray[np.float64] | None,
    ended: NDArray[np.bool_],
    different: ArrayLike | None,
    prompts: Sequence[str],
) -> dict[str, Interval | None]:
    """The measures of the replies that ended by themselves, in units of those; arrays (prompts, replies)."""
    proxy, measured = np.where(ended, rewards, np.nan), None if truth is None else np.where(ended, truth, np.nan)
    try:
        result: Mapping[str, Any] = measurements_of(proxy, measured, (), different, prompts=prompts)
    except ValueError:  # too few of them
        result = {}
    keys = ("reward_variance",) if truth is None else ("covariance", "accuracy", "reward_variance")
    return {key: result.get(key) for key in keys}


def audit_rewards(
    rewards: Mapping[str, ArrayLike] | ArrayLike,
    ground_truth: ArrayLike | None = None,
    *,
    prompts: Sequence[str] | None = None,
    replies: Sequence[Sequence[str]] | None = None,
    group: int | None = None,
    policy: str = UNNAMED_POLICY,
) -> Audit:
    """The audit of rewards that you have, from a training loop of your own or from anywhere.

        from rvlib.audit import audit_rewards
        audit = audit_rewards({"my reward model": rewards}, ground_truth)
        print(audit)

    rewards: (prompts, replies), or {label: (prompts, replies)}; ground_truth: the same of what you want, if it is
    known; NaN where there is no reward. prompts, replies: the texts, which add probes and examples to the report;
    without prompts `compare` pairs two audits row by row. group: replies to a prompt from which a step of training
    learns, all by default. ValueError, in one sentence, for shapes that do not fit.
    """
    arrays = rewards if isinstance(rewards, Mapping) else {"the reward model": rewards}
    if not arrays:
        raise ValueError("rewards must hold at least one reward model, got none.")
    for label in arrays:
        if not is_label(label) or (label == TRUTH_LABEL and ground_truth is not None):
            raise ValueError(
                f"rewards must have a text of one line, other than {TRUTH_LABEL!r}, as the label of each reward model, "
                f"got {label!r}; rename it."
            )
    if group is not None:
        group = _checks.whole("group", group, low=2)
    tables = {label: _table(f"rewards of {label}", values) for label, values in arrays.items()}
    shape = next(iter(tables.values())).shape
    truth = None if ground_truth is None else _table("ground_truth", ground_truth)
    for label, table in [*tables.items(), *([] if truth is None else [(TRUTH_LABEL, truth)])]:
        if table.shape != shape:
            raise ValueError(f"All rewards must be of the same replies, shape {shape}, got {table.shape} of {label}.")
    if group is not None and group > shape[1]:
        raise ValueError(f"group must be at most the {shape[1]} replies to each prompt, got {group}.")
    names = [f"prompt {i + 1}" for i in range(shape[0])] if prompts is None else _texts("prompts", prompts, shape[:1])
    drawn = ScoredReplies(names, None if replies is None else _texts("replies", replies, shape))
    records = Records({"name": policy}, "", made=made_here(), ground_truth=TRUTH_LABEL)
    scores = {label: Scores(table) for label, table in tables.items()}
    return assemble(scores, None if truth is None else Scores(truth), drawn, records, group=group)


def is_label(label: object) -> bool:
    """Whether a report can call a reward model so: a text of one line that is not blank."""
    return isinstance(label, str) and len(label.splitlines()) == 1 and bool(label.strip())


def made_here(command: str | None = None) -> Made:
    """What to record of numbers that need no language model: date, versions, processor."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "numpy": version("numpy"), "scipy": version("scipy")},
        "device": platform.processor() or platform.machine(),
        "command": command,
        "seconds": {},
    }


def _table(name: str, values: Any) -> NDArray[np.float64]:
    """(prompts, replies) rewards as floats, infinities refused."""
    try:
        values = values.detach().double().cpu().numpy() if hasattr(values, "detach") else values  # torch's
        if np.iscomplexobj(values):  # whose imaginary part would be lost
            raise TypeError
        masked = isinstance(values, np.ma.MaskedArray)
        table = values.astype(float).filled(np.nan) if masked else np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be numbers of shape (prompts, replies), with as many replies to each.") from None
    if table.ndim != 2 or not len(table) or table.shape[1] < 2:
        raise ValueError(
            f"{name} must be finite numbers of shape (prompts, replies), at least two replies to each, "
            f"got shape {table.shape}."
        )
    if np.isinf(table).any():
        i, j = np.argwhere(np.isinf(table))[0]
        raise ValueError(
            f"{name} must be finite numbers, or NaN for a reply that is not scored, got {table[i, j]} for reply "
            f"{j + 1} of prompt {i + 1}."
        )
    return table


def _texts(name: str, values: Any, shape: tuple[int, ...]) -> list[Any]:
    """Texts (prompts,) or (prompts, replies) as lists of `str`; ValueError, in one sentence, for anything else."""

    def listed_texts(values: Any, shape: tuple[int, ...]) -> Any:
        if not shape:
            if not isinstance(values, str):
                raise ValueError(f"a {type(values).__name__}")
            return str(values)
        if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
            raise ValueError(f"a {type(values).__name__}")
        if len(values) != shape[0]:
            raise ValueError(f"{len(values)} where {shape[0]} are expected")
        return [listed_texts(value, shape[1:]) for value in values]

    try:
        return listed_texts(values, shape)
    except ValueError as error:
        raise ValueError(f"{name} must be texts of shape {shape}, as the rewards have, got {error}.") from None
