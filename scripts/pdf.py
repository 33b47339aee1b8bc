"""Print the built book as one PDF by a browser: python scripts/pdf.py [file, by default _build/book.pdf].

The chapters are put one after another into one page, which the book's own scripts bring to life and which is printed.
"""

import pathlib
import re
import sys

from playwright.sync_api import sync_playwright

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from browser import served
from conftest import BROWSER_FLAGS, NO_BROWSER, find_browser
from test_site import PAGES

HTML = ROOT / "_build/html"
ARTICLE = re.compile(r'<article class="bd-article">.*?</article>', re.S)
CONTENTS = re.compile(r'(<div id="jb-print-toc">.*?)<nav.*?</nav>', re.S)  # those of the first page
TYPESET = "[...document.querySelectorAll('.math')].every(e => e.querySelector('mjx-container, mjx-merror'))"


def whole_book() -> str:
    """One page with all chapters: the first page's, its article replaced by those of all, each from a new sheet."""
    articles, contents = [], []
    for name in (name for name in PAGES if name.startswith("book/")):
        text = (HTML / f"{name}.html").read_text(encoding="utf-8")
        article, slug = ARTICLE.search(text)[0], name.removeprefix("book/")
        # Places of the same name in two chapters stay apart, and a link to another chapter leads to its place here.
        article = re.sub(r'\bid="([^"]+)"', rf'id="{slug}--\1"', article)
        article = re.sub(r'\bhref="#([^"]*)"', rf'href="#{slug}--\1"', article)
        article = re.sub(r'\bhref="([\w-]+)\.html#([^"]+)"', r'href="#\1--\2"', article)
        article = re.sub(r'\bhref="([\w-]+)\.html"', r'href="#\1"', article)
        title = re.search(r"<h1>(.*?)<a ", article, re.S)[1]
        contents.append(f'<li><a href="#{slug}">{title}</a></li>')
        articles.append(f'<div id="{slug}" style="break-before: page">{article}</div>')
    shell = (HTML / f"{PAGES[0]}.html").read_text(encoding="utf-8")
    shell = CONTENTS.sub(lambda match: f"{match[1]}<ul>{''.join(contents)}</ul>", shell, count=1)
    return ARTICLE.sub(lambda _: "".join(articles), shell, count=1)


def main(file: str | pathlib.Path = ROOT / "_build/book.pdf") -> None:
    """Write the page beside the chapters, print it, and take it away again."""
    page_file = HTML / "book/whole-book.html"
    page_file.write_text(whole_book(), encoding="utf-8")
    try:
        with served(HTML) as address, sync_playwright() as playwright:
            path = find_browser(playwright) or sys.exit(NO_BROWSER)
            browser = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
            page = browser.new_page(viewport={"width": 900, "height": 1200}, color_scheme="light")
            page.goto(f"{address}/book/whole-book.html")
            # A fold cannot be opened on paper; and a figure in one comes to life only when it is opened and seen.
            page.evaluate("document.querySelectorAll('article details').forEach(fold => (fold.open = true))")
            page.wait_for_function(TYPESET, timeout=600_000)  # what follows does not move any more
            for figure in page.locator(".rv-explorable").element_handles():
                figure.scroll_into_view_if_needed()
                page.wait_for_function("figure => 'mounted' in figure.dataset", arg=figure)
            page.wait_for_function("!document.querySelector('.rv-plotly:not([data-drawn])')", timeout=600_000)
            page.pdf(path=file, format="A4", margin=dict.fromkeys(("top", "bottom", "left", "right"), "18mm"))
            browser.close()
    finally:
        page_file.unlink()
    print("Printed", file)


if __name__ == "__main__":
    main(*sys.argv[1:2])
