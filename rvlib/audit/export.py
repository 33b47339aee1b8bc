"""Replies written into a file to be scored elsewhere, which `rvlib.audit.exchange` reads; without torch."""

import collections
import errno
import json
import os
import pathlib
from collections.abc import Sequence
from typing import TypedDict

from rvlib.files import write_text, write_whole
from rvlib.lm.data.prompts import Preference, Prompt

EXPORTED = (".jsonl", ".json", ".parquet")  # endings of a file of replies to be scored


class _ReplyRow(TypedDict, total=False):
    """A row that `write_replies` writes: a reply to be scored, and what is known of it."""

    prompt: str | list[dict[str, str]]
    reply: str
    times_drawn: int
    prompt_copy: int
    reference: str
    chosen: str
    rejected: str
    log_probs: list[float]  # of each time that the reply was drawn
    ended: list[bool]


def write_replies(
    path: str | pathlib.Path,
    prompts: Sequence[Prompt],
    replies: Sequence[Sequence[str]],
    pairs: Sequence[Preference] = (),
    log_probs: Sequence[Sequence[float]] | None = None,
    ended: Sequence[Sequence[bool]] | None = None,
) -> int:
    """Write the replies to be scored, a row for each different reply to a prompt; returns how many replies these are.

    `exchange.read_replies` reads them as they were drawn. path: of a parquet file if it ends in .parquet, else of JSON
    lines. pairs: whose replies are to be scored too, though they were not drawn. log_probs, ended: (prompts, replies),
    where they are known; a row has a list of those of each time that its reply was drawn.
    """
    path = check_export(path)
    rows: dict[tuple[tuple[str, int], str], _ReplyRow] = {}  # by the prompt's text and copy, and the reply
    in_turns = any(prompt.turns for prompt in prompts)
    copies = collections.Counter[str]()  # of each prompt so far

    def row_of(prompt: Prompt, reply: str, copy: int) -> _ReplyRow:
        row: _ReplyRow = {"prompt": prompt.messages if in_turns else prompt.text, "reply": reply, "times_drawn": 0}
        if prompt.reference_reply:
            row["reference"] = prompt.reference_reply
        if copy:
            row["prompt_copy"] = copy
        return rows.setdefault(((prompt.text, copy), reply), row)

    for i, prompt in enumerate(prompts):
        copy = copies[prompt.text]
        copies[prompt.text] += 1
        for j, reply in enumerate(replies[i]):
            row = row_of(prompt, reply, copy)
            row["times_drawn"] += 1
            if log_probs is not None:
                row.setdefault("log_probs", []).append(log_probs[i][j])
            if ended is not None:
                row.setdefault("ended", []).append(ended[i][j])
    extra_rows = list[_ReplyRow]()  # of pairs both of whose replies have another pair in their rows already
    for pair in pairs:
        columns: _ReplyRow = {"chosen": pair.chosen, "rejected": str(pair.rejected)}
        pair_rows = [row_of(pair.prompt, reply, 0) for reply in (pair.chosen, str(pair.rejected))]
        without_pair = [row for row in pair_rows if "chosen" not in row]
        for row in without_pair:
            row.update(columns)
        if not without_pair:
            prompt_of_pair = pair_rows[0]["prompt"]
            extra_rows.append({"prompt": prompt_of_pair, "reply": pair.chosen, "times_drawn": 0, **columns})
    written = [*rows.values(), *extra_rows]
    if path.suffix == ".parquet":
        import pandas  # slow to import, and only parquet needs it

        write_whole(path, lambda partial: pandas.DataFrame(written).to_parquet(partial))
    else:
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written))
    return len(rows)


def check_export(path: str | pathlib.Path) -> pathlib.Path:
    """`path` as a Path; OSError or ValueError, in one sentence, unless `write_replies` can write there."""
    path = pathlib.Path(path)
    if path.suffix not in EXPORTED:
        raise ValueError(f"A file of replies to be scored must end in {', '.join(EXPORTED)}, got {path}; rename it.")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    return path
