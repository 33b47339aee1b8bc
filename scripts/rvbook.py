"""The book's own Sphinx extension: puts rvlib's web modules among the pages, and keeps them light and quiet.

What it does, and why it cannot be a line of `_config.yml`:
- copies `rvlib/explore/web` to `_static/explore`, so that there is one copy of it in the repository;
- writes the slides of `book/teaching/slides`, and leaves the solutions of exercises out where SOLUTIONS=0 is set, of
  the pages' sources too;
- runs the notebooks again when the code or the data that they use has changed, which a notebook's text does not show;
- runs as many notebooks at a time as the machine has cores, where MyST-NB would run one after the other;
- leads from chapter to chapter, from a notebook back to its chapter and on to the next one, and from sliders that need
  a kernel to those that need none;
- shows formulas without scripts too, as MathML, and says on such a page what stands in place of figures;
- lets a page fetch the modules of its first figure ahead, and asks for what else a page needs after them;
- writes computed numbers with a real minus and powers of ten;
- lets a reader download a notebook with its outputs, and, where the address of the repository is known
  (`repository`), open it on Colab or Binder and suggest an edit of any page;
- leads from a figure's picture, where scripts are off, to the module that computes the figure;
- adds a page for addresses that lead nowhere;
- gives names and roles to what the themes leave without;
- drops the theme's 1.5 MB icon script (its style sheet draws the same icons from a font) and the theme's messages to
  the browser's console, which stays empty unless something is wrong.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import first_cells
import heads
import mathml
import nbformat
import slides
from docutils import nodes
from jupyter_cache import get_cache
from myst_nb.core.execute import create_client
from myst_nb.core.read import create_nb_reader
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.display import status_iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rvlib.typesetting import typeset_text  # the rvlib of this folder, installed or not

# What a notebook's output depends on besides its own cells.
CODE = [
    "rvlib/**/*.py",
    "rvlib/**/*.yaml",
    "rvlib/**/*.json",
    "rvlib/**/*.csv",
    "rvlib/data/results/**/*",
    "requirements-book.txt",
]
# What a page depends on besides its own text and outputs.
WEB = ROOT / "rvlib/explore/web"
STATIC = ["rvlib/explore/web/*", "site_static/**/*", "book/teaching/slides/*", "scripts/*.py", "scripts/templates/**/*"]
# What the themes write, and what stands in its place.
MENDED = [
    # The console stays empty unless something is wrong.
    ('console.log("[PST]: Set focus on search field.");', ""),
    # The words "Show the code" are its name.
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    # The chevron that unfolds a chapter's notebook has no words of its own.
    ('<summary><span class="toctree-toggle"', '<summary aria-label="Its notebook"><span class="toctree-toggle"'),
    # Its text, "Search" and the key for it, is its name.
    ('pst-js-only" title="Search" aria-label="Search"', 'pst-js-only"'),
    # The book's title in the sidebar belongs to a part of the page with a name.
    ('<div id="pst-primary-sidebar" class', '<div id="pst-primary-sidebar" role="region" aria-label="The book" class'),
    # A list has items; the role that docutils gives them is no longer one.
    ('class="citation" id="', 'class="citation" role="listitem" id="'),
    (' role="doc-biblioentry">', ">"),
]
# The branch whose notebooks know their repository: .github/workflows/book.yml writes it, and Colab opens it.
COLAB_BRANCH = "colab"
SLIDERS_NOTE = re.compile(r'(<p class="rv-note rv-sliders">.*?)</p>', re.DOTALL)  # of `rvlib.plots.drive`
# A remote whose address every reader may see and open: no folder of this machine, no name or password in it.
GITHUB = re.compile(r"(https://github\.com/[\w.-]+/[\w.-]+?)(?:\.git)?/?")
SOLUTION = re.compile(
    r"^([`~:]{3,})\{solution\}.*?^\1[ \t]*(?:\n+|\Z)", re.MULTILINE | re.DOTALL
)  # and what is after it
FIGURE = re.compile(r'(<figure class="rv-explorable" data-explorable="(\w+)".*?)(</figcaption></figure>)', re.DOTALL)
EMPTY_HEADER = re.compile(r'<th class="(head[^"]*)">\s*(?:<p>\s*</p>)?\s*</th>')
VERBATIM = (nodes.literal, nodes.math, nodes.math_block, nodes.raw, nodes.FixedTextElement)
NO_SCRIPTS = (
    "Scripts are off in this browser. A figure with sliders is shown as a picture of its first setting, and another "
    "figure as a sentence that says what it shows."
)
# What of the themes' and Sphinx's scripts is written otherwise.
EDITED = {
    # They report each page load; a reader who opens the console should see errors only.
    "scripts/pydata-sphinx-theme.js": ("console.log(", "void("),
    "togglebutton.js": ("console.log(", "void("),
    # What the search shows of a page has each formula once.
    "searchtools.js": ('"script", "style"]', '"script", "style", "math"]'),
}


def fingerprint(patterns: list[str]) -> str:
    """A hash of everything that the patterns find, names included."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def repository() -> str:
    """The repository's address: RVLIB_REPOSITORY, else that of the remote `origin`, if it is on GitHub; or nothing.

    A checkout's own remote counts, not that of a folder around it.
    """
    if "RVLIB_REPOSITORY" in os.environ:
        return os.environ["RVLIB_REPOSITORY"]
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return ""
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    address = GITHUB.fullmatch(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    return address[1] if address else ""


def gather(app: Sphinx, config: Config) -> None:
    """Before anything is read: the generated static files, and a notebook cache that belongs to this code alone."""
    built = pathlib.Path(app.outdir).parent
    static = built / "static"
    shutil.rmtree(static, ignore_errors=True)
    shutil.copytree(WEB, static / "explore")
    config.html_static_path = [*config.html_static_path, str(static)]

    slides.write(static / "slides")
    config.hide_solutions = os.environ.get("SOLUTIONS") == "0"

    config.rvbook_code = fingerprint(CODE)  # registered as "env": Sphinx reads every page again when it changes
    config.rvbook_static = fingerprint(STATIC)  # registered as "html": it writes them again
    cache = built / "notebooks" / config.rvbook_code
    for stale in (built / "notebooks").glob("*"):
        if stale != cache:
            shutil.rmtree(stale)
    config.nb_execution_cache_path = str(cache)

    # Kernels that do not read the reader's own IPython settings, nor warn that they talk to this machine in plain text.
    profile = built / "ipython/profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text('get_config().IPKernelApp.log_level = "ERROR"\n')
    if address := repository():
        config.html_theme_options |= {
            "repository_url": address,
            "repository_branch": "main",
            "use_repository_button": True,
            "use_edit_page_button": True,
            "use_issues_button": True,
            "launch_buttons": {
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
                "notebook_interface": "jupyterlab",
            },
        }
    config.html_baseurl = os.environ.get("RVLIB_BASE_URL", "")  # where the pages will stand, if they say so themselves
    os.environ["IPYTHONDIR"] = str(profile.parent)
    os.environ["RVLIB_STATIC"] = "1"  # figures and explorables show their page form alone: no widget state in the page


def lighten(app: Sphinx) -> None:
    """A template filter that takes the scripts of icons, and of the search, which has its own page, out of a head."""
    unused = re.compile(
        r'<script (?:defer )?src="[^"]*/(?:fontawesome|searchtools|language_data|searchindex)\.js[^"]*"></script>'
    )
    app.builder.templates.environment.filters["without_unused_scripts"] = lambda head: unused.sub("", head)


def read_again(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> set[str]:
    """The map of the results is made from the other chapters' text, which its own does not show."""
    return {"book/map-of-results"} & env.found_docs


def lead_on(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Previous and next are chapters; before a notebook comes its own. Only notebooks open on Colab or Binder."""

    def chapter(start: str, step: int) -> dict[str, str] | None:
        name = app.builder.relations.get(start, [None] * 3)[step]
        while name and name.startswith("notebooks/"):
            name = app.builder.relations[name][step]
        return name and {
            "link": context["pathto"](name),
            "title": app.builder.render_partial(app.env.titles[name])["title"],
        }

    if page in app.builder.relations:
        context["prev"], context["next"] = chapter(page, 1), chapter(page, 2)
    if not page.startswith("notebooks/"):
        context["header_buttons"] = [
            button for button in context["header_buttons"] if button["label"] != "launch-buttons"
        ]
        return
    open_on_colab(context["header_buttons"])
    chapter_page = page.replace("notebooks/", "book/")
    if "rvlib.explore" in pathlib.Path(app.env.doc2path(chapter_page)).read_text(encoding="utf-8"):
        context["body"] = name_chapter(context["body"], context["pathto"](chapter_page))


def open_on_colab(groups: list[dict[str, Any]]) -> None:
    """Let Colab's button, among a page's groups of buttons, lead to the notebook that knows its repository."""
    for button in (button for group in groups for button in group.get("buttons", ())):
        if button.get("text") == "Colab":
            button["url"] = button["url"].replace("/blob/main/", f"/blob/{COLAB_BRANCH}/")


def name_chapter(body: str, link: str) -> str:
    """A notebook's page, whose notes on sliders name its chapter, a page that has figures with sliders at `link`."""
    return SLIDERS_NOTE.sub(rf'\1 <a href="{link}">The chapter</a> has figures whose sliders need none.</p>', body)


def typeset(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Numbers in the text as in the figures: −0.76, not -0.76, also where a program computed them."""
    for text in list(doctree.findall(nodes.Text)):
        if isinstance(text.parent, VERBATIM) or (better := typeset_text(text)) == text:
            continue
        text.parent.replace(text, nodes.Text(better))


def without_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """For readers without scripts: a sentence above a page that has figures, and links to the code of the figures."""
    body = context.get("body", "")

    def with_code(figure: re.Match[str]) -> str:
        module = context["pathto"](f"_static/explore/{figure[2]}.mjs", 1)
        return f'{figure[1]}<noscript> <a href="{module}">Code of this figure</a></noscript>{figure[3]}'

    if "rv-explorable" in body or "rv-plotly" in body:
        body = FIGURE.sub(with_code, body)
        context["body"] = f'<noscript><p class="rv-note">{NO_SCRIPTS}</p></noscript>{body}'


@functools.cache
def with_imports(module: str) -> frozenset[str]:
    """A module of the figures, and all that it imports."""
    source = (WEB / module).read_text(encoding="utf-8")
    imports = re.findall(r'^import\b[^"]*"\./([\w-]+\.mjs)"', source, re.MULTILINE)
    return frozenset({module}).union(*map(with_imports, imports))


def fetch_ahead(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """The modules of a page's first figure are fetched with the page, and not each when another has asked for it."""
    if first := re.search(r'data-explorable="([\w-]+)"', context.get("body", "")):
        context["modules"] = sorted(with_imports(f"{first[1]}.mjs") | with_imports("mount.mjs") - {"mount.mjs"})


def page_not_found(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The page that a host shows for an address that leads nowhere; its links count from the book's own address."""
    yield "404", {"title": "Page not found", "base": app.config.html_baseurl or "/"}, "404.html"


def drop_widgets(app: Sphinx, env: BuildEnvironment) -> None:
    """A page has no widget manager, so it needs no copy of the notebook's widgets either (0.1 MB and more a page)."""
    for page in env.nb_metadata.values():
        page.get("js_files", {}).pop("ipywidgets_state", None)


def make_way(app: Sphinx, builder: Builder) -> None:
    """Sphinx refuses to copy its scripts over others, which those that we edited in the last build are."""
    for name in EDITED:
        pathlib.Path(app.outdir, "_static", name).unlink(missing_ok=True)


def edit_scripts(app: Sphinx, exception: Exception | None) -> None:
    """Edit the scripts of others (`EDITED`)."""
    if exception is None:
        for name, (written, better) in EDITED.items():
            script = pathlib.Path(app.outdir, "_static", name)
            script.write_text(script.read_text(encoding="utf-8").replace(written, better), encoding="utf-8")


class Quiet(logging.LoggerAdapter):
    """A logger that takes what MyST-NB says of a notebook and passes nothing on."""

    def log(self, *_: Any, **__: Any) -> None:
        """Say nothing."""


def run_notebooks(app: Sphinx, env: Any, docnames: list[str]) -> None:
    """Run the notebooks of the pages that will be read, several at a time; reading finds their outputs in the cache.

    A notebook that fails is left to the reading of its page, which runs it again and says what is wrong.
    """
    workers = os.cpu_count() or 1
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each kernel, since they share the cores

    def run(docname: str) -> str:
        path = env.doc2path(docname)
        text = pathlib.Path(path).read_text(encoding="utf-8")
        reader = create_nb_reader(path, env.myst_config, env.mystnb_config, text)
        notebook = reader and reader.read(text)
        if notebook and "mystnb" not in notebook.metadata:  # a page that says itself how it is run is not kept
            quiet = Quiet(logging.getLogger(__name__))
            with (
                contextlib.suppress(Exception),
                create_client(notebook, path, env.mystnb_config, quiet, reader.read_fmt),
            ):
                pass
        return docname

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        # The notebooks take longer than the chapters, and come first.
        runs = [pool.submit(run, docname) for docname in sorted(docnames, reverse=True)]
        finished = (future.result() for future in concurrent.futures.as_completed(runs))
        for _ in status_iterator(finished, "running notebooks... ", "brown", len(runs), app.verbosity):
            pass


def mend(app: Sphinx, exception: Exception | None) -> None:
    """Mend what the themes write (`MENDED`), put the head in its order, and add the formulas' MathML.

    A page that is mended stays as it is.
    """
    html = pathlib.Path(app.outdir)
    for page in html.rglob("*.html"):
        text = mended = page.read_text(encoding="utf-8")
        for written, better in MENDED:
            mended = mended.replace(written, better)
        mended = EMPTY_HEADER.sub(r'<td class="\1"></td>', mended)  # a corner without words heads nothing
        mended = mathml.beside_tex(heads.figure_first(mended, html / "_static"))
        if mended != text:
            page.write_text(mended, encoding="utf-8")


def give_outputs(app: Sphinx, exception: Exception | None) -> None:
    """What the download button of a notebook's page gives is the notebook as it ran, with its outputs."""
    runs = get_cache(app.config.nb_execution_cache_path)
    for download in pathlib.Path(app.outdir, "_sources/notebooks").glob("*.ipynb"):
        notebook = nbformat.read(pathlib.Path(app.srcdir, "notebooks", download.name), as_version=4)
        ran = runs.merge_match_into_notebook(notebook)[1]
        named = first_cells.with_first_cell(ran, repository())
        nbformat.write(nbformat.from_dict(named), download)


def leave_solutions_out(app: Sphinx, exception: Exception | None) -> None:
    """Where SOLUTIONS=0 is set, the sources and notebooks that a page gives have no solutions either."""
    if not app.config.hide_solutions:
        return
    sources = pathlib.Path(app.outdir, "_sources")
    for page in sources.rglob("*.md"):
        page.write_text(SOLUTION.sub("", page.read_text(encoding="utf-8")), encoding="utf-8")
    for download in sources.rglob("*.ipynb"):
        notebook = json.loads(download.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            cell["source"] = SOLUTION.sub("", "".join(cell["source"]))
        download.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls to load the extension."""
    app.add_config_value("rvbook_code", "", "env")
    app.add_config_value("rvbook_static", "", "html")
    # Jupyter Book sets this one for an extension that the book leaves out.
    app.add_config_value("comments_config", {}, "html")
    app.config.templates_path.append(str(ROOT / "scripts/templates"))
    app.connect("config-inited", gather)
    app.connect("builder-inited", lighten)
    app.connect("env-get-outdated", read_again)
    app.connect("env-before-read-docs", run_notebooks)
    app.connect("env-updated", drop_widgets)
    app.connect("html-page-context", lead_on, priority=900)  # after the theme's own buttons
    app.connect("html-page-context", without_scripts)
    app.connect("html-page-context", fetch_ahead)
    app.connect("doctree-resolved", typeset)
    app.connect("html-collect-pages", page_not_found)
    app.connect("write-started", make_way)
    app.connect("build-finished", edit_scripts)
    app.connect("build-finished", mend, priority=900)  # after the theme's own style sheets are there
    app.connect("build-finished", give_outputs)
    app.connect("build-finished", leave_solutions_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
