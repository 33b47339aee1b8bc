"""From a slider's input to the painted figure, while it is dragged.

Measured are the explorables, and Curves' plot by ipywidgets, Plotly and a kernel.

How it is measured. Headless Chromium shows a page at 60 Hz; a mouse drags a slider to and fro at 60 moves a second. The
page notes when it receives an input, and when the drawing that answers it changes, in Chromium's own trace; an update
is painted when the compositor draws the first frame that holds the changed drawing (the trace's Commit,
ActivateLayerTree and DrawFrame). So script, style, layout, paint and raster all count, and for the kernel the way there
and back; waiting for the mouse does not. An input that a later one overtakes is never painted and is counted as lost,
not as slow.

    python benchmarks/slider.py [FILE]                    writes benchmarks/results/slider.json, or FILE
    python benchmarks/slider.py --only curves samples     these figures alone, no kernel; prints, and writes nothing
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import served
from conftest import BROWSER_FLAGS, NO_BROWSER, find_browser
from jupyter import jupyterlab, notebook, ready, run_cell

from rvlib.explore import (
    BestOfN,
    Constructions,
    Curves,
    Dial,
    Exponents,
    Grades,
    Gradient,
    Landscape,
    Plateau,
    Race,
    Remedies,
    Samples,
    Teachers,
)
from rvlib.explore._explorable import WEB, Explorable

MOVES = 300  # of the mouse: five seconds
CATEGORIES = [
    "devtools.timeline",
    "disabled-by-default-devtools.timeline.frame",
    "devtools.timeline.frame",
    "blink.user_timing",
]

# (explorable, slider, fragment): the curves first; then the sliders that redraw most of each figure.
DRAGS = [
    (Curves, "variance", ""),
    (Curves, "accuracy", "#curves.kl_coef=0.05&curves.outputs=30"),
    (Curves, "variance", "#curves.pins=variance:0.001;variance:0.5;accuracy:0.6;kl_coef:0.05"),
    (Dial, "accuracy", "#dial.outputs=24"),
    (Landscape, "b_worst", ""),
    (Landscape, "turn", "#landscape.plane=logits"),
    (Race, "time", ""),
    (Race, "b_variance", ""),
    (Constructions, "slowness", ""),
    (Constructions, "gain", ""),
    (Teachers, "likely", ""),
    (BestOfN, "b_variance", ""),
    (Samples, "step", "#samples.group=16"),
    (Grades, "time", ""),
    (Gradient, "kl_coef", ""),  # a worker makes all points of these two: the first of them count
    (Exponents, "kl_coef", ""),
    (Remedies, "strength", "#remedies.remedy=spread"),
    (Plateau, "mediocre", ""),
]

# The same five panels, computed by the library in the kernel and drawn by Plotly.
PLOTLY = """
import ipywidgets, numpy as np, plotly.graph_objects as go
from plotly.subplots import make_subplots
from rvlib.explore.problem import problem, teacher
from rvlib.tabular import gradient_flow, time_to_gain
from rvlib.explore import Curves
setting = Curves().state()
times = np.geomspace(0.1, setting["horizon"], 90)
def solve(variance):
    truth, logits = problem(setting["outputs"], setting["peakedness"], setting["skill"], setting["seed"])
    reward = teacher(truth, logits, setting["accuracy"], variance, setting["seed"])
    at = gradient_flow(logits, reward, setting["horizon"], ground_truth=truth)(times)
    gain_times = [time_to_gain(logits, reward, setting["gain"], measured=r, t_max=1e9) for r in (truth, reward)]
    return [at.ground_truth, at.proxy, at.variance, at.kl, at.gradient_norm], gain_times
grid = make_subplots(2, 3, specs=[[{"colspan": 3}, None, None], [{}, {}, {}]])
for (row, column), values in zip([(1, 1), (1, 1), (2, 1), (2, 2), (2, 3)], solve(setting["variance"])[0]):
    grid.add_scatter(x=times, y=values, row=row, col=column, showlegend=False)
grid.update_xaxes(type="log")
for axis in (grid.layout.yaxis2, grid.layout.yaxis4):
    axis.type = "log"
