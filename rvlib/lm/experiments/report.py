"""`rvlib report FOLDER`: what a run shows, as JSON, as tables in the terminal, and as one HTML file with its figures.

The figures are functions of the JSON alone, so the book draws a committed run with the code that a reader's own run is
drawn by, and needs neither torch nor transformers for it. `run_report` makes the JSON of a run.
"""

import argparse
import html
import json
import pathlib
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rvlib import plots, teacher_study
from rvlib.correlations import correlations, properties
from rvlib.files import RESULTS, data_folder
from rvlib.lm.experiments import teacher_choice

if TYPE_CHECKING:
    import rich.table

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
NAMES = {"spearman": "Spearman", "regret": "top-1 regret"}
LABELS = {
    "proxy": "proxy reward, normalised",
    "ground_truth": "ground truth reward, normalised",
    "kl": "KL to the initial policy, nats",
}
STYLE = (
    "body{font:16px system-ui;max-width:62rem;margin:auto;padding:1rem;color-scheme:light dark}"
    "td,th{text-align:left;padding:.2rem .8rem .2rem 0}.wide{overflow-x:auto}figure{margin:2rem 0}"
)
Report = dict[str, Any]  # what report.json holds: see `run_report.make`


@dataclass(frozen=True)
class Table:
    """A table of texts: its title, the heads of its columns, and its rows."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def html(self) -> str:
        """The table with its title as HTML."""
        heads = "".join(f"<th>{html.escape(head)}</th>" for head in self.header)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        return f"<h3>{html.escape(self.title)}</h3><div class=wide><table><tr>{heads}</tr>{rows}</table></div>"


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
    series = {_name(key): np.mean(teachers[key][outcome], 0) for key in order}
    ends = ", ".join(f"{name} {values[-1]:.2f}" for name, values in series.items())
    label = LABELS[outcome]
    return plots.trajectories(
        series,
        epochs(report, policy),
        bands={_name(key): _band(teachers[key][outcome]) for key in order},
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
    groups = {_name(key): (np.array([x]), np.array([values.mean()])) for (key, values), x in zip(gains.items(), across)}
    errors = {_name(key): np.array([_error(values)]) for key, values in gains.items()}
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


def tables(report: Report, policy: str) -> list[Table]:
    """The properties of the teachers, what they taught, and the correlations of the two (no rows for few teachers).

    Of a run with `teacher_choice.FEWEST_TEACHERS` also the outcomes of each teacher, and how well each number that was
    measured before training picks among them.
    """
    gains = {outcome: increase(report, policy, outcome) for outcome in OUTCOMES}
    increases = Table(
        f"Increases after one epoch under the teachers of {policy}: means and standard errors over seeds",
        ["teacher", "proxy", "ground truth"],
        [
            [
                _name(key),
                *(f"{gains[outcome][key].mean():.3f} ± {_error(gains[outcome][key]):.3f}" for outcome in OUTCOMES),
            ]
            for key in report["policies"][policy]
        ],
    )
    enough = len(gains["proxy"].keys() - {"ground-truth"}) > 2
    correlations_with_increases = [
        Table(
            f"Correlation with the increase of the {outcome.replace('_', ' ')}: Pearson's with Fisher's 95 % interval, "
            "Spearman's",
            ["property", "Pearson", "Spearman"],
            [
                [name, "{pearson:.2f} [{low:.2f}, {high:.2f}]".format(**cells), f"{cells['spearman']:.2f}"]
                for name, cells in (correlation_table(report, policy, outcome) if enough else {}).items()
            ],
        )
        for outcome in OUTCOMES
    ]
    return [
        _property_table(
            f"Variance and covariance of the teachers of {policy}: 95 % intervals over prompts",
            report["policies"][policy],
            [("reward variance", "reward_variance"), ("covariance", "covariance")],
        ),
        _property_table(
            f"Accuracy of the teachers of {policy}: 95 % intervals over prompts, and what chance gives",
            report["policies"][policy],
            [
                ("on-policy accuracy", "on_policy_accuracy"),
                ("by chance", "on_policy_chance"),
                ("off-policy accuracy", "off_policy_accuracy"),
                ("by chance", "off_policy_chance"),
            ],
        ),
        increases,
        *correlations_with_increases,
        *_choice_tables(report, policy),
    ]


def _property_table(title: str, teachers: Report, columns: list[tuple[str, str]]) -> Table:
    """Properties that were measured before policy gradient, a row a teacher. columns: of each the head and quantity."""
    return Table(
        title,
        ["teacher", *(head for head, _ in columns)],
        [[_name(key), *(_measured(teacher, quantity) for _, quantity in columns)] for key, teacher in teachers.items()],
    )


def _choice_tables(report: Report, policy: str) -> list[Table]:
    """Which number picks the teacher of a policy; none for few teachers."""
    study = teacher_choice.study(report, policy)
    if study is None:
        return []
    seeds, budget = len(study.seeds), study.kl_budget
    return [
        Table(
            f"Outcomes of {policy}, in deviations of the ground truth: mean over {seeds} seed{'s' * (seeds > 1)} ± its "
            f"standard error; equal KL is {budget:g} nats",
            ["teacher", *teacher_study.OUTCOMES],
            [
                [_name(key), *(f"{values.mean():.3f} ± {_error(values):.3f}" for values in row.values())]
                for key, row in teacher_choice.outcomes(study).items()
            ],
        ),
        Table(
            f"Which number picks the teacher of {policy}? {len(study.teachers)} teachers, 95 % intervals that resample "
            "them; a regret of 0 is the best pick, of 1 one at random",
            ["candidate", *(f"{NAMES[measure]}, {outcome}" for measure, outcome in teacher_choice.COLUMNS)],
            [
                [candidate, *(f"{interval:.2f}" for interval in intervals)]
                for candidate, intervals in teacher_choice.comparison(study).items()
            ],
        ),
    ]


def page(report: Report) -> str:
    """One HTML file that asks no other host for anything: origin, deviations, tables and figures."""
    parts: list[str] = []
    script = True  # the first figure brings the code that draws them all
    for policy in report["policies"]:
        parts += [f"<h2>{html.escape(policy)}</h2>", *(table.html() for table in tables(report, policy) if table.rows)]
        for figure in [
            curves(report, policy),
            curves(report, policy, "proxy"),
            curves(report, policy, "kl"),
            increase_against(report, policy),
        ]:
            drawn = figure.to_html(full_html=False, include_plotlyjs=script)
            parts.append(f"<figure>{drawn}<figcaption>{html.escape(figure.alt)}</figcaption></figure>")
            script = False
    deviations = Table(
        "Deviations from the paper's settings",
        ["field", "here", "the paper"],
        [[key, *map(str, both)] for key, both in report["deviations"].items()],
    )
    title = html.escape(report["recipe"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1><p>{html.escape(origin(report))}</p>{''.join(parts)}{deviations.html()}</html>"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `rvlib report`. Exits with one sentence where there is no report."""
    from rich.console import Console  # as in `_in_terminal`

    parser = argparse.ArgumentParser(
        prog="rvlib report", description="Show the tables of a run; its figures are in report.html beside it."
    )
    parser.add_argument("run", help="a run's folder, a recipe's name, or a run that the book shows")
    options = parser.parse_args(arguments)
    folder = data_folder() / "runs" / options.run
    try:
        report = load(folder if folder.is_dir() else options.run)
    except ValueError as error:
        sys.exit(str(error))
    console = Console()
    console.print(origin(report), markup=False)
    for policy in report["policies"]:
        for table in tables(report, policy):
            if table.rows:
                console.print(f"\n{table.title}", style="bold", markup=False, highlight=False)
                console.print(_in_terminal(table, console.width))
    print("\nDeviations from the paper's settings (here, the paper's):")
    print("\n".join(f"  {key}: {value}, {papers}" for key, (value, papers) in report["deviations"].items()) or "  none")


