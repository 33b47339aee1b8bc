"""What ships in a wheel works from a wheel: built, installed into an empty folder, and run where no checkout is."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

import rvlib
from rvlib import problems

pytest.importorskip("flit_core", reason="flit_core is not installed: pip install -r requirements-test.txt")

FILES = """
import pathlib, sys
import rvlib
assert pathlib.Path(rvlib.__file__).is_relative_to(pathlib.Path.cwd()), rvlib.__file__
from rvlib import audit, exercises, explore, paper
from rvlib.lm.experiments import report, report_tables

assert audit.Audit.load().reward_models
assert report_tables.tables(report.load("tiny-4.1"), "tiny")
assert len(paper.table("public_reward_models")["reward_variance"])
assert exercises.check("best-cut", 1) is False
assert explore.Race().state()
assert not {"torch", "transformers"} & set(sys.modules)
print("version", rvlib.__version__)
"""

# What the command `rvlib` does where nothing is installed but the wheel and what it declares, and what that declares.
COMMAND = """
import importlib.metadata, pathlib, re, sys

declared, waiting = set(), ["rvlib"]
while waiting:
    name = waiting.pop()
    declared.add(name)
    try:
        requirements = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:  # of another system
        continue
    names = {re.match(r"[\\w.-]+", line)[0].lower() for line in requirements if "extra ==" not in line}
    waiting += names - declared
installed = set()
for name in declared:
    try:
        installed |= {file.parts[0].removesuffix(".py") for file in importlib.metadata.files(name)}
    except importlib.metadata.PackageNotFoundError:
        pass

class NothingElse:
    def find_spec(name, *_):
        package = name.partition(".")[0]
        if not package.startswith("_") and package not in installed | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NothingElse)
import rvlib.cli
assert pathlib.Path(rvlib.__file__).is_relative_to(pathlib.Path.cwd()), rvlib.__file__
rvlib.cli.main(sys.argv[1:])
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
        record = archive.read(f"rvlib-{rvlib.__version__}.dist-info/RECORD").decode().splitlines()
        entry_points = archive.read(f"rvlib-{rvlib.__version__}.dist-info/entry_points.txt").decode()
    assert "rvlib=rvlib.cli:main" in entry_points.replace(" ", "")
    assert {line.count(",") for line in record} == {2}  # a comma in a file's name would be taken for a separator


def test_its_files_are_found(installed):
    assert f"version {rvlib.__version__}" in installed("-c", FILES)


def test_its_recipes_and_reports_are_found(installed):
    assert "tiny-4.1" in installed("-c", COMMAND, "recipes")
    assert "Deviations from the paper's settings" in installed("-c", COMMAND, "recipes", "tiny-4.1")
    assert "on-policy" in installed("-c", COMMAND, "report", "tiny-4.1")


def test_it_audits_replies_and_scores_from_files(installed, tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    prompts, texts = [f"Question {i}?" for i in range(4)], ["One.", "Two words.", "Three short words.", "Two words."]
    replies = write("replies.jsonl", [{"prompt": prompt, "replies": texts} for prompt in prompts])
    to_score = tmp_path / "to-score.jsonl"
    exported = installed("-c", COMMAND, "audit", "--replies", replies, "--export", str(to_score))
    assert exported.startswith("12 replies to be scored")

    rows = [json.loads(line) for line in to_score.read_text().splitlines()]
    scored = [row | {"words": len(row["reply"].split()), "quality": -len(row["reply"])} for row in rows]
    given = ["--replies", str(to_score), "--scores", write("scores.jsonl", scored)]
    asked = ["--ground-truth", "quality", "--group", "2", "--folder", str(tmp_path / "audit")]
    assert "words" in installed("-c", COMMAND, "audit", *given, *asked)
    audit = json.loads((tmp_path / "audit/audit.json").read_text())
    covariance, low, high = audit["reward_models"]["words"]["covariance"]
    assert low <= covariance <= high < 0  # the longer the worse, on every prompt
    assert (tmp_path / "audit/audit.html").stat().st_size > 1000


def test_it_makes_and_marks_a_sheet_of_problems(installed, tmp_path):
    key = tmp_path / "key.json"
    made = installed("-c", COMMAND, "exercises", "make", "--seed", "7", "--folder", str(tmp_path))
    answers = json.loads(key.read_text())["answers"]
    assert made.startswith(f"{len(answers)} problems") and len(answers) == len(problems.names())
    handed_in = tmp_path / "ada.json"
    handed_in.write_text(json.dumps({"name": "ada", "seed": 7, "answers": answers}))
    marks = installed("-c", COMMAND, "exercises", "grade", "--key", str(key), str(handed_in)).splitlines()[1:]
    assert len(marks) == len(answers) and all(mark.endswith(",1,") for mark in marks)
