"""What an `Outcome` shows: a table in the terminal, figures, and one HTML file that asks no other host for anything."""

import html
import re

from rvlib.audit.outcome import MEASURES, Measurements, Outcome, interval_of
from rvlib.audit.probes import BestAndWorst
from rvlib.audit.reading import reading_notes
from rvlib.audit.report_figures import order_figure, plane_figure, short_names, spread_figure
from rvlib.audit.report_rows import rows
from rvlib.audit.statistics import Interval
from rvlib.audit.verdicts import answer, interval, order_line, verdict

STYLE = """:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;padding:1rem}
table{border-collapse:collapse;margin:1rem 0}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8884}
th{min-width:8rem}td{min-width:5rem;font-variant-numeric:tabular-nums}
thead th{min-width:5rem;border-bottom:2px solid #888a}
.answer{font-size:1.35rem;line-height:1.4;margin:.5rem 0 1rem}
blockquote{margin:.5rem 0;padding:.1rem 1rem;border-left:3px solid #888a;white-space:pre-wrap;overflow-wrap:anywhere}
summary{cursor:pointer;font-weight:600;margin:.6rem 0}
small,figcaption{opacity:.8}figure{margin:2rem 0}figcaption{margin-top:.4rem}
.main-svg :is(.xtick,.ytick,.g-xtitle,.g-ytitle,.legend,.annotation) text{fill:CanvasText!important}
li{margin:.4rem 0}h1,p,li{overflow-wrap:anywhere}
@media screen and (max-width:40rem){.answer{font-size:1.15rem}h1{font-size:1.5rem}table{width:100%}
tr{display:grid;grid-template-columns:repeat(auto-fit,minmax(7rem,1fr));border-bottom:1px solid #8884}
th,td{border:0;min-width:0}td{display:flex;flex-direction:column;justify-content:end}thead tr>th+th{display:none}
td::before{content:attr(data-of);display:block;font-size:.8rem;opacity:.8;overflow-wrap:anywhere}tr>th:first-child{grid-column:1/-1;padding-bottom:0}}
@media print{:root{color-scheme:light}h2,summary,thead{break-after:avoid}
body{max-width:none;padding:0;font-size:11pt}figure,tr,blockquote,details{break-inside:avoid}}"""
LISTED = 2  # lines left out that the terminal shows
LONGEST = 1200  # characters of a reply that the report shows


def sizes(audit: Outcome) -> str:
    """What the numbers rest on, in a sentence."""
    count, sampling = len(audit.prompts["names"]), audit.sampling
    measured = audit.reward_models[audit.order["names"][0]]
    texts = audit.prompts.get("fingerprints")  # not in an audit of an older version
    different_ones = measured["prompts"] if texts is None else len(set(texts))
    different = f" ({different_ones} different)" * (different_ones < count)
    lines = len(audit.prompts["left_out"])
    left = f" ({lines} line{'s' * (lines > 1)} on what was left out)" * bool(lines)
    share = f"{audit.replies['cut_off']:.0%}" if "cut_off" in audit.replies else ""
    drawn = f" ({share} were cut off)" * bool(share)
    if "max_new_tokens" in sampling:
        cut_off = f" ({share} were cut off there)" * bool(share)
        drawn = f", of at most {sampling['max_new_tokens']} tokens{cut_off} at temperature {sampling['temperature']:g}"
    source = f" of {audit.prompts['source']}" * bool(audit.prompts["source"])
    return (
        f"{count} prompts{source}{different}{left}, {sampling['num_generations']} replies of "
        f"{audit.policy['name']} to each{drawn}; intervals are of 95 %, over prompts."
    )


def origin(audit: Outcome) -> str:
    """How the numbers were made, in a line."""
    made = audit.made
    versions = [f"{name} {made['versions'][name]}" for name in ("torch", "transformers") if name in made["versions"]]
    commit = [f"commit {made['git_commit']}"] if made.get("git_commit") else []
    seconds = [f"{sum(made['seconds'].values()):.0f} seconds"] * bool(made["seconds"])
    parts = [*commit, made["date"][:10], made["device"], *seconds, *versions]
    return f"{made['command'] or 'rvlib.audit'}; {', '.join(parts)}"


def tables(audit: Outcome) -> str:
    """The answer, the table and the advice as HTML, for a page and for a notebook."""
    names = audit.order["names"]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f'<tr><th>{html.escape(row.measure)}<br><small style="font-weight: 400">{html.escape(row.meaning)}</small></th>'
        + "".join(cell(name * (len(names) > 1), text) for name, text in zip(names, row.cells))
        + "</tr>"
        for row in rows(audit)
    )
    sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in audit.advice)
    verdicts = "".join(f"<li>{html.escape(verdict(audit, name))}</li>" for name in names)
    several = f"<p>{html.escape(order_line(audit))}</p><ol>{verdicts}</ol>" if len(names) > 1 else ""
    return (
        f'<div><p class="answer"><strong>{html.escape(answer(audit))}</strong></p>{several}'
        f'<p>{html.escape(sizes(audit))}</p><div style="overflow-x: auto"><table class="table rv-table">'
        f"<thead><tr><th>per prompt, then averaged</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        + (f"<ul>{sentences}</ul>" if sentences else "")
        + "</div>"
    )


