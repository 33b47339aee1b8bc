"""The shared figures: each has a text alternative, carries no copy of Plotly, and follows its sliders."""

import json
import re

import numpy as np
import plotly.io as pio
import pytest
from IPython.core.formatters import DisplayFormatter

from rvlib import plots
from rvlib.files import PACKAGE
from rvlib.typesetting import typeset_text

TIMES = np.linspace(0, 1, 5)
FIGURES = {
    "trajectories": lambda alt: plots.trajectories(
        {"proxy": TIMES, "other": TIMES**2}, TIMES, bands={"other": (0 * TIMES, TIMES)}, marks={"t_γ": 0.5}, alt=alt
    ),
    "histogram": lambda alt: plots.histogram(
        {"all": np.geomspace(1, 1e4, 50)}, value="ratio", marks={"bound": 1.0}, most=1e3, alt=alt
    ),
    "scatter": lambda alt: plots.scatter(
        {"problems": (TIMES + 1, TIMES + 2)}, lines={"bound": ([1, 2], [1, 2])}, x="x", y="y", alt=alt
    ),
    "bars": lambda alt: plots.bars(
        {"ours": [1.0, np.nan]}, labels=["a", "b"], value="share", marks={"b": 0.5}, alt=alt
    ),
    "heatmaps": lambda alt: plots.heatmaps(
        {"a": np.eye(2), "b": -np.eye(2)}, labels=["1", "2"], text={"a": np.full((2, 2), "x")}, alt=alt
    ),
    "simplex": lambda alt: plots.simplex(
        {"P": np.array([1.0, 0, -1])}, {"P": np.full((4, 3), 1 / 3)}, labels="abc", marks={"P": np.eye(3)}, alt=alt
    ),
}


def page(figure):
    """The figure and the text alternative that a static page would show."""
    html = figure._repr_mimebundle_()["text/html"]
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1]), re.search(
        r'aria-label="([^"]*)"', html
    )[1]


@pytest.mark.parametrize("name", FIGURES)
def test_page_form(name):
    figure = FIGURES[name]("what it shows")
    data, alt = page(figure)
    assert alt == "what it shows" == figure.alt
    assert len(data["data"]) == len(figure.data) > 0
    assert pio.from_json(json.dumps(data)).data[0].type == figure.data[0].type
    assert len(figure._repr_mimebundle_()["text/html"]) < 1_000_000  # Plotly itself would be 4.8 MB


@pytest.mark.parametrize("name", FIGURES)
def test_needs_words(name):
    with pytest.raises(ValueError, match="alt must say"):
        FIGURES[name]("")


def test_ipython_shows_both_forms():
    shown, _ = DisplayFormatter().format(FIGURES["scatter"]("points"))
    assert {"text/html", "application/vnd.plotly.v1+json"} <= set(shown)


def test_live_form_is_plotlys_own_and_static_form_is_not(monkeypatch):
    figure = FIGURES["scatter"]("points")
    assert set(figure._repr_mimebundle_()) == {"text/html", "application/vnd.plotly.v1+json"}
    monkeypatch.setenv("RVLIB_STATIC", "1")
    assert set(figure._repr_mimebundle_()) == {"text/html"}


def test_in_a_page_a_title_is_a_line_above_the_plot():
    figure = FIGURES["scatter"]("points").update_layout(title="one < two", margin=dict(t=80, l=50))
    layout = page(figure)[0]["layout"]
    assert "title" not in layout and layout["margin"] == {"l": 50}
    assert figure._repr_mimebundle_()["text/html"].startswith('<p class="rv-plot-title">one &lt; two</p>')


def test_text_cannot_leave_its_place():
    nasty = '</script><script>alert("x")</script>'
    figure = plots.scatter({nasty: (TIMES, TIMES)}, x=nasty, y="y", alt=nasty)
    html = figure._repr_mimebundle_()["text/html"]
    assert html.count("<script") == html.count("</script>") == 1
    assert page(figure)[0]["data"][0]["name"] == nasty


def test_infinite_marks_are_left_out():
    shapes = [
        len(plots.trajectories({"proxy": TIMES}, TIMES, marks={"t_γ": at}, alt="a").layout.shapes)
        for at in (0.5, np.inf)
    ]
    assert shapes == [1, 0]


def test_marks_sit_on_a_logarithmic_axis():
    figure = plots.trajectories({"proxy": TIMES}, TIMES + 1, marks={"t_γ": 100.0}, log_time=True, alt="a")
    assert figure.layout.shapes[0].x0 == 100 and figure.layout.annotations[0].x == 2


def test_histogram_counts_everything_once():
    figure = plots.histogram({"all": np.r_[np.ones(30), np.full(10, 1e9)]}, value="ratio", most=1e3, alt="a")
    assert np.isclose(sum(figure.data[0].y), 1) and figure.data[0].y[-2] == 0.25


def test_heatmaps_share_no_scale_but_keep_signs():
    figure = plots.heatmaps({"a": np.array([[1.0, np.nan], [2.0, -0.5]])}, labels=["1", "2"], alt="a")
    assert figure.data[0].zmin == -figure.data[0].zmax == -2


