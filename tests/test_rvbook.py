"""What the book's Sphinx extension writes on the page of a notebook, piece by piece; `test_site` opens whole pages."""

import sys

import yaml
from conftest import ROOT

from rvlib import plots

sys.path.insert(0, str(ROOT / "scripts"))
import rvbook


def test_colab_opens_the_notebook_that_knows_its_repository():
    address = "https://colab.research.google.com/github/owner/name/blob/{}/notebooks/best-of-n.ipynb"
    binder = "https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/best-of-n.ipynb"
    groups = [
        {"label": "search"},
        {
            "label": "launch-buttons",
            "buttons": [{"text": "Binder", "url": binder}, {"text": "Colab", "url": address.format("main")}],
        },
    ]
    rvbook.open_on_colab(groups)
    assert [button["url"] for button in groups[1]["buttons"]] == [binder, address.format(rvbook.COLAB_BRANCH)]
    workflow = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["notebooks"]["steps"]
    assert f"git push --force origin {rvbook.COLAB_BRANCH}\n" in steps[-1]["run"]
    assert "first_cells.py" in steps[-1]["run"] and "RVLIB_REPOSITORY" in steps[-1]["env"]


def test_sliders_without_a_kernel_say_where_there_are_some_that_need_none(monkeypatch):
    monkeypatch.setenv("RVLIB_STATIC", "1")
    figure = plots.drive(
        lambda x=1: plots.histogram({"proxy": [0.0, x]}, value="reward", log_value=False, alt="bars"), x=[1, 2]
    )
    body = f"<p>Before.</p>{figure._repr_mimebundle_()['text/html']}<p>After.</p>"
    named = rvbook.name_chapter(body, "../book/best-of-n.html")
    assert named.count('<a href="../book/best-of-n.html">The chapter</a> has figures whose sliders need none.</p>') == 1
    assert "need a running kernel" in named and named.endswith("<p>After.</p>")
    assert rvbook.name_chapter("<p>No sliders.</p>", "x") == "<p>No sliders.</p>"