def cell(name: str, text: str, *, bold: bool = False) -> str:
    """A cell of a table, which on a phone stands under the name of its column; no line breaks an interval."""
    whole = re.sub(r"\[.*?\]", lambda ends: ends[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    content = f"<b>{html.escape(whole)}</b>" if bold else html.escape(whole)
    return f'<td data-of="{html.escape(name, quote=True)}">{content}</td>'


def probes(audit: Outcome) -> str:
    """What else each reward model rewards, a table of HTML; empty where the replies are not known."""
    by_name = {name: audit.reward_models[name].get("probes", {}) for name in audit.order["names"]}
    of_truth = audit.ground_truth_measurements
    if of_truth and of_truth.get("probes") and audit.ground_truth not in by_name:
        by_name |= {audit.ground_truth or "": of_truth["probes"]}
    features = list(dict.fromkeys(feature for probes in by_name.values() for feature in probes))
    if not features:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in by_name)
    body = "".join(
        f"<tr><th>{html.escape(feature)}</th>"
        + "".join(cell(name, interval(probes.get(feature))) for name, probes in by_name.items())
        + "</tr>"
        for feature in features
    )
    return (
        "<h2>What else does it reward?</h2><p>Correlations of the reward with what can be seen of a reply, among "
        "replies to one prompt. 0 is none; an interval without 0 is a leaning, but of twenty of them one leaves out "
        "0 by chance. A leaning that the ground truth shares may be right.</p>"
        f'<div style="overflow-x: auto"><table class="table rv-table"><thead><tr><th>of a reply</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def examples(audit: Outcome) -> str:
    """The replies that each reward model likes best and least where it disagrees with the truth most, as HTML."""
    shown = ""
    for name in audit.order["names"]:
        for example in audit.reward_models[name].get("examples", []):
            shown += _example(audit, name, example)
    if not shown:
        return ""
    subject = (
        f"the prompts where a reward model and {html.escape(audit.ground_truth)} disagree most"
        if audit.ground_truth
        else "the prompts whose replies a reward model tells apart most"
    )
    return f"<h2>Look at them</h2><p>Best and worst reply, by the reward model, to {subject}.</p>{shown}"


def _example(audit: Outcome, name: str, example: BestAndWorst) -> str:
    def reply(kind: str, text: str, reward: float, truth: float | None) -> str:
        of_truth = "" if truth is None else f", of {audit.ground_truth} {truth:.3g}"
        cut = text if len(text) <= LONGEST else text[:LONGEST] + " …"
        words = f"{kind} by {name}: reward {reward:.3g}{of_truth}"
        return f"<p>{html.escape(words)}</p><blockquote>{html.escape(cut) or '(empty)'}</blockquote>"

    prompt = example["prompt"] if len(example["prompt"]) <= LONGEST else example["prompt"][:LONGEST] + " …"
    return (
        f"<details open><summary>{html.escape(name)}: {html.escape(prompt)}</summary>"
        + reply("Best", example["best"], example["best_reward"], example["best_truth"])
        + reply("Worst", example["worst"], example["worst_reward"], example["worst_truth"])
        + "</details>"
    )


def page(audit: Outcome) -> str:
    """The whole report: one HTML file with its own copy of plotly.js."""
    zero = "no difference" if audit.order["by"] == "reward_variance" else "no agreement"
    figures = [
        (
            order_figure(audit),
            f"Who is expected to teach most. The dashed line is 0: {zero}, nothing taught.",
        ),
        (
            spread_figure(audit),
            "The prompts in the order of their reward variance. A prompt on the floor teaches nothing, whatever its "
            "replies.",
        ),
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
        f"<h1>Is this reward model a good teacher for {html.escape(audit.policy['name'])}?</h1>"
        f"{tables(audit)}{probes(audit)}{examples(audit)}{shown}"
        + (f"<h2>How the models read</h2><ul>{read}</ul>" if read else "")
        + (f"<h2>Left out</h2><ul>{left_out}</ul>" if left_out else "")
        + f"<p><small>{html.escape(origin(audit))}</small></p></body></html>"
    )


def text(audit: Outcome) -> str:
    """The answer, the main numbers and what they rest on, as lines of text."""
    return "\n".join([answer(audit), *_numbers(audit, 80), sizes(audit)])


def show(audit: Outcome) -> None:
    """Print what one screen holds: the answer, the main numbers and as much of the advice as there is room for.

    Of one reward model the main lines of the table, of several a table with a line for each; all is in the report.
    """
    from rich.console import Console  # not among the packages of the book, which shows audits too

    console, left_out = Console(), audit.prompts["left_out"]
    with console.capture() as capture:
        for line in left_out[:LISTED]:
            console.print(f"Left out {line}", markup=False)
        if len(left_out) > LISTED:
            console.print(f"and {len(left_out) - LISTED} more, listed in the report", markup=False)
        console.print(answer(audit), style="bold", markup=False)
        for line in _numbers(audit, console.width):
            console.print(line, markup=False, highlight=False)
        console.print(sizes(audit), markup=False)
    printed, sentences = capture.get(), [*audit.advice, *reading_notes(audit)]
    print(printed, end="")
    room_for_advice = console.height - printed.count("\n") - 3
    for place, sentence in enumerate(sentences):
        with console.capture() as capture:
            console.print(f"- {sentence}", markup=False)
        room_for_advice -= capture.get().count("\n")
        if room_for_advice < 0:
            hidden = len(sentences) - place
            count = f"and {hidden} more" if place else str(hidden)
            print(f"- {count} remark{'s' * (hidden > 1)} in the report")
            break
        print(capture.get(), end="")


def _numbers(audit: Outcome, width: int) -> list[str]:
    return _ranking(audit, width) if len(audit.order["names"]) > 1 else _measures(audit)


def _measures(audit: Outcome) -> list[str]:
    """The main lines of the table of one reward model."""
    main = [row for row in rows(audit) if row.main]
    width = max(len(row.measure) for row in main)
    return [f"  {row.measure:{width}}  {row.cells[0]}" for row in main]


def _ranking(audit: Outcome, width: int) -> list[str]:
    """A line for each of several reward models, in the predicted order, at most `width` characters long."""
    measurements, by = {name: audit.reward_models[name] for name in audit.order["names"]}, audit.order["by"]
    accuracies = {"covariance": "accuracy", "preference_covariance": "preference_accuracy"}
    columns = [[MEASURES[by], *(interval(interval_of(measured, by)) for measured in measurements.values())]]
    notes = ["flat: prompts whose replies all get (almost) the same reward"]
    if by in accuracies:
        words = [
            verdict(audit, name).partition(":")[0].replace("It cannot be told", "unclear") for name in measurements
        ]
        columns.insert(0, ["good?", *words])
        columns.append(["accuracy", *(_value(measured, accuracies[by], ".2f") for measured in measurements.values())])
        columns.append(
            ["variance", *(_value(measured, "reward_variance", ".2f") for measured in measurements.values())]
        )
    else:
        columns.append(
            ["signal to noise", *(_value(measured, "signal_to_noise", ".2f") for measured in measurements.values())]
        )
    columns.append(["flat", *(_value(measured, "flat", ".0%") for measured in measurements.values())])
    if by == "covariance":
        chances = sorted({f"{measured['chance']:.2f}" for measured in measurements.values()})
        notes.append(f"accuracy by chance: {' to '.join(dict.fromkeys((chances[0], chances[-1])))}")
    apart = [True, *(gap["apart"] for gap in audit.order["gaps"])]
    if not all(apart):
        notes.append("≈: cannot be told apart from the one above")
    room = width - sum(2 + max(map(len, column)) for column in columns) - 2
    names = short_names(list(measurements), min(max(map(len, measurements)), max(room, 12)))
    columns.insert(
        0, ["", *(f"{' ' if is_apart else '≈'} {names[name]}" for name, is_apart in zip(measurements, apart))]
    )
    widths = [max(map(len, column)) for column in columns]
    lines = ["  ".join(f"{cell:{size}}" for cell, size in zip(line, widths)).rstrip() for line in zip(*columns)]
    return [
        order_line(audit),
        *lines,
        "; ".join(notes) + ".",
        *_noise(measurements, names, width),
    ]


def _noise(measurements: dict[str, Measurements], names: dict[str, str], width: int) -> list[str]:
    """A line with the noise of the reward models of which it is known, as many as have room; none without noise."""
    known = [
        f"{names[name]} {measured['noise']:.2g}" for name, measured in measurements.items() if measured.get("noise")
    ]
    for count in range(len(known), 0, -1):
        more = ", more in the report" * (count < len(known))
        line = f"noise, in its own unit: {', '.join(known[:count])}{more}."
        if len(line) <= width or count == 1:
            return [line]
    return []


def _value(measured: Measurements, key: str, spec: str) -> str:
    """The value of a measure without its interval."""
    values: Interval | None = measured[key]  # type: ignore[literal-required]  # a variable is no literal
    return "unknown" if values is None else f"{values[0]:{spec}}"
