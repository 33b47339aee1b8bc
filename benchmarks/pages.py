"""How soon a page of the built book moves: from the first request until a figure has answered to its slider.

    python benchmarks/pages.py [page …]

Each page is opened in a fresh browser context, as it is and with the processor slowed down four times, and its first
slider is moved by the keyboard as soon as it is there. The seconds are printed, the slowest last, and the compressed
size of all that the page asked for.
"""

import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from browser import served  # noqa: E402
from conftest import BROWSER_FLAGS, NO_BROWSER, find_browser  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from test_site import PAGES  # noqa: E402

HTML = ROOT / "_build/html"
MOVED = "before => document.querySelector('.rv-explorable svg').outerHTML !== before"


def seconds_until_moved(browser, address: str, slowdown: int) -> float | None:
    """Seconds from the request of a page until its first slider has moved its figure; None where there is none."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slowdown})
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    try:
        page.wait_for_load_state("domcontentloaded")
        if not page.locator(".rv-explorable").count():
            return None
        page.locator(".rv-explorable").first.scroll_into_view_if_needed()
        slider = page.wait_for_selector(".rv-explorable[data-mounted] input[type=range]")
        before = page.evaluate("document.querySelector('.rv-explorable svg').outerHTML")
        slider.press("PageUp" if slider.evaluate("s => +s.value < +s.max") else "PageDown")
        page.wait_for_function(MOVED, arg=before, timeout=60_000)
        return time.perf_counter() - start
    finally:
        context.close()


def main(names: list[str]) -> None:
    """Print a line for each page with a figure."""
    rows = []
    with served(HTML) as address, sync_playwright() as playwright:
        path = find_browser(playwright) or sys.exit(NO_BROWSER)
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        for name in names or PAGES:
            times = [seconds_until_moved(browser, f"{address}/{name}.html", slowdown) for slowdown in (1, 4)]
            if None not in times:
                rows.append((times[1], times[0], name))
        browser.close()
    for slowed, plain, name in sorted(rows):
        print(f"{name:<56} {plain:5.1f} s, slowed down four times {slowed:5.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
