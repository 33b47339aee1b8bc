"""Plotly figures shared by the book, the notebooks and reports, which draw what the other modules return.

Every function returns a `Figure`, a `plotly.graph_objects.Figure` with a text alternative, so anything that Plotly can
do to a figure can be done to it. It shows itself as Plotly's own output where a kernel runs, and in a page of the book
as data that the page's one copy of Plotly draws.
"""

import base64
import html
import inspect
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
from numpy.typing import ArrayLike, NDArray
from plotly.colors import hex_to_rgb, sample_colorscale
from plotly.io.json import to_json_plotly
from plotly.subplots import make_subplots

from rvlib.typesetting import figure_in_type, in_type

_PALETTE = {
    name: (light, dark)
    for name, light, dark in re.findall(
        r"--rv-([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)",
        (pathlib.Path(__file__).parent / "explore/web/explore.css").read_text(encoding="utf-8"),
    )
}
"""The colours of the explorables, {name: (on a light page, on a dark page)}, which Plotly's figures share."""

# After Okabe and Ito, told apart by colour-blind readers.
COLOURS = {
    "proxy": _PALETTE["proxy"][0],
    "ground truth": _PALETTE["truth"][0],
    "bound": _PALETTE["bound"][0],
    "accent": _PALETTE["good"][0],
    "secondary": _PALETTE["other"][0],
    "A": _PALETTE["a"][0],
    "B": _PALETTE["b"][0],
}
"""Colours that mean one thing; A and B are the two teachers of a figure."""
# Of what has no colour of its own: neither the ground truth's nor the proxy's.
_OTHERS = [_PALETTE[name][0] for name in ("pin-4", "good", "pin-2", "other", "pin-5", "ink", "bound")]
_GREY = "rgba({}, {}, {}, 0.28)".format(*hex_to_rgb(COLOURS["bound"]))
_AXIS = dict(
    gridcolor=_GREY,
    zerolinecolor=_GREY,
    linecolor=_GREY,
    ticks="outside",
    tickcolor=_GREY,
    automargin=True,
    exponentformat="power",
    minexponent=4,
)
TEMPLATE = go.layout.Template(
    layout=dict(
        colorway=_OTHERS,
        # Legible on light and on dark; a page may set its own.
        font=dict(family="system-ui, sans-serif", size=14, color=COLOURS["bound"]),
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        xaxis=_AXIS,
        yaxis=_AXIS,
        margin=dict(l=10, r=24, t=30, b=10),
        legend=dict(orientation="h", yanchor="bottom", y=1.02, x=0),
        height=380,
        hoverlabel=dict(namelength=-1),
    )
)


class Figure(go.Figure):
    """A Plotly figure with a text alternative, kept in `layout.meta["alt"]`.

    In a static page (the environment variable RVLIB_STATIC is set while the book is built) it is HTML that holds the
    figure's JSON and no copy of Plotly; elsewhere it is Plotly's MIME type, with that HTML beside it.
    """

    _ipython_display_ = None  # Plotly's would come before the forms below, and knows nothing of pages

    @property
    def alt(self) -> str:
        """What the figure shows, in words."""
        return (self.layout.meta or {}).get("alt", "")

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> Any:
        if "colab" in pio.renderers.default:  # its own page, which knows neither our page's Plotly nor the MIME type
            return super()._repr_mimebundle_(*args, **kwargs)
        data, alt = figure_in_type(json.loads(self.to_json())), html.escape(in_type(self.alt), quote=True)
        light = to_json_plotly(_in_few_digits(data))
        height = self.layout.height or self.layout.template.layout.height
        page = (  # Plotly's JSON escapes < and /, so no text in it can close the script element
            f'<div class="rv-plotly" role="img" aria-label="{alt}" style="min-height: {height}px">'
            f'<script type="application/json">{light}</script><noscript><p>{alt}</p></noscript></div>'
        )
        bundle = {"text/html": page}
        return bundle if _static() else bundle | {"application/vnd.plotly.v1+json": data}


