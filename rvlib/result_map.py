"""The book's results, read from the chapters themselves: their names, and which result's proof uses which other.

    uses(A) = { B : the proof of A refers to B, or to an equation that stands in B }

A result is a labelled block of sphinx-proof (definition, lemma, proposition, theorem, corollary); its proof is the
proof block that follows it. Results of a kind are numbered through the whole book, as Sphinx numbers them. So neither
the map nor the concordance, which names the paper's results, functions and tests beside them, can be behind the text.
"""

import ast
import html
import pathlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

KINDS = ("definition", "lemma", "proposition", "theorem", "corollary")
_BLOCK = re.compile(
    r"^(?P<fence>`{3,})\{prf:(?P<kind>\w+)\}(?P<title>[^\n]*)\n(?P<body>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL
)
_PAPER_NAME = re.compile(r"(?:Def\.|Prop\.|Lemma|Theorem) \d+")
# Of the drawing, in pixels: width, height of a node, from row to row, before a chapter.
_WIDTH, _NODE, _LINE, _GAP = 676, 28, 46, 30


@dataclass
class Result:
    """One result, its chapter's file name and title, its number, and the labels of the results that its proof uses."""

    label: str
    kind: str
    title: str
    chapter: str
    chapter_title: str
    number: int
    uses: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        """'ours' where the title says so, 'paper' where it names one of the paper's results, else 'standard'."""
        return "ours" if re.search(r"\bours\b", self.title) else "paper" if "paper's" in self.title else "standard"

    @property
    def short(self) -> str:
        """The title without its origin."""
        return self.title.split(";")[0].strip()

    @property
    def name(self) -> str:
        """Kind and number, as in the pages: Theorem 2."""
        return f"{self.kind.capitalize()} {self.number}"

    @property
    def paper(self) -> tuple[str, ...]:
        """The names of the same result in the paper, such as ("Prop. 3",); empty if it has none."""
        return tuple(_PAPER_NAME.findall(self.title.partition("the paper's")[2]))


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
                number = 1 + sum(result.kind == block["kind"] for result in by_label.values())
                title = block["title"].strip()
                last = by_label[label[1]] = Result(
                    label[1], block["kind"], title, chapter, heading[1] if heading else chapter, number
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


def of_book(root: str | pathlib.Path) -> list[Result]:
    """The results of all chapters in root/book, in the order of root/_toc.yml."""
    root = pathlib.Path(root)
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return results(root / "book", [page.removeprefix("book/") for page in _pages(contents) if page.startswith("book/")])


def _pages(entry: Any) -> list[str]:
    """The pages below an entry of the table of contents, in their order."""
    if isinstance(entry, list):
        return [page for item in entry for page in _pages(item)]
    named = [entry[key] for key in ("root", "file") if key in entry]
    return named + [page for key in ("parts", "chapters", "sections") for page in _pages(entry.get(key, []))]


@dataclass(frozen=True)
class ConcordanceRow:
    """One row of the concordance: a result, the functions that compute it, and tests of these functions."""

    result: Result
    functions: tuple[str, ...]
    tests: tuple[str, ...]


def concordance(
    book_results: list[Result], package: str | pathlib.Path, tests: str | pathlib.Path
) -> list[ConcordanceRow]:
    """The results with functions and tests, read from the sources.

    A function belongs to a result if its docstring has the result's label in backticks, or its name in the paper after
    "the paper's". A test belongs to a result in the same way, or if it uses one of the result's functions, itself or
    through helpers of its module. At most three tests are named: those that say so first, then those that use the
    fewest functions of the concordance. Figures, exercises and problems are left out.

    package, tests: folders with Python files.
    """
    functions: dict[str, list[str]] = {}  # of a label or a name in the paper, as module.name
    for path in sorted(pathlib.Path(package).rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        if module.split(".")[0] in ("explore", "exercises", "problems"):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                for key in _mentioned(node):
                    functions.setdefault(key, []).append(f"{module}.{node.name}")
    known = {name.rsplit(".", 1)[1] for names in functions.values() for name in names}
    all_tests = [test for path in sorted(pathlib.Path(tests).glob("test_*.py")) for test in _tests(path, known)]
    rows = []
    for result in book_results:
        keys = (result.label, *result.paper)
        own = tuple(dict.fromkeys(name for key in keys for name in functions.get(key, ())))
        last_names = {name.rsplit(".", 1)[1] for name in own}
        covering = [test for test in all_tests if test.mentions & set(keys) or test.uses & last_names]
        covering.sort(key=lambda test: (not test.mentions & set(keys), len(test.uses)))
        rows.append(ConcordanceRow(result, own, tuple(test.name for test in covering[:3])))
    return rows


def _mentioned(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """The labels and the names in the paper that a docstring mentions."""
    text = " ".join((ast.get_docstring(node) or "").split())
    labels = re.findall(r"`((?:def|lem|prop|thm|cor)-[\w-]+)`", text)
    return {*labels, *re.findall(rf"the paper's ({_PAPER_NAME.pattern})", text)}


@dataclass(frozen=True)
class _Test:
    """A test: its file and name, the results that its docstring mentions, and the functions that it uses."""

    name: str
    mentions: set[str]
    uses: set[str]


def _tests(path: pathlib.Path, functions: set[str]) -> list[_Test]:
    """The tests of a file; of the names that each uses, itself or through helpers of the file, those in `functions`."""
    nodes = {
        node.name: node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    direct = {
        name: {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        for name, node in nodes.items()
    }

    def closure(name: str) -> set[str]:
        names, waiting = set[str](), [name]
        while waiting:
            new = direct.get(waiting.pop(), set()) - names
            names |= new
            waiting += new
        return names

    return [
        _Test(f"{path.stem}::{name}", _mentioned(node), closure(name) & functions)
        for name, node in nodes.items()
        if name.startswith("test_")
    ]


def table(rows: list[ConcordanceRow]) -> str:
    """The concordance as an HTML table, every result a link."""
    cells = [
        (
            f'<a href="{row.result.chapter}.html#{row.result.label}">{row.result.name}</a>, '
            f"{html.escape(lower(row.result.short))}",
            ", ".join(row.result.paper) or (row.result.title.partition("; ")[2] if row.result.origin == "ours" else ""),
            "<br>".join(map(_breakable, row.functions)),
            "<br>".join(map(_breakable, row.tests)),
        )
        for row in rows
    ]
    head = "".join(f'<th scope="col">{title}</th>' for title in ("in this book", "in the paper", "in rvlib", "tests"))
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells)
    return f'<table class="table rv-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _breakable(name: str) -> str:
    """A long name as code that may go on in the next line after a dot, a colon or an underscore."""
    breakable = re.sub(r"([._]|::)", r"\1<wbr>", name)
    return f'<code style="white-space: normal">{breakable}</code>'


def lower(title: str) -> str:
    """A title inside a sentence: its first letter small, unless it begins with an abbreviation or a name."""
    keep = title[1:2].isupper() or title.split(" ")[0] in ("Adam", "Best-of-N", "Gaussian")
    return title if keep else title[:1].lower() + title[1:]


@dataclass(frozen=True)
class _Node:
    """Where the box of a result lies in the drawing, in pixels."""

    left: float
    top: int
    width: float

    @property
    def middle(self) -> float:
        """Its middle, across."""
        return self.left + self.width / 2


@dataclass(frozen=True)
class _Layout:
    """The drawing's nodes by label, its chapters, (title, top) each, and its height, in pixels."""

    nodes: dict[str, _Node]
    chapters: list[tuple[str, int]]
    height: int


def _layout(book_results: list[Result]) -> _Layout:
    """The places of the results: a row or more to a chapter."""
    nodes: dict[str, _Node] = {}
    chapters: list[tuple[str, int]] = []
    left, top, chapter = 0.0, 0, None
    for result in book_results:
        width = 20 + 6.6 * len(_caption(result))
        if result.chapter != chapter:
            chapter, left, top = result.chapter, 0.0, top + (_LINE if nodes else 0) + _GAP
            chapters.append((result.chapter_title, top - 10))
        elif left + width > _WIDTH:
            left, top = 0.0, top + _LINE
        nodes[result.label] = _Node(left, top, width)
        left += width + 14
    return _Layout(nodes, chapters, top + _LINE)


def _caption(result: Result) -> str:
    """What stands in a node: the result's number and short name, and its name in the paper."""
    paper = f" (the paper's {', '.join(result.paper)})" if result.paper else ""
    return f"{result.name}, {lower(result.short)}{paper}"


def picture(book_results: list[Result]) -> str:
    """The map as HTML: an SVG in which every result is a link, and arrows run from what is used.

    Pointing at a result shows its own arrows.
    """
    layout = _layout(book_results)
    number = {result.label: i for i, result in enumerate(book_results)}
    rules, edges, nodes = [], [], []
    for i, result in enumerate(book_results):
        node = layout.nodes[result.label]
        for label in result.uses:
            j, used = number[label], layout.nodes[label]
            start, end = used.top + _NODE, node.top
            bend = (start + end) / 2
            if node.top <= used.top:  # beside it or above it: from lower edge to lower edge
                end = node.top + _NODE
                bend = max(start, end) + 12
            edges.append(
                f'<path class="rv-edge f{j} t{i}" d="M{used.middle:.0f} {start}C{used.middle:.0f} {bend:.0f} '
                f'{node.middle:.0f} {bend:.0f} {node.middle:.0f} {end}"/>'
            )
            rules.append(f".rv-map:has(.n{i}:is(:hover,:focus-visible)) .n{j} rect{{stroke-width:3}}")
        rules.append(
            f".rv-map:has(.n{i}:is(:hover,:focus-visible)) .rv-edge:is(.f{i},.t{i}){{opacity:1;stroke-width:2}}"
        )
        nodes.append(
            f'<a class="n{i} rv-{result.origin}" href="{result.chapter}.html#{result.label}">'
            f"<title>{html.escape(f'{result.kind.capitalize()}: {result.title}')}</title>"
            f'<rect x="{node.left:.0f}" y="{node.top}" width="{node.width:.0f}" height="{_NODE}" rx="6"/>'
            f'<text x="{node.left + 10:.0f}" y="{node.top + 18}">{html.escape(_caption(result))}</text></a>'
        )
    chapters = [f'<text class="rv-head" x="0" y="{y}">{html.escape(title)}</text>' for title, y in layout.chapters]
    return (
        f'<div class="rv-map" tabindex="-1"><style>{"".join(rules)}</style><svg role="group" aria-label="Map of the '
        'results; the list below has the same" '
        f'viewBox="-4 0 {_WIDTH + 8} {layout.height}" width="{_WIDTH + 8}" '
        f'height="{layout.height}">{"".join(edges + chapters + nodes)}</svg></div>'
    )


def listing(book_results: list[Result]) -> str:
    """The same as an HTML list: every result with links to the results that its proof uses."""
    by_label = {result.label: result for result in book_results}

    def link(result: Result) -> str:
        return f'<a href="{result.chapter}.html#{result.label}">{html.escape(_caption(result))}</a>'

    items = [
        f"<li>{link(result)}"
        + (f": its proof uses {'; '.join(link(by_label[used]) for used in result.uses)}" if result.uses else "")
        + "</li>"
        for result in book_results
    ]
    return f"<ul>{''.join(items)}</ul>"
