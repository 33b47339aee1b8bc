"""The map of the book's results, read from the chapters themselves: which result's proof uses which other.

    uses(A) = { B : the proof of A refers to B, or to an equation that stands in B }

A result is a labelled block of sphinx-proof (definition, lemma, proposition, theorem, corollary); its proof is the
proof block that follows it. So the map is never behind the text.
"""

import html
import pathlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

KINDS = ("definition", "lemma", "proposition", "theorem", "corollary")
_BLOCK = re.compile(
    r"^(?P<fence>`{3,})\{prf:(?P<kind>\w+)\}(?P<title>[^\n]*)\n(?P<body>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL
)
# Of the drawing, in pixels: width, height of a node, from row to row, before a chapter.
_WIDTH, _NODE, _LINE, _GAP = 676, 28, 46, 30


@dataclass
class Result:
    """One result, its chapter's file name and title, and the labels of the results that its proof uses."""

    label: str
    kind: str
    title: str
    chapter: str
    chapter_title: str
    uses: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        """'ours' where the title says so, 'paper' where it names one of the paper's results, else 'standard'."""
        return "ours" if re.search(r"\bours\b", self.title) else "paper" if "paper's" in self.title else "standard"

    @property
    def short(self) -> str:
        """The title without its origin."""
        return self.title.split(";")[0].strip()


def results(folder: str | pathlib.Path, chapters: Iterable[str]) -> list[Result]:
    """The results in folder/CHAPTER.md, for each name in `chapters`, in their order.

    ValueError for a label given twice.
    """
    by_label: dict[str, Result] = {}
    owner: dict[str, str] = {}  # of an equation: the result that it stands in
    proofs: list[tuple[Result, str]] = []
    for chapter in chapters:
        text = (pathlib.Path(folder) / f"{chapter}.md").read_text(encoding="utf-8")
        heading = re.search(r"^# (.+)$", text, re.MULTILINE)
        last = None
        for block in _BLOCK.finditer(text):
            label = re.search(r"^:label: *(\S+)", block["body"], re.MULTILINE)
            if block["kind"] == "proof" and last:
                proofs.append((last, block["body"]))
            elif block["kind"] in KINDS and label:
                if label[1] in by_label:
                    raise ValueError(
                        f"label must be given once, got {label[1]!r} in {by_label[label[1]].chapter} and {chapter}."
                    )
                last = by_label[label[1]] = Result(
                    label[1], block["kind"], block["title"].strip(), chapter, heading[1] if heading else chapter
                )
                owner |= dict.fromkeys(re.findall(r"^\$\$ \(([\w-]+)\)", block["body"], re.MULTILINE), label[1])
    for result, proof in proofs:
        owner |= {
            equation: owner.get(equation, result.label)
            for equation in re.findall(r"^\$\$ \(([\w-]+)\)", proof, re.MULTILINE)
        }
    for result, proof in proofs:
        named = re.findall(r"\{prf:ref\}`([\w-]+)`", proof) + [
            owner.get(name) for name in re.findall(r"\{eq\}`([\w-]+)`", proof)
        ]
        result.uses = [label for label in dict.fromkeys(named) if label in by_label and label != result.label]
    return list(by_label.values())


@dataclass(frozen=True)
class _Layout:
    """Where the drawing has what: {label: (left, top, width)}, [(chapter title, top)], and its height, in pixels."""

    nodes: dict[str, tuple[float, int, float]]
    chapters: list[tuple[str, int]]
    height: int


def _layout(book_results: list[Result]) -> _Layout:
    """The places of the results: a row or more to a chapter."""
    nodes: dict[str, tuple[float, int, float]] = {}
    chapters: list[tuple[str, int]] = []
    left, top, chapter = 0.0, 0, None
    for result in book_results:
        width = 20 + 6.6 * len(result.short)
        if result.chapter != chapter:
            chapter, left, top = result.chapter, 0.0, top + (_LINE if nodes else 0) + _GAP
            chapters.append((result.chapter_title, top - 10))
        elif left + width > _WIDTH:
            left, top = 0.0, top + _LINE
        nodes[result.label] = (left, top, width)
        left += width + 14
    return _Layout(nodes, chapters, top + _LINE)


def picture(book_results: list[Result]) -> str:
    """The map as HTML: an SVG in which every result is a link, and arrows run from what is used.

    Pointing at a result shows its own arrows.
    """
    layout = _layout(book_results)
    number = {result.label: i for i, result in enumerate(book_results)}
    rules, edges, nodes = [], [], []
    for i, result in enumerate(book_results):
        x, y, width = layout.nodes[result.label]
        for used in result.uses:
            j = number[used]
            used_x, used_y, used_width = layout.nodes[used]
            start, end = (used_x + used_width / 2, used_y + _NODE), (x + width / 2, y)
            middle: float
            if y <= used_y:  # beside it, or above: by the lower edges
                end = (x + width / 2, y + _NODE)
                middle = max(start[1], end[1]) + 12
            else:
                middle = (start[1] + end[1]) / 2
            edges.append(
                f'<path class="rv-edge f{j} t{i}" d="M{start[0]:.0f} {start[1]}C{start[0]:.0f} {middle:.0f} '
                f'{end[0]:.0f} {middle:.0f} {end[0]:.0f} {end[1]}"/>'
            )
            rules.append(f".rv-map:has(.n{i}:is(:hover,:focus-visible)) .n{j} rect{{stroke-width:3}}")
        rules.append(
            f".rv-map:has(.n{i}:is(:hover,:focus-visible)) .rv-edge:is(.f{i},.t{i}){{opacity:1;stroke-width:2}}"
        )
        nodes.append(
            f'<a class="n{i} rv-{result.origin}" href="{result.chapter}.html#{result.label}">'
            f"<title>{html.escape(f'{result.kind.capitalize()}: {result.title}')}</title>"
            f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{_NODE}" rx="6"/><text x="{x + 10:.0f}" '
            f'y="{y + 18}">{html.escape(result.short)}</text></a>'
        )
    chapters = [f'<text class="rv-head" x="0" y="{y}">{html.escape(title)}</text>' for title, y in layout.chapters]
    return (
        f'<div class="rv-map" tabindex="-1"><style>{"".join(rules)}</style><svg role="group" aria-label="Map of the '
        'results; the list below has the same" '
        f'viewBox="-4 0 {_WIDTH + 8} {layout.height}" width="{_WIDTH + 8}" '
        f'height="{layout.height}">{"".join(edges + chapters + nodes)}</svg></div>'
    )


def listing(book_results: list[Result]) -> str:
    """The same as an HTML list: every result with links to what its proof uses."""
    by_label = {result.label: result for result in book_results}

    def link(result: Result) -> str:
        return f'<a href="{result.chapter}.html#{result.label}">{html.escape(result.short)}</a>'

    items = [
        f"<li>{link(result)}"
        + (f": rests on {', '.join(link(by_label[used]) for used in result.uses)}" if result.uses else "")
        + "</li>"
        for result in book_results
    ]
    return f"<ul>{''.join(items)}</ul>"
