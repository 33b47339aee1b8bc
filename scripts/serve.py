"""Serve the built book on this machine alone: python scripts/serve.py [port, 8000 or the next free one by default]."""

import functools
import http.server
import itertools
import pathlib
import sys

HTML = pathlib.Path(__file__).resolve().parent.parent / "_build/html"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the built book, never out of date, without a log."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing of each request: the address is what the reader looks for."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Show the book's own page for an address that leads nowhere."""
        page = HTML / "404.html"
        if code != 404 or not page.is_file():
            return super().send_error(code, message, explain)
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.read_bytes())

    def end_headers(self) -> None:
        """Ask the browser to keep no page without asking again."""
        self.send_header("Cache-Control", "no-cache")  # a page built again must not be hidden by the old one
        super().end_headers()


def open_server(port: int | None = None) -> http.server.ThreadingHTTPServer:
    """A server at `port`, or at the first free one from 8000 on."""
    for candidate in [port] if port is not None else itertools.count(8000):
        try:
            return http.server.ThreadingHTTPServer(("127.0.0.1", candidate), functools.partial(Handler, directory=HTML))
        except OSError:
            if port is not None:
                sys.exit(f"Port {port} is taken: choose another with `make book PORT=…`.")


if __name__ == "__main__":
    server = open_server(*map(int, sys.argv[1:2]))
    print(f"The book is at http://127.0.0.1:{server.server_port}/ (Ctrl-C stops it).", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
