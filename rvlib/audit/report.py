"""What an `Audit` shows: a table in the terminal, figures, and one HTML file that asks no other host for anything."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rvlib import plots
from rvlib.audit.grading import ALMOST_NONE, Audit, interval_of, share_the_truth_ties
from rvlib.audit.reading import reading_notes

STYLE = """:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;padding:1rem}
table{border-collapse:collapse;margin:1rem 0}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8884}
th{min-width:8rem}td{min-width:5rem;font-variant-numeric:tabular-nums}
thead th{min-width:5rem;border-bottom:2px solid #888a}
small,figcaption{opacity:.8}figure{margin:2rem 0}li{margin:.4rem 0}h1,p,li{overflow-wrap:anywhere}"""
MEASURES = {
    "covariance": "covariance",
    "preference_covariance": "covariance with the preferences",
    "reward_variance": "reward variance",
}
MEASURE_WIDTH = 20  # characters in the terminal that the first column has at least


@dataclass(frozen=True)
class Row:
    """A line of the table: what is measured, what that means, and the text for each teacher, in the predicted order."""

    measure: str
    meaning: str
    cells: list[str]


def rows(audit: Audit) -> list[Row]:
    """The table, one `Row` a measure."""
    truth = audit.ground_truth
    grades = [audit.teachers[name] for name in audit.order["names"]]

    def row(measure: str, meaning: str, text: Callable[[Any], str]) -> Row:
        return Row(measure, meaning, [text(grade) for grade in grades])

    noise = [
        row(
            "noise, in its own unit",
            "what rounding changed in a reward at most; a spread of twice that within a prompt counts as none",
            lambda grade: f"{grade['noise']:.2g}" if grade.get("noise") else "not measured",
        )
    ] * any(grade.get("noise") for grade in grades)
    table = [
        row(
            "reward variance",
            "how fast it can teach; in units of its own standard deviation over all replies",
            lambda grade: _interval(grade["reward_variance"]),
        ),
        row(
            "its spread over prompts",
            "10 %, 50 % and 90 % of the prompts lie below",
            lambda grade: _numbers(grade["spread"]),
        ),
        row(
            "the same, of its mean",
            "where the mean variance is the unit, so that it is 1",
            lambda grade: _numbers(grade["spread_of_mean"]),
        ),
        row(
            "in its own unit, squared",
            "as the reward comes; compares nothing",
            lambda grade: _interval(grade["reward_variance_own_unit"], ".3g"),
        ),
        *noise,
        row(
            "prompts with (almost) none",
            f"reward variance under {ALMOST_NONE:.0%} of the mean",
            lambda grade: _interval(grade["flat"], ".0%"),
        ),
    ]
    if truth:
        table += [
            row(
                "accuracy",
                f"share of pairs of replies to one prompt that it orders as {truth} does; a tie agrees only with a tie",
                lambda grade: _interval(grade["accuracy"]),
            ),
            row(
                "pairs that it ties",
                f"accuracy counts them as wrong, unless {truth} ties them too",
                lambda grade: f"{grade['tied']:.1%}",
            ),
            row(
                "covariance",
                f"with {truth}, within prompts, in units of both: what the order goes by",
                lambda grade: _interval(grade["covariance"], ".3f"),
            ),
        ]
        if all("chance" in grade for grade in grades):
            by_chance = row(
                "accuracy by chance",
                f"of a reward that ties as many and has nothing to do with {truth}; "
                f"{truth} itself ties {share_the_truth_ties(audit):.1%} of the pairs",
                lambda grade: f"{grade['chance']:.2f}",
            )
            table.insert(-2, by_chance)
    if all("pairs" in grade for grade in grades):
        table += [
            row(
                "accuracy on the preferences",
                f"share of the {grades[0]['pairs']} given pairs that it orders rightly",
                lambda grade: _interval(grade["preference_accuracy"]),
            ),
            row(
                "covariance with the preferences",
                "half its margin on them, in its unit",
                lambda grade: _interval(grade["preference_covariance"], ".3f"),
            ),
        ]
    return table


def headline(audit: Audit) -> str:
    """The predicted order of teachers, in a sentence."""
    by = MEASURES[audit.order["by"]] + (f" with {audit.ground_truth}" if audit.order["by"] == "covariance" else "")
    parts = [audit.order["names"][0]]
    for name, gap in zip(audit.order["names"][1:], audit.order["gaps"]):
        parts += [", then " if gap["apart"] else ", perhaps then ", name]
    return f"Predicted order of teachers, by {by}: {''.join(parts)}."


def sizes(audit: Audit) -> str:
    """What the numbers rest on, in a sentence."""
    count, sampling = len(audit.prompts["names"]), audit.sampling
    teacher = audit.teachers[audit.order["names"][0]]
    different = f" ({teacher['prompts']} different)" * (teacher["prompts"] < count)
    left = f" ({len(audit.prompts['left_out'])} lines left out)" * bool(audit.prompts["left_out"])
    return (
        f"{count} prompts of {audit.prompts['source']}{different}{left}, {sampling['num_generations']} replies of "
        f"{audit.policy['name']} to each, of at most {sampling['max_new_tokens']} tokens "
        f"({audit.replies['cut_off']:.0%} were cut off there) at temperature {sampling['temperature']:g}; "
        "intervals are of 95 %, over prompts."
    )


def origin(audit: Audit) -> str:
    """How the numbers were made, in a line."""
    made = audit.made
    versions = ", ".join(
        f"{name} {made['versions'][name]}" for name in ("torch", "transformers") if name in made["versions"]
    )
    return (
        f"{made['command'] or 'rvlib.audit.audit'}; commit {made['git_commit']}, {made['date'][:10]}, "
        f"{made['device']}, {sum(made['seconds'].values()):.0f} seconds, {versions}"
    )


def order_figure(audit: Audit) -> Any:
    """The mean by which the teachers are ordered, with its interval; the ground truth itself as the mark to reach."""
    by, names = audit.order["by"], audit.order["names"][::-1]
    intervals = np.array([interval_of(audit.teachers[name], by) for name in names])
    means, low, high = intervals.T
    heights = np.arange(len(names))
    in_words = "; ".join(f"{name} {a:.3f} [{b:.3f}, {c:.3f}]" for name, (a, b, c) in zip(names[::-1], intervals[::-1]))
    figure = plots.scatter(
        {"teachers": (means, heights)},
        intervals={"teachers": ((low, high), (heights, heights))},
        x=MEASURES[by],
        y="",
        log=(False, False),
        size=12,
        alt=f"Mean {MEASURES[by]} of each teacher with its 95 % interval: {in_words}.",
    )
    figure.update_traces(
        marker_opacity=1, error_x=dict(width=5, thickness=2, color=plots.COLOURS["ground truth"]), showlegend=False
    )
    figure.add_vline(x=0, line=dict(color=plots.COLOURS["bound"], dash="dash"))
    if audit.reference and by in ("covariance", "preference_covariance"):
        mark = interval_of(audit.reference, by)[0]
        figure.add_vline(x=mark, line=dict(color=plots.COLOURS["accent"]))
        figure.add_annotation(
            x=mark, y=1, yref="paper", yanchor="bottom", text=f"{audit.ground_truth} itself", showarrow=False
        )
    return figure.update_layout(
        yaxis=dict(tickvals=list(heights), ticktext=[_short(name) for name in names], range=[-0.6, len(names) - 0.4]),
        height=140 + 46 * len(names),
    )


def spread_figure(audit: Audit) -> Any:
    """Reward variance of the prompts in growing order, a line a teacher.

    How long a line lies on the floor is the share of the prompts that teaches nothing.
    """
    names = audit.order["names"]
    variances = {name: np.sort(audit.teachers[name]["per_prompt"]["reward_variance"]) for name in names}
    prompts = len(variances[names[0]])
    flat = ", ".join(f"{name} {audit.teachers[name]['flat'][0]:.0%}" for name in names)
    return plots.trajectories(
        variances,
        (np.arange(prompts) + 0.5) / prompts,
        value="reward variance, normalised",
        time="share of the prompts",
        alt=(
            "Reward variance against the share of the prompts that have less, a rising line a teacher. "
            f"On (almost) no variance lie: {flat}."
        ),
    )


def plane_figure(audit: Audit) -> Any:
    """One point a prompt: accuracy across, reward variance up; None without a ground truth."""
    groups = {}
    for name in audit.order["names"]:
        per_prompt = audit.teachers[name]["per_prompt"]
        points = [
            (accuracy, variance)
            for accuracy, variance in zip(per_prompt.get("accuracy", []), per_prompt["reward_variance"])
            if accuracy is not None
        ]
        if points:
            accuracies, variances = np.transpose(points)
            groups[name] = accuracies, variances
    if not groups:
        return None
    means = "; ".join(f"{name} {a.mean():.2f}, {v.mean():.2f}" for name, (a, v) in groups.items())
    figure = plots.scatter(
        groups,
        x=f"accuracy against {_short(audit.ground_truth or '')}",
        y="reward variance, normalised",
        log=(False, False),
        size=7,
        alt=f"Accuracy across and reward variance up, one point a prompt and teacher. Means: {means}.",
    )
    chance = (1 - share_the_truth_ties(audit)) / 2  # of a reward that ties none
    return figure.add_vline(x=chance, line=dict(color=plots.COLOURS["bound"], dash="dash"))


def tables(audit: Audit) -> str:
    """The order, the table and the advice as HTML, for a page and for a notebook."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in audit.order["names"])
    body = "".join(
        f'<tr><th>{html.escape(row.measure)}<br><small style="font-weight: 400">{html.escape(row.meaning)}</small></th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells)
        + "</tr>"
        for row in rows(audit)
    )
    sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in audit.advice)
    return (
        f"<p><strong>{html.escape(headline(audit))}</strong></p><p>{html.escape(sizes(audit))}</p>"
        '<div style="overflow-x: auto"><table class="table">'
        f"<thead><tr><th>per prompt, then averaged</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        + (f"<ul>{sentences}</ul>" if sentences else "")
    )