def _in_few_digits(part: Any) -> Any:
    """A figure's data with six digits a number, which is more than a screen shows, and half of what a page carries."""
    if isinstance(part, dict):
        if "bdata" in part:  # Plotly's form of a long array: numbers as they lie in memory, which nothing compresses
            values = np.frombuffer(base64.b64decode(part["bdata"]), part["dtype"])
            shape = [int(length) for length in str(part["shape"]).split(",")] if "shape" in part else -1
            return _in_few_digits(values.reshape(shape).tolist())
        return {key: _in_few_digits(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_in_few_digits(value) for value in part]
    return float(f"{part:.6g}") if isinstance(part, float) else part


def _static() -> bool:
    return bool(os.environ.get("RVLIB_STATIC"))


def _dressed(figure: go.Figure | None, alt: str, **layout: Any) -> Figure:
    """`figure` as a `Figure` in the book's template, with its text alternative."""
    if not alt:
        raise ValueError(
            "alt must say in words what the figure shows, got nothing; write a sentence for readers who cannot see it."
        )
    # A page in the dark draws the figure in these, a notebook as it is.
    meta = {"alt": alt, "dark": dict(_PALETTE.values())}
    return Figure(figure).update_layout(template=TEMPLATE, meta=meta, autosize=True, **layout)


def _colour(name: str, index: int) -> str:
    """The colour of a role where the name begins with one ("proxy", "ground truth", "teacher A"), else another."""
    role = re.match(rf"(?:teacher )?({'|'.join(COLOURS)})\b", name)
    return COLOURS[role[1]] if role else _OTHERS[index % len(_OTHERS)]


def _axis(title: str, log: bool) -> dict[str, Any]:
    # About four ticks: powers of ten over decades, and round numbers between them where there is but one power.
    return dict(title=title, type="log", nticks=4) if log else dict(title=title)


def _mark(figure: go.Figure, label: str, at: float, colour: str, log: bool) -> None:
    """A dashed vertical line, labelled along its upper end.

    Plotly wants an annotation's place on a logarithmic axis as its logarithm.
    """
    figure.add_vline(x=at, line=dict(color=colour, dash="dash"))
    where = dict(x=np.log10(at) if log else at, y=1, yref="paper", xanchor="right", yanchor="top")
    figure.add_annotation(text=label, textangle=-90, showarrow=False, font_color=colour, **where)


def trajectories(
    series: Mapping[str, NDArray[np.float64]],
    times: NDArray[np.float64],
    *,
    alt: str,
    bands: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None,
    marks: Mapping[str, float] | None = None,
    log_time: bool = False,
    log_value: bool = False,
    value: str = "expected reward",
    time: str = "time t",
) -> Figure:
    """Curves against time.

    series: {name: values (times,)}; bands: {name of a series: (low, high), each (times,)}; marks: {label: time},
    vertical lines such as t_γ and its bound; infinite ones are left out. alt: what the figure shows, in words.
    """
    figure = _dressed(None, alt, xaxis=_axis(time, log_time), yaxis=_axis(value, log_value))
    for index, (name, values) in enumerate(series.items()):
        colour = _colour(name, index)
        if bands and name in bands:
            low, high = bands[name]
            outline = np.concatenate([high, low[::-1]])
            figure.add_scatter(
                x=np.concatenate([times, times[::-1]]),
                y=outline,
                mode="lines",
                fill="toself",
                fillcolor=colour,
                opacity=0.2,
                line_width=0,
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_scatter(x=times, y=values, name=name, mode="lines", line=dict(color=colour, width=2.5))
    for label, at in (marks or {}).items():
        if np.isfinite(at):
            _mark(figure, label, at, _colour(label, 2), log_time)
    return figure


def histogram(
    groups: Mapping[str, ArrayLike],
    *,
    alt: str,
    value: str,
    marks: Mapping[str, float] | None = None,
    log_value: bool = True,
    most: float = np.inf,
    bins: int = 50,
) -> Figure:
    """Distributions of {name: values (any shape)}, overlaid, as shares; bins are even in log10(value) if log_value.

    marks: {label: value}. Values above `most` count in the last bin.
    """
    flat = {name: np.minimum(np.ravel(values), most) for name, values in groups.items()}
    scale = np.log10 if log_value else np.asarray
    edges = np.histogram_bin_edges(scale(np.concatenate(list(flat.values()))), bins)
    place = (lambda x: 10.0**x) if log_value else np.asarray
    figure = _dressed(None, alt, xaxis=_axis(value, log_value), yaxis_title="share of the problems")
    for index, (name, values) in enumerate(flat.items()):
        share = np.histogram(scale(values), edges)[0] / len(values)
        figure.add_scatter(
            x=place(edges),
            y=np.append(share, 0),
            name=name,
            line=dict(shape="hv", width=2, color=_colour(name, index)),
            fill="tozeroy",
            mode="lines",
        )
    for label, at in (marks or {}).items():
        _mark(figure, label, at, COLOURS["bound"], log_value)
    return figure


def scatter(
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    alt: str,
    x: str,
    y: str,
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    log: tuple[bool, bool] = (True, True),
    size: float = 5,
    intervals: Mapping[str, Any] | None = None,
) -> Figure:
    """Points {name: (x values, y values)} and lines of the same form, dashed grey, such as a bound.

    intervals: {name of a group: ((low, high) across, (low, high) up)}, each end an array as the group's, drawn through
    its points.
    """
    figure = _dressed(None, alt, xaxis=_axis(x, log[0]), yaxis=_axis(y, log[1]))
    for index, (name, (across, up)) in enumerate(groups.items()):
        figure.add_scatter(
            x=np.ravel(across),
            y=np.ravel(up),
            name=name,
            mode="markers",
            marker=dict(size=size, opacity=0.55, color=_colour(name, index)),
        )
        for axis, middle, (low, high) in zip("xy", (across, up), (intervals or {}).get(name, ())):
            faint = "rgba({}, {}, {}, 0.3)".format(*hex_to_rgb(_colour(name, index)))
            reach = dict(
                array=np.ravel(high - middle), arrayminus=np.ravel(middle - low), width=0, thickness=1, color=faint
            )
            figure.data[-1].update({f"error_{axis}": reach})
    for name, (line_across, line_up) in (lines or {}).items():
        figure.add_scatter(
            x=line_across, y=line_up, name=name, mode="lines", line=dict(color=COLOURS["bound"], dash="dash", width=2.5)
        )
    return figure


def bars(
    groups: Mapping[str, ArrayLike],
    *,
    alt: str,
    labels: Sequence[str],
    value: str,
    marks: Mapping[str, float] | None = None,
    log_value: bool = False,
) -> Figure:
    """Bars side by side: {name: values (labels)}, NaN where there is none.

    marks: {label: value}, a dashed line across at each label's place.
    """
    figure = _dressed(None, alt, yaxis=_axis(value, log_value) | dict(rangemode="tozero"), barmode="group")
    for index, (name, values) in enumerate(groups.items()):
        figure.add_bar(
            x=labels, y=_with_gaps(np.array([values], float))[0], name=name, marker_color=_colour(name, index)
        )
    for label, at in (marks or {}).items():
        middle = labels.index(label)
        figure.add_shape(
            type="line",
            x0=middle - 0.45,
            x1=middle + 0.45,
            y0=at,
            y1=at,
            line=dict(color=COLOURS["bound"], dash="dash"),
        )
    return figure


def heatmaps(
    matrices: Mapping[str, NDArray[np.float64]],
    *,
    alt: str,
    labels: Sequence[Any],
    x: str = "",
    y: str = "",
    text: Mapping[str, Any] | None = None,
) -> Figure:
    """Square grids side by side.

    matrices: {title: (rows, columns)}, NaN cells stay empty; labels: of rows and columns; text: {title: (rows,
    columns)}.
    """
    figure = make_subplots(1, len(matrices), subplot_titles=list(matrices), horizontal_spacing=0.08)
    for column, (title, matrix) in enumerate(matrices.items(), 1):
        peak = max(float(np.nanmax(np.abs(matrix))), 1e-300)
        # Vermilion for below zero, blue for above, grey between: signs stay apart on light and dark pages.
        scale = [[0, COLOURS["proxy"]], [0.5, "rgb(190, 190, 190)"], [1, COLOURS["ground truth"]]]
        figure.add_heatmap(
            z=_with_gaps(matrix),
            x=labels,
            y=labels,
            zmin=-peak,
            zmax=peak,
            colorscale=scale,
            showscale=False,
            xgap=2,
            ygap=2,
            row=1,
            col=column,
            text=(text or {}).get(title),
            texttemplate="%{text}" if title in (text or {}) else None,
            hovertemplate="%{y}, %{x}: %{z}<extra></extra>",
        )
    _square(figure, len(matrices))
    figure.update_yaxes(autorange="reversed", constrain="domain", constraintoward="top", showgrid=False, zeroline=False)
    figure.update_xaxes(showgrid=False, zeroline=False, constrain="domain")
    figure.update_annotations(font_size=13)
    # Plotly's automatic margins never settle beside squares that must stay square.
    figure.update_xaxes(automargin=False).update_yaxes(automargin=False)
    left, below = 16 + 8 * max(map(len, map(str, labels))) + 22 * bool(y), 34 + 22 * bool(x)
    return _dressed(figure, alt, xaxis_title=x, yaxis_title=y, height=280, margin_l=left, margin_b=below)


def _with_gaps(grid: NDArray[np.float64]) -> NDArray[np.object_]:
    """The grid to four digits with None for NaN, which JSON does not have and a live figure would have to send."""
    rounded = np.array([[float(f"{x:.4g}") for x in row] for row in grid], dtype=object)
    rounded[np.isnan(grid)] = None
    return rounded


def _square(figure: go.Figure, columns: int) -> None:
    """One unit is as long across as up, in each of the columns."""
    for column in range(1, columns + 1):
        figure.update_yaxes(scaleanchor="x" if column == 1 else f"x{column}", row=1, col=column)


_CORNERS = np.array([[0.5, np.sqrt(3) / 2], [0.0, 0.0], [1.0, 0.0]])


def simplex(
    rewards: Mapping[str, ArrayLike],
    paths: Mapping[str, NDArray[np.float64]],
    *,
    alt: str,
    labels: Sequence[str],
    marks: Mapping[str, NDArray[np.float64]] | None = None,
    resolution: int = 101,
) -> Figure:
    """Policies over three outputs as points of triangles, shaded by expected reward in one scale, with a path in each.

    rewards: {title: (3,)}; paths: {title: probs (times, 3)}; marks: {title: probs (k, 3)}, dots on the path; labels:
    the outputs', for the corners top, left and right.
    """
    figure = make_subplots(1, len(rewards), subplot_titles=list(rewards), horizontal_spacing=0.04)
    across = np.linspace(0, 1, resolution)
    up = np.linspace(0, _CORNERS[0, 1], resolution)
    grid = np.stack(np.meshgrid(across, up), -1)
    # Barycentric coordinates: the policy at each point of the picture.
    inverse = np.linalg.inv(np.vstack([_CORNERS.T, np.ones(3)]))
    probs = np.concatenate([grid, np.ones((*grid.shape[:-1], 1))], -1) @ inverse.T
    inside = (probs > -1e-9).all(-1)
    top = max(np.abs(r).max() for r in rewards.values())
    scale = sample_colorscale("Viridis", np.linspace(0.15, 1, 9))
    for column, (title, reward) in enumerate(rewards.items(), 1):
        value = _with_gaps(np.where(inside, probs @ np.asarray(reward, float), np.nan))
        figure.add_contour(
            x=across,
            y=up,
            z=value,
            zmin=-top,
            zmax=top,
            colorscale=scale,
            ncontours=25,
            line_width=0.5,
            hoverinfo="skip",
            autocontour=False,
            contours=dict(start=-top, end=top, size=top / 12),
            showscale=column == len(rewards),
            colorbar=dict(
                title=dict(text="expected proxy reward", side="top"),
                orientation="h",
                y=-0.3,
                thickness=10,
                nticks=5,
            ),
            row=1,
            col=column,
        )
        line = paths[title] @ _CORNERS
        figure.add_scatter(
            x=line[:, 0],
            y=line[:, 1],
            mode="lines",
            line=dict(color="black", width=3),
            hoverinfo="skip",
            row=1,
            col=column,
        )
        if marks:
            dots = marks[title] @ _CORNERS
            figure.add_scatter(
                x=dots[:, 0],
                y=dots[:, 1],
                mode="markers",
                marker=dict(color="white", size=9, line=dict(color="black", width=1.5)),
                hoverinfo="skip",
                row=1,
                col=column,
            )
        for corner, label, side in zip(_CORNERS, labels, ("top", "bottom", "bottom")):
            figure.add_annotation(
                x=corner[0],
                y=corner[1],
                text=label,
                showarrow=False,
                yanchor="bottom" if side == "top" else "top",
                row=1,
                col=column,
            )
    figure.update_xaxes(visible=False, range=[-0.12, 1.12])
    _square(figure, len(rewards))
    figure.update_yaxes(visible=False, range=[-0.1, 1.0])
    figure.update_annotations(font_size=13)
    return _dressed(figure, alt, showlegend=False, margin_t=50)


_LIVE_WIDTH = 640  # pixels; a FigureWidget left to itself takes 700, whatever its cell has


class drive:
    """A figure driven by sliders: `drive(function, **sliders)` shows `function(**values)`, a `Figure`, at every move.

    sliders: as for `ipywidgets.interact`: (low, high, step), a list of choices, True or False, or a widget; a slider
    starts at the function's default for that argument. In a static page it is the figure at the sliders' starting
    values.

        drive(lambda gain=0.5: figure_of(gain), gain=(0.1, 1.0, 0.1))
    """

    def __init__(self, function: Callable[..., Figure], **sliders: Any) -> None:
        # Here, since the figures themselves need no widgets, and a plan or a report without a notebook has none.
        import ipywidgets

        defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
        self.function = function
        self.view = None  # made when it is first shown live
        self.controls = {
            name: ipywidgets.interactive.widget_from_abbrev(slider, defaults[name]) for name, slider in sliders.items()
        }
        for name, control in self.controls.items():
            control.description = control.description or name.replace("_", " ")

    @property
    def figure(self) -> Figure:
        """The figure at the sliders' present values."""
        return self.function(**{name: control.value for name, control in self.controls.items()})

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> Any:
        import ipywidgets  # as above

        figure = self.figure
        page = {"text/html": figure._repr_mimebundle_()["text/html"]}
        if _static():
            names = ", ".join(control.description for control in self.controls.values())
            page["text/html"] += f'<p class="rv-note">In the running notebook this figure has controls: {names}.</p>'
            return page
        if self.view is None:
            self.view = go.FigureWidget(figure, layout_width=_LIVE_WIDTH)
            for control in self.controls.values():
                control.observe(self._redraw, "value")
        return page | ipywidgets.VBox([*self.controls.values(), self.view])._repr_mimebundle_()

    def _redraw(self, _: Any) -> None:
        new = self.figure
        view: Any = self.view  # what is drawn again has been drawn
        with view.batch_update():
            view.data = ()
            view.add_traces(new.data)
            view.layout = new.layout
            view.layout.width = _LIVE_WIDTH
