"""The book's second Sphinx extension: a reference to a result says its short name as well as its number.

The search finds a result by that name before the pages that mention it.

sphinx-proof writes "Theorem 2" for a reference. A reader does not remember which theorem that is, so the first
reference to a result in a page becomes "Theorem 2 (slow reward)", and every reference shows the whole title when it is
pointed at. Titles come from `rvlib.result_map`, which reads the chapters.
"""

import pathlib
import re
import sys

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util.index_entries import split_index_msg

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rvlib import result_map  # the rvlib of this folder, installed or not

_NUMBERED = re.compile(r"(?:Definition|Lemma|Proposition|Theorem|Corollary) \d+")


# What else a reader looks up, as the search reads it (site_static/site.mjs), and the result that defines it.
SYMBOLS = {"def-policy": ["pi"], "def-objective": ["lambda"], "def-time-to-gain": ["t_ gamma", "gamma"]}


class Indexed(SphinxTransform):
    """Each result is an entry of the index, which the search looks up, under its short name and its symbols."""

    default_priority = 840  # before entries are collected

    def apply(self, **kwargs: object) -> None:
        """Put an entry before each result of the page."""
        results = {result.label: result for result in self.env.rvnames_results}
        for node in list(self.document.findall(nodes.Element)):
            for label in results.keys() & set(node.get("ids", [])):
                names = [result_map.lower(results[label].short), *SYMBOLS.get(label, [])]
                entries = [("single", name, label, "main", None) for name in names]
                place = node.parent.index(node)
                node.parent.insert(place, addnodes.index(entries=entries, inline=False))


def name_results(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Add short names and titles to the references of a page, after sphinx-proof has resolved them."""
    results = {result.label: result for result in app.env.rvnames_results}
    named: set[str] = set()
    for reference in doctree.findall(nodes.reference):
        label = reference.get("refid") or reference.get("refuri", "").rpartition("#")[2]
        if label not in results or not _NUMBERED.fullmatch(reference.astext()):
            continue
        result = results[label]
        reference["reftitle"] = f"{result.name}: {result.title}"
        if label not in named:
            named.add(label)
            before = _text_before(reference)
            inside = before.count("(") > before.count(")")
            name = result_map.lower(result.short)
            reference += nodes.Text(f", {name}" if inside else f" ({name})")


def _text_before(node: nodes.Node) -> str:
    """The text of the same paragraph or cell before a node."""
    siblings = node.parent.children
    return "".join(sibling.astext() for sibling in siblings[: siblings.index(node)])


def read_results(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Before pages are read: the results of all chapters."""
    env.rvnames_results = result_map.of_book(ROOT)


def keep_search_entries(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """The search's entries of pages that stay: Sphinx reads all of the last build's index back but these."""
    for page, entries in env.get_domain("index").entries.items():
        kept = {
            (part, target or "", main)
            for kind, value, target, main, _ in entries
            for part in split_index_msg(kind, value)
        }
        env._search_index_index_entries.setdefault(page, sorted(kept))
    return []


def write_again(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """All pages are written again when a name or a number of a result has changed."""
    names = [(result.label, result.name, result.title) for result in env.rvnames_results]
    changed = getattr(env, "rvnames_written", None) != names
    env.rvnames_written = names
    return sorted(env.found_docs) if changed else []


def read_again(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> set[str]:
    """The concordance is made from other files, which its own text does not show."""
    return {"book/concordance"} & env.found_docs


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls to load the extension."""
    app.connect("env-before-read-docs", read_results)
    app.connect("env-get-outdated", read_again)
    app.connect("env-updated", keep_search_entries)
    app.connect("env-updated", write_again)
    app.connect("doctree-resolved", name_results)
    app.add_transform(Indexed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