figure = go.FigureWidget(grid, layout=dict(height=480, width=760, title_text="0"))
slider = ipywidgets.FloatLogSlider(setting["variance"], min=-6, max=0, step=0.02, layout=dict(width="500px"))
def update(change):
    lines, gain_times = solve(change["new"])
    with figure.batch_update():
        for trace, values in zip(figure.data, lines):
            trace.y = values
        figure.layout.title.text = f"{change['new']:.4g} {gain_times[0]:.4g} {gain_times[1]:.4g}"
slider.observe(update, "value")
ipywidgets.VBox([slider, figure])
"""

# Marks an input with its number, and the drawing's change with the number of the input that it answers. A kernel's
# answers come back in order, one for each value that it got; what was overtaken on the way never arrives.
WATCH_EXPLORABLE = """
let count = 0;
const input = document.querySelector("[data-key=KEY]");
input.addEventListener("input", () => performance.mark(`slider:in:${++count}`), true);
const watched = { subtree: true, childList: true, attributes: true };
new MutationObserver(() => count && performance.mark(`slider:out:${count}`))
  .observe(document.querySelector(".rv-svg"), watched);
"""
WATCH_PLOTLY = """
let count = 0, seen = new Map();
const readout = document.querySelector(".widget-readout");
const title = () => document.querySelector(".gtitle")?.textContent.split(" ")[0];
const near = (a, b) => Math.abs(a / b - 1) < 0.011;
new MutationObserver(() => {
  performance.mark(`slider:in:${++count}`);
  seen.set(count, Number(readout.textContent));
}).observe(readout, { subtree: true, childList: true, characterData: true });
let last = title();
new MutationObserver(() => {
  const now = title();
  if (now === last || now === undefined) return;
  last = now;
  let answered = 0;
  for (const [number, value] of seen) if (near(value, Number(now))) answered = number;
  if (answered) performance.mark(`slider:out:${answered}`);
}).observe(document.querySelector(".js-plotly-plot"), { subtree: true, childList: true, characterData: true });
"""


def drag(page: Page, x0: float, x1: float, y: float, watch: str) -> list[dict[str, Any]]:
    """Drag a slider's thumb from x0 to x1 and back; the trace's events meanwhile."""
    cdp, events, done = page.context.new_cdp_session(page), [], []
    cdp.on("Tracing.dataCollected", lambda message: events.extend(message["value"]))
    cdp.on("Tracing.tracingComplete", lambda message: done.append(True))
    to_and_fro = x0 + (x1 - x0) * (1 - np.abs(1 - 2 * np.arange(MOVES) / MOVES))
    page.mouse.move(x0, y)
    page.mouse.down()
    for x in to_and_fro[:30]:
        page.mouse.move(x, y)  # so that what is compiled and laid out once is not measured
    page.wait_for_timeout(1500)
    page.evaluate(watch)
    cdp.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": {"includedCategories": CATEGORIES}})
    due = time.perf_counter()
    for x in to_and_fro:
        page.mouse.move(x, y)
        due += 1 / 60
        time.sleep(max(0.0, due - time.perf_counter()))
    page.wait_for_timeout(3000)  # for answers still on their way
    cdp.send("Tracing.end")
    while not done:
        page.wait_for_timeout(50)
    page.mouse.up()
    return events


def milliseconds(events: list[dict[str, Any]]) -> tuple[list[float], int]:
    """From each painted input to its frame, and the number of inputs."""
    marks = [
        (event["ts"], event["pid"], *event["name"].split(":")[1:])
        for event in events
        if event["name"].startswith("slider:")
    ]
    process = marks[0][1]

    def times(name: str) -> NDArray[np.float64]:
        return np.array(sorted(event["ts"] for event in events if event["name"] == name and event["pid"] == process))

    commits, activations, frames = times("Commit"), times("ActivateLayerTree"), times("DrawFrame")

    def following(series: NDArray[np.float64], moment: float) -> float | None:
        return series[np.searchsorted(series, moment)] if series.size and series[-1] >= moment else None

    began = {int(number): moment for moment, _, kind, number in marks if kind == "in"}
    painted = {}
    for moment, _, kind, number in sorted(marks):
        if kind == "out" and int(number) not in painted:
            for stage in (commits, activations, frames):
                moment = None if moment is None else following(stage, moment)
            if moment is not None:
                painted[int(number)] = (moment - began[int(number)]) / 1000
    return list(painted.values()), len(began)


def summary(values: list[float], inputs: int) -> dict[str, float]:
    """Percentiles of the times to the painted figure, and how many inputs were overtaken."""
    p50, p95, worst = np.percentile(values, [50, 95, 100])
    return {
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "max_ms": round(float(worst), 2),
        "inputs": inputs,
        "lost": inputs - len(values),
    }


def explorable(browser: Browser, address: str, kind: type[Explorable], key: str, fragment: str) -> dict[str, float]:
    """An explorable in a static page, one of its sliders dragged."""
    page = browser.new_page(viewport={"width": 1000, "height": 1000})
    page.goto(f"{address}/{kind.name}.html{fragment}")
    page.wait_for_selector(".rv-svg text")
    page.evaluate("document.querySelector('.rv-more').open = true")
    slider = page.locator(f"[data-key={key}]")
    slider.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = slider.bounding_box()
    events = drag(
        page,
        box["x"] + 0.35 * box["width"],
        box["x"] + 0.9 * box["width"],
        box["y"] + box["height"] / 2,
        WATCH_EXPLORABLE.replace("KEY", key),
    )
    page.close()
    return summary(*milliseconds(events))


def widgets(browser: Browser) -> dict[str, float]:
    """The same plot in JupyterLab, by ipywidgets, a FigureWidget and a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "plot.ipynb").write_text(notebook(PLOTLY))
        with jupyterlab(folder) as address:
            page = browser.new_page(viewport={"width": 1300, "height": 1000})
            page.goto(f"{address}/lab/tree/plot.ipynb")
            ready(page)
            run_cell(page, 0)
            page.wait_for_selector(".js-plotly-plot .gtitle", timeout=120_000)
            page.wait_for_timeout(2000)
            thumb = page.locator(".noUi-handle").bounding_box()
            track = page.locator(".noUi-target").bounding_box()
            x, y = thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2
            events = drag(page, x, track["x"] + 0.4 * track["width"], y, WATCH_PLOTLY)
            page.close()
    return summary(*milliseconds(events))


