"""The report of a run: what it has of the teachers, numbers that are computed from it, and its figures.

All are functions of its JSON alone, so the book draws a committed run with the code that a reader's own run is drawn
by, and needs neither torch nor transformers for it. `run_report` makes the JSON of a run, `tables` has its tables,
and `page` shows all of it.
"""

import json
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from rvlib import plots
from rvlib.correlations import correlations, properties
from rvlib.files import RESULTS

BOOK = RESULTS / "runs"
MEASURED = (
    "reward_variance",
    "on_policy_accuracy",
    "off_policy_accuracy",
    "covariance",
    "reward_variance_table_9",
    "on_policy_chance",
    "off_policy_chance",
)
OUTCOMES = ("proxy", "ground_truth")
LABELS = {
    "proxy": "proxy reward, normalised",
    "ground_truth": "ground truth reward, normalised",
    "kl": "KL to the initial policy, nats",
}
TeacherRecord = dict[str, Any]
"""What is known of a teacher.

Each of `MEASURED`: [mean, low, high] over prompts, before policy gradient; "per_prompt": {property: (prompts,)},
those of `teachers.PER_PROMPT`, to compare teachers on the same prompts (older reports have none); "predictors": those
of `teacher_choice`; "normalizer"; "steps" of the evaluations, and at them "proxy", "ground_truth" and "kl", each
(seeds, times).
"""


class Report(TypedDict):
    """What report.json holds."""

    recipe: dict[str, Any]
    deviations: dict[str, list[Any]]  # [here, the paper's] by field
    made: dict[str, Any]  # date, git_commit, versions, device
    seconds: dict[str, float]  # by stage
    policies: dict[str, dict[str, TeacherRecord]]  # by policy and teacher


def load(name: str | pathlib.Path) -> Report:
    """The report of a run: of one in the book by its name ("tiny-4.1"), or of a folder.

    ValueError, one sentence, if there is none.
    """
    path = pathlib.Path(name, "report.json") if pathlib.Path(name).is_dir() else BOOK / f"{name}.json"
    if not path.exists() and pathlib.Path(name, "recipe.json").exists():
        raise ValueError(
            f"The run in {name} must be through before it has a report; go on with it by the `rvlib run` that began it."
        )
    if not path.exists():
        names = ", ".join(sorted(path.stem for path in BOOK.glob("*.json")))
        raise ValueError(f"The run must be a folder with a report.json or one of {names}, got {str(name)!r}.")
    return json.loads(path.read_text(encoding="utf-8"))


def origin(report: Report) -> str:
    """One line that names the run: recipe, commit, day, hardware, time and versions."""
    made, minutes = report["made"], sum(report["seconds"].values()) / 60
    versions = ", ".join(
        f"{name} {made['versions'][name]}" for name in ("torch", "transformers") if name in made["versions"]
    )
    return (
        f"{report['recipe']['title']}; commit {made['git_commit']}, {made['date'][:10]}, {made['device']}, "
        f"{minutes:.1f} minutes, {versions}"
    )


def epochs(report: Report, policy: str) -> NDArray[np.float64]:
    """When the policy was evaluated, in epochs: (times,)."""
    steps = np.array(next(iter(report["policies"][policy].values()))["steps"], dtype=float)
    return steps / steps[-1] * report["recipe"]["policy_gradient"]["epochs"]


def increase(
    report: Report, policy: str, outcome: str = "ground_truth", after: float = 1.0
) -> dict[str, NDArray[np.float64]]:
    """{teacher: (seeds,)}: how far a reward has risen after so many epochs, in normalised units.

    outcome: "proxy" or "ground_truth".
    """
    at = int(np.abs(epochs(report, policy) - after).argmin())
    return {
        key: np.array(teacher[outcome])[:, at] - np.array(teacher[outcome])[:, 0]
        for key, teacher in report["policies"][policy].items()
    }


def property_columns(
    report: Report, policy: str, leave_out: Collection[str | None] = ("ground-truth",)
) -> dict[str, NDArray[np.float64]]:
    """The paper's properties of each teacher, {property: (teachers,)}, and the within-prompt covariance.

    leave_out: teachers that are left out, by default the ground truth itself.
    """
    kept = [teacher for key, teacher in report["policies"][policy].items() if key not in leave_out]
    columns = properties(*([teacher[quantity][0] for teacher in kept] for quantity in MEASURED[:3]))
    return columns | {"within-prompt covariance": np.array([teacher["covariance"][0] for teacher in kept])}


def correlation_table(
    report: Report,
    policy: str,
    outcome: str = "ground_truth",
    after: float = 1.0,
    leave_out: Collection[str | None] = ("ground-truth",),
) -> dict[str, dict[str, float]]:
    """Correlations of the properties with the reward increase after one epoch, as in Tables 2, 4, 6 and 8.

    {property: {"pearson", "spearman", "low", "high"}}. outcome: "proxy" or "ground_truth".
    """
    increases = increase(report, policy, outcome, after)
    means = [values.mean() for key, values in increases.items() if key not in leave_out]
    return correlations(property_columns(report, policy, leave_out), means)


def curves(report: Report, policy: str, outcome: str = "ground_truth") -> plots.Figure:
    """The figure of a reward or of the KL divergence for every teacher: the mean over seeds, its standard error shaded.

    outcome: "proxy", "ground_truth" or "kl".
    """
    teachers = report["policies"][policy]
    order = sorted(teachers, key=lambda key: key != "ground-truth")  # it has a colour of its own, the first
    series = {display_name(key): np.mean(teachers[key][outcome], 0) for key in order}
    ends = ", ".join(f"{name} {values[-1]:.2f}" for name, values in series.items())
    label = LABELS[outcome]
    return plots.trajectories(
        series,
        epochs(report, policy),
        bands={display_name(key): _band(teachers[key][outcome]) for key in order},
        value=label,
        time="epoch",
        alt=f"{label} of policy {policy} against epochs under each teacher; at the end: {ends}.",
    )


def increase_against(
    report: Report,
    policy: str,
    column: str = "reward variance",
    outcome: str = "ground_truth",
    after: float = 1.0,
) -> plots.Figure:
    """The figure of the increase after so many epochs against a property of the teachers.

    A point each, with its standard error over seeds. column: of `property_columns`; outcome: "proxy" or "ground_truth".
    """
    gains = {key: values for key, values in increase(report, policy, outcome, after).items() if key != "ground-truth"}
    across = property_columns(report, policy)[column]
    groups = {
        display_name(key): (np.array([x]), np.array([values.mean()])) for (key, values), x in zip(gains.items(), across)
    }
    errors = {display_name(key): np.array([standard_error(values)]) for key, values in gains.items()}
    intervals = {name: ((x, x), (y - errors[name], y + errors[name])) for name, (x, y) in groups.items()}
    up = f"{outcome.replace('_', ' ')} increase after {after:g} epoch{'s' * (after != 1)}"
    return plots.scatter(
        groups,
        intervals=intervals,
        x=column,
        y=up,
        log=(False, False),
        size=11,
        alt=f"{up} against {column}, a point a teacher.",
    )


def display_name(key: str) -> str:
    """How a teacher is called in tables and figures."""
    return key.replace("-", " ")


def standard_error(values: NDArray[np.float64]) -> float:
    """The standard error over seeds, 0 for one seed."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _band(values: Sequence[Sequence[float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean over seeds of (seeds, times), less and plus its standard error."""
    error = np.array([standard_error(column) for column in np.transpose(values)])
    return np.mean(values, 0) - error, np.mean(values, 0) + error
