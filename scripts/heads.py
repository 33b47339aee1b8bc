"""What the head of a page asks for, in an order in which the page's first figure answers its reader soon.

- A page's style sheets are one file, `book.css`, so that a browser asks for one and not for a dozen.
- Nothing stands in the way of the page's text: scripts that are files run when the text is there.
- The first of them are those of the page's first figure, before which the browser shows nothing: it would lay out and
  paint the page several times, and the figure's picture, only to replace it.
"""

import functools
import hashlib
import pathlib
import posixpath
import re

SHEET = re.compile(r'<link\b(?=[^>]*\brel="stylesheet")[^>]*\bhref="([^"?]*?_static/)([^"?]+)[^"]*"[^>]*>\n?')
SCRIPT = re.compile(r"[ \t]*<script\b([^>]*)>.*?</script>\n?", re.DOTALL)
AHEAD = re.compile(r'<link rel="preload" as="script"[^>]*>\n?')
FIGURE = re.compile(r'data-explorable="([\w-]+)"')
ADDRESS = re.compile(r"""url\((["']?)(?!["']?(?:data:|https?:|[#/]))([^"')]+)\1\)""")
IMPORT = re.compile(r'@import "([^"]+)";')
CHARSET = '@charset "UTF-8";'
OPTIONS = "documentation_options.js"  # of a few lines, which other scripts in the head read at once
OWN_ORDER = "searchtools.js"  # the search runs its scripts in the order in which Sphinx writes them


def joined(static: pathlib.Path, names: tuple[str, ...]) -> str:
    """Style sheets of the folder `static` in one, with the addresses that they name as seen from that folder."""

    def text(name: str) -> str:
        def from_here(path: str) -> str:
            return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))

        sheet = (static / name).read_text(encoding="utf-8").replace(CHARSET, "")
        sheet = ADDRESS.sub(lambda found: f'url("{from_here(found[2])}")', sheet)
        return IMPORT.sub(lambda found: text(from_here(found[1])), sheet)

    return "\n".join([CHARSET, *map(text, names)])


@functools.cache
def write_joined(static: pathlib.Path, names: tuple[str, ...]) -> str:
    """Write the style sheets in one into `static`; returns its name, which changes with what is in it."""
    css = joined(static, names).encode()
    (static / "book.css").write_bytes(css)
    return f"book.css?v={hashlib.sha256(css).hexdigest()[:8]}"


def figure_first(page: str, static: pathlib.Path) -> str:
    """A page's HTML with its head in this order; a page that has it already, or no head of the book's, as it is."""
    start, end = page.find("<head>"), page.find("</head>")
    head, rest = page[start:end], page[end:]
    sheets = SHEET.findall(head)
    if len(sheets) < 2 or OWN_ORDER in head:
        return page
    root = sheets[0][0]
    at_once: list[str] = []
    modules: list[str] = []
    later: list[str] = []

    def sort(found: re.Match[str]) -> str:
        script, attributes = found[0], found[1]
        if OPTIONS in attributes:
            at_once.append(f"<script>{(static / OPTIONS).read_text(encoding='utf-8')}</script>\n")
        elif " src=" not in attributes:
            at_once.append(script)
        elif 'type="module"' in attributes:
            modules.append(script)
        else:
            later.append(script if "defer" in attributes else script.replace("<script", "<script defer", 1))
        return ""

    head = SCRIPT.sub(sort, AHEAD.sub("", SHEET.sub("", head)))
    if first := FIGURE.search(rest):
        modules.sort(key=lambda script: "/mount.mjs" not in script)
        modules[0] = modules[0].replace("<script", '<script blocking="render"', 1)
        module = f"{root}explore/{first[1]}.mjs"
        modules.insert(0, f'<script blocking="render" type="module" src="{module}"></script>\n')
    # A script in the head waits for the style sheets before it.
    sheet = f'<link rel="stylesheet" href="{root}{write_joined(static, tuple(name for _, name in sheets))}">\n'
    return page[:start] + head + "".join([*at_once, sheet, *modules, *later]) + rest
