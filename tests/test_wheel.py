"""What ships in a wheel works from a wheel: built, and installed into an empty environment with what it declares."""

import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import venv
import zipfile

import pytest
from conftest import ROOT

import rvlib
from rvlib import problems

pytest.importorskip("flit_core", reason="flit_core is not installed: pip install -r requirements-test.txt")

FILES = """
import pathlib, sys
import rvlib
assert pathlib.Path(rvlib.__file__).is_relative_to(sys.prefix), rvlib.__file__
from rvlib import audit, exercises, explore, paper
from rvlib.lm.experiments import report
from rvlib.lm.experiments.report.tables import tables

assert audit.Audit.load().reward_models
assert tables(report.load("tiny-4.1"), "tiny")
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


def name_of(requirement):
    """The package's name in a line such as "numpy>=2.0"."""
    return re.match(r"[\w.-]+", requirement)[0].lower()


PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = [name_of(line) for line in PYPROJECT["project"]["dependencies"]]


def with_their_own(packages):
    """The names of installed packages, of those that they need, and so on."""
    names, waiting = set(), list(packages)
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another system
            continue
        names.add(name)
        waiting += [name_of(line) for line in requirements if "extra ==" not in line]
    return names


def environment(folder, wheel, packages):
    """An environment in `folder` that has the wheel, and of what is installed here these packages and theirs alone.

    run(program, *arguments) -> what a program of the environment printed. The checkout is not on its path.
    """
    venv.create(folder, symlinks=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python"]
    subprocess.run([*pip, "install", *options, wheel], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for name in with_their_own(packages):
        distribution = importlib.metadata.distribution(name)
        for part in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (site_packages / part).exists():  # a folder that several packages share
                (site_packages / part).symlink_to(pathlib.Path(distribution.locate_file(part)).resolve())
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "RVLIB"))}

    def run(program, *arguments):
        done = subprocess.run(
            [folder / "bin" / program, *arguments], cwd=folder, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`environment` with what the wheel declares."""
    return environment(tmp_path_factory.mktemp("installed"), wheel, DECLARED)


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
        record = archive.read(f"rvlib-{rvlib.__version__}.dist-info/RECORD").decode().splitlines()
        entry_points = archive.read(f"rvlib-{rvlib.__version__}.dist-info/entry_points.txt").decode()
    assert "rvlib=rvlib.cli:main" in entry_points.replace(" ", "")
    assert {line.count(",") for line in record} == {2}  # a comma in a file's name would be taken for a separator


def test_its_files_are_found(wheel, tmp_path):
    installed = environment(tmp_path, wheel, [*DECLARED, "anywidget"])  # for the explorables
    assert f"version {rvlib.__version__}" in installed("python", "-c", FILES)


def test_its_recipes_and_reports_are_found(installed):
    elsewhere = "import importlib.util; print(*map(importlib.util.find_spec, ('torch', 'anywidget', 'IPython')))"
    assert installed("python", "-c", elsewhere).split() == ["None"] * 3
    assert "tiny-4.1" in installed("rvlib", "recipes")
    assert "Deviations from the paper's settings" in installed("rvlib", "recipes", "tiny-4.1")
    assert "on-policy" in installed("rvlib", "report", "tiny-4.1")


def test_it_audits_replies_and_scores_from_files(installed, tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    prompts, texts = [f"Question {i}?" for i in range(4)], ["One.", "Two words.", "Three short words.", "Two words."]
    replies = write("replies.jsonl", [{"prompt": prompt, "replies": texts} for prompt in prompts])
    to_score = tmp_path / "to-score.jsonl"
    exported = installed("rvlib", "audit", "--replies", replies, "--export", str(to_score))
    assert exported.startswith("12 replies to be scored")

    rows = [json.loads(line) for line in to_score.read_text().splitlines()]
    scored = [row | {"words": len(row["reply"].split()), "quality": -len(row["reply"])} for row in rows]
    given = ["--replies", str(to_score), "--scores", write("scores.jsonl", scored)]
    asked = ["--ground-truth", "quality", "--group", "2", "--folder", str(tmp_path / "audit")]
    assert "words" in installed("rvlib", "audit", *given, *asked)
    audit = json.loads((tmp_path / "audit/audit.json").read_text())
    covariance, low, high = audit["reward_models"]["words"]["covariance"]
    assert low <= covariance <= high < 0  # the longer the worse, on every prompt
    assert (tmp_path / "audit/audit.html").stat().st_size > 1000


def test_it_makes_and_marks_a_sheet_of_problems(installed, tmp_path):
    key = tmp_path / "key.json"
    made = installed("rvlib", "exercises", "make", "--seed", "7", "--folder", str(tmp_path))
    answers = json.loads(key.read_text())["answers"]
    assert made.startswith(f"{len(answers)} problems") and len(answers) == len(problems.names())
    handed_in = tmp_path / "ada.json"
    handed_in.write_text(json.dumps({"name": "ada", "seed": 7, "answers": answers}))
    marks = installed("rvlib", "exercises", "grade", "--key", str(key), str(handed_in)).splitlines()[1:]
    assert len(marks) == len(answers) and all(mark.endswith(",1,") for mark in marks)
