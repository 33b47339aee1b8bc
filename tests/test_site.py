"""The built book as a reader meets it: every page in a real browser, served from a sub-path."""

import dataclasses
import functools
import gzip
import hashlib
import html.parser
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

import plotly
import pytest
import yaml
from browser import listen, served, watched
from conftest import ROOT

from rvlib import result_map

sys.path.insert(0, str(ROOT / "scripts"))
from offline import NAME, pack  # noqa: E402

HTML = ROOT / "_build/html"


def toc_files(entry):
    """The pages that a table of contents names, in its order."""
    if isinstance(entry, list):
        return [file for item in entry for file in toc_files(item)]
    named = [entry[key] for key in ("root", "file") if key in entry]
    return named + [file for key in ("parts", "chapters", "sections") for file in toc_files(entry.get(key, []))]


PAGES = toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
CHAPTERS = [name for name in PAGES if re.fullmatch("book/[^/]+", name)]
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
    page.evaluate(UNFOLD)  # some hold figures
    page.wait_for_function(TYPESET)
    for figure in page.locator(".rv-explorable, .rv-plotly").all():
        figure.scroll_into_view_if_needed()
    page.wait_for_function(ALIVE)
    page.evaluate(UNFOLD)  # and figures hold controls
    settle(page)


UNFOLD = "document.querySelectorAll('article details').forEach(fold => (fold.open = true))"


def settle(page):
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


# Every formula has been typeset; a page without mathematics is ready at once.
TYPESET = "[...document.querySelectorAll('.math')].every(e => e.querySelector('mjx-container, mjx-merror'))"

ALIVE = "!document.querySelector('.rv-explorable:not([data-mounted]), .rv-plotly:not(:has(.main-svg))')"

# What each explorable shows: its drawing and readouts, not its controls.
DRAWN = """[...document.querySelectorAll('.rv-explorable')].map(figure =>
    [...figure.querySelectorAll('svg, canvas, .rv-readouts')].map(e => e.toDataURL?.() ?? e.outerHTML).join())"""

# What a reader of the whole page would stumble over.
PAGE = """() => {
    const all = (selector, wrong) => [...document.querySelectorAll(selector)].filter(wrong)
    const loaded = i => i.loading === 'lazy' || i.naturalWidth > 0
    const article = document.querySelector('article').cloneNode(true)
    article.querySelectorAll('pre, code, script, style, .math, .rv-explorable, .rv-plotly').forEach(e => e.remove())
    return {
        title: document.querySelector('h1')?.innerText ?? '',
        formulas_with_errors: all('mjx-merror, [data-mjx-error]', e => true).map(e => e.parentNode.outerHTML),
        pictures_missing_or_without_words: [...document.images]
            .filter(i => !(i.alt.trim() && loaded(i))).map(i => i.currentSrc || i.src),
        drawings_without_words: all('[role=img]', e => !e.getAttribute('aria-label')?.trim()).map(e => e.outerHTML),
        figures_not_drawn: all('.rv-plotly', e => !e.querySelector('.main-svg')).length,
        search_boxes: all('.search-button__button, input[type=search]', e => e.checkVisibility()).length,
        sliders_outside_figures: all('input[type=range]', e => !e.closest('.rv-explorable')).length,
        // A computed number that is infinite or none is not printed where a number is meant; code may speak of both.
        not_a_number: article.textContent.match(/.{0,30}(?<![\\w-])(?:inf|nan|NaN)(?![\\w-]).{0,30}/g) ?? [],
    }
}"""
SOUND = {
    "formulas_with_errors": [],
    "pictures_missing_or_without_words": [],
    "drawings_without_words": [],
    "figures_not_drawn": 0,
    "search_boxes": 1,  # or the button for one
    "sliders_outside_figures": 0,
    "not_a_number": [],
}

