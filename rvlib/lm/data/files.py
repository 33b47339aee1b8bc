"""Prompts from anywhere: a file, a name that `datasets` knows, or one of the book's sources.

    FILE.jsonl, .json, .csv, .tsv, .parquet       rows with the keys below; each may end in .gz; .json may be an array,
                                                  of rows or of texts, each a prompt
    FILE.txt, or a file without an ending         one prompt a line
    trl-lib/ultrafeedback_binarized:test[:100]    a data set, its split ("train" by default); columns as the keys below
    alpaca-eval, demo-preferences, …              `prompts` and `sources`

`rows.example` says which keys of a row hold a prompt, a reference reply and a pair of replies.
"""

import contextlib
import csv
import functools
import gzip
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rvlib import _checks
from rvlib._terminal import first_line
from rvlib.lm.data import hub, prompts, rows, sources, tables
from rvlib.lm.data.prompts import Example

ALPACA_EVAL = "alpaca-eval"
MAX_LISTED_LINES = 5  # bad ones, in an error
JSON_LINES, TEXT = (".jsonl", ".ndjson"), (".txt", "")
ENDINGS = (*JSON_LINES, ".json", ".csv", ".tsv", ".parquet", ".txt")
# First bytes of files that are no text: archives, UTF-16, tables, pictures, PDF, pickles of PyTorch (zip).
MAGIC = {
    b"\x1f\x8b": "gzip's; end its name in .gz",
    b"PK\x03\x04": "a zip archive's, as of a spreadsheet; save it as CSV",
    b"\xff\xfe": "UTF-16's; save it as UTF-8",
    b"\xfe\xff": "UTF-16's; save it as UTF-8",
    b"PAR1": "parquet's; end its name in .parquet",
    b"BZh": "bzip2's; unpack it",
    b"\xfd7zXZ": "xz's; unpack it",
    b"\x28\xb5\x2f\xfd": "zstandard's; unpack it",
    b"%PDF": "a PDF's; copy the prompts into a .txt file",
    b"SQLite format 3": "a data base's; save the table as CSV",
    b"\x89PNG": "a picture's",
}

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # characters that no text has
NAME = re.compile(r"[A-Za-z_][\w.-]{0,39}", re.ASCII)  # of a table's column, where a prompt would have words

Row = tuple[str, Callable[[], Any]]  # its place, and a function that makes it or raises ValueError in a few words


def read_examples(
    source: str | pathlib.Path,
    *,
    limit: int | None = None,
    skip_bad_lines: bool = False,
    seed: int = 0,
    column: str | None = None,
) -> tuple[list[Example], list[str]]:
    """(examples, bad): the `Example`s of `source`, and what is wrong with the other lines.

    Examples have no replies where the source has none. limit: take so many, the first ones of a file, or ones drawn by
    `seed` of the book's sources. column: the key that holds the prompt, where it is none of `rows.KEYS`. bad: texts,
    "line 3: not JSON"; ValueError that lists them unless `skip_bad_lines`, or if nothing is left. Blank lines are no
    lines. OSError for what is not there, ValueError for a file of another kind than its name says.
    """
    limit = limit if limit is None else _checks.whole("limit", limit)
    if source == ALPACA_EVAL:
        return [Example(prompt) for prompt in prompts.alpaca_eval(limit, seed=seed)], []
    if source in sources.SOURCES:
        return sources.load_examples(str(source), limit, seed=seed), []
    examples: list[Example] = []
    bad: list[str] = []
    for place, make in _rows(str(source), column):
        if limit is not None and len(examples) == limit:
            break
        try:
            examples.append(rows.example(place, make(), column))
        except ValueError as error:
            bad.append(f"{place}: {error}")
    if bad and not skip_bad_lines:
        raise ValueError(
            f"Each line of {source} must hold a prompt, got {list_bad_lines(bad)}; correct them"
            + ", or leave them out with --skip-bad-lines (skip_bad_lines=True)" * bool(examples)
            + "."
        )
    if not examples:
        reasons = f" ({list_bad_lines(bad)})" * bool(bad)
        raise ValueError(f"{source} must hold at least one prompt, got none{reasons}.")
    return examples, bad


