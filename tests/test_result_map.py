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
    assert result_map.listing([first, second]).count("rests on") == 1
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
