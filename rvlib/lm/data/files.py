"""Prompts of one's own: a file of JSON lines, a text file, a name that `datasets` knows, or one of the book's sources.

    {"prompt": …}                                 if there are, with "reference" (a good reply), "chosen", "rejected"
    one prompt a line                             in a file of any other ending
    trl-lib/ultrafeedback_binarized:test[:100]    a data set, its split ("train" by default); columns as the keys above
    alpaca-eval, demo-preferences, …              `prompts` and `sources`

Prompts and replies are texts, or conversations as chat data sets have them: of a prompt one user's turn, of a reply
the last.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from rvlib import _checks
from rvlib.lm.data import prompts, sources
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.data.sources import Example

ALPACA_EVAL = "alpaca-eval"
MAX_LISTED_LINES = 5  # bad ones, in an error


def read_examples(
    source: str | pathlib.Path, *, limit: int | None = None, skip_bad_lines: bool = False, seed: int = 0
) -> tuple[list[Example], list[str]]:
    """(examples, bad): the `sources.Example`s of `source`, and what is wrong with the lines that are none.

    Examples have no replies where the source has none. limit: the first so many; of the book's sources, so many drawn
    by `seed`. bad: texts, "line 3: not JSON"; ValueError that lists them unless `skip_bad_lines`, or if nothing is
    left. Blank lines are no lines. OSError for what is not there.
    """
    limit = limit if limit is None else _checks.whole("limit", limit)
    if source == ALPACA_EVAL:
        return [Example(prompt) for prompt in prompts.alpaca_eval(limit, seed=seed)], []
    if source in sources.SOURCES:
        return sources.load_examples(str(source), limit, seed=seed), []
    examples: list[Example] = []
    bad: list[str] = []
    for place, parse in _rows(str(source)):
        if limit is not None and len(examples) == limit:
            break
        try:
            examples.append(_example(place, parse()))
        except ValueError as error:
            bad.append(f"{place}: {error}")
    if bad and not skip_bad_lines:
        unlisted = f" and {len(bad) - MAX_LISTED_LINES} more" * (len(bad) > MAX_LISTED_LINES)
        raise ValueError(
            f"Each line of {source} must hold a prompt, got {'; '.join(bad[:MAX_LISTED_LINES])}{unlisted}; mend "
            "them, or leave them out with --skip-bad-lines (skip_bad_lines=True)."
        )
    if not examples:
        raise ValueError(f"{source} must hold at least one prompt, got none.")
    return examples, bad


def _rows(source: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(place, function that makes the row) for each row of a file or a data set.

    Such a function raises ValueError, in a few words, for a line that cannot be read.
    """
    path = pathlib.Path(source)
    if path.is_file():
        parse = _parse_json if path.suffix in (".jsonl", ".json", ".ndjson") else _parse_text
        lines = enumerate(path.read_bytes().splitlines(), 1)
        return ((f"line {n}", functools.partial(parse, line)) for n, line in lines if line.strip())
    if path.suffix in (".jsonl", ".json", ".ndjson", ".txt") and not path.is_dir():
        raise OSError(
            f"The prompts must be a file, the name of a data set, {ALPACA_EVAL} or one of "
            f"{', '.join(sources.SOURCES)}, got {source!r}, which is not there."
        )
    name, split = source.partition(":")[::2]
    import datasets  # slow to import, and only data sets need it

    had_progress_bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # whatever it was, of the many kinds that a data set fails by
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"The prompts must be a file, the name of a data set, {ALPACA_EVAL} or one of "
            f"{', '.join(sources.SOURCES)}, got {source!r}, which did not load ({reason})."
        ) from error
    finally:
        if had_progress_bars:
            datasets.enable_progress_bars()
    return ((f"row {n}", functools.partial(dict, row)) for n, row in enumerate(rows))


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def _parse_text(line: bytes) -> dict[str, str]:
    return {"prompt": _decode(line).strip()}


def _parse_json(line: bytes) -> Any:
    text = _decode(line)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None


def _example(place: str, row: Any) -> Example:
    """The `Example` of a row, named after its place; ValueError, in a few words, that says what it lacks."""
    if not isinstance(row, dict):
        raise ValueError("not an object with a prompt")
    chosen, rejected, prompt = row.get("chosen"), row.get("rejected"), row.get("prompt")
    if (chosen is None) != (rejected is None):
        raise ValueError("only one of chosen and rejected")
    if prompt is None and isinstance(chosen, list):
        prompt = chosen[:-1]  # data sets whose replies are whole conversations
    preferred, other = (
        None if reply is None else _message_text("reply", reply[-1:] if isinstance(reply, list) else reply)
        for reply in (chosen, rejected)
    )
    prompt, reference = _message_text("prompt", prompt), row.get("reference")
    reference = (preferred or "") if reference is None else _message_text("reference", reference)
    return Example(Prompt(place, prompt, reference), preferred, other)


def _message_text(kind: str, value: Any) -> str:
    """A text, or the text of a conversation's only turn; ValueError, in a few words that name its kind, for others."""
    if isinstance(value, list):
        if len(value) != 1 or not isinstance(value[0], dict):
            raise ValueError(f"a {kind} of {len(value)} turns instead of one")
        value = value[0].get("content")
    if value is None:
        raise ValueError(f"no {kind}")
    if not isinstance(value, str):
        raise ValueError(f"a {kind} that is no text but {type(value).__name__}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"a {kind} with half a character, which UTF-8 cannot write")
    if not value.strip() and kind == "prompt":
        raise ValueError("an empty prompt")
    return value
