"""Rows of tables, CSV, TSV or parquet, from which prompts, replies and scores are read; without torch."""

import csv
import io
import pathlib
import re
from dataclasses import dataclass
from typing import Any

from rvlib._terminal import first_line

SEPARATORS = {".csv": ",", ".tsv": "\t"}  # by the ending of a file's name
_KINDS = {",": "commas", "\t": "tabs"}
_OTHERS = {";": "semicolons; save it again", "\t": "tabs; end its name in .tsv", ",": "commas; end its name in .csv"}
_NAMES = re.compile(r'\s*"?[^\W\d][\w .()/%:+-]*"?\s*')  # of a column, where a text would have other marks


@dataclass(frozen=True)
class TableRow:
    """A row of a table. cells: by column, without those that a short row lacks; more: cells beyond the last column."""

    cells: dict[str, str]
    more: int


def table_rows(path: str | pathlib.Path, text: str, separator: str) -> tuple[list[str], list[TableRow]]:
    """(columns, rows) of a table whose first line names its columns; blank lines are no rows.

    Where names have a space before them, spaces after a separator are part of no cell. ValueError, in one sentence, for
    another separator, a name that comes twice, or quotes that do not close.
    """
    _check_separator(path, text, separator)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    lines = _lines(path, text, separator, spaced=False)
    if lines and any(name.startswith(" ") for name in lines[0][1:]):
        lines = _lines(path, text, separator, spaced=True)
    columns = [name.strip() for name in lines[0]] if lines else []
    _check_once(path, columns)
    return columns, [TableRow(dict(zip(columns, line)), max(len(line) - len(columns), 0)) for line in lines[1:]]


def _lines(path: str | pathlib.Path, text: str, separator: str, *, spaced: bool) -> list[list[str]]:
    """The cells of each line that is not blank. spaced: whether spaces after a separator are part of no cell."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=spaced)
    try:
        return [line for line in reader if line]
    except csv.Error as error:
        raise ValueError(
            f"{path} must be a table whose first line names its columns, but is not (line {reader.line_num}: {error})."
        ) from None


def parquet_rows(path: str | pathlib.Path, content: bytes) -> list[dict[str, Any]]:
    """The rows of a parquet file, None where a value is missing; ValueError, in one sentence, if it is damaged."""
    import pyarrow.parquet  # slow to import, and only parquet needs it

    try:
        table = pyarrow.parquet.ParquetFile(io.BytesIO(content)).read()
    except Exception as error:  # pyarrow's own
        reason = first_line(error)
        raise ValueError(f"{path} must be a whole parquet file, but is not ({reason}); copy it again.") from None
    _check_once(path, table.column_names)
    return table.to_pylist()


def first_twice(names: list[str]) -> str | None:
    """The first name that comes a second time."""
    return next((name for i, name in enumerate(names) if name in names[:i]), None)


def _check_once(path: str | pathlib.Path, columns: list[str]) -> None:
    """ValueError, in one sentence, where two columns have one name."""
    if (twice := first_twice(columns)) is not None:
        raise ValueError(f"{path} must have each column once, got two of the name {twice!r}; rename one.")


def _check_separator(path: str | pathlib.Path, text: str, separator: str) -> None:
    """ValueError, in one sentence, where the first line has but one name, with separators of another kind."""
    first = text.lstrip().partition("\n")[0]
    if separator in first:
        return
    for mark, got in _OTHERS.items():
        if mark in first and all(_NAMES.fullmatch(cell) for cell in first.split(mark)):
            raise ValueError(f"{path} must have its cells separated by {_KINDS[separator]}, got {got}.")
