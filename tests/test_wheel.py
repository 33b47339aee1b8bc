"""What ships in a wheel works from a wheel: built, installed into an empty folder, and run where no checkout is."""

import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

import rvlib

pytest.importorskip("flit_core", reason="flit_core is not installed: pip install -r requirements-test.txt")

FILES = """
import pathlib, sys
import rvlib
assert pathlib.Path(rvlib.__file__).is_relative_to(pathlib.Path.cwd()), rvlib.__file__
from rvlib import audit, exercises, explore, paper
from rvlib.lm.experiments import report

assert audit.Audit.load().teachers
assert report.tables(report.load("tiny-4.1"), "tiny")
assert len(paper.table("public_reward_models")["reward_variance"])
assert exercises.check("best-cut", 1) is False
assert explore.Race().state()
assert not {"torch", "transformers"} & set(sys.modules)
print("version", rvlib.__version__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that flit builds of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from flit_core.buildapi import build_wheel; print(build_wheel({str(folder)!r}))"
    made = subprocess.run([sys.executable, "-c", build], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / made.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run Python on the installed wheel: installed(arguments) -> what it printed. The checkout is not on its path."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", folder, wheel], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "RVLIB"))}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_wheel_has_every_file_of_the_package(wheel):
    assert wheel.name == f"rvlib-{rvlib.__version__}-py3-none-any.whl"
    listed = subprocess.run(["git", "ls-files", "rvlib"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    expected_files = set(listed) or {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "rvlib").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        assert expected_files - {path for path in expected_files if not (ROOT / path).exists()} <= set(
            archive.namelist()
        )
        entry_points = archive.read(f"rvlib-{rvlib.__version__}.dist-info/entry_points.txt").decode()
    assert "rvlib=rvlib.cli:main" in entry_points.replace(" ", "")


def test_its_files_are_found(installed):
    assert f"version {rvlib.__version__}" in installed("-c", FILES)


def test_its_recipes_are_found(installed):
    pytest.importorskip("pydantic", reason="the language models' packages are not installed")
    assert "tiny-4.1" in installed("-m", "rvlib", "recipes")
    assert "Deviations from the paper's settings" in installed("-m", "rvlib", "recipes", "tiny-4.1")


def test_its_audit_can_be_asked_for(installed):
    pytest.importorskip("torch", reason="the language models' packages are not installed")
    assert "--reward-model" in installed("-m", "rvlib", "audit", "--help")
