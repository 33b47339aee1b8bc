"""Two audits beside each other, paired over the prompts that both have: before and after training, or two policies.

Rewards are compared in one unit, that of the first audit's replies: its mean and its standard deviation over them.
"""

import html
import json
import pathlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvlib._terminal import nearest
from rvlib.audit.audited import Audit
from rvlib.audit.measuring import measurements_of
from rvlib.audit.outcome import UNNAMED_POLICY, check, different_replies
from rvlib.audit.report import STYLE, cell
from rvlib.audit.statistics import Interval, averaged, covariances, flat_groups, of_means
from rvlib.audit.verdicts import interval
from rvlib.files import write_text
from rvlib.metrics import Normalizer, harm_aware_accuracy


@dataclass(frozen=True)
class Change:
    """One measure of one reward model in both audits; difference: the second less the first, paired over prompts."""

    reward_model: str
    measure: str
    first: Interval
    second: Interval
    difference: Interval

    @property
    def apart(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return self.difference[1] > 0 or self.difference[2] < 0


@dataclass(frozen=True)
class Comparison:
    """What changed from one audit to the other. names: of the two; prompts: how many both have."""

    names: tuple[str, str]
    prompts: int
    changes: list[Change]

    def text(self) -> str:
        """The comparison as lines of at most 80 characters."""
        lines = [f"From {self.names[0]}"[:80], f"to {self.names[1]}"[:80], f"paired over {self.prompts} prompts.", ""]
        lines += [f"{'':16} {'first':>20} {'second':>20} {'difference':>20}"]
        reward_model = None
        for change in self.changes:
            if change.reward_model != reward_model:
                reward_model = change.reward_model
                lines.append(reward_model[:78])
            first, second = (interval(values).replace(", ", " ") for values in (change.first, change.second))
            mark = "*" if change.apart else " "
            difference = interval(change.difference, "+.2f").replace(", ", " ")
            lines.append(f" {change.measure:15} {first:>20} {second:>20} {difference:>20}{mark}")
        return "\n".join([*lines, "", "* the 95 % interval of the difference leaves out 0"])

    def page(self) -> str:
        """The comparison as one HTML file."""
        first, second = map(html.escape, self.names)
        head = "<thead><tr><th>measure</th><th>first</th><th>second</th><th>difference</th></tr></thead>"
        tables = ""
        for reward_model in dict.fromkeys(change.reward_model for change in self.changes):
            rows = "".join(_row(change) for change in self.changes if change.reward_model == reward_model)
            tables += f"<h2>{html.escape(reward_model)}</h2><table>{head}<tbody>{rows}</tbody></table>"
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width, initial-scale=1"><title>{first} and {second}</title><style>{STYLE}</style>'
            f"</head><body><h1>From {first} to {second}</h1><p>Paired over {self.prompts} prompts, with intervals of "
            "95 %; rewards are in units of the first audit. A difference in bold has an interval that leaves out 0."
            f"</p>{tables}</body></html>\n"
        )

    def write(self, folder: str | pathlib.Path) -> None:
        """Write comparison.json and comparison.html into `folder`."""
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(pathlib.Path(folder, "comparison.json"), json.dumps(asdict(self), allow_nan=False))
        write_text(pathlib.Path(folder, "comparison.html"), self.page())


def compare(first: Audit | str | pathlib.Path, second: Audit | str | pathlib.Path) -> Comparison:
    """What changed from the first audit to the second, in prompts and reward models that both have.

    first, second: audits, or folders that `Audit.load` reads. ValueError, in one sentence, where fewer than two prompts
    or no reward model are common, the ground truths differ, or one is no whole audit.
    """
    places = first, second
    first, second = _loaded(first, "the first audit"), _loaded(second, "the second audit")
    if first.ground_truth != second.ground_truth:
        raise ValueError(
            f"Two audits that are compared must have one ground truth, got {first.ground_truth} and "
            f"{second.ground_truth}; audit both with the same."
        )
    reward_models = [name for name in first.reward_models if name in second.reward_models]
    if not reward_models:
        raise ValueError(
            f"Two audits that are compared must have a reward model in common, got "
            f"{', '.join(first.reward_models)} and {', '.join(second.reward_models)}."
        )
    keys = [_keys(audit) for audit in (first, second)]
    common = sorted(set(keys[0]) & set(keys[1]))
    if len(common) < 2:
        raise ValueError(
            f"Two audits that are compared must have at least two prompts in common, got {len(common)} of "
            f"{len(set(keys[0]))} and {len(set(keys[1]))}; draw both with the same --prompts."
        )
    changes = []
    for name in reward_models:
        measures = [_measures(audit, name, first) for audit in (first, second)]
        for measure in measures[0]:
            pair = [_of_prompts(values[measure], key, common) for values, key in zip(measures, keys)]
            known = np.isfinite(pair[0]) & np.isfinite(pair[1])
            if known.sum() > 1:
                before, after = (values[known] for values in pair)
                # What is the same in both differs by rounding alone.
                difference = np.where(np.isclose(after, before, rtol=1e-9, atol=1e-12), 0.0, after - before)
                changes.append(Change(name, measure, _mean(before), _mean(after), _mean(difference)))
    names = [_named(audit, place) for audit, place in zip((first, second), places)]
    if names[0] == names[1]:
        names = [f"{name} ({place})" for name, place in zip(names, ("first", "second"))]
    return Comparison((names[0], names[1]), len(common), changes)


