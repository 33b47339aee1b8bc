"""The rooms of rvlib import only rooms below them, and what the project says of itself in several places agrees."""

import re
import sys
import tomllib

import pytest
from conftest import ROOT

import rvlib

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_a_room_imports_only_rooms_below_it(monkeypatch, capsys):
    pytest.importorskip("importlinter", reason="import-linter is not installed: pip install -r requirements-lint.txt")
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename="pyproject.toml", no_cache=True, no_logo=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_every_module_is_in_the_picture_of_the_rooms(monkeypatch):
    pytest.importorskip("grimp", reason="grimp is not installed: pip install -r requirements-lint.txt")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import architecture

    drawn = architecture.picture()
    assert drawn.count('class="box"') == len(architecture.places()) and drawn.count('class="line"') > 10
    kept = architecture.PICTURE.read_text(encoding="utf-8")
    names = re.compile(r'class="name"[^>]*>([^<]*)<')
    assert names.findall(kept) == names.findall(drawn), "run make generated"


def test_the_version_is_said_once():
    assert "version" in PYPROJECT["project"]["dynamic"] and "version" not in PYPROJECT["project"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(rvlib.__version__)}\]", changes, re.MULTILINE), (
        "the changelog has no such version"
    )


def packages(lines):
    """Names of packages as indexes compare them, of lines such as "flit_core==3.12.0"."""
    return {re.split("[<>=; ]", line)[0].lower().replace("_", "-") for line in lines}


def test_every_extra_is_pinned():
    pinned = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in ROOT.glob("requirements-*.txt")}
    for extra, requirements in PYPROJECT["project"]["optional-dependencies"].items():
        beside = (
            pinned if extra == "test" else ("requirements-book", f"requirements-{extra}")
        )  # the tests have them all
        missing = packages(requirements) - packages(line for name in beside for line in pinned[name])
        assert not missing, f"run make pins: {', '.join(sorted(missing))}"
    (backend,) = PYPROJECT["build-system"]["requires"]
    assert backend.replace("_", "-") in pinned["requirements-test"]


def test_python_here_is_one_that_is_promised():
    assert sys.version_info >= tuple(map(int, PYPROJECT["project"]["requires-python"].removeprefix(">=").split(".")))