def list_bad_lines(bad: Sequence[str]) -> str:
    """What is wrong with lines, each reason once with the first few that have it, and how many more there are."""
    by_reason: dict[str, list[str]] = {}
    for place, _, reason in (line.partition(": ") for line in bad):
        by_reason.setdefault(reason, []).append(place)
    listed = []
    for reason, places in list(by_reason.items())[:MAX_LISTED_LINES]:
        more = f" and {len(places) - MAX_LISTED_LINES} more" * (len(places) > MAX_LISTED_LINES)
        listed.append(f"{', '.join(places[:MAX_LISTED_LINES])}{more}: {reason}")
    unlisted = sum(map(len, list(by_reason.values())[MAX_LISTED_LINES:]))
    return "; ".join(listed) + f" and {unlisted} more" * bool(unlisted)


def _rows(source: str, column: str | None) -> Iterator[Row]:
    """The rows of a file or a data set."""
    path = pathlib.Path(source)
    if path.is_file():
        return _file_rows(path, column)
    name = source.partition(":")[0]
    if not pathlib.Path(name).is_dir() and (misspelt := hub.misspelt_path(name)):
        raise _not_loaded(source, misspelt)
    return _data_set_rows(source)


def _file_rows(path: pathlib.Path, column: str | None) -> Iterator[Row]:
    """The rows of a file, by the ending of its name. ValueError, in one sentence, for a file of another kind."""
    ending = pathlib.Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} must be packed by gzip, as its name says, but is not ({error}).") from error
    if ending == ".parquet":
        return _parquet_rows(path, content)
    for magic, kind in MAGIC.items():
        if content.startswith(magic):
            raise ValueError(f"{path} must be a text file, but its first bytes are {kind}.")
    if b"\0" in content:
        raise ValueError(f"{path} must be a text file in UTF-8, but has NUL bytes; save it as UTF-8.")
    if separator := tables.SEPARATORS.get(ending):
        return _table_rows(path, content, separator)
    if ending in (*JSON_LINES, ".json") and (items := _items(path, ending, content, column)) is not None:
        return ((f"item {n}", functools.partial(_item, item)) for n, item in enumerate(items, 1))
    if ending not in (*JSON_LINES, ".json", *TEXT):
        raise ValueError(
            f"A file of prompts must end in {', '.join(ENDINGS)}, perhaps with .gz, got {path.name}; rename it."
        )
    parse = _parse_text if ending in TEXT else _parse_json
    lines = [(n, line) for n, line in enumerate(content.splitlines(), 1) if line.strip()]
    if ending in TEXT and lines and (other_kind := _other_kind([line for _, line in lines])):
        raise ValueError(f"{path} must hold a prompt a line, but its first line is {other_kind}.")
    return ((f"line {n}", functools.partial(parse, line)) for n, line in lines)


def _other_kind(lines: list[bytes]) -> str | None:
    """What the first line is, if it is none of a text: of JSON lines, or the names of a table's columns."""
    text, whole = (part.decode("utf-8-sig", errors="replace").strip() for part in (lines[0], b"\n".join(lines)))
    for value, beginning, kind in (
        (text, r"\{|\[\s*\{", "JSON; end its name in .jsonl or .json"),
        (whole, r'\{|\[\s*[{"]', "that of JSON; end its name in .json"),
    ):
        with contextlib.suppress(ValueError, RecursionError):
            if re.match(beginning, value) and json.loads(value) is not None:
                return kind
    for separator, advice in (
        (",", "end its name in .csv"),
        ("\t", "end its name in .tsv"),
        (";", "save it with commas, and end its name in .csv"),
    ):
        cells = [cell.strip().strip('"') for cell in text.split(separator)]
        if len(cells) == len(lines) == 1:
            continue  # a prompt that happens to be a key
        if set(cells) & set(rows.KEYS) and not any(" " in cell for cell in cells):
            columns = f"columns {', '.join(cells)}" if len(cells) > 1 else f"column {cells[0]}"
            return f"that of a table with the {columns}; {advice}"
        if _is_table(whole.split("\n"), separator):
            names = f"that of a table with the columns {', '.join(cells)}"
            return f"{names}; {advice}, and name the one with the prompts by --column"
    return None


