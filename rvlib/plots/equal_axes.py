"""Plots whose units are as long across as up: grids of numbers, and triangles of policies over three outputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from rvlib.plots.figure import COLOURS, Figure, styled, with_gaps


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
    figure = make_subplots(1, len(matrices), subplot_titles=list(matrices), horizontal_spacing=0.1)
    for column, (title, matrix) in enumerate(matrices.items(), 1):
        peak = max(float(np.nanmax(np.abs(matrix))), 1e-300)
        # Vermilion for below zero, blue for above, grey between: signs stay apart on light and dark pages.
        scale = [[0, COLOURS["proxy"]], [0.5, "rgb(190, 190, 190)"], [1, COLOURS["ground truth"]]]
        figure.add_heatmap(
            z=with_gaps(matrix),
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
    _keep_square(figure, len(matrices))
    figure.update_yaxes(autorange="reversed", constrain="domain", constraintoward="top", showgrid=False, zeroline=False)
    figure.update_xaxes(showgrid=False, zeroline=False, constrain="domain")
    figure.update_annotations(font_size=13)
    # Plotly's automatic margins never settle beside squares that must stay square.
    figure.update_xaxes(automargin=False).update_yaxes(automargin=False)
    left, below = 16 + 8 * max(map(len, map(str, labels))) + 22 * bool(y), 34 + 22 * bool(x)
    return styled(figure, alt, xaxis_title=x, yaxis_title=y, height=280, margin_l=left, margin_b=below)


def _keep_square(figure: go.Figure, columns: int) -> None:
    """One unit is as long across as up, in each of the columns."""
    for column in range(1, columns + 1):
        figure.update_yaxes(scaleanchor="x" if column == 1 else f"x{column}", row=1, col=column)


_CORNERS = np.array([[0.5, np.sqrt(3) / 2], [0.0, 0.0], [1.0, 0.0]])
_WIDTH = (-0.12, 1.12)  # of a triangle's picture


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
        value = with_gaps(np.where(inside, probs @ np.asarray(reward, float), np.nan))
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
        # Each label stays in its own picture's width, so that on a small screen no two of them meet.
        for (x, y), label, side in zip(_CORNERS, labels, ("center", "left", "right")):
            figure.add_annotation(
                x={"center": x, "left": _WIDTH[0], "right": _WIDTH[1]}[side],
                y=y,
                text=label,
                showarrow=False,
                xanchor=side,
                yanchor="bottom" if side == "center" else "top",
                row=1,
                col=column,
            )
    figure.update_xaxes(visible=False, range=_WIDTH)
    _keep_square(figure, len(rewards))
    figure.update_yaxes(visible=False, range=[-0.1, 1.0], constrain="domain", constraintoward="top")
    figure.update_annotations(font_size=13)
    return styled(figure, alt, showlegend=False, margin_t=50)
