"""Plotly figures shared by the book, the notebooks and reports, which draw what the other modules return.

Every function returns a `Figure`, a `plotly.graph_objects.Figure` with a text alternative, so anything that Plotly can
do to a figure can be done to it. It shows itself as Plotly's own output where a kernel runs, and in a page of the book
as data that the page's one copy of Plotly draws. This room may import `rvlib.tabular` and what is below it, and
neither torch nor transformers. Start with `figure.Figure`, and `charts` for what is drawn most.
"""

from rvlib.plots.charts import bars, histogram, scatter, trajectories
from rvlib.plots.equal_axes import heatmaps, simplex
from rvlib.plots.figure import COLOURS, TEMPLATE, Figure
from rvlib.plots.sliders import drive

__all__ = [
    "COLOURS",
    "TEMPLATE",
    "Figure",
    "bars",
    "drive",
    "heatmaps",
    "histogram",
    "scatter",
    "simplex",
    "trajectories",
]
