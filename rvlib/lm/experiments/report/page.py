"""`rvlib report FOLDER`: what a run shows, as tables in the terminal, and as one HTML file with its figures."""

import argparse
import html
import sys
from collections.abc import Sequence

from rvlib.files import data_folder
from rvlib.lm.experiments.report.report import Report, curves, increase_against, load, origin
from rvlib.lm.experiments.report.tables import tables
from rvlib.lm.experiments.table import Table

STYLE = (
    "body{font:16px system-ui;max-width:62rem;margin:auto;padding:1rem;color-scheme:light dark}"
    "td,th{text-align:left;padding:.2rem .8rem .2rem 0}.wide{overflow-x:auto}figure{margin:2rem 0}"
)


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
    from rich.console import Console  # the book, which draws runs by `report`, has no rich

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
                console.print(table.in_terminal(console.width))
    print("\nDeviations from the paper's settings (here, the paper's):")
    print("\n".join(f"  {key}: {value}, {papers}" for key, (value, papers) in report["deviations"].items()) or "  none")
