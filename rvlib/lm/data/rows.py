"""A row of a data set as an example: which of its keys hold the prompt, the reference reply, and a pair of replies.

    prompt, question                       a text, or the turns of a conversation, the last to be replied to
    instruction, input                     both together (Alpaca); "output" is the reference reply
    messages, conversations                turns, OpenAI's {"role", "content"} or ShareGPT's {"from", "value"}; a last
                                           turn of the assistant's is the reference reply
    chosen, rejected                       replies, as texts or as the last turns of conversations; without any of the
                                           above, what the two share at their beginning is the prompt (TRL's implicit
                                           prompts), in texts also by the marks "Human:" and "Assistant:"
    system, reference                      a system turn before the prompt; a good reply

Any other key holds the prompt if one asks for it by name.
"""

import ast
import json
import os.path
import re
from collections.abc import Collection
from typing import Any

from rvlib.lm.data.prompts import Example, Prompt

KEYS = ("prompt", "question", "instruction", "messages", "conversations", "chosen")
ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
}
MOST_KEYS = 12  # of a row, in an error
MARKS = re.compile(r"\n\nHuman:|\n\nAssistant:")  # of turns in texts, as Anthropic's preferences have them
WRITTEN_TURNS = re.compile(r"""\s*\[\s*\{\s*["'](role|from|content|value)["']\s*:.*\}\s*\]\s*""", re.DOTALL)

Turn = tuple[str, str]  # role and content


def example(place: str, row: Any, column: str | None = None) -> Example:
    """The `Example` of a row, named after its place; ValueError, in a few words, that says what it lacks."""
    if not isinstance(row, dict):
        raise ValueError("not an object with a prompt")
    row = {key: value for key, value in row.items() if value is not None}
    if ("chosen" in row) != ("rejected" in row):
        raise ValueError("only one of chosen and rejected")
    row = {key: _parsed(value) for key, value in row.items()}
    key = _prompt_key(row, column)
    if key == "chosen":
        prompt, replies = _shared(row["chosen"], row["rejected"])
        turns, reference_reply = prompt, None
    else:
        turns, reference_reply = _prompt(row, key)
        replies = {name: _reply(row[name], name, turns) for name in ("chosen", "rejected") if name in row}
    if "reference" in row:
        reference_reply = _reply(row["reference"], "reference", turns)
    chosen, rejected = replies.get("chosen"), replies.get("rejected")
    if "system" in row and turns[0][0] == "user" and _text("system turn", row["system"]).strip():
        turns = [("system", row["system"]), *turns]
    return Example(Prompt.of_turns(place, turns, reference_reply or chosen or ""), chosen, rejected)


def _prompt_key(row: dict[str, Any], column: str | None) -> str:
    """The key of a row that holds the prompt; ValueError, in a few words that name the keys, for none."""
    keys = listed_keys(row)
    if column is not None:
        if column not in row:
            raise ValueError(f"no key {column}, but the keys {keys}")
        return column
    key = next((key for key in KEYS if key in row), None)
    if key is None:
        known = ", ".join((*KEYS[:-1], "chosen with rejected"))
        raise ValueError(f"no prompt, but the keys {keys}; known are {known}, and --column names another")
    return key


def listed_keys(row: dict[str, Any]) -> str:
    """The keys of a row as an error shows them, the first ones of many."""
    keys, more = list(map(str, row))[:MOST_KEYS], len(row) - MOST_KEYS
    return (", ".join(keys) or "none") + f" and {more} more" * (more > 0)


def refuse_wrapped(path: object, value: Any, keys: Collection[str], *, texts: bool = False) -> None:
    """ValueError, in one sentence, where all that a file holds is an object that wraps an array of rows.

    keys: such that an object with one of them is a row itself. texts: whether rows may be texts, each of them a prompt.
    """
    if not isinstance(value, dict) or not value.keys().isdisjoint(keys):
        return
    for key, entries in value.items():
        jq_filter = f".{key}" if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) else f".[{json.dumps(key)}]"
        entries = entries if isinstance(entries, list) else []
        kind = "rows; save that array alone"
        are_rows = all(isinstance(entry, dict) and not entry.keys() & {"role", "from"} for entry in entries)
        if texts and key.removesuffix("s") in keys and all(isinstance(entry, str) for entry in entries):
            kind, jq_filter, are_rows = "texts; save them as rows", f"{jq_filter} | map({{prompt: .}})", True
        if entries and are_rows:
            raise ValueError(
                f"{path} must hold a row a line or an array of rows, but is one object whose key {key} has an array of "
                f"{len(entries)} {kind}, as `jq '{jq_filter}'` does."
            )


