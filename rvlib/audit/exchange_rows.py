"""A row of a file of replies or scores, whatever the file's format: what it holds, or a sentence on what is wrong.

`exchange` says which columns there may be.
"""

import decimal
import gzip
import json
import math
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rvlib.lm.data import tables
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.data.rows import ROLES, listed_keys, refuse_wrapped

REPLY = ("reply", "completion", "response")
REPLIES = ("replies", "completions", "responses")
MOST_DRAWN = 1_000_000  # replies of one text


@dataclass(frozen=True)
class FileRow:
    """A row's columns, and where it is, as errors say: the file, and "line 3" of it."""

    path: str | pathlib.Path
    place: str
    columns: dict[str, Any]

    def error(self, requirement: str) -> ValueError:
        """The ValueError, in one sentence, for a row that breaks a requirement, which begins with "must"."""
        return ValueError(f"{self.path}, {self.place}, {requirement}")

    def first_of(self, names: tuple[str, ...]) -> Any:
        """The first of these columns that the row has; None where it has none."""
        return next((self.columns[name] for name in names if self.columns.get(name) is not None), None)

    def prompt(self) -> Prompt:
        """Its prompt, named after its place; replies and scores find each other by its text."""
        if "prompt" not in self.columns:
            raise self.error(f'must have a "prompt", got {listed_keys(self.columns)}; rename one of them.')
        prompt, reference = self.columns["prompt"], self.columns.get("reference")
        reference = "" if reference is None else self.text("reference", reference)
        are_turns = isinstance(prompt, list) and all(
            isinstance(turn, dict) and {"role", "content"} <= set(turn) for turn in prompt
        )
        if prompt and are_turns:
            turns = [(str(turn["role"]), self.text("prompt", turn["content"])) for turn in prompt]
            if _is_assistant(turns[-1][0]):
                raise self.error("must have a prompt whose last turn is not the assistant's, which is the reply.")
            return Prompt.of_turns(self.place, turns, reference)
        return Prompt(self.place, self.text("prompt", prompt), reference)

    def replies(self) -> list[str]:
        """The texts of its replies, of either layout."""
        several = self.first_of(REPLIES)
        if isinstance(several, list):
            return [self.text("reply", reply) for reply in several]
        single = [self.columns[name] for name in REPLY if self.columns.get(name) is not None]
        if len(single) != 1:
            known = listed_keys({name: value for name, value in self.columns.items() if value is not None})
            raise self.error(
                f'must have one "reply" or a list of "replies", got {known}; rename, add or leave out one.'
            )
        return [self.text("reply", single[0])]

    def of_each(self, value: Any, count: int, valid: Callable[[Any], bool], entry: str) -> list[Any]:
        """A value, or a list of values, as one for each of `count` replies, each valid or None.

        entry: what an error calls it.
        """
        values = value if isinstance(value, list) else [value] * count
        if len(values) != count or not all(value is None or valid(value) for value in values):
            raise self.error(
                f"must have one {entry} for each of {count} replies, got {json.dumps(values, default=str)[:60]}."
            )
        return values

    def prompt_copy(self) -> int:
        """The number that tells apart groups of replies to one prompt."""
        copy = _count(self.columns.get("prompt_copy"), default=0)
        if copy is None:
            raise self.error(
                'must have a whole number of at least 0 as "prompt_copy", got '
                f"{self.columns['prompt_copy']!r}; correct it, or leave it out."
            )
        return copy

    def times_drawn(self, replies: int) -> int:
        """How many replies each of its `replies` stands for."""
        times = _count(self.columns.get("times_drawn"), default=1)
        if times is None or (replies > 1 and times != 1):
            raise self.error(
                f'must have a whole number of "times_drawn" of one reply, got {self.columns["times_drawn"]!r} of '
                f"{replies}; give a row to each reply, or leave it out."
            )
        return times

    def text(self, kind: str, value: Any) -> str:
        """A text, or that of a conversation's last turn. kind: what an error calls it."""
        if isinstance(value, list) and value and isinstance(value[-1], dict) and "content" in value[-1]:
            role = value[-1].get("role", "assistant")
            if not _is_assistant(role):
                raise self.error(f"must have a {kind} whose last turn is the assistant's, got one of {role!r}.")
            value = value[-1]["content"]
        if isinstance(value, list) and value and all(isinstance(part, dict) and "text" in part for part in value):
            value = "".join(str(part["text"]) for part in value)  # a content in parts
        if not isinstance(value, str):
            raise self.error(f"must have a {kind} that is a text, got {type(value).__name__}.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise self.error(f"must have a {kind} of whole characters, got half a one, which UTF-8 cannot write.")
        return value


def read_rows(path: str | pathlib.Path) -> Iterator[FileRow]:
    """The rows of a file: JSON lines, a JSON array, CSV or TSV, any of them gzipped, or parquet.

    OSError or ValueError, in one sentence, for a file of another kind.
    """
    content = pathlib.Path(path).read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{path} must be a whole file where it is gzipped, but does not unpack ({error}); copy it again."
            ) from None
    rows: Iterator[tuple[str, Any]]
    if content.startswith(b"PAR1"):
        rows = ((f"row {n}", _plain(row)) for n, row in enumerate(tables.parquet_rows(path, content), 1))
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise ValueError(f"{path} must be JSON lines or CSV in UTF-8, or parquet, but is none of them; save it so.")
        if separator := tables.SEPARATORS.get(pathlib.Path(str(path).lower().removesuffix(".gz")).suffix):
            rows = _table_rows(path, text, separator)
        elif text.lstrip().startswith("["):
            rows = ((f"row {n}", row) for n, row in enumerate(_json(path, "the whole", text), 1))
        else:
            if text.lstrip().startswith("{"):
                _check_lines(path, text)
            lines = ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
            rows = ((f"line {n}", _json(path, f"line {n}", line)) for n, line in lines)
    for place, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {place}, must be an object with a prompt and replies, got {type(row).__name__}.")
        yield FileRow(path, place, row)