def _measured(teacher: Report, quantity: str) -> str:
    """A property with its interval over prompts, an accuracy by chance without; "–" where an older report lacks it."""
    mean, low, high = teacher.get(quantity) or (None,) * 3
    if mean is None:
        return "–"
    return f"{mean:.3f}" if quantity.endswith("_chance") else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _in_terminal(table: Table, width: int) -> "rich.table.Table":
    """The table, without its title, for a terminal of so many columns.

    Where it would be too wide, an interval stands under its value. Heads and the first column are broken between words.
    """
    import rich.table  # the book, which draws runs by this module, has no rich
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape

    rows, room = table.rows, width - 2 * len(table.header) + 1  # two spaces between columns, one at the end
    if sum(_widths(table.header, rows, room)) > room:
        rows = [[name, *(cell.replace(" [", "\n[") for cell in cells)] for name, *cells in rows]
    printed = rich.table.Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for head, size in zip(table.header, _widths(table.header, rows, room)):
        printed.add_column(head, width=size)
    for row in rows:
        printed.add_row(*map(escape, row))
    return printed


def _widths(header: list[str], rows: list[list[str]], room: int) -> list[int]:
    """How wide each column is, if only the first breaks its cells, between words, to leave all others their room."""
    words = [max(map(len, head.split())) for head in header]
    lines = [max(len(line) for cell in column for line in cell.split("\n")) for column in zip(*rows)]
    first, *others = map(max, words, lines)
    narrowest = max(words[0], *(len(word) for name, *_ in rows for word in name.split()))
    return [max(narrowest, min(first, room - sum(others))), *others]


def _name(key: str) -> str:
    return key.replace("-", " ")


def _error(values: NDArray[np.float64]) -> float:
    """The standard error over seeds, 0 for one seed."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _band(values: Sequence[Sequence[float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean over seeds of (seeds, times), less and plus its standard error."""
    error = np.array([_error(column) for column in np.transpose(values)])
    return np.mean(values, 0) - error, np.mean(values, 0) + error