def test_drive_follows_its_sliders(monkeypatch):
    line = plots.drive(
        lambda slope=0.5, shift=0: plots.trajectories({"proxy": slope * TIMES + shift}, TIMES, alt="a line"),
        slope=(0.0, 2.0, 0.1),
        shift=[0, 1],
    )
    assert line.controls["slope"].value == 0.5 and line.controls["slope"].description == "slope"
    bundle = line._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert json.loads(re.search(r"json\">(.*?)</script>", bundle["text/html"])[1]) == page(line.figure)[0]
    line.controls["slope"].value = 2.0
    assert np.allclose(line.view.data[0].y, 2 * TIMES)
    line.controls["shift"].value = 1
    assert np.allclose(line.view.data[0].y, 2 * TIMES + 1)
    assert np.allclose(line.figure.data[0].y, line.view.data[0].y)
    monkeypatch.setenv("RVLIB_STATIC", "1")
    assert set(line._repr_mimebundle_()) == {"text/html"}
    assert "(slope, shift) need a running kernel" in line._repr_mimebundle_()["text/html"]


CSS = (PACKAGE / "explore/web/explore.css").read_text(encoding="utf-8")


def test_plotly_and_the_explorables_take_their_colours_from_one_file():
    light = dict(re.findall(r"--rv-([\w-]+): light-dark\((#\w{6}),", CSS))
    roles = {"proxy": "proxy", "ground truth": "truth", "bound": "bound", "A": "a", "B": "b"}
    assert {role: plots.COLOURS[role] for role in roles} == {role: light[name] for role, name in roles.items()}
    assert len({light[name] for name in roles.values()}) == len(roles)
    layout = plots.TEMPLATE.layout
    assert {*layout.colorway, layout.font.color} <= {*light.values()}
    grey = "rgba({}, {}, {}, 0.28)".format(*(int(light["bound"][i : i + 2], 16) for i in (1, 3, 5)))
    assert {layout.xaxis.gridcolor, layout.yaxis.linecolor} == {grey}


def test_a_colour_means_one_thing():
    """Only the ground truth is blue and only the proxy vermilion; teachers A and B have two others."""
    names = ["x", "proxy", "teacher A, 0.6", "B, rough", "ground truth", "Adam", "Best", "y", "z", "u", "v", "w"]
    figure = plots.trajectories(dict.fromkeys(names, TIMES), TIMES, alt="many lines")
    colour = {trace.name: trace.line.color for trace in figure.data}
    for name, role in {
        "proxy": "proxy",
        "ground truth": "ground truth",
        "teacher A, 0.6": "A",
        "B, rough": "B",
    }.items():
        assert colour[name] == plots.COLOURS[role]
    others = {colour[name] for name in names if not re.match(r"proxy|ground truth|teacher A|B,", name)}
    assert not others & {plots.COLOURS[role] for role in ("proxy", "ground truth", "A", "B")}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("-0.76 [-0.97, 0.13]", "−0.76 [−0.97, 0.13]"),
        ("1e+37 and 2e-06, -1.5e+10", "10³⁷ and 2 × 10⁻⁶, −1.5 × 10¹⁰"),
        ("2026-11-23", "2026-11-23"),
        ("GPT-2, 8-bit, --dry-run, 1e5, x-1", "GPT-2, 8-bit, --dry-run, 1e5, x-1"),
    ],
)
def test_numbers_have_the_signs_of_print(written, read):
    assert typeset_text(written) == read
    figure = plots.bars({written: [1.0]}, labels=[written], value=written, alt=written)
    shown, alt = page(figure)
    assert shown["data"][0]["name"] == shown["layout"]["yaxis"]["title"]["text"] == alt == read


@pytest.mark.parametrize("name", ["trajectories", "bars", "heatmaps"])
def test_a_figure_brings_every_colour_that_a_dark_page_draws_it_in(name):
    figure = FIGURES[name]("what it shows")
    used = set(re.findall(r"#[0-9a-f]{6}", json.dumps(json.loads(figure.to_json())["data"])))
    assert used and used <= set(figure.layout.meta["dark"])


def test_live_figures_hold_nothing_that_json_does_not_have():
    grid = plots.heatmaps({"a": np.array([[1.0, np.nan], [2.0, -0.5]])}, labels=["1", "2"], alt="a")
    for figure in (grid, FIGURES["simplex"]("b")):
        z = np.array(figure.data[0].z)
        assert (
            z.dtype == object and any(value is None for value in z.flat) and not any(value != value for value in z.flat)
        )


def test_intervals_of_points_reach_from_their_low_to_their_high_end():
    across, up = np.array([0.5, 0.6]), np.array([0.1, 0.2])
    figure = plots.scatter(
        {"a": (across, up)},
        intervals={"a": ((across - 0.1, across + 0.2), (up - 0.05, up))},
        x="x",
        y="y",
        alt="Two points.",
    )
    (points,) = figure.data
    assert points.error_x.arrayminus == pytest.approx([0.1, 0.1]) and points.error_x.array == pytest.approx([0.2, 0.2])
    assert points.error_y.arrayminus == pytest.approx([0.05, 0.05]) and points.error_y.array == pytest.approx(
        [0, 0], abs=1e-15
    )