def _prompt(row: dict[str, Any], key: str) -> tuple[list[Turn], str | None]:
    """The turns of the prompt that a row's key holds, and the reference reply that comes with it."""
    value = row[key]
    if key == "instruction":
        parts = [_text("prompt", value), _text("input", row.get("input", ""))]
        output = row.get("output")
        text = "\n\n".join(part for part in parts if part.strip())
        return [("user", _not_blank(text))], output if isinstance(output, str) else None
    if isinstance(value, str) and key in ("messages", "conversations"):
        raise ValueError(f"{key} that are a text instead of turns")
    if isinstance(value, str):
        return [("user", _not_blank(_text("prompt", value)))], None
    turns = _turns("prompt", value)
    if key in ("messages", "conversations") and turns[-1][0] == "assistant" and "chosen" not in row:
        return _to_reply_to(turns[:-1]), turns[-1][1]
    return _to_reply_to(turns), None


def _shared(chosen: Any, rejected: Any) -> tuple[list[Turn], dict[str, str]]:
    """The turns that two conversations share before their last, or that two texts share at their beginning; the rest.

    ValueError, in a few words, for two that share nothing, or more than their prompt.
    """
    texts = {"chosen": chosen, "rejected": rejected}
    if isinstance(chosen, str) and isinstance(rejected, str) and not (MARKS.match(chosen) and MARKS.match(rejected)):
        common = os.path.commonprefix([chosen, rejected])
        common = common[: max(common.rfind(" "), common.rfind("\n")) + 1]  # up to a whole word
        if not common.strip():
            raise ValueError("no prompt, and chosen and rejected that share no beginning")
        replies = {name: _text(name, text[len(common) :].strip()) for name, text in texts.items()}
        return [("user", _text("prompt", common.strip()))], replies
    turns = {name: _marked(text) if isinstance(text, str) else _turns(name, text) for name, text in texts.items()}
    replies = {name: _last_of_assistant(name, each) for name, each in turns.items()}
    prompt = turns["chosen"][:-1]
    if prompt != turns["rejected"][:-1]:
        raise ValueError("chosen and rejected that answer different prompts")
    return _to_reply_to(prompt), replies


def _marked(text: str) -> list[Turn]:
    """The turns of a text that marks them by "Human:" and "Assistant:"."""
    roles = ["user" if "Human" in mark else "assistant" for mark in MARKS.findall(text)]
    return list(zip(roles, (content.strip() for content in MARKS.split(text)[1:])))


def _reply(value: Any, kind: str, prompt: list[Turn]) -> str:
    """The text of a reply to `prompt`: a text, the assistant's turn, or the last of a conversation that begins with it.

    ValueError, in a few words, for a conversation on something else, and for one that the assistant does not end.
    """
    marked = isinstance(value, str) and MARKS.match(value)
    if isinstance(value, str) and not marked:
        return _text(kind, value)
    turns = _marked(value) if marked else _turns(kind, value)
    reply = _last_of_assistant(kind, turns)
    before, asked = ([(role, content.strip()) for role, content in part] for part in (turns[:-1], prompt))
    if before and before not in (asked, asked[-1:]):
        raise ValueError(f"a {kind} of {len(turns)} turns that do not begin with the prompt")
    return reply


def _last_of_assistant(kind: str, turns: list[Turn]) -> str:
    role, content = turns[-1]
    if role != "assistant":
        raise ValueError(f"a {kind} that ends with a turn of the {role} instead of the assistant")
    return content


def _parsed(value: Any) -> Any:
    """A cell as it is, or the turns that a table's cell writes as a text."""
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        return [dict(zip(value, turn)) for turn in zip(*value.values())]  # columns of turns, as datasets may have them
    if not isinstance(value, str) or not WRITTEN_TURNS.fullmatch(value):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError("turns written as a text that is not JSON") from None


def _turns(kind: str, value: Any) -> list[Turn]:
    """A conversation's turns; ValueError, in a few words, for anything else."""
    messages = value if isinstance(value, list) else [value]
    if not messages:
        raise ValueError(f"a {kind} of no turns")
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            several = "a list of " * isinstance(value, list)
            raise ValueError(f"a {kind} that is no text but {several}{type(message).__name__}")
        role = message.get("role", message.get("from"))
        if str(role).lower() not in ROLES:
            raise ValueError(
                f"a {kind} with a turn of role {role!r}" if role else f"a {kind} with a turn without a role"
            )
        content = message.get("content", message.get("value"))
        if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            content = "".join(str(part.get("text", "")) for part in content)
        turns.append((ROLES[str(role).lower()], _text(kind, content)))
    return turns


def _to_reply_to(turns: list[Turn]) -> list[Turn]:
    """A prompt's turns; ValueError, in a few words, for none, and where the last is the assistant's."""
    if not turns:
        raise ValueError("a prompt of no turns")
    if turns[-1][0] == "assistant":
        raise ValueError("a prompt that ends with a turn of the assistant, to which there is nothing to reply")
    _not_blank(turns[-1][1])
    return turns


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("an empty prompt")
    return text


def _text(kind: str, value: Any) -> str:
    """A text; ValueError, in a few words that name its kind, for others."""
    if value is None:
        raise ValueError(f"no {kind}")
    if not isinstance(value, str):
        raise ValueError(f"a {kind} that is no text but {type(value).__name__}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"a {kind} with half a character, which UTF-8 cannot write")
    return value
