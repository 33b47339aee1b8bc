"""What the book's Sphinx extension writes on the page of a notebook, piece by piece; `test_site` opens whole pages."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from rvlib import plots

sys.path.insert(0, str(ROOT / "scripts"))
import heads
import rvbook

CHAPTER = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A chapter

## A section

A sentence.

````{exercise}
:label: ex-shown

What is asked?
````

````{solution} ex-shown
:class: dropdown

The marmalade, since

```python
marmalade = 1
```
````

The end.

```{code-cell} ipython3
from rvlib.explore import Dial

Dial()
```
"""
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "id": "words", "metadata": {}, "source": ["# A notebook\n", "\n", "A sentence."]},
        {"cell_type": "code", "id": "sum", "metadata": {}, "execution_count": None, "outputs": [], "source": ["1 + 1"]},
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture(scope="module")
def small_book(tmp_path_factory):
    """The pages of a chapter and its notebook, built as the book is, without solutions, for a repository."""
    folder = tmp_path_factory.mktemp("book")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["html"]["favicon"] = str(ROOT / "site_static/favicon.svg")
    config["sphinx"]["local_extensions"] = {"rvbook": str(ROOT / "scripts"), "rvnames": str(ROOT / "scripts")}
    config["sphinx"]["config"] |= {
        "html_static_path": [str(ROOT / "site_static")],
        "html_search_scorer": str(ROOT / "site_static/scorer.js"),
        "bibtex_bibfiles": [str(ROOT / "book/references.bib")],
    }
    toc = {"format": "jb-book", "root": "book/one", "chapters": [{"file": "notebooks/one"}]}
    for name, text in {
        "_config.yml": yaml.safe_dump(config),
        "_toc.yml": yaml.safe_dump(toc),
        "book/one.md": CHAPTER,
        "notebooks/one.ipynb": json.dumps(NOTEBOOK),
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    built = subprocess.run(
        [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "SOLUTIONS": "0", "RVLIB_REPOSITORY": "https://github.com/owner/name"},
    )
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-8000:]
    return folder / "_build/html"


def test_no_file_of_a_book_without_solutions_holds_one(small_book):
    files = [path for path in small_book.rglob("*") if path.is_file()]
    assert {"one.html", "one.md", "one.ipynb", "searchindex.js"} <= {path.name for path in files}
    assert [path for path in files if b"marmalad" in path.read_bytes().lower()] == []  # the search has a word's stem
    for name in ("book/one.html", "_sources/book/one.md", "_sources/book/one.ipynb"):
        text = (small_book / name).read_text(encoding="utf-8")
        assert "What is asked?" in text and "The end." in text


def test_pages_and_notebooks_lead_to_their_repository(small_book):
    names = ("book/one.html", "notebooks/one.html")
    page, notebook = ((small_book / name).read_text(encoding="utf-8") for name in names)
    repository = "https://github.com/owner/name"
    for text, file in ((page, "book/one.md"), (notebook, "notebooks/one.ipynb")):
        for address in (repository, f"{repository}/edit/main/{file}"):
            assert f'href="{address}"' in text
        assert f'href="{repository}/issues/new?' in text
    colab = f"https://colab.research.google.com/github/owner/name/blob/{rvbook.COLAB_BRANCH}/notebooks/one.ipynb"
    binder = "https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/one.ipynb"
    assert all(f'href="{address}"' in notebook and f'href="{address}"' not in page for address in (colab, binder))
    given = json.loads((small_book / "_sources/notebooks/one.ipynb").read_text(encoding="utf-8"))
    assert f'repository = "{repository}"' in "".join(given["cells"][1]["source"])
    assert "".join(given["cells"][2]["outputs"][0]["data"]["text/plain"]) == "2"


def test_without_scripts_a_figure_leads_to_its_code(small_book):
    page = (small_book / "book/one.html").read_text(encoding="utf-8")
    link = re.search(r'<noscript> <a href="([^"]+)">Code of this figure</a></noscript></figcaption></figure>', page)
    module = (small_book / "book" / link[1]).read_text(encoding="utf-8")
    assert module == (ROOT / "rvlib/explore/web/dial.mjs").read_text(encoding="utf-8")


