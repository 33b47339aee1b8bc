"""The built book as a reader meets it: every page in a real browser, served from a sub-path."""

import functools
import html.parser
import itertools
import os
import re
import subprocess
import sys
import urllib.parse

import pytest
import yaml
from browser import served, watched
from conftest import ROOT

from rvlib import result_map

HTML = ROOT / "_build/html"


def toc_files(entry):
    """The pages that a table of contents names, in its order."""
    if isinstance(entry, list):
        return [file for item in entry for file in toc_files(item)]
    named = [entry[key] for key in ("root", "file") if key in entry]
    return named + [file for key in ("parts", "chapters", "sections") for file in toc_files(entry.get(key, []))]


PAGES = toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
EVERY_PAGE = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="module")
def site():
    """The book's address, after building what has changed: `site("book/index")` is a page's."""
    built = subprocess.run(
        [sys.executable, "scripts/build.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-8000:]
    with served(HTML.parent) as address:
        yield lambda name: f"{address}/{HTML.name}/{name}.html"


def open_page(page, address):
    """Open a page and go through it once, so that all that waits to be near the screen is there."""
    page.goto("about:blank")  # so that an address that differs in its fragment alone is opened afresh
    page.goto(address)
    page.evaluate("window.MathJax?.startup.promise")  # a page without mathematics does not load it
    page.evaluate(
        "document.querySelectorAll('article details').forEach(fold => (fold.open = true))"
    )  # some hold figures
    for figure in page.locator(".rv-explorable, .rv-plotly").all():
        figure.scroll_into_view_if_needed()
    page.wait_for_function(
        "document.querySelectorAll('.rv-explorable:not([data-mounted]), .rv-plotly:not([data-drawn])').length === 0"
    )
    settle(page)


def settle(page):
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def drawn(figure):
    """What an explorable shows: its drawing and readouts, not its controls."""
    return figure.evaluate(
        "figure => [...figure.querySelectorAll('svg, canvas, .rv-readouts')].map(e => e.toDataURL?.() ?? "
        "e.outerHTML).join()"
    )


@EVERY_PAGE
def test_a_page_is_whole_and_asks_nobody_else(browser, site, name):
    with watched(
        browser, viewport={"width": 1280, "height": 900}
    ) as page:  # its console empty, no other host, nothing missing
        open_page(page, site(name))
        assert page.locator("h1").count() >= 1
        # Mathematics is typeset, all of it and without an error.
        assert (
            page.evaluate(
                "[...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).map(e => "
                "e.innerText)"
            )
            == []
        )
        assert (
            page.evaluate(
                "[...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map(e => e.parentNode.outerHTML)"
            )
            == []
        )
        # Pictures are there and say what they show; drawings and figures too.
        images = page.evaluate(
            "[...document.images].map(i => [i.currentSrc || i.src, i.alt, i.loading === 'lazy' || i.naturalWidth > 0])"
        )
        assert [source for source, alternative, there in images if not (alternative.strip() and there)] == []
        assert (
            page.evaluate(
                "[...document.querySelectorAll('[role=img]')].filter(e => !e.getAttribute('aria-label')?.trim()).length"
            )
            == 0
        )
        assert (
            page.evaluate(
                "[...document.querySelectorAll('.rv-plotly')].filter(e => !e.querySelector('.main-svg')).length"
            )
            == 0
        )
        # One search box, or the button for one, is in sight.
        assert sum(box.is_visible() for box in page.locator(".search-button__button, input[type=search]").all()) == 1


@EVERY_PAGE
def test_every_slider_changes_its_figure(browser, site, name):
    with watched(browser, viewport={"width": 1280, "height": 900}) as page:
        # At its start, where it stands before the bet, a KL penalty changes nothing yet.
        open_page(page, site(name) + "#race.time=50")
        for figure in page.locator(".rv-explorable").all():
            for slider in figure.locator("input[type=range]").all():
                label, low, at, high = slider.evaluate("s => [s.labels[0].innerText, +s.min, +s.value, +s.max]")
                assert low < high, label
                before = drawn(figure)
                slider.focus()
                page.keyboard.press("PageUp" if at < high else "PageDown")
                settle(page)
                assert drawn(figure) != before, f"{label} of {figure.get_attribute('data-explorable')} changes nothing"
        # Sliders outside an explorable would have nothing that moves them.
        assert page.locator("input[type=range]").count() == page.locator(".rv-explorable input[type=range]").count()


@EVERY_PAGE
def test_nothing_is_wider_than_a_small_screen(browser, site, name):
    with watched(browser, viewport={"width": 360, "height": 740}) as page:
        open_page(page, site(name))
        wide = page.evaluate("""() => [...document.querySelectorAll('article *')].filter(e => {
            if (e.getBoundingClientRect().right <= innerWidth + 1) return false
            for (let a = e; a; a = a.parentElement)  // what scrolls, or is cut off, inside its own box is no overflow
                if (getComputedStyle(a).overflowX !== 'visible' || getComputedStyle(a).position === 'absolute')
                    return false
            return true
        }).map(e => e.outerHTML.slice(0, 200))""")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, wide
        # No note stands beside a proof and takes its room.
        assert (
            page.evaluate(
                "[...document.querySelectorAll('article .proof')].filter(e => e.offsetWidth && e.offsetWidth < "
                "270).map(e => e.innerText.slice(0, 80))"
            )
            == []
        )
        # And where there is no margin yet, notes do not stick out.
        page.set_viewport_size({"width": 1100, "height": 740})
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1100


@EVERY_PAGE
def test_nonsense_in_the_address_gives_the_default_state(browser, site, name):
    with watched(browser) as page:
        open_page(page, site(name))
        figures = page.locator(".rv-explorable")
        keys = figures.evaluate_all(
            "all => all.flatMap(f => JSON.parse(f.dataset.state).controls.map(c => `${f.dataset.explorable}.${c.key}`))"
        )
        default = [drawn(figure) for figure in figures.all()]
        nonsense = zip(keys, itertools.cycle(["NaN", "1e999", "%E0%A4%A", "", "-7e9", "no"]))
        open_page(
            page,
            site(name)
            + "#"
            + "&".join(f"{key}={value}" for key, value in nonsense)
            + "&&=&no.such=thing&no-such-place",
        )
        assert [drawn(figure) for figure in figures.all()] == default


@EVERY_PAGE
def test_no_number_came_out_as_none(browser, site, name):
    """A computed number that is infinite or none is not printed where a number is meant; code may speak of both."""
    with watched(browser) as page:
        open_page(page, site(name))
        words = page.evaluate("""() => {
            const article = document.querySelector('article').cloneNode(true)
            const others = 'pre, code, script, style, .math, .rv-explorable, .rv-plotly'
            article.querySelectorAll(others).forEach(e => e.remove())
            return article.textContent
        }""")
        assert re.findall(r".{0,30}(?<![\w-])(?:inf|nan|NaN)(?![\w-]).{0,30}", words) == []


class Links(html.parser.HTMLParser):
    """The addresses that a page points to, and the places in it that can be pointed to."""

    def __init__(self, path):
        super().__init__()
        self.addresses, self.places = set(), {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key in ("href", "src", "action") and value:
                self.addresses.add(value)
            if key == "id":
                self.places.add(value)


read_links = functools.cache(Links)


@EVERY_PAGE
def test_every_link_within_the_book_leads_somewhere(site, name):
    page = HTML / f"{name}.html"
    broken = []
    for address in read_links(page).addresses:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else page
        if target.is_dir():
            target /= "index.html"
        place = urllib.parse.unquote(parts.fragment)
        if not target.is_file() or (
            target.suffix == ".html" and place not in read_links(target).places and "=" not in place
        ):
            broken.append(address)
    assert broken == []


def test_the_pages_number_the_results_as_the_concordance_does(site):
    """And the first reference to a result in a page says its short name."""
    for result in result_map.of_book(ROOT):
        page = (HTML / f"book/{result.chapter}.html").read_text(encoding="utf-8")
        title = re.search(rf'id="{result.label}">\s*<p class="admonition-title">(.*?)</p>', page, re.DOTALL)
        assert title and re.sub("<[^>]*>", "", title[1]).startswith(f"{result.name} "), result.label
        assert f"#{result.label}" in (HTML / "book/concordance.html").read_text(encoding="utf-8")
    page = (HTML / "book/low-variance-slow-reward.html").read_text(encoding="utf-8")
    assert re.search(r'href="what-makes-a-good-teacher.html#prop-narrow-teacher"[^>]*>Proposition \d+, narrow', page)


def test_the_front_door_leads_into_the_book(browser, site):
    with watched(browser) as page:
        page.goto(site("index"))
        page.wait_for_url("**/" + PAGES[0] + ".html")
