"""Every notebook runs from top to bottom as a reader would run it, leaves nothing blank, and is stored bare."""

import pathlib

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IN_A_PAGE = ("text/html", "text/markdown", "text/latex", "image/svg+xml", "image/png")
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
