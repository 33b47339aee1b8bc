"""Slides for reveal.js from Markdown: each file of book/teaching/slides becomes a page that needs no other host.

A slide ends at a line `---`. Besides Markdown and $mathematics$, a line `::: explorable Dial seed=2` puts that
figure of the book there, alive, in the state that its parameters give. A slide's notes for the speaker follow a line
`Note:`; the key S shows them.
"""

import ast
import html
import pathlib
import re

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

import rvlib.explore

ROOT = pathlib.Path(__file__).resolve().parent.parent
DECKS = ROOT / "book/teaching/slides"
_FIGURE = re.compile(r"^::: explorable (\w+)((?: \w+=\S+)*)$", re.MULTILINE)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="../favicon.svg">
<link rel="stylesheet" href="../vendor/reveal/reveal.css">
<link rel="stylesheet" href="slides.css">
<script>window.MathJax = {{options: {{}}}};</script>
<script type="module" src="../mathjax.mjs"></script>
<script type="module" src="../explore/mount.mjs"></script>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="../vendor/reveal/reveal.js"></script>
<script src="../vendor/reveal/notes.js"></script>
<script>
Reveal.initialize({{
  width: 1280, height: 800, margin: 0.03, hash: false, transition: "none", center: false, plugins: [RevealNotes],
  viewDistance: 100, // formulas are measured where they are laid out, on slides not yet seen too
}});
// A figure that is taller than its slide is made smaller, once it is there.
function fit() {{
  const slide = Reveal.getCurrentSlide();
  for (const figure of slide.querySelectorAll("figure[data-mounted]:not([style])"))
    figure.style.zoom = Math.min(1, (790 - figure.offsetTop) / figure.offsetHeight);
}}
Reveal.on("slidechanged", () => setTimeout(fit, 50));
const mounted = new MutationObserver(() => setTimeout(fit, 50));
mounted.observe(document.body, {{subtree: true, attributeFilter: ["data-mounted"]}});
</script>
</body>
</html>
"""


def _figure(name: str, parameters: str) -> str:
    """The figure of one `::: explorable` line."""
    kind = getattr(rvlib.explore, name, None)
    if kind is None:
        raise ValueError(f"::: explorable must name a figure of rvlib.explore, got {name!r}.")
    state = dict(pair.split("=", 1) for pair in parameters.split())
    return kind(**{key: _literal(value) for key, value in state.items()}).mount


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def deck(text: str) -> str:
    """The page of one deck; its title is the first heading."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin)
    markdown.add_render_rule(
        "math_inline", lambda _, tokens, i, *__: rf'<span class="math">\({html.escape(tokens[i].content)}\)</span>'
    )
    markdown.add_render_rule(
        "math_block", lambda _, tokens, i, *__: rf'<div class="math">\[{html.escape(tokens[i].content)}\]</div>'
    )
    slides = []
    for part in re.split(r"^---$", text, flags=re.MULTILINE):
        body, _, notes = part.partition("\nNote:")
        text_parts = _FIGURE.split(body)  # text, name, parameters, text, name, …
        shown = markdown.render(text_parts[0])
        for name, parameters, text_after in zip(text_parts[1::3], text_parts[2::3], text_parts[3::3]):
            shown += _figure(name, parameters) + markdown.render(text_after)
        aside = f'<aside class="notes">{markdown.render(notes)}</aside>' if notes.strip() else ""
        slides.append(f"<section>\n{shown}{aside}</section>")
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    return _PAGE.format(title=html.escape(title[1]) if title else "Slides", slides="\n".join(slides))


def write(folder: pathlib.Path) -> list[pathlib.Path]:
    """Write every deck as folder/NAME.html; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for source in sorted(DECKS.glob("*.md")):
        path = folder / f"{source.stem}.html"
        path.write_text(deck(source.read_text(encoding="utf-8")), encoding="utf-8")
        written.append(path)
    return written
