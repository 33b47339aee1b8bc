"""Write the first code cell of every notebook, which installs what the notebook needs where it is opened on Colab.

    RVLIB_REPOSITORY=https://github.com/OWNER/NAME python scripts/first_cells.py

Colab has the notebook alone, so the cell has to know the repository; without the variable it keeps the address that it
has. The workflow that publishes the book sets the variable for the pages, and for the branch that their Colab buttons
lead to. Binder installs `.binder/requirements.txt` before a notebook opens, and a checkout has the library: there the
cell does nothing. A page of the book leaves it out.
"""

import json
import os
import pathlib
import re
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
KEY = "on-colab"
CELL = """\
# On Colab, install what this notebook needs; elsewhere it is installed already.
import importlib.util
import subprocess
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("rvlib") is None:
    repository = "{repository}"
    if not repository:
        raise SystemExit(
            "repository must be the address of the repository that this notebook is "
            "from, got nothing: write it into this cell, such as "
            "https://github.com/OWNER/NAME, and run the cell again."
        )
    package = f"rvlib[{extras}] @ git+{{repository}}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)
"""
_ADDRESS = re.compile(r'^    repository = "(.*)"$', re.MULTILINE)
_NEEDS_A_MODEL = re.compile(r"\brvlib\.lm\b|\btorch\b|\btransformers\b")


def with_first_cell(notebook: dict[str, Any], repository: str = "") -> dict[str, Any]:
    """The notebook, as JSON, with that cell before its other code; `repository` replaces the address that it has."""
    kept = [cell for cell in notebook["cells"] if cell["id"] != KEY]
    old = ["".join(cell["source"]) for cell in notebook["cells"] if cell["id"] == KEY]
    known = _ADDRESS.search(old[0]) if old else None
    code = "".join("".join(cell["source"]) for cell in kept if cell["cell_type"] == "code")
    source = CELL.format(
        repository=repository or (known[1] if known else ""),
        extras="book,lm" if _NEEDS_A_MODEL.search(code) else "book",
    )
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": KEY,
        "metadata": {"tags": ["remove-cell"]},
        "outputs": [],
        "source": source.rstrip("\n").splitlines(keepends=True),
    }
    first = next(i for i, cell in enumerate(kept) if cell["cell_type"] == "code")
    return notebook | {"cells": [*kept[:first], cell, *kept[first:]]}


if __name__ == "__main__":
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        written = with_first_cell(notebook, os.environ.get("RVLIB_REPOSITORY", ""))
        path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
