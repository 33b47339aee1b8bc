"""Draw who imports whom in rvlib, from the code itself, into book/images/architecture.svg.

    python scripts/architecture.py

A box is a room of the library. A line goes from a room down to one that it imports; a line is left out where others
lead to the same room (the transitive reduction), so that what is drawn can be followed by eye. A module that has no
place in `ROWS`, or imports one above its own, stops the drawing.
"""

import ast
import html
import pathlib
import sys
import textwrap
from typing import NamedTuple

import grimp

ROOT = pathlib.Path(__file__).resolve().parent.parent
PICTURE = ROOT / "book/images/architecture.svg"
WIDTH, ROW, BOX, GAP = 960, 104, 76, 16
LEFT, RIGHT = (16, 600), (632, 944)  # lanes: what needs torch, what works on arrays alone
BOTH = (LEFT[0], RIGHT[1])

# Rows from the top; a box is (its lane, the modules in it, what it is for or None: what its docstring says first).
ROWS = [
    [(BOTH, ["cli"], None)],
    [(LEFT, ["audit"], None), (RIGHT, ["explore"], None)],
    [(LEFT, ["lm.experiments"], None)],
    [(LEFT, ["lm.training"], None), (LEFT, ["lm.enumerable"], None)],
    [(LEFT, ["lm.optim"], None), (LEFT, ["lm.sampling"], None)],
    [
        (LEFT, ["lm.models"], None),
        (
            RIGHT,
            [
                *("estimates", "correlations", "exercises", "paper", "plots", "predictors", "result_map", "results"),
                *("teacher_study", "hypotheses", "problems", "problem_sets"),
            ],
            "What is read off numbers, and how it is shown: also exercises, paper, plots, predictors, results",
        ),
    ],
    [(LEFT, ["lm.data"], None), (RIGHT, ["lm.settings"], None)],
    [
        (LEFT, ["lm.origin", "lm.seeding", "lm.processes"], "Where numbers come from, seeds, several processes"),
        (RIGHT, ["tabular"], None),
    ],
    [(RIGHT, ["metrics"], None)],
    [
        (
            BOTH,
            ["files", "_checks", "_terminal", "typesetting"],
            "Files, checks of arguments, sentences in a terminal, signs of print",
        )
    ],
]
STYLE = (
    "text { fill: #1f2933; font-family: Inter, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif } "
    "text { font-size: 12px } "
    ".name { font-weight: 600; font-size: 13px } .lane { fill: #52606d; font-size: 12px } "
    ".box { fill: #fff; stroke: #52606d } .line { fill: none; stroke: #7b8794; stroke-width: 1.3 }"
)


def rooms() -> dict[str, str]:
    """{module that ROWS names: the first of its box}, which is the box's own name."""
    return {f"rvlib.{name}": f"rvlib.{names[0]}" for row in ROWS for _, names, _ in row for name in names}


def room(module: str, known: dict[str, str]) -> str | None:
    """The box of a module, by the longest name that it begins with; None for what holds rooms, and the launcher."""
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        if ".".join(parts[:length]) in known:
            return known[".".join(parts[:length])]
    if module not in ("rvlib", "rvlib.lm", "rvlib.__main__"):
        sys.exit(f"Every module of rvlib must have a place in scripts/architecture.py, got {module} without one.")
    return None


def imports() -> set[tuple[str, str]]:
    """(importing box, imported box) for all pairs."""
    known = rooms()
    graph = grimp.build_graph("rvlib", exclude_type_checking_imports=True, cache_dir=None)
    pairs = set()
    for module in graph.modules:
        source = room(module, known)
        for imported in graph.find_modules_directly_imported_by(module):
            target = room(imported, known)
            if source and target and source != target:
                pairs.add((source, target))
    return pairs