def page(audit: Audit) -> str:
    """The whole report: one HTML file with its own copy of plotly.js."""
    zero = "no difference" if audit.order["by"] == "reward_variance" else "no agreement"
    figures = [
        (
            order_figure(audit),
            f"Who is expected to teach most. The dashed line is 0: {zero}, nothing taught.",
        ),
        (spread_figure(audit), "A prompt on the floor teaches nothing, whatever its replies."),
        (
            plane_figure(audit),
            "One point a prompt. A good teacher's lie to the right of the dashed line, chance without ties, and high.",
        ),
    ]
    shown, script = "", True
    for figure, caption in figures:
        if figure is not None:
            drawn = figure.to_html(
                full_html=False, include_plotlyjs=script, config={"displaylogo": False, "responsive": True}
            )
            shown += (
                f'<figure><div role="img" aria-label="{html.escape(figure.alt, quote=True)}">{drawn}</div>'
                f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            )
            script = False
    read = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in reading_notes(audit))
    left_out = "".join(f"<li>{html.escape(line)}</li>" for line in audit.prompts["left_out"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit of {html.escape(', '.join(audit.order['names']))}</title><style>{STYLE}</style></head><body>"
        f"<h1>Is this reward model a good teacher for {html.escape(audit.policy['name'])}?</h1>{tables(audit)}{shown}"
        + (f"<h2>How the models read</h2><ul>{read}</ul>" if read else "")
        + (f"<h2>Lines left out</h2><ul>{left_out}</ul>" if left_out else "")
        + f"<p><small>{html.escape(origin(audit))}</small></p></body></html>"
    )


def show(audit: Audit) -> None:
    """Print the order, the table and the advice, as wide as the terminal is.

    Where the teachers do not fit beside each other, the table goes on below with the next of them, rather than break
    intervals.
    """
    from rich.console import Console  # not among the packages of the book, which shows audits too
    from rich.markup import escape
    from rich.table import Table

    console, names, table_rows = Console(), audit.order["names"], rows(audit)
    for line in audit.prompts["left_out"]:
        console.print(f"Left out {line}", markup=False)
    console.print(sizes(audit), markup=False)
    cell_width = max(len(cell) for row in table_rows for cell in row.cells)
    room = console.width - MEASURE_WIDTH - 4  # 4, and 3 of each further column: frames and margins
    abreast = max(1, room // (cell_width + 3))
    for start in range(0, len(names), abreast):
        table = Table("")
        for name in names[start : start + abreast]:
            table.add_column(escape(name), min_width=min(cell_width, max(1, room - 3)), overflow="fold")
        for row in table_rows:
            table.add_row(row.measure, *(escape(cell) for cell in row.cells[start : start + abreast]))
        console.print(table)
    console.print(headline(audit), style="bold", markup=False)
    for sentence in [*audit.advice, *reading_notes(audit)]:
        console.print(f"- {sentence}", markup=False)


def _interval(interval: list[float] | None, spec: str = ".2f") -> str:
    return "none" if interval is None else "{:{s}} [{:{s}}, {:{s}}]".format(*interval, s=spec)


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
