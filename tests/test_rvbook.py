"""What the book's Sphinx extension writes on the page of a notebook, piece by piece; `test_site` opens whole pages."""

import re
import sys

import yaml
from conftest import ROOT

from rvlib import plots

sys.path.insert(0, str(ROOT / "scripts"))
import heads
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
