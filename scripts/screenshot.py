"""Take the README's picture, the race on the book's first page, from the built book: python scripts/screenshot.py."""

import pathlib
import sys

from playwright.sync_api import sync_playwright

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from browser import served
from conftest import BROWSER_FLAGS, find_browser

PICTURE = ROOT / "book/images/race.png"
STATE = "#race.time=200"  # late enough that one teacher's student has passed the finish, and the other's has not begun
EDGE = 8  # pixels around the figure

with served(ROOT / "_build/html") as address, sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=find_browser(playwright), args=BROWSER_FLAGS)
    page = browser.new_page(viewport={"width": 1100, "height": 1200}, device_scale_factor=1.5, color_scheme="light")
    page.goto(f"{address}/book/index.html{STATE}")
    page.add_style_tag(content=".bd-header-article, .skip-link { display: none !important }")
    figure = page.locator(".rv-explorable").first
    figure.scroll_into_view_if_needed()
    page.wait_for_selector(".rv-explorable[data-mounted]")
    page.wait_for_timeout(500)
    PICTURE.parent.mkdir(exist_ok=True)
    box, end = figure.bounding_box(), figure.get_by_text("Reset").bounding_box()
    clip = {"x": box["x"] - EDGE, "y": box["y"] - EDGE, "width": box["width"] + 2 * EDGE}
    page.screenshot(path=PICTURE, clip=clip | {"height": end["y"] + end["height"] + EDGE - clip["y"]})
    browser.close()
print(PICTURE.relative_to(ROOT))