def _loaded(audit: Any, place: str) -> Audit:
    """An audit, read from its folder if need be; ValueError, in one sentence, for anything else."""
    if isinstance(audit, (str, pathlib.Path)):
        if not pathlib.Path(audit).exists():
            raise ValueError(
                f"An audit to compare must be a folder with audit.json, got {audit}, but it is not there"
                f"{nearest(audit)}."
            )
        return Audit.load(audit)
    if not isinstance(audit, Audit):
        raise ValueError(f"An audit to compare must be an Audit or its folder, got {type(audit).__name__}.")
    check(audit, place)
    return audit


def _named(audit: Audit, place: Audit | str | pathlib.Path) -> str:
    """What a comparison calls an audit: by its policy, or by its folder where the policy has no name."""
    name = str(audit.policy["name"])
    if name != UNNAMED_POLICY or isinstance(place, Audit):
        return name
    path = pathlib.Path(place).resolve()
    return (path if path.is_dir() else path.parent).name or name


def _row(change: Change) -> str:
    difference = cell("difference", interval(change.difference, "+.2f"), bold=change.apart)
    cells = [cell("first", interval(change.first)), cell("second", interval(change.second)), difference]
    return f"<tr><th>{html.escape(change.measure)}</th>{''.join(cells)}</tr>"


def _keys(audit: Audit) -> list[str]:
    """What tells the prompts of an audit: their texts' fingerprints, or their names in an audit of an older version."""
    return audit.prompts.get("fingerprints") or audit.prompts["names"]


def _rewards(audit: Audit, name: str | None) -> NDArray[np.float64] | None:
    """(prompts, replies) of a reward model, or of the ground truth."""
    measured = audit.ground_truth_measurements if name is None else audit.reward_models[name]
    return None if measured is None else np.array(measured["rewards"], dtype=float)


def _measures(audit: Audit, name: str, unit: Audit) -> dict[str, NDArray[np.float64]]:
    """{measure: (prompts,)} of a reward model, in units of its rewards, and the truth's, in the audit `unit`."""

    def in_unit(reward_model: str | None) -> Any:
        rewards, of_unit = _rewards(audit, reward_model), _rewards(unit, reward_model)
        if rewards is None or of_unit is None:
            return None
        known = of_unit[np.isfinite(of_unit)]
        normalizer = Normalizer.fit(known) if np.ptp(known) else Normalizer(float(known.mean()), 1.0)
        return (rewards - normalizer.mean) / normalizer.scale

    rewards, truth = in_unit(name), in_unit(None)
    measures = {
        "mean reward": _row_means(rewards),
        "reward variance": covariances(rewards, rewards),
        "flat prompts": flat_groups(rewards, rewards.shape[1]),
    }
    if truth is not None:
        different, kept = different_replies(audit), audit.reward_models[name].get("per_prompt", {})
        if len(kept.get("accuracy") or ()) != len(rewards):
            kept = measurements_of(rewards, truth, different=different)["per_prompt"]
        measures |= {
            "mean truth": _row_means(truth),
            "accuracy": np.array(kept["accuracy"], dtype=float),
            "harm-aware acc.": harm_aware_accuracy(rewards, truth, different).accuracy,
            "covariance": covariances(rewards, truth),
        }
    return measures


def _row_means(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(rewards)
    with np.errstate(invalid="ignore"):
        return np.where(known, rewards, 0.0).sum(-1) / known.sum(-1)


def _of_prompts(values: NDArray[np.float64], keys: list[str], common: list[str]) -> NDArray[np.float64]:
    """The value of each common prompt, the mean where it comes twice."""
    names, numbers = np.unique(keys, return_inverse=True)
    return averaged(values, numbers)[np.searchsorted(names, common)]


def _mean(values: NDArray[np.float64]) -> Interval:
    return of_means(lambda mean: mean, values) or [float(values.mean())] * 3