def reduced(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The pairs that no longer way through other pairs replaces."""
    below: dict[str, set[str]] = {}
    for source, target in pairs:
        below.setdefault(source, set()).add(target)

    def reach(start: str) -> set[str]:
        reached, open_ = set(), list(below.get(start, ()))
        while open_:
            if (current := open_.pop()) not in reached:
                reached.add(current)
                open_ += below.get(current, ())
        return reached

    return {(a, b) for a, b in pairs if not any(b in reach(c) for c in below[a] if c != b)}


def purpose(module: str) -> str:
    """The first sentence of a module's docstring, without the command in front of it."""
    path = ROOT / "rvlib" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
    first = first.partition(": ")[2] if first.startswith("`") else first
    return first.replace("`", "").rstrip(".")


class Place(NamedTuple):
    """Where a box is drawn."""

    left: float
    top: float
    width: float


def places() -> dict[str, Place]:
    """{box: its place}; boxes of one row and lane share its width."""
    at = {}
    for index, row in enumerate(ROWS):
        for lane in {lane for lane, _, _ in row}:
            own = [names[0] for other, names, _ in row if other == lane]
            width = (lane[1] - lane[0] - GAP * (len(own) + 1)) / len(own)
            for place, name in enumerate(own):
                at[f"rvlib.{name}"] = Place(lane[0] + GAP + place * (width + GAP), 34 + index * ROW, width)
    return at


def lines(pairs: set[tuple[str, str]], at: dict[str, Place]) -> list[str]:
    """A curve for each pair, from the lower edge of one box to the upper edge of the other, ends apart from others."""

    def centre(name: str) -> float:
        return at[name].left + at[name].width / 2

    ends: dict[tuple[str, str, bool], float] = {}
    for name, (left, _, width) in at.items():
        for leaving in (True, False):
            others = [b if leaving else a for a, b in pairs if name == (a if leaving else b)]
            others.sort(key=lambda other: (centre(other), at[other].top, other))
            for rank, other in enumerate(others):
                straight = min(max(centre(other), left + 20), left + width - 20)
                even = left + width * (rank + 1) / (len(others) + 1)
                ends[(name, other, leaving)] = (straight + even) / 2
    drawn = []
    for source, target in sorted(pairs):
        x0, y0 = ends[(source, target, True)], at[source].top + BOX
        x1, y1 = ends[(target, source, False)], at[target].top - 3
        if y1 < y0:
            sys.exit(f"A room may import rooms below it alone, but {source} imports {target}.")
        bend = min((y1 - y0) / 2, 60)
        drawn.append(
            f'<path class="line" d="M{x0:.0f} {y0:.0f}C{x0:.0f} {y0 + bend:.0f} '
            f'{x1:.0f} {y1 - bend:.0f} {x1:.0f} {y1:.0f}" marker-end="url(#tip)"/>'
        )
    return drawn


def boxes(at: dict[str, Place]) -> list[str]:
    """The boxes with their names and what each is for."""
    drawn = []
    for row in ROWS:
        for _, names, text in row:
            left, top, width = at[f"rvlib.{names[0]}"]
            wrapped = textwrap.wrap(text or purpose(names[0]), int((width - 20) / 6.7), max_lines=3, placeholder=" …")
            title = textwrap.shorten(", ".join(names), int((width - 20) / 7.6), placeholder=" …")
            drawn.append(f'<rect class="box" x="{left:.0f}" y="{top}" width="{width:.0f}" height="{BOX}" rx="5"/>')
            drawn.append(f'<text class="name" x="{left + 10:.0f}" y="{top + 19}">{html.escape(title)}</text>')
            drawn += [
                f'<text x="{left + 10:.0f}" y="{top + 36 + 15 * i}">{html.escape(line)}</text>'
                for i, line in enumerate(wrapped)
            ]
    return drawn


def picture() -> str:
    """The whole SVG."""
    at = places()
    height = 34 + len(ROWS) * ROW
    top, bottom = 34 + ROW - 22, 34 + (len(ROWS) - 1) * ROW - 14
    lanes = [
        f'<rect x="{lane[0]}" y="{top}" width="{lane[1] - lane[0]}" height="{bottom - top}" rx="8" fill="{colour}"/>'
        f'<text class="lane" x="{lane[0] + 10}" y="{top + 15}">{label}</text>'
        for lane, colour, label in (
            (LEFT, "#e6f0fa", "language models"),
            (RIGHT, "#eef6ea", "arrays alone: neither torch nor transformers"),
        )
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img">',
            "<title>The rooms of rvlib: a line leads from a room down to one that it imports</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#7b8794"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#fff"/>',
            '<text class="lane" x="32" y="22">rvlib: a line leads from a room down to one that it imports</text>',
            *lanes,
            *lines(reduced(imports()), at),
            *boxes(at),
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
