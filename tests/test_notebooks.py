"""Every notebook installs what it needs on Colab, runs as a reader runs it, and is stored without outputs."""

import importlib.util
import json
import pathlib
import subprocess
import sys
import types

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IN_A_PAGE = ("text/html", "text/markdown", "text/latex", "image/svg+xml", "image/png")
sys.path.insert(0, str(ROOT / "scripts"))
import first_cells

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_is_stored_clean_beside_its_chapter(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    assert (ROOT / "book" / f"{path.stem}.md").is_file()
    assert f"../book/{path.stem}.md" in "".join(cell.source for cell in notebook.cells), (
        "the notebook does not link to its chapter"
    )
    assert f"../notebooks/{path.name}" in (ROOT / "book" / f"{path.stem}.md").read_text(encoding="utf-8"), (
        "the chapter does not link to its notebook"
    )


def test_its_first_cell_installs_what_it_needs_on_colab_and_nothing_elsewhere(path, monkeypatch):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert first_cells.with_first_cell(notebook) == notebook, "run `python scripts/first_cells.py`"
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: calls.append(command))

    def run(notebook):
        first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        exec("".join(first["source"]), {})

    run(notebook)
    assert not calls
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    run(first_cells.with_first_cell(notebook, "https://example.org/book"))
    assert [command[:4] for command in calls] == [[sys.executable, "-m", "pip", "install"]]
    assert calls[0][-1].endswith(" @ git+https://example.org/book")
    with pytest.raises(SystemExit, match="must be the address of the repository"):  # Jupyter shows no traceback of it
        run(first_cells.with_first_cell(notebook | {"cells": notebook["cells"][:1] + notebook["cells"][2:]}))


def test_runs_and_shows_something(path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the rvlib of this folder, installed or not
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.get("text")
            if "data" in output:
                shown = [output.data[kind] for kind in IN_A_PAGE if output.data.get(kind, "").strip()]
                assert shown, f"blank in a page: {output.data.get('text/plain', list(output.data))}"