def main(path: str | pathlib.Path, only: Sequence[str] = ()) -> None:
    """Drag all explorables and the kernel's plot, and write `path`.

    only: names of explorables; with it, these alone are dragged, and their numbers printed.
    """
    drags = [case for case in DRAGS if not only or case[0].name in only]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        executable = find_browser(playwright) or sys.exit(NO_BROWSER)
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_FLAGS)
        folder = pathlib.Path(folder)
        shutil.copytree(WEB, folder / "web")
        for kind in {kind for kind, _, _ in drags}:
            page = (
                f'<!doctype html><meta charset="utf-8">{kind().mount}<script type="module" '
                'src="web/mount.mjs"></script>'
            )
            (folder / f"{kind.name}.html").write_text(page, encoding="utf-8")
        load = os.getloadavg()[0]
        if load > 1:
            print(
                f"This machine is busy (load {load:.1f}): frames will be late for that reason too; measure on a quiet "
                "one."
            )
        rows = []
        with served(folder) as address:
            for kind, key, fragment in drags:
                rows.append(
                    {
                        "figure": kind.name,
                        "slider": key,
                        "state": fragment,
                        **explorable(browser, address, kind, key, fragment),
                    }
                )
                print(rows[-1], flush=True)
        if only:
            return
        kernel = widgets(browser)
        print("ipywidgets, Plotly and a kernel:", kernel, flush=True)
        result = {
            "what": __doc__.split("\n")[0],
            "explorables": rows,
            "widgets": {"figure": "curves", "slider": "variance", **kernel},
            "p95_ratio": round(kernel["p95_ms"] / rows[0]["p95_ms"], 1),
            "chromium": browser.version,
            "versions": {
                name: version(name) for name in ("anywidget", "ipywidgets", "jupyterlab", "plotly", "numpy", "scipy")
            },
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU; load {load:.1f} before",
            "date": time.strftime("%Y-%m-%d"),
        }
        browser.close()
    pathlib.Path(path).write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"p95: {rows[0]['p95_ms']} ms, against {kernel['p95_ms']} ms by a kernel, {result['p95_ratio']} times as "
        f"long. Written to {path}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", nargs="?", default=pathlib.Path(__file__).parent / "results" / "slider.json")
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="NAME", choices=sorted({kind.name for kind, _, _ in DRAGS})
    )
    arguments = parser.parse_args()
    main(arguments.file, arguments.only)
