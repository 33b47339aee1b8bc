"""Replies and scores from files: drawn elsewhere, scored anywhere; without torch.

    replies   {"prompt": …, "reply": …}                            a row a reply, or
              {"prompt": …, "replies": [ … ]}                      a row a prompt
    scores    {"prompt": …, "reply": …, "helpful": 0.3, …}         a row a reply and a column a score, or
              {"prompt": …, "replies": [ … ], "helpful": [ … ]}    a row a prompt

JSON lines, a JSON array, CSV or TSV with a row a reply, any of them gzipped, or parquet. "completion" and "response"
are other words for "reply". A prompt is a text or a conversation, a reply a text or a conversation whose last turn
counts. Beside the replies there may be "log_prob" (of the whole reply under the policy), "ended" (whether it ended
before the longest length), "reference", "chosen" with "rejected", "times_drawn" (how many replies a row stands for, 1
by default), and "prompt_copy" (a number that tells apart groups of replies to one prompt). A reply has one score, which
counts as often as it was drawn. A score of null abstains: the reply is left out of that score's numbers. `export`
writes replies in this form, to be scored.
"""

import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rvlib import _checks
from rvlib.audit.exchange_rows import REPLIES, REPLY, FileRow, is_log_prob, read_rows
from rvlib.lm.data.prompts import Preference, Prompt

_Value = TypeVar("_Value")

LOG_PROBS = ("log_prob", "logprob", "log_probs", "logprobs")
# Columns that are no scores.
KNOWN = {"prompt", "prompt_id", "id", "index", "ended", "reference", "chosen", "rejected", "tokens"}
KNOWN |= {"times_drawn", "prompt_copy"}
INDEX = re.compile(r"\s*|Unnamed: [\d.]+|__index_level_\d+__")  # a column of the rows' numbers, as pandas writes it
NUMBER_AS_TEXT = re.compile(r"[-+]?\d+([.,]\d+)?(e[-+]?\d+)?\s*%?", re.IGNORECASE)
Key = tuple[str, str]  # the texts of a prompt and of a reply
_Group = tuple[str, int]  # the text of a prompt and the number of its copy


@dataclass(frozen=True)
class Replies:
    """Replies, from a file or drawn here, as many to each prompt.

    prompts: of a file, each with the place where it came first as its name. replies: (prompts, replies) texts.
    log_probs: the same shape, or None where not all are known. ended: the same of whether they ended by themselves.
    pairs: of a preferred and another reply, for the prompts that have one. left_out: sentences on what was not taken.
    """

    prompts: list[Prompt]
    replies: list[list[str]]
    log_probs: list[list[float]] | None
    ended: list[list[bool]] | None
    pairs: list[Preference]
    left_out: list[str]

    def where(self, mask: Sequence[bool]) -> "Replies":
        """Those to the prompts for which `mask` is true, with all pairs."""
        return replace(
            self,
            prompts=_where(mask, self.prompts),
            replies=_where(mask, self.replies),
            log_probs=None if self.log_probs is None else _where(mask, self.log_probs),
            ended=None if self.ended is None else _where(mask, self.ended),
        )


