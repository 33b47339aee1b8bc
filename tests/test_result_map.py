"""The map of the results is what the chapters say: every labelled result is on it, and no proof is circular."""

import re

import pytest
from conftest import ROOT
from test_site import PAGES

from rvlib import result_map

CHAPTERS = [page.removeprefix("book/") for page in PAGES if page.startswith("book/")]

TEXT = """# One
````{prf:lemma} First; the paper's Lemma 7
:label: lem-first

$$
x
$$ (eq-x)
````

````{prf:proof}
By definition.
````

````{prf:theorem} Second; ours
:label: thm-second
````

````{prf:proof}
{eq}`eq-x`, {prf:ref}`thm-second` and {prf:ref}`elsewhere`.
````
"""


def test_results_are_read_with_what_their_proofs_use(tmp_path):
    (tmp_path / "one.md").write_text(TEXT)
    first, second = result_map.results(tmp_path, ["one"])
    assert (first.short, first.origin, first.uses) == ("First", "paper", [])
    assert (second.short, second.origin, second.uses) == ("Second", "ours", ["lem-first"])
    assert "one.html#lem-first" in result_map.picture([first, second])
    assert result_map.listing([first, second]).count("its proof uses") == 1
    assert (first.name, first.paper, second.name, second.paper) == ("Lemma 1", ("Lemma 7",), "Theorem 1", ())
    (tmp_path / "two.md").write_text(TEXT)
    with pytest.raises(ValueError, match="^label must be given once, got 'lem-first' in one and two\\.$"):
        result_map.results(tmp_path, ["one", "two"])


def test_every_labelled_result_of_the_book_is_on_the_map():
    on_the_map = {result.label for result in result_map.results(ROOT / "book", CHAPTERS)}
    pattern = r"^`{3,}\{prf:(?:" + "|".join(result_map.KINDS) + r")\}[^\n]*\n:label: *(\S+)"
    text = "\n".join((ROOT / f"book/{chapter}.md").read_text() for chapter in CHAPTERS)
    labels = re.findall(pattern, text, re.MULTILINE)
    assert len(labels) == len(set(labels)) and set(labels) == on_the_map
    page = result_map.picture(result_map.results(ROOT / "book", CHAPTERS))
    assert all(f"#{label}" in page for label in labels)


def test_no_proof_goes_round_in_a_circle():
    uses = {result.label: result.uses for result in result_map.results(ROOT / "book", CHAPTERS)}
    while uses:
        ready = [label for label, used in uses.items() if not set(used) & set(uses)]
        assert ready, f"these rest on one another: {sorted(uses)}"
        for label in ready:
            del uses[label]


def test_the_concordance_names_functions_and_tests_by_what_their_sources_say(tmp_path):
    (tmp_path / "one.md").write_text(TEXT)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/module.py").write_text(
        'def bound():\n    """By the paper\'s\n    Lemma 7."""\n\ndef other():\n    """See `thm-second`."""\n'
    )
    (tmp_path / "test_it.py").write_text(
        "def check():\n    bound()\n\ndef test_through_a_helper():\n    check()\n\n"
        'def test_of_both():\n    bound() < other()\n\ndef test_by_its_words():\n    """This is `lem-first`."""\n'
    )
    first, second = result_map.concordance(result_map.results(tmp_path, ["one"]), tmp_path / "package", tests=tmp_path)
    assert first.functions == ("module.bound",) and second.functions == ("module.other",)
    assert first.tests == ("test_it::test_by_its_words", "test_it::test_through_a_helper", "test_it::test_of_both")
    assert second.tests == ("test_it::test_of_both",)
    assert "one.html#lem-first" in result_map.table([first, second])


def test_every_result_that_a_docstring_names_is_in_the_book():
    rows = result_map.concordance(result_map.of_book(ROOT), ROOT / "rvlib", ROOT / "tests")
    labels = {row.result.label for row in rows}
    paths = [*(ROOT / "rvlib").rglob("*.py"), *(ROOT / "tests").glob("test_*.py")]
    text = "\n".join(path.read_text() for path in paths if path.name != "test_result_map.py")
    assert set(re.findall(r"`((?:def|lem|prop|thm|cor)-[\w-]+)`", text)) <= labels
    assert all(row.tests for row in rows if row.result.kind != "definition"), "a result without a test"


BARE = re.compile(r"(?:Theorem|Lemma|Prop\.|Proposition|Def\.|Definition)s? \d+")


def test_the_papers_results_are_always_called_the_papers():
    """A bare "Theorem 4" could be the book's or the paper's: only a reference may print one."""
    for page in PAGES:
        path = ROOT / f"{page}.{'md' if page.startswith('book/') else 'ipynb'}"
        for line in path.read_text(encoding="utf-8").splitlines():
            for name in BARE.finditer(line):
                before = line[max(0, name.start() - 80) : name.start()]
                assert "aper's" in before, f"{page}: {line[max(0, name.start() - 60) : name.end()]}"


def test_the_figures_call_the_books_results_by_their_numbers_and_names():
    named = {result.name: result_map.lower(result.short) for result in result_map.of_book(ROOT)}
    said = [
        (name, short)
        for module in (ROOT / "rvlib/explore/web").glob("*.mjs")
        for name, short in re.findall(r"(Theorem \d+) \(([^)]+)\)", module.read_text(encoding="utf-8"))
    ]
    assert said and all(named[name] == short for name, short in said), said


def test_the_figures_call_the_papers_results_the_papers():
    for module in (ROOT / "rvlib/explore/web").glob("*.mjs"):
        text = module.read_text(encoding="utf-8")
        for name in BARE.finditer(text):
            of_paper = re.search("aper[’']s", text[max(0, name.start() - 80) : name.start()])
            assert of_paper or text[name.end() :].startswith(" ("), f"{module.name}: {name.group()}"