# Titles, legends, numbers and notes of plots that reach out of their box; what a pointer shows comes and goes.
CUT_OFF = """[...document.querySelectorAll('.rv-plotly text')].filter(e => {
    const [text, box] = [e, e.closest('.rv-plotly')].map(x => x.getBoundingClientRect())
    return text.width && !e.closest('.hoverlayer') && (text.left < box.left - 2 || text.right > box.right + 2 ||
        text.top < box.top - 2 || text.bottom > box.bottom + 2)
}).map(e => `${innerWidth}: ${e.textContent}`)"""
# Figures that do not fit a screen of this height, from the picture to the main controls, where a link leads to them.
UNFIT = """height => [...document.querySelectorAll('.rv-explorable')].filter(figure => {
    figure.scrollIntoView()
    const [buttons, picture, controls] = ['.bd-header-article', '.rv-svg', '.rv-controls']
        .map((name, i) => (i ? figure : document).querySelector(name).getBoundingClientRect())
    return picture.top < buttons.bottom - 1 || controls.bottom > height
}).map(figure => `${innerWidth}: ${figure.id}`)"""
TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [
    `${document.documentElement.scrollWidth} pixels`, ...[...document.querySelectorAll('article *')].filter(e => {
        if (e.getBoundingClientRect().right <= innerWidth + 1) return false
        for (let a = e; a; a = a.parentElement)  // what scrolls, or is cut off, inside its own box is no overflow
            if (getComputedStyle(a).overflowX !== 'visible' || getComputedStyle(a).position === 'absolute') return false
        return true
    }).map(e => e.outerHTML.slice(0, 200))]"""
# Displayed formulas break into lines that are no longer than the column, so that none has to be scrolled.
FORMULAS_TOO_LONG = """[...document.querySelectorAll('div.math mjx-container')]
    .filter(e => e.scrollWidth > e.clientWidth).map(e => e.parentNode.id + e.innerText.slice(0, 80))"""
# No note stands beside a proof and takes its room.
SQUEEZED = """[...document.querySelectorAll('article .proof')].filter(e => e.offsetWidth && e.offsetWidth < 270)
    .map(e => e.innerText.slice(0, 80))"""
CONTROLS = """[...document.querySelectorAll('.rv-explorable')].flatMap(f =>
    JSON.parse(f.dataset.state).controls.map(c => `${f.dataset.explorable}.${c.key}`))"""
# What axe finds amiss, in a line each. A table's header that is a formula is read from its MathML, which axe does not
# take for text.
BARRIERS = """async rules => (await axe.run(document, {resultTypes: ['violations'], elementRef: true, ...rules}))
    .violations.flatMap(rule => rule.nodes
        .filter(node => rule.id !== 'empty-table-header' || !node.element.querySelector('mjx-assistive-mml'))
        .map(node => `${rule.id}: ${node.html.slice(0, 160)} ${node.any.map(check => check.message).join(' ')}`))"""
AXE = ROOT / "node_modules/axe-core/axe.min.js"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
LOW = 800  # pixels of a wide screen that is not high


def in_its_own_typeface(context):
    """Let pages wait for the book's typeface, so that no line breaks elsewhere because it came too late for one."""

    def patient(route):
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace("font-display: optional", "font-display: block"))

    context.route("**/book.css*", patient)


@functools.cache
def compressed(file):
    """Bytes that a host sends for a file: fonts and pictures are compressed as they are."""
    data = file.read_bytes()
    return len(data) if file.suffix in (".woff2", ".png") else len(gzip.compress(data, 6))


@dataclasses.dataclass(frozen=True)
class Visit:
    """What two visits to a page saw: one on a wide screen, one on a telephone by a link that is nonsense."""

    troubles: list[str]  # words in the console, errors, requests to other hosts, on either visit
    page: dict
    weight: int  # compressed bytes of all that the page asks for
    dead_sliders: list[str]  # those that change nothing in their figure
    cut_off: list[str]  # words of plots, on either screen
    unfit: list[str]  # figures that do not fit either screen
    too_wide: list[str]  # on the telephone, and at 1100 pixels, where notes have no margin yet
    squeezed_proofs: list[str]
    barriers: list[str] | None  # what axe finds, in either mode; None where it is not installed
    at_start: list[str]  # each figure's drawing
    after_nonsense: list[str]  # the same, by the link that is nonsense