@dataclass(frozen=True)
class ScoreTable:
    """Named scores of replies: {name: {(prompt, reply): score}}, NaN where a score abstains; source: the file.

    no_scores: the columns of the file that hold texts or other things that are no scores.
    """

    source: str
    scores: Mapping[str, Mapping[Key, float]]
    no_scores: Sequence[str] = ()

    def rewards(self, name: str, prompts: Sequence[str], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """The score `name` of every reply, (prompts, replies), NaN where it abstains.

        ValueError, in one sentence, where the file has no score of a reply.
        """
        table = self.scores[name]
        absent = [(p, r) for p, row in zip(prompts, replies) for r in row if (p, r) not in table]
        if absent:
            bare = {(prompt.strip(), reply.strip()) for prompt, reply in table}
            spaces = " (it has one that differs in spaces or line breaks at an end)"
            differs = spaces * (tuple(text.strip() for text in absent[0]) in bare)
            raise ValueError(
                f"{self.source} must have a score {name!r} for each reply, got none for {len(absent)} of "
                f"{sum(map(len, replies))}, the first of them {_shown(absent[0])}{differs}; add them, or write null "
                "where the score abstains."
            )
        return np.array([[table[p, r] for r in row] for p, row in zip(prompts, replies)], dtype=float)

    def preferences(
        self, name: str, prompts: Sequence[str], pairs: Sequence[Sequence[str]]
    ) -> NDArray[np.float64] | None:
        """The score `name` of both replies of each pair, (pairs, 2), NaN where unknown; None if it knows no pair."""
        table = self.scores[name]
        known = [[table.get((p, reply), math.nan) for reply in pair] for p, pair in zip(prompts, pairs)]
        preferences = np.array(known, dtype=float).reshape(-1, 2)
        return preferences if np.isfinite(preferences).all(-1).any() else None

    def unmatched(self, keys: set[Key], *, texts: bool = True) -> str | None:
        """A sentence on the scores of replies that are not among `keys`, if there are any.

        texts: whether the sentence quotes one of them.
        """
        unmatched = [key for table in self.scores.values() for key in table if key not in keys]
        if not unmatched:
            return None
        example = f", such as {_shown(unmatched[0])}" if texts else ""
        return f"{len(unmatched)} scores of {self.source} are of other replies{example}"


def read_replies(path: str | pathlib.Path, *, num_generations: int | None = None, limit: int | None = None) -> Replies:
    """The `Replies` of a file. num_generations: the first so many to each prompt; limit: the first so many prompts.

    Without `num_generations` all prompts must have as many; with it, those with fewer are left out and counted. OSError
    or ValueError, in one sentence, for what is missing or wrong.
    """
    limit = None if limit is None else _checks.whole("limit", limit)
    num_generations = None if num_generations is None else _checks.whole("num_generations", num_generations)
    prompts: dict[_Group, Prompt] = {}
    texts: dict[_Group, list[str]] = {}
    log_probs: dict[_Group, list[float | None]] = {}
    ended: dict[_Group, list[bool | None]] = {}
    pairs: dict[tuple[_Group, str, str], Preference] = {}
    for row in read_rows(path):
        prompt = row.prompt()
        key = prompt.text, row.prompt_copy()
        prompt = prompts.setdefault(key, prompt)
        replies = row.replies()
        replies *= row.times_drawn(len(replies))
        count, columns = len(replies), row.columns
        texts.setdefault(key, []).extend(replies)
        log_probs.setdefault(key, []).extend(
            row.of_each(row.first_of(LOG_PROBS), count, is_log_prob, "log-probability, of the whole reply,")
        )
        ended.setdefault(key, []).extend(
            row.of_each(columns.get("ended"), count, lambda flag: flag in (True, False), '"ended", true or false,')
        )
        if columns.get("chosen") is not None and columns.get("rejected") is not None:
            chosen, rejected = (row.text(kind, columns[kind]) for kind in ("chosen", "rejected"))
            pairs[key, chosen, rejected] = Preference(prompt, chosen, rejected)
    keys = list(prompts)[:limit]
    left_out = []
    if num_generations is None:
        counts = {len(texts[key]) for key in keys}
        if len(counts) > 1:
            few = min(keys, key=lambda key: len(texts[key]))
            most = max(keys, key=lambda key: len(texts[key]))
            raise ValueError(
                f"Each prompt must have as many replies, got {len(texts[few])} to {prompts[few].name} of {path} and "
                f"{len(texts[most])} to {prompts[most].name}; set --num-generations to take the first so many of each."
            )
        num_generations = next(iter(counts), 0)
    too_few = [key for key in keys if len(texts[key]) < num_generations]
    keys = [key for key in keys if len(texts[key]) >= num_generations]
    left_out += [f"{prompts[key].name}: {len(texts[key])} replies, fewer than {num_generations}" for key in too_few]
    kept = set(keys)
    count = len({text for text, _ in keys})
    if count < 2 or num_generations < 2:
        different = " different" * (count < len(keys))
        why = f" ({len(too_few)} prompts have fewer than {num_generations} replies)" * bool(too_few)
        raise ValueError(
            "An audit needs at least two prompts and two replies to each, "
            f"got {count}{different} and {num_generations} in {path}{why}; its intervals are over prompts."
        )
    return Replies(
        prompts=[prompts[key] for key in keys],
        replies=[texts[key][:num_generations] for key in keys],
        log_probs=_all_known([log_probs[key][:num_generations] for key in keys]),
        ended=_all_known([ended[key][:num_generations] for key in keys]),
        pairs=[pair for (key, *_), pair in pairs.items() if key in kept],
        left_out=left_out,
    )


def read_scores(path: str | pathlib.Path) -> ScoreTable:
    """The `ScoreTable` of a file. OSError or ValueError, in one sentence, for what is missing or wrong."""
    table: dict[str, dict[Key, float]] = {}
    no_numbers: dict[str, tuple[FileRow, Any]] = {}  # of each column the first
    twice: list[tuple[Key, str]] = []
    for row in read_rows(path):
        prompt, replies = row.prompt().text, row.replies()
        columns = {
            name: value
            for name, value in row.columns.items()
            if name not in KNOWN and name not in LOG_PROBS and not INDEX.fullmatch(name)
        }
        nested = columns.pop("scores") if isinstance(columns.get("scores"), dict) else {}
        if twice_in_row := sorted(columns.keys() & nested.keys()):
            raise row.error(f'must have each score once, got {twice_in_row[0]!r} beside "scores" and in them.')
        columns |= nested
        for name, values in columns.items():
            if name in REPLY + REPLIES:
                continue
            values = values if isinstance(values, list) else [values]
            wrong = [value for value in values if not isinstance(value, (int, float, type(None)))]
            if wrong:  # a comment, a source: no score
                no_numbers.setdefault(name, (row, wrong[0]))
                continue
            if len(values) != len(replies):
                raise row.error(f"must have one {name!r} for each of its {len(replies)} replies, got {len(values)}.")
            column = table.setdefault(name, {})
            for reply, value in zip(replies, values):
                score = _score(value)
                if math.isinf(score):
                    raise row.error(f"must have finite scores, got {name!r} = {str(value)[:40]}.")
                if score != value and not math.isnan(score):
                    raise row.error(
                        f"must have scores that a number of 64 bits tells from the next, got {name!r} = {value}; leave "
                        "the column out, or take off its scores what they have in common."
                    )
                known = column.setdefault((prompt, reply), score)
                if known != score and not (math.isnan(known) and math.isnan(score)):
                    twice.append(((prompt, reply), name))
    for name, (row, value) in no_numbers.items():
        has_numbers = any(map(math.isfinite, table.pop(name, {}).values()))
        if has_numbers or (isinstance(value, str) and NUMBER_AS_TEXT.fullmatch(value.strip())):
            raise row.error(f"must have a number or null as {name!r}, got {str(value)[:40]!r}; write it as a number.")
    if not any(np.isfinite(value) for column in table.values() for value in column.values()):
        raise ValueError(
            f'{path} must have a column of numbers beside "prompt" and "reply", the score of each reply, got none.'
        )
    if twice:
        key, name = twice[0]
        raise ValueError(
            f"{path} must have one score for each reply, got two that differ for {len(twice)} replies, the first "
            f"{_shown(key)} ({name!r}); leave one of them out, or name the columns differently."
        )
    scored = {name: column for name, column in table.items() if any(map(math.isfinite, column.values()))}
    no_scores = [*no_numbers, *(name for name in table if name not in scored)]
    if list(scored) in (["score"], ["reward"]):  # whose name says nothing that the file's does not
        scored = {_stem(path): next(iter(scored.values()))}
    return ScoreTable(pathlib.Path(path).name, scored, no_scores)


def _where(mask: Sequence[bool], values: Sequence[_Value]) -> list[_Value]:
    return [value for value, keep in zip(values, mask) if keep]


def _all_known(rows: list[list[_Value | None]]) -> list[list[_Value]] | None:
    """The rows, or None where any of their values is not known."""
    known = [[value for value in row if value is not None] for row in rows]
    return known if known == rows else None


def _score(value: float | None) -> float:
    """A score as a number of 64 bits, NaN for one that is missing."""
    try:
        return math.nan if value is None else float(value)
    except OverflowError:
        return math.inf


def _stem(path: str | pathlib.Path) -> str:
    return pathlib.Path(path).name.split(".")[0]


def _shown(key: Key) -> str:
    """A prompt and a reply as an error shows them."""
    return " → ".join(repr(text if len(text) <= 40 else text[:39] + "…") for text in key)
