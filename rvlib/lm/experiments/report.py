"""`rvlib report FOLDER`: what a run shows, as JSON, as tables in the terminal, and as one HTML file with its figures.

The figures are functions of the JSON alone, so the book draws a committed run with the code that a reader's own run is drawn by,
and needs neither torch nor transformers for it.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

from rvlib import plots
from rvlib.correlations import correlations, properties
from rvlib.files import RESULTS, data_folder, write_whole

BOOK = RESULTS / "runs"
MEASURED = ("reward_variance", "on_policy_accuracy", "off_policy_accuracy", "covariance", "reward_variance_table_9")
OUTCOMES = ("proxy", "ground_truth")


def load(name):
    """The report of a run: of one in the book by its name ("tiny-4.1"), or of a folder."""
    path = pathlib.Path(name, "report.json") if pathlib.Path(name).is_dir() else BOOK / f"{name}.json"
    if not path.exists() and pathlib.Path(name, "recipe.json").exists():
        raise ValueError(
            f"The run in {name} must be through before it has a report; go on with it by the `rvlib run` that began it."
        )
    if not path.exists():
        raise ValueError(
            f"The run must be a folder with a report.json or one of {', '.join(sorted(p.stem for p in BOOK.glob('*.json')))}, got {str(name)!r}."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def make(run):
    """The report of a `run.Run` that is through, a dictionary that JSON can hold: settings, deviations, origin, and for each policy
    the measured properties [mean, low, high] and the curves (seeds, times) of each teacher."""
    from rvlib.lm.experiments import recipe as recipes
    from rvlib.lm.experiments import stages

    recipe, policies = run.recipe, {}
    for name in recipe.policies:
        measured, teachers = stages.measure(run, name), {}
        for key in recipe.reward_models:
            logs = [
                [line for line in run.policy_gradient(key, name, seed) if "eval_kl" in line] for seed in recipe.seeds
            ]
            steps = [line["step"] for line in logs[0]]
            teachers[key] = {what: [round(x, 5) for x in measured[key][what]] for what in MEASURED}
            teachers[key] |= {"normalizer": measured[key]["normalizer"], "steps": steps}
            teachers[key] |= {
                what: [[round(line[f"eval_{what}"], 5) for line in log] for log in logs] for what in (*OUTCOMES, "kl")
            }
        policies[name] = teachers
    seconds = {
        str(path.parent.relative_to(run.folder)): json.loads(path.read_text())
        for path in sorted(run.folder.rglob("manifest.json"))
    }
    last = max(seconds.values(), key=lambda made: made["date"])
    return {
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "deviations": {key: list(both) for key, both in recipes.deviations(recipe).items()},
        "made": {key: last[key] for key in ("date", "git_commit", "versions", "device")},
        "seconds": {stage: made["seconds"] for stage, made in seconds.items()},
        "policies": policies,
    }


def write(run):
    """Write report.json and report.html into the run's folder and return the report."""
    from rvlib.lm import processes

    report = make(run)
    texts = {"report.json": json.dumps, "report.html": page}
    processes.only_first(
        lambda: [
            write_whole(run.folder / name, lambda partial: partial.write_text(text(report), encoding="utf-8"))
            for name, text in texts.items()
        ]
    )
    return report


def origin(report):
    """One line that names the run: recipe, commit, day, hardware, time and versions."""
    made, minutes = report["made"], sum(report["seconds"].values()) / 60
    versions = ", ".join(
        f"{name} {made['versions'][name]}" for name in ("torch", "transformers") if name in made["versions"]
    )
    return f"{report['recipe']['title']}; commit {made['git_commit']}, {made['date'][:10]}, {made['device']}, {minutes:.1f} minutes, {versions}"


def epochs(report, policy):
    """When the policy was evaluated, in epochs: (times,)."""
    steps = np.array(next(iter(report["policies"][policy].values()))["steps"], dtype=float)
    return steps / steps[-1] * report["recipe"]["policy_gradient"]["epochs"]


def increase(report, policy, what="ground_truth", after=1.0):
    """{teacher: (seeds,)}: how far a reward has risen after so many epochs, in normalised units. what: "proxy" or "ground_truth"."""
    at = int(np.abs(epochs(report, policy) - after).argmin())
    return {
        key: np.array(teacher[what])[:, at] - np.array(teacher[what])[:, 0]
        for key, teacher in report["policies"][policy].items()
    }


def property_columns(report, policy, leave_out=("ground-truth",)):
    """The paper's properties of each teacher but the ground truth itself, {property: (teachers,)}, and the within-prompt covariance."""
    kept = [teacher for key, teacher in report["policies"][policy].items() if key not in leave_out]
    columns = properties(*([teacher[what][0] for teacher in kept] for what in MEASURED[:3]))
    return columns | {"within-prompt covariance": np.array([teacher["covariance"][0] for teacher in kept])}


def correlation_table(report, policy, what="ground_truth", after=1.0, leave_out=("ground-truth",)):
    """Correlations of the properties with the reward increase after one epoch: as Table 2, 4, 6 or 8, by the same function."""
    outcome = [values.mean() for key, values in increase(report, policy, what, after).items() if key not in leave_out]
    return correlations(property_columns(report, policy, leave_out), outcome)


