"""A figure driven by sliders in a notebook."""

import inspect
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from rvlib.plots.figure import Figure, is_static_page

_LIVE_WIDTH = 640  # pixels; a FigureWidget left to itself takes 700, whatever its cell has


class drive:
    """A figure driven by sliders: `drive(function, **sliders)` shows `function(**values)`, a `Figure`, at every move.

    sliders: as for `ipywidgets.interact`: (low, high, step), a list of choices, True or False, or a widget; a slider
    starts at the function's default for that argument. In a static page it is the figure at the sliders' starting
    values, and a sentence that says what they need.

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
        if is_static_page():
            names = ", ".join(control.description for control in self.controls.values())
            page["text/html"] += (
                f'<p class="rv-note rv-sliders">The sliders of this figure ({names}) need a running kernel: open the '
                "notebook on Colab, or download it.</p>"
            )
            return page
        if self.view is None:
            self.view = go.FigureWidget(figure, layout_width=_LIVE_WIDTH)
            for control in self.controls.values():
                control.observe(self._redraw, "value")
        return page | ipywidgets.VBox([*self.controls.values(), self.view])._repr_mimebundle_()

    def _redraw(self, _: Any) -> None:
        new = self.figure
        view: Any = self.view  # made before any slider could move
        with view.batch_update():
            view.data = ()
            view.add_traces(new.data)
            view.layout = new.layout
            view.layout.width = _LIVE_WIDTH
