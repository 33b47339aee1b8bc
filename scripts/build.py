"""Build the book, warnings as errors: python scripts/build.py [folder in which `_build` goes, by default the root]."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def build(folder: str | pathlib.Path = ROOT) -> pathlib.Path:
    """Build into folder/_build/html and return that path; on failure show the notebooks' tracebacks."""
    html = pathlib.Path(folder) / "_build/html"
    reports = html / "reports"
    for old in reports.rglob("*.log"):
        old.unlink()
    book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    if subprocess.run([*book, "build", ".", "-W", "-n", "--keep-going", "--path-output", folder], cwd=ROOT).returncode:
        sys.exit(
            "".join(log.read_text() for log in reports.rglob("*.log"))
            + "The book did not build: see the warnings above."
        )
    return html


if __name__ == "__main__":
    print("Built", build(*sys.argv[1:2]) / "index.html")
