"""What browser tests share: a folder served from a sub-path, and a page whose console and requests are watched."""

import contextlib
import functools
import http.server
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, Page


class _Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def do_GET(self):
        # A browser may ask for the site's icon where a page names none, such as one that only leads on: there is none.
        if self.path != "/favicon.ico":
            return super().do_GET()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder: str | pathlib.Path) -> Iterator[str]:
    """Serve `folder` on this machine while the block runs; gives its address, without a slash at the end."""
    handler = functools.partial(_Quiet, directory=str(pathlib.Path(folder)))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def listen(page: Page) -> list[str]:
    """What is wrong with a page from now on: words in its console, a script that failed, requests to other hosts."""
    troubles: list[str] = []

    def note(message):
        # Chromium says this of any preloaded file on a machine that takes seconds to draw the page's first frame.
        if "was preloaded using link preload but not used within a few seconds" not in message.text:
            troubles.append(f"console: {message.type}: {message.text}")

    page.on("console", note)
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))

    def check(request):
        if request.url.split(":")[0] in ("http", "https", "ws", "wss") and not request.url.split("/")[2].startswith(
            "127.0.0.1"
        ):
            troubles.append(f"another host: {request.url}")

    page.on("request", check)
    return troubles


@contextlib.contextmanager
def watched(browser: Browser, **options: Any) -> Iterator[Page]:
    """A new page; on leaving, fails if its console was not empty, a script failed, or anything asked another host."""
    context = browser.new_context(**options)
    page = context.new_page()
    troubles = listen(page)
    try:
        yield page
        assert not troubles, troubles
    finally:
        context.close()
