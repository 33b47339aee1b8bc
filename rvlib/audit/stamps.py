"""What an audit knows a model by, so that it draws and scores again when a file that the model is read from changed."""

import pathlib
from typing import Any, TypedDict

from rvlib.files import fingerprint
from rvlib.lm.data.tiny import TINY
from rvlib.lm.models import SMOLLM2, reward_models
from rvlib.lm.models.loading import adapter_base, locate

# Files in a model's folder, beside its weights, on which replies or rewards depend.
READ_NAMES = {
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
    "chat_template.json",
}
READ_SUFFIXES = {".jinja", ".model", ".spm", ".bpe", ".codes", ".tiktoken", ".py"}


class Stamp(TypedDict, total=False):
    """What a model is known by, as JSON holds it: its files or its commit on the hub, and those of its base model."""

    files: list[list[str | int]]  # of weights [name, size, time in nanoseconds], of other files [name, fingerprint]
    revision: str
    base: list[Any]  # [name, `Stamp`]


def stamp(name: str | pathlib.Path) -> Stamp:
    """What changes when any file that a model is read from does.

    In a folder, weights are known by size and time, since to read them takes long; other files by what is in them. A
    name on the hub is known by its commit. An adapter's stamp has that of its base model too.
    """
    if name in (*reward_models.FUNCTIONS, SMOLLM2, TINY):
        return {}
    folder = pathlib.Path(name)
    if folder.is_dir():
        known: Stamp = {"files": _files(folder)}
    else:
        commit = locate(name)
        known = {} if commit is None else {"revision": commit}
    base = adapter_base(name)
    if base is not None and pathlib.Path(base.name).resolve() != folder.resolve():
        known["base"] = [base.name, stamp(base.name)]
    return known


def _files(folder: pathlib.Path) -> list[list[str | int]]:
    """The files of a model's folder, as `Stamp` has them."""
    weights = sorted(folder.glob("*.safetensors"))
    small = [path for path in folder.glob("*") if path.name in READ_NAMES or path.suffix in READ_SUFFIXES]
    small += folder.glob("additional_chat_templates/*")
    by_time: list[list[str | int]] = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in weights]
    return by_time + [[str(path.relative_to(folder)), fingerprint(path)] for path in sorted(small) if path.is_file()]
