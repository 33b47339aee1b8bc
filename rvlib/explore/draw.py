"""Draws the pictures that stand in an explorable's place where no script runs: `python -m rvlib.explore.draw`.

The page's own modules draw them, in Node, in each explorable's default state and in those in which the book's pages
show it, so that a picture says no more than the text beside it; colours are those of a light page.
"""

import ast
import html
import json
import pathlib
import re
import shutil
import subprocess

from rvlib.explore import Explorable
from rvlib.explore._explorable import PICTURES, WEB

ROOT = pathlib.Path(__file__).resolve().parents[2]

WIDTH = 760
_FONT = "Inter, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_PROGRAM = """
const [module, state, width] = process.argv.slice(1);
const { default: explorable } = await import(module);
const view = explorable.compute(JSON.parse(state));
const drawing = explorable.draw(view, Number(width), explorable.name);
console.log(JSON.stringify({ ...drawing, words: explorable.describe(view) }));
"""


def node() -> str:
    """The Node binary: the one that Playwright's wheel carries, else one on the PATH."""
    try:  # here, since the explorables themselves need no Node
        from playwright._impl._driver import compute_driver_executable
    except ImportError:
        return shutil.which("node") or "node"
    return compute_driver_executable()[0]


def palette() -> dict[str, str]:
    """{variable: its colour on a light page}, read from the explorables' own style sheet."""
    return dict(re.findall(r"(--rv-[\w-]+): light-dark\((#\w+),", (WEB / "explore.css").read_text(encoding="utf-8")))


def plain(markup: str, colours: dict[str, str]) -> str:
    """Markup without the style sheet's variables and mixtures, which not every reader of SVG knows."""
    markup = re.sub(r"var\((--rv-[\w-]+)\)", lambda match: colours[match[1]], markup)
    return re.sub(
        r"color-mix\(in oklab, (#\w{6}) (\d+)%, (#\w{6})\)",
        lambda match: _mixed(match[1], int(match[2]) / 100, match[3]),
        markup,
    )


def _mixed(first: str, share: float, second: str) -> str:
    channels = ((int(first[i : i + 2], 16) * share + int(second[i : i + 2], 16) * (1 - share)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(channel):02x}" for channel in channels)


def draw(explorable: Explorable, width: int = WIDTH) -> str:
    """The SVG of an `Explorable` at its present state, as text."""
    module = (WEB / f"{explorable.name}.mjs").as_uri()
    command = [node(), "--input-type=module", "--eval", _PROGRAM, module, json.dumps(explorable.state()), str(width)]
    drawn = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rules = re.findall(r"^\.rv-svg ([^{}]+\{[^{}]*\})", (WEB / "explore.css").read_text(encoding="utf-8"), re.MULTILINE)
    style = re.sub(r"\s+", " ", "".join(rules))
    height, colours = drawn["height"], palette()
    return plain(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" '
        f'height="{height:g}" font-family="{_FONT}" font-size="12"><desc>{html.escape(drawn["words"])}</desc>'
        f'<style>text {{ fill: var(--rv-ink) }} {style}</style><rect width="100%" height="100%" fill="#fff"/>'
        + "\n".join(drawn["parts"])
        + "</svg>\n",
        colours,
    )


def shown() -> list[Explorable]:
    """Every explorable in its default state, and in each other one in which a page of the book shows it."""
    kinds = {kind.__name__: kind for kind in Explorable.__subclasses__()}
    pages = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages).replace('\\"', '"')
    calls = sorted(set(re.findall(rf"\b({'|'.join(kinds)})\(([^()]*)\)", text)))
    figures = {kind.name: kind() for kind in kinds.values()}
    for name, arguments in calls:
        call = ast.parse(f"f({arguments})", mode="eval").body
        assert isinstance(call, ast.Call)
        figure = kinds[name](**{word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg})
        figures[figure.in_words] = figure
    return list(figures.values())


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.svg"):
        old.unlink()
    for figure in shown():
        path = PICTURES / f"{figure.in_words}.svg"
        path.write_text(draw(figure), encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