def _is_table(lines: list[str], separator: str) -> bool:
    """Whether lines are a table whose first line names its columns: names alone, and as many cells in each line."""
    try:
        rows_of_cells = list(csv.reader(lines, delimiter=separator, strict=True))
    except csv.Error:
        return False
    named = [all(NAME.fullmatch(cell.strip()) for cell in row) for row in rows_of_cells]
    header = rows_of_cells[0]
    as_many = len(header) > 1 and len(set(header)) == len(header) and {len(header)} == set(map(len, rows_of_cells))
    return as_many and named[0] and not all(named)  # lists of single words have no line of names


def _items(path: pathlib.Path, ending: str, content: bytes, column: str | None) -> list[Any] | None:
    """The entries of an array that a file is, or the object over several lines that it is one of; None of any other."""
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if ending == ".json" and content.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"["):
            raise ValueError(f"{path} must be JSON, an array or an object a line, but is not ({error}).") from error
        return None
    rows.refuse_wrapped(path, value, [*rows.KEYS, *([] if column is None else [column])], texts=True)
    one_line = b"\n" not in content.strip()
    return value if isinstance(value, list) else None if one_line else [value]


def _table_rows(path: pathlib.Path, content: bytes, separator: str) -> Iterator[Row]:
    """Rows of a table whose first line names its columns; empty cells are as if they were not there."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} must be a table in UTF-8, but is not; save it as UTF-8.") from None
    columns, table = tables.table_rows(path, text, separator)
    if table and all(row.more for row in table):
        raise ValueError(
            f"{path} must have as many cells in each line as in the first, which names its columns, but has more; "
            "quote cells that hold a separator."
        )
    for n, row in enumerate(table, 1):
        if any(row.cells.values()) or row.more:
            yield f"row {n}", functools.partial(_of_table, row, columns)


def _of_table(row: tables.TableRow, columns: list[str]) -> dict[str, str]:
    """A table's row; one without any key of a prompt has its empty cells too, so that an error can name them."""
    if row.more:
        count = len(columns)
        raise ValueError(f"{count + row.more} cells instead of {count}; cells that hold a separator need quotes")
    cells = {name: _as_text(cell) for name, cell in row.cells.items() if cell}
    return cells if any(name in cells for name in rows.KEYS) else {name: cells.get(name, "") for name in columns}


def _parquet_rows(path: pathlib.Path, content: bytes) -> Iterator[Row]:
    return (
        (f"row {n}", functools.partial(_same, item)) for n, item in enumerate(tables.parquet_rows(path, content), 1)
    )


def _data_set_rows(source: str) -> Iterator[Row]:
    name, split = source.partition(":")[::2]
    import datasets  # slow to import, and only data sets need it

    had_progress_bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        if not pathlib.Path(name).is_dir():
            hub.revision(name, "dataset")
        items = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # whatever it was, of the many kinds that a data set fails by
        raise _not_loaded(source, first_line(error)) from error
    finally:
        if had_progress_bars:
            datasets.enable_progress_bars()
    return ((f"row {n}", functools.partial(dict, item)) for n, item in enumerate(items))


def _not_loaded(source: str, reason: str) -> OSError:
    return OSError(
        f"The prompts must be a file, the name of a data set, {ALPACA_EVAL} or one of {', '.join(sources.SOURCES)}, "
        f"got {source!r}, which did not load ({reason})."
    )


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def _parse_text(line: bytes) -> dict[str, str]:
    return {"prompt": _as_text(_decode(line)).strip()}


def _as_text(text: str) -> str:
    """The same text; ValueError, in a few words, for what has control characters and so is none."""
    if control := CONTROL.search(text):
        raise ValueError(f"not text, with the control character U+{ord(control[0]):04X}")
    return text


def _parse_json(line: bytes) -> Any:
    text = _decode(line)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None


def _same(item: Any) -> Any:
    return item


def _item(item: Any) -> Any:
    """An entry of an array, of which a text is a prompt."""
    return {"prompt": item} if isinstance(item, str) else item
