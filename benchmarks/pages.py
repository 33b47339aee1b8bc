"""How soon a page of the built book moves: from the first request until a figure has answered to its slider.

    python benchmarks/pages.py [page …]

Each page is opened in a fresh browser context, as it is and with the processor slowed down four times, and its first
slider is moved by the keyboard as soon as it is there. The seconds are printed, the slowest last, and the compressed
size of all that the page asked for. Ends with status 1, and names the pages, where a figure takes longer
than 1.5 s, or 4 s slowed down, or where a page has more than 1.5 MB.
"""

import pathlib
import sys
import time
import urllib.parse
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from browser import served
from conftest import BROWSER_FLAGS, NO_BROWSER, find_browser
from playwright.sync_api import Browser, sync_playwright
from test_site import PAGES, TYPESET, compressed

HTML = ROOT / "_build/html"
MOVED = "([drawing, before]) => drawing.outerHTML !== before"
WHOLE = f"{TYPESET} && !document.querySelector('.rv-plotly:not([data-drawn])')"
MOST_SECONDS = {1: 1.5, 4: 4.0}  # by how many times the processor is slowed down
MOST_MEGABYTES = 1.5


@dataclass(frozen=True)
class Visit:
    """Seconds from the request of a page until its first slider has moved its figure, and megabytes of its files."""

    seconds: float
    megabytes: float


def first_move(browser: Browser, site: str, name: str, slowdown: int) -> Visit | None:
    """A visit to a page, with the processor slowed down so many times.

    Each file counts once and compressed. None where no figure in sight has a slider that can be moved.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    requested = set()
    page.on("request", lambda request: requested.add(urllib.parse.urlsplit(request.url)))
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slowdown})
    start = time.perf_counter()
    page.goto(f"{site}/{name}.html", wait_until="commit")
    try:
        page.wait_for_load_state("domcontentloaded")
        if not page.locator(".rv-explorable:visible").count():
            return None
        # As a reader does, who does not wait until the lines above stand still.
        page.locator(".rv-explorable:visible").first.evaluate("figure => figure.scrollIntoView()")
        figure = page.locator(".rv-explorable[data-mounted]:visible").first
        figure.wait_for()
        slider = figure.locator("input[type=range]:visible:enabled").first
        if not slider.count():
            return None
        drawing = figure.locator("svg").first.element_handle()
        before = drawing.evaluate("svg => svg.outerHTML")
        slider.press("PageUp" if slider.evaluate("s => +s.value < +s.max") else "PageDown")
        page.wait_for_function(MOVED, arg=[drawing, before], timeout=60_000)
        seconds = time.perf_counter() - start
        page.wait_for_function(WHOLE, timeout=60_000)  # what comes after the figures counts too
        page.wait_for_load_state("networkidle")
    finally:
        context.close()
    paths = {url.path for url in requested if f"{url.scheme}://{url.netloc}" == site}
    files = [HTML / urllib.parse.unquote(path).lstrip("/") for path in paths]
    return Visit(seconds, sum(compressed(file) for file in files if file.is_file()) / 1e6)


def failures(plain: Visit, slowed: Visit) -> list[str]:
    """What of a page is above its limit, in words."""
    megabytes = max(plain.megabytes, slowed.megabytes)
    measured = (
        (f"{plain.seconds:.1f} s", plain.seconds, MOST_SECONDS[1]),
        (f"{slowed.seconds:.1f} s slowed down", slowed.seconds, MOST_SECONDS[4]),
        (f"{megabytes:.2f} MB", megabytes, MOST_MEGABYTES),
    )
    return [f"{words} (at most {most:g})" for words, value, most in measured if value > most]


def main(names: list[str]) -> None:
    """Print a line for each page with a figure; exit with the pages that are above a limit."""
    visits = {}
    with served(HTML) as site, sync_playwright() as playwright:
        path = find_browser(playwright) or sys.exit(NO_BROWSER)
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        for name in names or PAGES:
            plain, slowed = (first_move(browser, site, name, slowdown) for slowdown in MOST_SECONDS)
            if plain and slowed:
                visits[name] = (plain, slowed)
        browser.close()
    slowest_last = sorted(visits, key=lambda name: visits[name][1].seconds)
    for name in slowest_last:
        plain, slowed = visits[name]
        megabytes = max(plain.megabytes, slowed.megabytes)
        print(f"{name:<56} {plain.seconds:5.1f} s, slowed down four times {slowed.seconds:5.1f} s, {megabytes:5.2f} MB")
    by_page = {name: failures(*visits[name]) for name in slowest_last}
    if any(by_page.values()):
        sys.exit("\n".join(f"Above a limit: {name}: {', '.join(above)}" for name, above in by_page.items() if above))


if __name__ == "__main__":
    main(sys.argv[1:])
