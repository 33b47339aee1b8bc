"""What an `audit.Audit` shows: a table in the terminal, figures, and one HTML file that asks no other host for
anything."""

import html

import numpy as np

from rvlib import plots
from rvlib.audit.grading import ALMOST_NONE, Audit

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


def rows(audit: Audit) -> list[tuple[str, str, list[str]]]:
    """The table: [(measure, what it means, [text for each teacher])], teachers in the predicted order."""
    names, truth = audit.order["names"], audit.ground_truth
    grades = [audit.teachers[name] for name in names]

    def row(measure, meaning, text):
        return measure, meaning, [text(grade) for grade in grades]

    def interval(key, digits=2):
        return lambda grade: (
            "none" if grade[key] is None else "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*grade[key], d=digits)
        )

    def three(key):
        return lambda grade: ", ".join(f"{x:.2f}" for x in grade[key])

    table = [
        row(
            "reward variance",
            "how fast it can teach; in units of its own standard deviation over all replies",
            interval("reward_variance"),
        ),
        row("its spread over prompts", "10 %, 50 % and 90 % of the prompts lie below", three("spread")),
        row("the same, of its mean", "where the mean variance is the unit, so that it is 1", three("spread_of_mean")),
        row(
            "in its own unit, squared",
            "as the reward comes; compares nothing",
            lambda grade: "{:.3g} [{:.3g}, {:.3g}]".format(*grade["reward_variance_own_unit"]),
        ),
        row(
            "prompts with (almost) none",
            f"reward variance under {ALMOST_NONE:.0%} of the mean",
            lambda grade: "{:.0%} [{:.0%}, {:.0%}]".format(*grade["flat"]),
        ),
    ]
    if truth:
        table += [
            row(
                "accuracy",
                f"share of pairs of replies to one prompt that it orders as {truth} does; a tie agrees only with a tie",
                interval("accuracy"),
            ),
            row("pairs that it ties", "accuracy counts them as wrong", lambda grade: f"{grade['tied']:.1%}"),
            row(
                "covariance",
                f"with {truth}, within prompts, in units of both: what the order goes by",
                interval("covariance", 3),
            ),
        ]
    if all("pairs" in grade for grade in grades):
        pairs = grades[0]["pairs"]
        table += [
            row(
                "accuracy on the preferences",
                f"share of the {pairs} given pairs that it orders rightly",
                lambda grade: "{:.2f} [{:.2f}, {:.2f}]".format(*grade["preference_accuracy"]),
            ),
            row(
                "covariance with the preferences",
                "half its margin on them, in its unit",
                interval("preference_covariance", 3),
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
    left = f" ({len(audit.prompts['left_out'])} bad lines left out)" * bool(audit.prompts["left_out"])
    return (
        f"{count} prompts of {audit.prompts['source']}{left}, {sampling['samples']} replies of "
        f"{audit.policy['name']} to each, of at most "
        f"{sampling['max_new_tokens']} tokens at temperature {sampling['temperature']:g}; intervals are of 95 "
        "%, over prompts."
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


def order_figure(audit: Audit) -> plots.Figure:
    """The mean by which the teachers are ordered, with its interval; the ground truth itself as the mark to reach."""
    by, names = audit.order["by"], audit.order["names"][::-1]
    values = np.array([audit.teachers[name][by] for name in names])
    across, up = values[:, 0], np.arange(len(names))
    said = "; ".join(f"{name} {a:.3f} [{b:.3f}, {c:.3f}]" for name, (a, b, c) in zip(names[::-1], values[::-1]))
    figure = plots.scatter(
        {"teachers": (across, up)},
        intervals={"teachers": ((values[:, 1], values[:, 2]), (up, up))},
        x=MEASURES[by],
        y="",
        log=(False, False),
        size=12,
        alt=f"Mean {MEASURES[by]} of each teacher with its 95 % interval: {said}.",
    )
    figure.update_traces(
        marker_opacity=1, error_x=dict(width=5, thickness=2, color=plots.COLOURS["ground truth"]), showlegend=False
    )
    figure.add_vline(x=0, line=dict(color=plots.COLOURS["bound"], dash="dash"))
    if audit.reference and by in ("covariance", "preference_covariance"):
        figure.add_vline(x=audit.reference[by][0], line=dict(color=plots.COLOURS["accent"]))
        figure.add_annotation(
            x=audit.reference[by][0],
            y=1,
            yref="paper",
            yanchor="bottom",
            text=f"{audit.ground_truth} itself",
            showarrow=False,
        )
    return figure.update_layout(
        yaxis=dict(tickvals=list(up), ticktext=[_short(name) for name in names], range=[-0.6, len(names) - 0.4]),
        height=140 + 46 * len(names),
    )


def spread_figure(audit: Audit) -> plots.Figure:
    """Reward variance of the prompts in growing order, a line a teacher: how long it lies on the floor is the share
    that teaches nothing."""
    shares, series = np.zeros(0), {}
    for name in audit.order["names"]:
        series[name] = np.sort(audit.teachers[name]["per_prompt"]["reward_variance"])
        shares = (np.arange(len(series[name])) + 0.5) / len(series[name])
    flat = ", ".join(f"{name} {audit.teachers[name]['flat'][0]:.0%}" for name in series)
    return plots.trajectories(
        series,
        shares,
        value="reward variance, normalised",
        time="share of the prompts",
        alt=(
            "Reward variance against the share of the prompts that have less, a rising line a teacher. On "
            f"(almost) no variance lie: {flat}."
        ),
    )


def plane_figure(audit: Audit) -> plots.Figure | None:
    """One point a prompt: accuracy across, reward variance up; None without a ground truth."""
    groups = {}
    for name in audit.order["names"]:
        per_prompt = audit.teachers[name]["per_prompt"]
        points = [
            (a, v) for a, v in zip(per_prompt.get("accuracy", []), per_prompt["reward_variance"]) if a is not None
        ]
        if points:
            groups[name] = tuple(np.transpose(points))
    if not groups:
        return None
    means = "; ".join(f"{name} {a.mean():.2f}, {v.mean():.2f}" for name, (a, v) in groups.items())
    figure = plots.scatter(
        groups,
        x=f"accuracy against {_short(str(audit.ground_truth))}",
        y="reward variance, normalised",
        log=(False, False),
        size=7,
        alt=f"Accuracy across and reward variance up, one point a prompt and teacher. Means: {means}.",
    )
    return figure.add_vline(x=0.5, line=dict(color=plots.COLOURS["bound"], dash="dash"))


def tables(audit: Audit) -> str:
    """The order, the table and the advice as HTML, for a page and for a notebook."""
    names = audit.order["names"]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f'<tr><th>{html.escape(measure)}<br><small style="font-weight: 400">{html.escape(meaning)}</small></th>'
        + "".join(f"<td>{html.escape(text)}</td>" for text in texts)
        + "</tr>"
        for measure, meaning, texts in rows(audit)
    )
    said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in audit.advice)
    return (
        f"<p><strong>{html.escape(headline(audit))}</strong></p><p>{html.escape(sizes(audit))}</p>"
        '<div style="overflow-x: auto"><table class="table"><thead><tr><th>per prompt, then '
        f"averaged</th>{head}</tr></thead><tbody>{body}</tbody></table></div>" + (f"<ul>{said}</ul>" if said else "")
    )


def page(audit: Audit) -> str:
    """The whole report: one HTML file with its own copy of plotly.js."""
    figures = [
        (
            order_figure(audit),
            (
                "Who is expected to teach most. The dashed line is 0: "
                f"{'no difference' if audit.order['by'] == 'reward_variance' else 'no agreement'}, nothing "
                "taught."
            ),
        ),
        (spread_figure(audit), "A prompt on the floor teaches nothing, whatever its replies."),
        (plane_figure(audit), "One point a prompt. A good teacher's lie to the right of the dashed line, and high."),
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
    left = "".join(f"<li>{html.escape(line)}</li>" for line in audit.prompts["left_out"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1">'
        f"<title>Audit of {html.escape(', '.join(audit.order['names']))}</title><style>{STYLE}</style></head><body>"
        f"<h1>Is this reward model a good teacher for {html.escape(audit.policy['name'])}?</h1>{tables(audit)}{shown}"
        + (f"<h2>Lines left out</h2><ul>{left}</ul>" if left else "")
        + f"<p><small>{html.escape(origin(audit))}</small></p></body></html>"
    )


def show(audit: Audit) -> None:
    """Print the order, the table and the advice."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, table = Console(), Table("", *map(escape, audit.order["names"]))
    for measure, _, texts in rows(audit):
        table.add_row(measure, *map(escape, texts))
    for line in audit.prompts["left_out"]:
        console.print(f"Left out {line}", markup=False)
    console.print(sizes(audit), markup=False)
    console.print(table)
    console.print(headline(audit), style="bold", markup=False)
    for sentence in audit.advice:
        console.print(f"- {sentence}", markup=False)


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