def curves(report, policy, what="ground_truth", against="epoch"):
    """The figure of a reward ("proxy" or "ground_truth") or of "kl" for every teacher: the mean over seeds, its standard error shaded."""
    teachers, times = report["policies"][policy], epochs(report, policy)
    teachers = {
        key: teachers[key] for key in sorted(teachers, key=lambda key: key != "ground-truth")
    }  # it has a colour of its own, the first
    series = {_name(key): np.mean(teacher[what], 0) for key, teacher in teachers.items()}
    bands = {_name(key): _band(teacher[what]) for key, teacher in teachers.items()}
    words = {
        "proxy": "proxy reward, normalised",
        "ground_truth": "ground truth reward, normalised",
        "kl": "KL to the initial policy, nats",
    }[what]
    ends = ", ".join(f"{name} {values[-1]:.2f}" for name, values in series.items())
    figure = plots.trajectories(
        series,
        times,
        bands=bands,
        value=words,
        time="epoch",
        alt=f"{words} of policy {policy} against epochs under each teacher; at the end: {ends}.",
    )
    return figure


def increase_against(report, policy, column="reward variance", what="ground_truth", after=1.0):
    """The figure of the increase after so many epochs against a property of the teachers, one point each, with its standard error over seeds."""
    gains = {key: values for key, values in increase(report, policy, what, after).items() if key != "ground-truth"}
    across = property_columns(report, policy)[column]
    groups = {_name(key): (np.array([x]), np.array([values.mean()])) for (key, values), x in zip(gains.items(), across)}
    zero = {_name(key): np.array([_error(values)]) for key, values in gains.items()}
    intervals = {name: ((x, x), (y - zero[name], y + zero[name])) for name, (x, y) in groups.items()}
    up = f"{what.replace('_', ' ')} increase after {after:g} epoch{'s' * (after != 1)}"
    return plots.scatter(
        groups,
        intervals=intervals,
        x=column,
        y=up,
        log=(False, False),
        size=11,
        alt=f"{up} against {column}, a point a teacher.",
    )


def tables(report, policy):
    """[(title, header, rows of texts)]: the properties of the teachers, what they taught, and the correlations."""
    teachers = report["policies"][policy]
    gains = {what: increase(report, policy, what) for what in OUTCOMES}
    head = [
        "teacher",
        "reward variance",
        "on-policy accuracy",
        "off-policy accuracy",
        "covariance",
        "proxy increase",
        "ground truth increase",
    ]
    rows = [
        [
            _name(key),
            *("{:.3f} [{:.3f}, {:.3f}]".format(*teacher[what]) for what in MEASURED[:4]),
            *(f"{gains[w][key].mean():.3f} ± {_error(gains[w][key]):.3f}" for w in OUTCOMES),
        ]
        for key, teacher in teachers.items()
    ]
    found = (
        {what: correlation_table(report, policy, what) for what in OUTCOMES}
        if len(gains["proxy"].keys() - {"ground-truth"}) > 2
        else {}
    )
    second = [
        [
            name,
            *("{pearson:.2f} [{low:.2f}, {high:.2f}], {spearman:.2f}".format(**found[what][name]) for what in OUTCOMES),
        ]
        for name in next(iter(found.values()), {})
    ]
    return [
        (
            f"Teachers of {policy}: 95 % intervals over prompts; increases after one epoch with standard errors over seeds",
            head,
            rows,
        ),
        (
            "Correlation with the increase: Pearson's with Fisher's 95 % interval, Spearman's",
            ["property", "proxy", "ground truth"],
            second,
        ),
    ]


def page(report):
    """One HTML file that asks no other host for anything: origin, deviations, tables and figures."""
    import html

    def table(title, head, rows):
        cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<h3>{html.escape(title)}</h3><div class=wide><table><tr>{''.join(f'<th>{html.escape(h)}</th>' for h in head)}</tr>{cells}</table></div>"

    parts, script = [], True
    for policy in report["policies"]:
        parts += [f"<h2>{html.escape(policy)}</h2>", *(table(*t) for t in tables(report, policy) if t[2])]
        for figure in [
            curves(report, policy),
            curves(report, policy, "proxy"),
            curves(report, policy, "kl"),
            increase_against(report, policy),
        ]:
            parts.append(
                f"<figure>{figure.to_html(full_html=False, include_plotlyjs=script)}<figcaption>{html.escape(figure.alt)}</figcaption></figure>"
            )
            script = False
    deviations = table(
        "Deviations from the paper's settings",
        ["field", "here", "the paper"],
        [[key, *map(str, both)] for key, both in report["deviations"].items()],
    )
    style = "body{font:16px system-ui;max-width:62rem;margin:auto;padding:1rem;color-scheme:light dark}td,th{text-align:left;padding:.2rem .8rem .2rem 0}.wide{overflow-x:auto}figure{margin:2rem 0}"
    title = html.escape(report["recipe"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>{style}</style>'
        f"<h1>{title}</h1><p>{html.escape(origin(report))}</p>{''.join(parts)}{deviations}</html>"
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="rvlib report", description="Show the tables of a run; its figures are in report.html beside it."
    )
    parser.add_argument("run", help="a run's folder, a recipe's name, or a run that the book shows")
    given = parser.parse_args(arguments)
    folder = data_folder() / "runs" / given.run
    try:
        report = load(folder if folder.is_dir() else given.run)
    except ValueError as error:
        sys.exit(str(error))
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(origin(report), markup=False)
    for policy in report["policies"]:
        for title, head, rows in tables(report, policy):
            table = Table(*head, title=escape(title))
            for row in rows:
                table.add_row(*map(escape, row))
            console.print(table)
    print("Deviations from the paper's settings (here, the paper's):")
    print("\n".join(f"  {key}: {ours}, {theirs}" for key, (ours, theirs) in report["deviations"].items()) or "  none")


def _name(key):
    return key.replace("-", " ")


def _error(values):
    """The standard error over seeds, 0 for one seed."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _band(values):
    error = np.array([_error(column) for column in np.transpose(values)])
    return np.mean(values, 0) - error, np.mean(values, 0) + error
