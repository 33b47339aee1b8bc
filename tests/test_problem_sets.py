"""Sheets of problems: answers follow from the text, marks are fair, and no file stops the marking."""

import csv
import io
import json
import pathlib
import re

import numpy as np
import pytest
from conftest import ROOT

from rvlib import problem_sets, problems
from rvlib.exercises.checking import EXERCISES, check


def test_every_checked_exercise_has_a_problem():
    assert set(problems.names()) == set(EXERCISES)


def test_problems_come_in_the_order_of_the_book():
    pages = re.findall(r"file: (book/[\w-]+)\n", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    text = "".join((ROOT / f"{page}.md").read_text(encoding="utf-8") for page in pages)
    assert problems.names() == tuple(dict.fromkeys(re.findall(r'check\("([\w-]+)"', text)))


@pytest.mark.parametrize("slug", problems.names())
def test_a_seed_gives_one_problem_and_seeds_differ(slug):
    variants = [problems.make(slug, seed) for seed in range(12)]
    assert problems.make(slug, 3) == variants[3]
    assert len({variant.answers for variant in variants}) > 1 and len({variant.text for variant in variants}) > 1
    assert all(np.isfinite(variant.answers).all() for variant in variants)
    assert not any("  " in variant.text or "np.float64" in variant.text for variant in variants)
    if slug != "rough-loses":  # whose exercise asks for a construction, and the problem for a number
        assert len(variants[0].answers) == EXERCISES[slug].numbers


def test_answers_are_those_of_the_text():
    for seed in range(8):
        text = problems.make("hardly-right", seed)
        assert text.answers[0] == pytest.approx(2 / int(re.search(r"over (\d+) outputs", text.text)[1]))
        text = problems.make("silent-group", seed)
        rate = float(re.search(r"probability ([\d.]+);", text.text)[1])
        group = int(re.search(r"have (\d+) samples", text.text)[1])
        assert text.answers[0] == pytest.approx(rate**group + (1 - rate) ** group)
        text = problems.make("million-to-one", seed)
        rare = float(re.search(r"has probability ([\d.e-]+)\.", text.text)[1])
        end = float(re.search(r"until it has probability ([\d.]+)\?", text.text)[1])
        assert text.answers[0] == pytest.approx(np.log(end / (1 - end) * (1 - rare) / rare) / 2)
        text = problems.make("enough-samples", seed)
        rare, sure = map(float, re.findall(r"probability (?:at least )?([\d.]+\d)", text.text))
        n = text.answers[0]
        assert 1 - (1 - rare) ** n >= sure > 1 - (1 - rare) ** (n - 1)


def test_numbers_are_written_without_zeros_that_say_nothing():
    for problem in (problems.make(slug, seed) for slug in problems.names() for seed in range(12)):
        assert not re.findall(r"\d\.\d*0(?!\d)|\d\.\d{7}", problem.text), problem.text


@pytest.fixture
def sheet(tmp_path):
    problem_sets.write_sheet(tmp_path, 5, ["silent-group", "two-reasons", "prefixes"])
    return tmp_path


def answers(sheet: pathlib.Path, name: str, **changed: object) -> pathlib.Path:
    filled = json.loads((sheet / "answers.json").read_text())
    key = json.loads((sheet / "key.json").read_text())["answers"]
    filled["name"] = name
    filled["answers"] = {
        slug: [x if isinstance(x, int) else float(f"{x:.3g}") for x in right] for slug, right in key.items()
    } | {slug.replace("_", "-"): value for slug, value in changed.items()}
    path = sheet / f"{name}.json"
    path.write_text(json.dumps(filled))
    return path


def test_the_sheet_has_the_questions_and_not_the_answers(sheet):
    text = (sheet / "problems.md").read_text()
    assert problems.make("silent-group", 5).text in text
    assert "key" not in text and str(problems.make("prefixes", 5).answers[0]) not in text
    assert set(json.loads((sheet / "answers.json").read_text())["answers"].values()) == {None}


def test_right_answers_to_three_digits_are_right(sheet):
    marks = problem_sets.grade(sheet / "key.json", [answers(sheet, "ada")])
    assert [mark.problem for mark in marks] == ["silent-group", "two-reasons", "prefixes"]
    assert all(mark.right and mark.name == "ada" and not mark.remark for mark in marks)


def test_a_count_must_be_exact(tmp_path):
    counts = [slug for slug in problems.names() if any(isinstance(x, int) for x in problems.make(slug, 0).answers)]
    assert counts == ["enough-samples", "enough-group", "prefixes", "enough-prompts", "unseen"]
    problem_sets.write_sheet(tmp_path, 0, ["prefixes", "million-to-one"])
    rows, time = (problems.make(slug, 0).answers[0] for slug in ("prefixes", "million-to-one"))
    for added, right in ((0, True), (1, False), (1e-3 * rows, False)):
        file = answers(tmp_path, "cy", prefixes=rows + added, million_to_one=1.004 * time)
        assert [mark.right for mark in problem_sets.grade(tmp_path / "key.json", [file])] == [right, True]


def test_what_is_wrong_or_missing_is_marked_so(sheet):
    file = answers(sheet, "bob", silent_group=0.999, two_reasons=[1.0], prefixes=None)
    remarks = {mark.problem: mark.remark for mark in problem_sets.grade(sheet / "key.json", [file])}
    assert remarks == {"silent-group": "wrong", "two-reasons": "not 2 numbers", "prefixes": "no answer"}


@pytest.mark.parametrize("percentage", [lambda share: 100 * share, lambda share: f"{share:.1%}"])
def test_a_percentage_is_wrong_and_told_so_as_in_the_notebook(sheet, percentage, capsys):
    shares, factor = problems.make("silent-group", 5).answers[0], problems.make("two-reasons", 5).answers
    file = answers(sheet, "dee", silent_group=percentage(shares), two_reasons=list(map(percentage, factor)))
    marks = problem_sets.grade(sheet / "key.json", [file])
    assert [mark.right for mark in marks] == [False, False, True]
    check("silent-group", 41)
    told = capsys.readouterr().out.removeprefix("Not yet: ").strip()
    assert "percentage" in told and all(mark.remark.removeprefix("wrong: ") == told for mark in marks[:2])
    rows = problems.make("prefixes", 5).answers[0]
    file = answers(sheet, "eve", prefixes=100 * rows)
    assert problem_sets.grade(sheet / "key.json", [file])[2].remark == "wrong"  # a count is no share


def test_a_broken_file_is_named_and_does_not_stop_the_others(sheet, capsys):
    (sheet / "broken.json").write_text("{")
    (sheet / "photo.json").write_bytes(b"\xff\xd8\xff")
    other = json.loads((sheet / "answers.json").read_text()) | {"seed": 6}
    (sheet / "other.json").write_text(json.dumps(other))
    files = [sheet / "broken.json", sheet / "photo.json", sheet / "other.json", sheet / "gone.json"]
    problem_sets.main(["grade", "--key", str(sheet / "key.json"), *map(str, files), str(answers(sheet, "ada"))])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["right"] for row in rows] == ["0"] * 4 + ["1"] * 3
    for row, file in zip(rows, files):
        assert row["file"] == str(file) and row["remark"].endswith(".")
    assert ["is not JSON" in row["remark"] for row in rows] == [True, True] + [False] * 5


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["make", "--seed", "1", "no-such-problem"], "slug must name a problem"),
        (["grade", "--key", "no-such-key.json", "x.json"], "no-such-key.json"),
    ],
)
def test_the_command_says_what_is_wrong_in_a_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=words):
        problem_sets.main(arguments)