def dead_sliders(page):
    """The sliders of a page that change nothing in their figure when they are moved by the keyboard."""
    # At its start, where it stands before the bet, a KL penalty changes nothing yet.
    if page.locator("[data-explorable=race]").count():
        page.evaluate("location.hash = 'race.time=50'")
        settle(page)
    dead = []
    drawn = page.evaluate(DRAWN)
    for slider in page.locator(".rv-explorable input[type=range]").all():
        figure, label, key = slider.evaluate("""s => {
            s.focus()
            const figure = s.closest('.rv-explorable')
            return [figure.dataset.explorable, s.labels[0].innerText, +s.value < +s.max ? 'PageUp' : 'PageDown']
        }""")
        if slider.is_disabled():  # which says beside it why it changes nothing
            continue
        page.keyboard.press(key)
        settle(page)
        before = drawn
        for _ in range(50):  # what takes longer than a frame is drawn when it is there
            drawn = page.evaluate(DRAWN)
            if drawn != before:
                break
            page.wait_for_timeout(100)
        else:
            dead.append(f"{figure}: {label}")
    return dead


def barriers(page):
    """What axe finds amiss on a page: all of it on the light one, and the contrast of colours on the dark one too."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    page.emulate_media(reduced_motion="reduce")  # so that no colour is on its way from one to another
    settle(page)
    violations = page.evaluate(BARRIERS, {})
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    settle(page)
    violations += page.evaluate(BARRIERS, {"runOnly": ["color-contrast"]})
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    settle(page)
    return violations


@pytest.fixture(scope="module")
def visit(browser, site):
    """`visit(name)` is what a reader meets on a page, looked at once for all tests that ask."""
    context = browser.new_context(viewport=WIDE)  # one, so that the scripts are fetched and compiled once
    in_its_own_typeface(context)
    tab = context.new_page()
    troubles = listen(tab)
    requested = set()
    tab.on("request", lambda request: requested.add(urllib.parse.urlsplit(request.url).path))

    @functools.cache
    def look(name):
        troubles.clear()
        requested.clear()
        tab.set_viewport_size(WIDE)
        open_page(tab, site(name))
        page, controls, at_start = tab.evaluate(PAGE), tab.evaluate(CONTROLS), tab.evaluate(DRAWN)
        files = [HTML.parent / path.lstrip("/") for path in requested]
        weight = sum(compressed(file) for file in files if file.is_file())
        cut_off, unfit = tab.evaluate(CUT_OFF), tab.evaluate(UNFIT, LOW)
        violations = barriers(tab) if AXE.is_file() else None
        dead = dead_sliders(tab)

        nonsense = zip(controls, itertools.cycle(["NaN", "1e999", "%E0%A4%A", "", "-7e9", "no"]))
        fragment = "&".join(f"{key}={value}" for key, value in nonsense) + "&&=&no.such=thing&no-such-place"
        tab.set_viewport_size(NARROW)
        open_page(tab, site(name) + "#" + fragment)
        cut_off, unfit = cut_off + tab.evaluate(CUT_OFF), unfit + tab.evaluate(UNFIT, NARROW["height"])
        too_wide = tab.evaluate(TOO_WIDE) + tab.evaluate(FORMULAS_TOO_LONG)
        squeezed = tab.evaluate(SQUEEZED)
        tab.set_viewport_size({"width": 1100, "height": 740})
        settle(tab)
        too_wide += tab.evaluate(TOO_WIDE)
        tab.set_viewport_size(WIDE)
        for _ in range(30):  # until the figures have been drawn again at this width
            settle(tab)
            after_nonsense = tab.evaluate(DRAWN)
            if after_nonsense == at_start:
                break
            tab.wait_for_timeout(100)
        return Visit(
            list(troubles),
            page,
            weight,
            dead,
            cut_off,
            unfit,
            too_wide,
            squeezed,
            violations,
            at_start,
            after_nonsense,
        )

    yield look
    context.close()


@EVERY_PAGE
def test_a_page_is_whole_and_asks_nobody_else(visit, name):
    assert visit(name).troubles == []
    assert visit(name).page["title"]
    assert visit(name).page | SOUND == visit(name).page


@pytest.mark.parametrize("name", ["book/index", "notebooks/what-makes-a-good-teacher"])
def test_the_modules_of_the_first_figure_are_fetched_with_the_page(site, name):
    page = (HTML / f"{name}.html").read_text(encoding="utf-8")
    first = re.search(r'data-explorable="([\w-]+)"', page)[1]
    ahead = {pathlib.Path(link).name for link in re.findall(r'<link rel="modulepreload" href="([^"]+)"', page)}
    assert {f"{first}.mjs", "ui.mjs", "state.mjs", "plot.mjs"} <= ahead
    assert all((HTML / "_static/explore" / module).is_file() for module in ahead)


@EVERY_PAGE
def test_a_page_is_light(visit, name):
    assert visit(name).weight <= 1_500_000


@EVERY_PAGE
@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is installed by `make lint`, which runs npm")
def test_nothing_keeps_anyone_out(visit, name):
    assert visit(name).barriers == []


@EVERY_PAGE
def test_every_slider_changes_its_figure(visit, name):
    assert visit(name).dead_sliders == []


@EVERY_PAGE
def test_no_word_of_a_plot_is_cut_off(visit, name):
    assert visit(name).cut_off == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_figure_fits_the_screen_where_a_link_leads_to_it(visit, name):
    assert visit(name).unfit == []


@pytest.mark.parametrize("size", [WIDE | {"height": LOW}, NARROW], ids=["wide", "narrow"])
def test_the_first_screen_has_the_race_and_its_time(browser, site, size):
    with watched(browser, viewport=size) as page:
        in_its_own_typeface(page.context)
        page.goto(site(PAGES[0]))
        page.wait_for_selector("[data-explorable=race][data-mounted] .rv-svg text")
        page.evaluate("document.fonts.ready")
        settle(page)
        assert page.evaluate("document.fonts.check('16px \"RV Sans\"')")
        slider = page.locator("[data-key=time]").first.bounding_box()  # seen from the top of the screen
        assert page.evaluate("scrollY") == 0 and slider["y"] + slider["height"] <= size["height"]


@EVERY_PAGE
def test_nothing_is_wider_than_a_small_screen(visit, name):
    assert visit(name).too_wide == []
    assert visit(name).squeezed_proofs == []


@EVERY_PAGE
def test_nonsense_in_the_address_gives_the_default_state(visit, name):
    assert visit(name).after_nonsense == visit(name).at_start


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


def test_what_others_wrote_is_unchanged_and_plotly_draws_what_its_package_writes():
    vendor = ROOT / "site_static/vendor"
    lines = re.findall(r"^([0-9a-f]{64})  (.+)$", (vendor / "VENDORED.md").read_text(encoding="utf-8"), re.M)
    files = {path.relative_to(vendor).as_posix(): path for path in vendor.rglob("*") if path.is_file()}
    assert {name: digest for digest, name in lines} == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if name != "VENDORED.md"
    }
    package = pathlib.Path(plotly.__file__).parent / "package_data/plotly.min.js"
    version = re.compile(r"plotly\.js (?:\(cartesian - minified\) )?v([\d.]+)")
    assert (
        version.search(files["plotly/plotly-cartesian.min.js"].read_text("utf-8")[:500])[1]
        == (version.search(package.read_text("utf-8")[:500])[1])
    )


def test_the_front_door_leads_into_the_book(browser, site):
    with watched(browser) as page:
        page.goto(site("index"))
        page.wait_for_url("**/" + PAGES[0] + ".html")


def test_the_packed_book_opens_from_a_file(browser, site, tmp_path):
    shutil.unpack_archive(pack(tmp_path / "book.zip"), tmp_path)
    with watched(browser) as page:
        page.goto(f"file://{tmp_path}/{NAME}/book/reproducing-section-4-2.html")
        for figure in page.locator(".rv-explorable, .rv-plotly").all():
            figure.scroll_into_view_if_needed()
        page.wait_for_function(f"{TYPESET} && {ALIVE}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_has_the_readers_colours_and_its_formulas_before_its_scripts_have_come(browser, site, scheme):
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.route("**/*.js*", lambda route: route.abort())
    page.goto(site("book/notation"))
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.locator("math").first.is_visible() and "\\" not in page.locator("article").inner_text()
    context.close()


PAPER = {"width": 658, "height": 986}  # pixels of A4 within margins of 18 mm


# Only explorables, only plots, and both.
@pytest.mark.parametrize("name", ["index", "a-real-policy", "reproducing-section-4-2"])
def test_what_is_printed_is_light_and_has_every_figure_in_one_piece(browser, site, name):
    with watched(browser, color_scheme="dark", viewport=WIDE) as page:
        page.goto(site(f"book/{name}"))
        page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        page.evaluate("""() => addEventListener('beforeprint', () => {
            const figures = [...document.querySelectorAll('.rv-explorable, .rv-plotly')]
            window.printed = [document.documentElement.dataset.theme, getComputedStyle(document.body).color,
                figures.filter(e => !e.querySelector('.rv-svg text, .main-svg, img')).length]
        })""")
        page.wait_for_function("!document.querySelector('.rv-plotly:not([data-drawn])')")  # seen or not
        page.pdf()
        theme, ink, missing = page.evaluate("window.printed")
        assert theme == "light" and max(map(int, re.findall(r"\d+", ink)[:3])) < 128 and missing == 0
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.emulate_media(media="print")
        page.set_viewport_size(PAPER)
        settle(page)
        figures = page.evaluate("""[...document.querySelectorAll('.rv-explorable, .rv-plotly')]
            .map(figure => [getComputedStyle(figure).breakInside, figure.offsetHeight])""")
        assert figures and all(rule == "avoid" and height <= PAPER["height"] for rule, height in figures)


def test_readouts_are_spoken_once_nothing_moves(browser, site):
    with watched(browser) as page:
        page.goto(site("book/accurate-is-not-enough"))
        page.evaluate(UNFOLD)  # what is true stands in a fold
        figure = page.locator(".rv-explorable").first
        figure.scroll_into_view_if_needed()
        page.wait_for_function(ALIVE)
        status = figure.locator("[role=status]")
        assert status.text_content() == ""  # what the page opens with is there to be read
        figure.locator("input[type=range]").first.focus()
        page.keyboard.press("PageUp")
        page.wait_for_function("document.querySelector('.rv-explorable [role=status]').textContent")
        shown = figure.evaluate("""figure => [...figure.querySelectorAll('.rv-readouts > div')]
            .map(tile => tile.querySelector('dt').textContent + ': ' + tile.querySelector('dd').textContent)""")
        assert set(status.text_content().split("; ")) <= set(shown)


def test_the_search_understands_greek(browser, site):
    with watched(browser) as page:
        page.goto(site("search") + "?q=tγ")
        page.wait_for_selector("#search-results li")


# What a reader types, and the result that the book has of that name.
FOUND = {
    "reward variance": "book/accuracy-and-reward-variance.html#def-variance",
    "accuracy": "book/accuracy-and-reward-variance.html#def-accuracy",
    "gradient flow": "book/rlhf-in-one-page.html#def-flow",
    "time to gain": "book/rlhf-in-one-page.html#def-time-to-gain",
    "tγ": "book/rlhf-in-one-page.html#def-time-to-gain",
    "t_gamma": "book/rlhf-in-one-page.html#def-time-to-gain",
    "best of n": "book/best-of-n.html",
    "low variance slow reward": "book/low-variance-slow-reward.html",
}


@pytest.mark.parametrize("asked", FOUND)
def test_the_search_finds_the_defining_place_first(browser, site, asked):
    with watched(browser) as page:
        page.goto(site("search") + "?q=" + urllib.parse.quote(asked))
        page.wait_for_selector("#search-results li")
        page.wait_for_function("!/^Searching/.test(document.querySelector('#search-results h2').innerText)")
        first = page.locator("#search-results li a").first.get_attribute("href")
        assert re.sub(r"\?[^#]*", "", first) == FOUND[asked]


def test_without_scripts_nothing_is_blank(browser, site):
    with watched(browser, java_script_enabled=False) as page:
        page.goto(site("book/low-variance-slow-reward"))
        note = page.locator("noscript p.rv-note").first
        assert "Scripts are off" in note.inner_text() and note.evaluate("e => e.offsetHeight")
        formula = page.locator("math[display=block]").first
        assert formula.bounding_box()["height"] > 20 and "\\" not in page.locator("article").inner_text()
        number = page.locator("#equation-eq-centred .eqno")
        assert number.is_visible() and number.inner_text().startswith("(")
        page.set_viewport_size(NARROW)
        assert page.evaluate(TOO_WIDE) == []
        plots = page.locator(".rv-plotly")
        for plot in plots.all():
            assert len(plot.inner_text()) > 60
        assert plots.count() and page.locator(".rv-explorable img").first.bounding_box()["height"] > 200


@EVERY_PAGE
def test_every_formula_is_there_without_scripts(site, name):
    text = (HTML / f"{name}.html").read_text(encoding="utf-8")
    assert text.count('class="math notranslate') == text.count('class="rv-tex"')


JUMPS = """() => {
    window.jumped = 0
    new PerformanceObserver(list => list.getEntries().forEach(e => e.hadRecentInput || (window.jumped += e.value)))
        .observe({type: 'layout-shift', buffered: true})
}"""


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", CHAPTERS)
def test_nothing_jumps_while_a_page_opens(browser, site, name, size):
    with watched(browser, viewport=size) as page:
        page.add_init_script(f"({JUMPS})()")
        page.goto(site(name))
        page.wait_for_function(TYPESET)
        if (figures := page.locator(".rv-explorable:visible, .rv-plotly:visible")).count():
            figures.first.scroll_into_view_if_needed()
            figures.first.locator(".rv-svg[aria-label] text, .main-svg").first.wait_for()
        settle(page)
        assert page.evaluate("jumped") <= 0.1


def test_next_leads_from_chapter_to_chapter_and_from_a_notebook_on(site):
    """The notebooks hang beside the chapters."""
    chapters = [name for name in PAGES if name.startswith("book/")]
    for name, after in itertools.pairwise(chapters):
        for page in (name, name.replace("book/", "notebooks/")):
            if (HTML / f"{page}.html").is_file():
                link = re.search(r'class="right-next"\s+href="([^"]+)"', (HTML / f"{page}.html").read_text("utf-8"))
                assert (HTML / page).parent.joinpath(link[1]).resolve() == HTML / f"{after}.html"


def test_a_notebook_can_be_downloaded_as_it_ran(site):
    for name in (name for name in PAGES if name.startswith("notebooks/")):
        assert f'href="../_sources/{name}.ipynb"' in (HTML / f"{name}.html").read_text(encoding="utf-8")
        cells = json.loads((HTML / f"_sources/{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        assert any(cell.get("outputs") for cell in cells)
