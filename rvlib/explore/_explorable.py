"""What all explorables share: parameters that are both traits and sliders, and the forms in which a figure appears."""

import base64
import functools
import html
import json
import pathlib
import re
import sys
import urllib.parse
from typing import Any

import anywidget
import traitlets

from rvlib.explore._controls import main_controls

WEB = pathlib.Path(__file__).parent / "web"
PICTURES = pathlib.Path(__file__).parent / "pictures"
_IMPORT = re.compile(r'(\bfrom\s*)"\./(\w+)\.mjs"')


@functools.cache
def source(module: str) -> str:
    """The text of web/<module>.mjs with its relative imports replaced by data: URLs.

    A widget's module has no address to resolve relative imports by.
    """

    def inline(match: re.Match[str]) -> str:
        code = base64.b64encode(source(match[2]).encode()).decode()
        return f'{match[1]}"data:text/javascript;base64,{code}"'

    return _IMPORT.sub(inline, (WEB / f"{module}.mjs").read_text(encoding="utf-8"))


class Explorable(anywidget.AnyWidget):
    """A figure driven by sliders, in JupyterLab, in Colab and in a static page.

    `Curves(accuracy=0.9, variance=0.01)` opens at that setting, to which "Reset" returns. `main=["gain"]` chooses the
    controls that stand beside the picture; the others are folded. In a live notebook the traits follow the sliders and
    the sliders the traits. TraitError for a value out of a slider's range, TypeError for a name that is not a
    parameter's.
    """

    caption = traitlets.Unicode().tag(sync=True)
    controls: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    initial = traitlets.Dict().tag(sync=True)
    main = main_controls()
    _css = (WEB / "explore.css").read_text(encoding="utf-8")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "alt" in vars(cls):  # an explorable's own class, not one that traitlets derives from it
            cls.name = cls.__name__.lower()
            cls._controls = [
                {"key": key, **trait.metadata["control"]}
                for key, trait in vars(cls).items()
                if isinstance(trait, traitlets.TraitType) and "control" in trait.metadata
            ]

    def __init__(self, **state: Any) -> None:
        unknown = set(state) - {*self.parameters(), "caption", "layout", "main"}
        unknown |= {*state.get("main", [])} - {*self.parameters()}
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no parameter {sorted(unknown)[0]!r}; it has {', '.join(self.parameters())}."
            )
        super().__init__(controls=self._controls, **state)
        if self.has_trait("pins"):  # a pin says what it has other than the figure itself
            setting = {key: value for key, value in self.state().items() if key != "pins"}
            self.set_trait("pins", [setting | pin for pin in self.state()["pins"]])
        self.initial = self.state()

    @classmethod
    def parameters(cls) -> list[str]:
        """Names of what a reader can set, in the order of the controls."""
        return [control["key"] for control in cls._controls] + (["pins"] if cls.class_traits().get("pins") else [])

    def state(self) -> dict[str, Any]:
        """What a reader has set: {parameter: value}."""
        return {key: getattr(self, key) for key in self.parameters()}

    @property
    def _esm(self) -> str:
        return source(self.name)

    @property
    def in_words(self) -> str:
        """Its name and what of the initial state is not the class's own, which names its picture: "race.time=0.1"."""
        own = {key: trait.default_value for key, trait in self.traits().items()} | {"pins": 0}
        initial = self.initial | {"pins": len(self.initial.get("pins", []))}
        changed = (f"{key}={value}" for key, value in initial.items() if value != own[key])
        return ".".join([self.name, *filter(None, ["+".join(changed)])])

    def _picture(self) -> tuple[str, str]:
        """(SVG, text alternative) of the initial state, where it has been drawn, else of the class's own."""
        path = PICTURES / f"{self.in_words}.svg"
        if self.in_words == self.name or not path.is_file():
            return (PICTURES / f"{self.name}.svg").read_text(encoding="utf-8"), self.alt
        svg = path.read_text(encoding="utf-8")
        return svg, html.unescape(svg.partition("<desc>")[2].partition("</desc>")[0])

    @property
    def mount(self) -> str:
        """The figure of a static page.

        It has a place where mount.mjs finds it, its state, and the picture for where scripts do not run.
        """
        shown = {"controls": self.controls, "initial": self.initial, "main": self.main, "caption": self.caption}
        svg, alt = self._picture()
        picture = urllib.parse.quote(svg, safe=" /:;=,.()-'!*+")
        _, width, height = (part.partition('"')[0] for part in re.split(r' (?:width|height)="', svg, maxsplit=2))
        return (
            f'<figure class="rv-explorable" data-explorable="{self.name}" '
            f'data-state="{html.escape(json.dumps(shown | self.state()))}">'
            f'<img src="data:image/svg+xml,{html.escape(picture)}" width="{width}" height="{height}" '
            f'alt="{html.escape(alt)}" loading="lazy">'
            f"<figcaption>{self.caption}</figcaption></figure>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        if "google.colab" not in sys.modules:  # which would show the HTML, where its page has no mount.mjs
            data |= {
                "text/html": self.mount,
                "image/svg+xml": self._picture()[0],
            }
        return data, metadata
