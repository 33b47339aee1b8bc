"""The figure that every plot is: the book's colours and template, a text alternative, and how it shows itself."""

import base64
import html
import json
import os
import re
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
from numpy.typing import NDArray
from plotly.colors import hex_to_rgb
from plotly.io.json import to_json_plotly

from rvlib.files import PACKAGE
from rvlib.typesetting import typeset_figure, typeset_text

PALETTE = {
    name: (light, dark)
    for name, light, dark in re.findall(
        r"--rv-([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)",
        (PACKAGE / "explore/web/explore.css").read_text(encoding="utf-8"),
    )
}
"""The colours of the explorables, {name: (on a light page, on a dark page)}, which Plotly's figures share."""

# After Okabe and Ito, told apart by colour-blind readers.
COLOURS = {
    "proxy": PALETTE["proxy"][0],
    "ground truth": PALETTE["truth"][0],
    "bound": PALETTE["bound"][0],
    "accent": PALETTE["good"][0],
    "secondary": PALETTE["other"][0],
    "A": PALETTE["a"][0],
    "B": PALETTE["b"][0],
}
"""Colours that mean one thing; A and B are the two teachers of a figure."""
# For everything without a colour of its own: neither the ground truth's nor the proxy's.
_OTHERS = [PALETTE[name][0] for name in ("pin-4", "good", "pin-2", "other", "pin-5", "ink", "bound")]
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
    figure's JSON and no copy of Plotly, below its title, which so has lines as long as the page's; elsewhere it is
    Plotly's MIME type, with that HTML beside it.
    """

    _ipython_display_ = None  # Plotly's would come before the forms below, and knows nothing of pages

    @property
    def alt(self) -> str:
        """What the figure shows, in words."""
        return (self.layout.meta or {}).get("alt", "")

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> Any:
        if "colab" in pio.renderers.default:  # its own page, which knows neither our page's Plotly nor the MIME type
            return super()._repr_mimebundle_(*args, **kwargs)
        data, alt = typeset_figure(json.loads(self.to_json())), html.escape(typeset_text(self.alt), quote=True)
        short = _rounded(data)
        title = short["layout"].pop("title", {}).get("text", "")
        if title:
            short["layout"].get("margin", {}).pop("t", None)  # the room for it
        height = self.layout.height or self.layout.template.layout.height
        page = f'<p class="rv-plot-title">{html.escape(title)}</p>' if title else ""
        page += (  # Plotly's JSON escapes < and /, so no text in it can close the script element
            f'<div class="rv-plotly" role="img" aria-label="{alt}" style="min-height: {height}px">'
            f'<script type="application/json">{to_json_plotly(short)}</script><noscript><p>{alt}</p></noscript></div>'
        )
        bundle = {"text/html": page}
        return bundle if is_static_page() else bundle | {"application/vnd.plotly.v1+json": data}


def _rounded(part: Any) -> Any:
    """A figure's data with six digits for each number: more than a screen shows, and half the size of the page."""
    if isinstance(part, dict):
        if "bdata" in part:  # Plotly's form of a long array: numbers as they lie in memory, which nothing compresses
            values = np.frombuffer(base64.b64decode(part["bdata"]), part["dtype"])
            shape = [int(length) for length in str(part["shape"]).split(",")] if "shape" in part else -1
            return _rounded(values.reshape(shape).tolist())
        return {key: _rounded(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_rounded(value) for value in part]
    return float(f"{part:.6g}") if isinstance(part, float) else part


def is_static_page() -> bool:
    """Whether a page of the book is being built, where no kernel will run."""
    return bool(os.environ.get("RVLIB_STATIC"))


def styled(figure: go.Figure | None, alt: str, **layout: Any) -> Figure:
    """`figure` as a `Figure` in the book's template, with its text alternative."""
    if not alt:
        raise ValueError(
            "alt must say in words what the figure shows, got nothing; write a sentence for readers who cannot see it."
        )
    # A page in dark mode replaces the colours by these; a notebook shows the figure as it is.
    meta = {"alt": alt, "dark": dict(PALETTE.values())}
    return Figure(figure).update_layout(template=TEMPLATE, meta=meta, autosize=True, **layout)


def colour_of(name: str, index: int) -> str:
    """The colour of a role where the name begins with one ("proxy", "ground truth", "teacher A"), else another."""
    role = re.match(rf"(?:teacher )?({'|'.join(COLOURS)})\b", name)
    return COLOURS[role[1]] if role else _OTHERS[index % len(_OTHERS)]


def axis_layout(title: str, log: bool) -> dict[str, Any]:
    """The layout of an axis, for `styled`."""
    # About four ticks: powers of ten over decades, and round numbers where the axis has one power alone.
    return dict(title=title, type="log", nticks=4) if log else dict(title=title)


def add_mark(figure: go.Figure, label: str, at: float, colour: str, log: bool) -> None:
    """Add a dashed vertical line, labelled along its upper end."""
    figure.add_vline(x=at, line=dict(color=colour, dash="dash"))
    # On a logarithmic axis Plotly expects the logarithm of an annotation's place.
    place = dict(x=np.log10(at) if log else at, y=1, yref="paper", xanchor="right", yanchor="top")
    figure.add_annotation(text=label, textangle=-90, showarrow=False, font_color=colour, **place)


def with_gaps(grid: NDArray[np.float64]) -> NDArray[np.object_]:
    """The grid to four digits with None for NaN, which JSON does not have and a live figure would have to send."""
    rounded = np.array([[float(f"{x:.4g}") for x in row] for row in grid], dtype=object)
    rounded[np.isnan(grid)] = None
    return rounded