def test_the_book_is_printed_as_one_pdf(small_book, browser, tmp_path):
    """`scripts/pdf.py`, as a process of its own; `browser` skips where there is none."""
    file = tmp_path / "book.pdf"
    program = f"""import pathlib, sys
sys.path.insert(0, "scripts")
import pdf
pdf.HTML, pdf.PAGES = pathlib.Path({str(small_book)!r}), ["book/one"]
pdf.main({str(file)!r})"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert printed.returncode == 0 and str(file) in printed.stdout, printed.stderr[-4000:]
    content = file.read_bytes()
    assert content.startswith(b"%PDF") and content.count(b"/Type /Page\n") >= 1
    assert not (small_book / "book/whole-book.html").exists()


@pytest.mark.parametrize(
    "origin, address",
    [
        ("https://github.com/owner/name.git", "https://github.com/owner/name"),
        ("https://github.com/owner/a.name/", "https://github.com/owner/a.name"),
        ("https://user:secret@github.com/owner/name.git", ""),
        ("https://secret@github.com/owner/name", ""),
        ("git@github.com:owner/name.git", ""),
        ("../name", ""),
        ("file:///name", ""),
        ("https://git.example.org/owner/name", ""),  # the theme knows no address of an edit there
        (None, ""),
    ],
)
def test_the_repository_is_the_origin_that_a_reader_can_open(origin, address, tmp_path, monkeypatch):
    monkeypatch.delenv("RVLIB_REPOSITORY", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # which may write another address in place of one
    monkeypatch.setattr(rvbook, "ROOT", tmp_path / "book")
    subprocess.run(["git", "init", "-q", str(tmp_path / "book")], check=True)
    if origin:
        subprocess.run(["git", "-C", str(tmp_path / "book"), "remote", "add", "origin", origin], check=True)
    assert rvbook.repository() == address
    (tmp_path / "book/inside").mkdir()
    monkeypatch.setattr(rvbook, "ROOT", tmp_path / "book/inside")
    assert rvbook.repository() == ""
    for named in ("https://github.com/other/name", ""):
        monkeypatch.setenv("RVLIB_REPOSITORY", named)
        assert rvbook.repository() == named


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


def test_nothing_stands_in_the_way_of_the_first_figure(tmp_path):
    """The head asks for one style sheet; the figure's scripts come first, and all that are files after the text."""
    for name, text in {
        "basic.css": "p { margin: 0; }",
        "styles/theme.css": '@charset "UTF-8";\n@import "../basic.css";\na { background: url(../file.png); }',
        "site.css": '@font-face { src: url("vendor/sans.woff2"); }\nb { background: url("data:image/png;base64,"); }',
        "documentation_options.js": "const DOCUMENTATION_OPTIONS = {};",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    head = """<head>
        <link href="../_static/styles/theme.css?digest=1" rel="stylesheet" />
        <link rel="stylesheet" type="text/css" href="../_static/site.css?v=2" />
        <link rel="preload" as="script" href="../_static/scripts/bootstrap.js" />
        <script src="../_static/documentation_options.js?v=3"></script>
        <script src="../_static/copybutton.js?v=4"></script>
        <script type="module" src="../_static/mathjax.mjs"></script>
        <script>DOCUMENTATION_OPTIONS.pagename = "book/dial";</script>
        <script type="module" src="../_static/explore/mount.mjs?v=5"></script>
        {}</head>"""
    page = head + '<body><figure data-explorable="dial"></figure><figure data-explorable="race"></figure></body>'
    mended = heads.figure_first(page.replace("{}", ""), tmp_path)
    links = re.findall(r'<link[^>]*href="../_static/([^"?]+)', mended)
    scripts = re.findall(r"<script([^>]*)>", mended)
    assert links == ["book.css"]
    assert [re.sub(r'.*_static/|[?"].*', "", script) for script in scripts] == [
        *("", ""),
        *("explore/dial.mjs", "explore/mount.mjs", "mathjax.mjs", "copybutton.js"),
    ]
    assert mended.index("const DOCUMENTATION_OPTIONS") < mended.index(".pagename") < mended.index("book.css")
    assert all("module" in script or "defer" in script for script in scripts if "src=" in script)
    assert [("blocking" in script) for script in scripts] == [False, False, True, True, False, False]
    css = (tmp_path / "book.css").read_text(encoding="utf-8")
    assert "p { margin: 0; }" in css.partition('url("file.png")')[0]
    assert 'url("file.png")' in css and 'url("vendor/sans.woff2")' in css and 'url("data:image/png;base64,")' in css
    assert css.count("@charset") == 1 and "@import" not in css
    assert heads.figure_first(mended, tmp_path) == mended
    search = page.replace("{}", '<script src="../_static/searchtools.js"></script>')
    assert heads.figure_first(search, tmp_path) == search