def _check_lines(path: str | pathlib.Path, text: str) -> None:
    """ValueError, in one sentence, where a file is one object and not one a line."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    refuse_wrapped(path, value, ("prompt", *REPLY))


def _is_assistant(role: Any) -> bool:
    """Whether a turn of this role is a reply."""
    return ROLES.get(str(role), role) == "assistant"


def is_log_prob(value: Any) -> bool:
    """Whether a value is the logarithm of a probability above 0."""
    return isinstance(value, (int, float)) and -sys.float_info.max <= value <= 0


def _table_rows(path: str | pathlib.Path, text: str, separator: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) for each row of a table whose first line names its columns."""
    columns, table = tables.table_rows(path, text, separator)
    for n, row in enumerate(table, 1):
        if row.more or len(row.cells) < len(columns):
            raise ValueError(
                f"{path}, row {n}, must have as many cells as the first line names; quote cells that hold a separator."
            )
        yield f"row {n}", {name: _cell(name, cell) for name, cell in row.cells.items()}


def _cell(column: str, text: str) -> Any:
    """What a table's cell holds, as JSON would: a text, a number, true or false, or None for an empty one."""
    if column == "prompt" or column in REPLY:
        return text
    if column in ("reference", "chosen", "rejected"):
        return text or None
    word = text.strip().lower()
    if word in ("", "null", "none", "nan"):
        return None
    if word in ("true", "false"):
        return word == "true"
    try:
        if "_" in text:  # Python would read 1_000
            return text
        return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return text


def _json(path: str | pathlib.Path, place: str, text: str) -> Any:
    """A value of JSON. Python writes NaN for a number that is missing, which JSON has not; it is read as null."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if (twice := tables.first_twice([name for name, _ in pairs])) is not None:
            raise _Twice(f"{path}, {place}, must have each key once, got {twice!r} twice; rename one.")
        return dict(pairs)

    try:
        return json.loads(text, parse_constant=_constant, object_pairs_hook=once)
    except _Twice as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError) as error:
        is_table = place == "line 1" and not str(path).lower().removesuffix(".gz").endswith(("json", "jsonl"))
        reason = f" ({error})" if place == "the whole" else "; end the name of a table in .csv or .tsv" * is_table
        raise ValueError(f"{path} must hold JSON, a row a line or an array, but {place} is none{reason}.") from None


class _Twice(Exception):
    """A key that an object has twice."""


def _constant(name: str) -> float | None:
    """A number that JSON has no word for, as Python writes it; None for NaN, which is one that is missing."""
    return None if name == "NaN" else float(name)


def _plain(value: Any) -> Any:
    """What a parquet file holds, as JSON would: None for what is missing."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    value = float(value) if isinstance(value, decimal.Decimal) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _count(value: Any, *, default: int) -> int | None:
    """`value` as a whole number of at least 0, which a parquet file may hold as a float; None for anything else."""
    value = default if value is None else value
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return value if type(value) is int and 0 <= value <= MOST_DRAWN else None
