"""`rvlib exercises make` and `rvlib exercises grade`: sheets of problems with a number for an answer, and their marks.

    rvlib exercises make --seed 7 --folder homework   problems.md, answers.json and, for the teacher, key.json
    rvlib exercises grade --key homework/key.json answers/*.json > marks.csv

An answer is right if it is within half a per cent of the key's, so three digits are enough. A count, which the key has
as an integer, must be exact. A percentage in place of a share is wrong, and its remark says so.
"""

import argparse
import csv
import json
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rvlib import problems
from rvlib._terminal import Defaults, sentence
from rvlib.exercises.checking import NO_PERCENTAGE
from rvlib.files import write_text

TOLERANCE = 5e-3


@dataclass(frozen=True)
class Mark:
    """What one file has for one problem: the answer as it was given, whether it is right, or what is wrong with it."""

    file: str
    name: str
    problem: str
    answer: Any
    right: bool
    remark: str


def write_sheet(folder: pathlib.Path, seed: int, slugs: Sequence[str] = ()) -> list[problems.Problem]:
    """Write problems.md, answers.json (to be filled in) and key.json into `folder`; returns the problems.

    slugs: which, by default all. ValueError for one that does not exist.
    """
    sheet = [problems.make(slug, seed) for slug in slugs or problems.names()]
    folder.mkdir(parents=True, exist_ok=True)
    head = (
        f"# Problems\n\nSheet {seed}. Write each answer as a number, to three digits at least and a count exactly, or "
        "as a list of numbers where two are asked for, into `answers.json`, with your name.\n"
    )
    body = "\n".join(f"## {count}. {problem.slug}\n\n{problem.text}\n" for count, problem in enumerate(sheet, 1))
    write_text(folder / "problems.md", f"{head}\n{body}")
    empty = {"name": "", "seed": seed, "answers": {problem.slug: None for problem in sheet}}
    write_text(folder / "answers.json", json.dumps(empty, indent=1) + "\n")
    key = {"seed": seed, "answers": {problem.slug: list(problem.answers) for problem in sheet}}
    write_text(folder / "key.json", json.dumps(key, indent=1) + "\n")
    return sheet


def grade(key: pathlib.Path, files: Sequence[pathlib.Path]) -> list[Mark]:
    """A `Mark` for each problem of the key and each file. A file that cannot be read has one mark, which says why."""
    content = _read(key, "key.json as `rvlib exercises make` writes it")
    return [mark for file in files for mark in _grade_file(file, content)]


def _grade_file(file: pathlib.Path, key: dict[str, Any]) -> list[Mark]:
    """What `grade` gives for one file; key: what key.json holds."""
    try:
        sheet = _read(file, "an answers.json that was filled in")
    except (OSError, ValueError) as error:
        return [Mark(str(file), "", "", "", False, sentence(error))]
    name = str(sheet.get("name", ""))
    if sheet.get("seed", key["seed"]) != key["seed"]:
        remark = f"The sheet must be that of the key, {key['seed']}, got {sheet['seed']}; use its own key."
        return [Mark(str(file), name, "", "", False, remark)]
    marks = []
    for slug, expected in key["answers"].items():
        answer = sheet["answers"].get(slug)
        right, remark = _compare(answer, expected)
        marks.append(Mark(str(file), name, slug, answer, right, remark))
    return marks


def _compare(answer: Any, expected: list[float]) -> tuple[bool, str]:
    """Whether an answer is right, and a remark where it is not; expected: the key's numbers."""
    numbers = answer if isinstance(answer, list) else [answer]
    if answer is None or numbers == []:
        return False, "no answer"
    if any(isinstance(x, str) and "%" in x for x in numbers):
        return False, NO_PERCENTAGE
    if len(numbers) != len(expected) or any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in numbers):
        return False, f"not {len(expected)} number{'s' * (len(expected) > 1)}"
    if _right(numbers, expected):
        return True, ""
    # A count is no share.
    is_percentage = not all(isinstance(value, int) for value in expected)
    is_percentage &= _right([number / 100 for number in numbers], expected)
    return False, f"wrong: {NO_PERCENTAGE}" if is_percentage else "wrong"


def _right(numbers: list[float], expected: list[float]) -> bool:
    """Whether as many numbers as the key has are the key's: `TOLERANCE` for a float, exact for an int."""
    return all(
        given == value if isinstance(value, int) else abs(given - value) <= TOLERANCE * abs(value)
        for given, value in zip(numbers, expected)
    )


def _read(path: pathlib.Path, expected: str) -> dict[str, Any]:
    """A file that holds a sheet's answers; ValueError, which calls it `expected`, for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(
            f"{path} must be {expected}, but is not JSON ({error}); correct it or make it again."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("answers"), dict):
        raise ValueError(f"{path} must be {expected}, but has no object of answers; make the sheet again.")
    return content


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `rvlib exercises`. Exits with one sentence for what is wrong."""
    parser = argparse.ArgumentParser(
        prog="rvlib exercises", description="Problems for marks, made and marked.", formatter_class=Defaults
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="write a sheet of problems and its key", formatter_class=Defaults)
    making.add_argument("--seed", type=int, required=True, help="another number makes another sheet")
    making.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("problems"), help="where to write")
    making.add_argument("problems", nargs="*", help=f"which, by default all: {', '.join(problems.names())}")
    grading = commands.add_parser("grade", help="mark answers, as CSV", formatter_class=Defaults)
    grading.add_argument("--key", type=pathlib.Path, required=True, help="key.json of the sheet")
    grading.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE", help="an answers.json each")
    options = parser.parse_args(arguments)
    try:
        if options.command == "make":
            count = len(write_sheet(options.folder, options.seed, options.problems))
            print(f"{count} problems in {options.folder}/problems.md, for answers.json; the key is key.json.")
        else:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(["file", "name", "problem", "answer", "right", "remark"])
            for mark in grade(options.key, options.files):
                answer = "" if mark.answer is None else mark.answer
                writer.writerow([mark.file, mark.name, mark.problem, answer, int(mark.right), mark.remark])
    except (OSError, ValueError) as error:
        sys.exit(sentence(error))
