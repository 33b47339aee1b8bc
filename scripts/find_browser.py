"""See that there is a browser for the tests: the system's Chromium, else Playwright's own, downloaded; else one
sentence.
"""

import os
import pathlib
import subprocess
import sys

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
from conftest import NO_BROWSER, find_browser

with sync_playwright() as playwright:
    if find_browser(playwright) is None:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"])
    if find_browser(playwright) is None:
        sys.exit(NO_BROWSER) if os.environ.get("CI") else print(NO_BROWSER, "Until then the browser tests are skipped.")
