"""Check the code cells of the book's pages with ruff, by the rules for notebooks: their format and their style.

    python scripts/page_cells.py          says what is wrong, and exits with 1 if anything is
    python scripts/page_cells.py --fix    formats the cells, and mends what ruff can mend

ruff reads notebooks but not pages in MyST, so each page is written as a notebook into a temporary folder.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
# A cell: its fence, its options with the empty line after them, its code.
CELL = re.compile(r"^(```\{code-cell\} ipython3\n(?:(?::[^\n]*\n)+\n?)?)(.*?)^```$", re.MULTILINE | re.DOTALL)


def notebook(page: str) -> str:
    """A page's code cells as the text of a notebook."""
    cells = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": str(number),
            "metadata": {},
            "outputs": [],
            "source": code.rstrip("\n"),
        }
        for number, (_, code) in enumerate(CELL.findall(page))
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def with_cells(page: str, notebook: str) -> str:
    """The page with its cells' code replaced by that of a notebook of as many cells."""
    sources = ("".join(cell["source"]) for cell in json.loads(notebook)["cells"])
    return CELL.sub(lambda match: f"{match[1]}{next(sources)}\n```", page)


def main(fix: bool) -> int:
    """Run ruff on all pages' cells and return its worst exit status; with `fix` write into the pages what it mends."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "ruff.toml").write_text(f"extend = {json.dumps(str(ROOT / 'notebooks/ruff.toml'))}\n")
        written = {}
        for page in sorted(BOOK.rglob("*.md")):
            text = page.read_text(encoding="utf-8")
            if CELL.search(text):
                written[page] = folder / page.relative_to(ROOT).with_suffix(".ipynb")
                written[page].parent.mkdir(parents=True, exist_ok=True)
                written[page].write_text(notebook(text), encoding="utf-8")
        commands = [["check", "--fix"], ["format"]] if fix else [["check"], ["format", "--check"]]
        ruff = sys.executable, "-m", "ruff"
        statuses = [subprocess.run([*ruff, *command, "--quiet", "."], cwd=folder).returncode for command in commands]
        for page, path in written.items() if fix else ():
            text = page.read_text(encoding="utf-8")
            mended = with_cells(text, path.read_text(encoding="utf-8"))
            if mended != text:
                page.write_text(mended, encoding="utf-8")
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main(fix=sys.argv[1:] == ["--fix"]))
