"""Curves, distributions, points and bars."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from plotly.colors import hex_to_rgb

from rvlib.plots.figure import COLOURS, Figure, add_mark, axis_layout, colour_of, styled, with_gaps


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
    figure = styled(None, alt, xaxis=axis_layout(time, log_time), yaxis=axis_layout(value, log_value))
    for index, (name, values) in enumerate(series.items()):
        colour = colour_of(name, index)
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
            add_mark(figure, label, at, colour_of(label, 2), log_time)
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
    figure = styled(None, alt, xaxis=axis_layout(value, log_value), yaxis_title="share of the problems")
    for index, (name, values) in enumerate(flat.items()):
        share = np.histogram(scale(values), edges)[0] / len(values)
        figure.add_scatter(
            x=place(edges),
            y=np.append(share, 0),
            name=name,
            line=dict(shape="hv", width=2, color=colour_of(name, index)),
            fill="tozeroy",
            mode="lines",
        )
    for label, at in (marks or {}).items():
        add_mark(figure, label, at, COLOURS["bound"], log_value)
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
    figure = styled(None, alt, xaxis=axis_layout(x, log[0]), yaxis=axis_layout(y, log[1]))
    for index, (name, (across, up)) in enumerate(groups.items()):
        figure.add_scatter(
            x=np.ravel(across),
            y=np.ravel(up),
            name=name,
            mode="markers",
            marker=dict(size=size, opacity=0.55, color=colour_of(name, index)),
        )
        for axis, centre, (low, high) in zip("xy", (across, up), (intervals or {}).get(name, ())):
            faint = "rgba({}, {}, {}, 0.3)".format(*hex_to_rgb(colour_of(name, index)))
            error_bars = dict(
                array=np.ravel(high - centre), arrayminus=np.ravel(centre - low), width=0, thickness=1, color=faint
            )
            figure.data[-1].update({f"error_{axis}": error_bars})
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
    figure = styled(None, alt, yaxis=axis_layout(value, log_value) | dict(rangemode="tozero"), barmode="group")
    for index, (name, values) in enumerate(groups.items()):
        figure.add_bar(
            x=labels, y=with_gaps(np.array([values], float))[0], name=name, marker_color=colour_of(name, index)
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
