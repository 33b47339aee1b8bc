"""What an audit knows a model by, so that it draws and scores again when a file that the model is read from changed."""

import json
import pathlib
from typing import Any

from rvlib.files import fingerprint
from rvlib.lm.data.tiny import TINY
from rvlib.lm.models import SMOLLM2, reward_models
from rvlib.lm.models.loading import locate

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
    "chat_template.json",
}
READ_SUFFIXES = {".jinja", ".model", ".tiktoken", ".py"}


def stamp(name: str | pathlib.Path) -> dict[str, Any]:
    """What changes when any file that a model is read from does.

    In a folder, weights are known by size and time, since to read them takes long; other files by what is in them. An
    adapter's folder stands for that of its base model too. A name on the hub is known by its commit.
    """
    folder = pathlib.Path(str(name))
    if not folder.is_dir():
        without_commit = name in (*reward_models.FUNCTIONS, SMOLLM2, TINY)
        commit = None if without_commit else locate(str(name))
        return {} if commit is None else {"revision": commit}
    weights = sorted(folder.glob("*.safetensors"))
    others = [path for path in folder.glob("*") if path.name in READ_NAMES or path.suffix in READ_SUFFIXES]
    others += folder.glob("additional_chat_templates/*")
    files: dict[str, Any] = {
        "files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in weights]
        + [[str(path.relative_to(folder)), fingerprint(path)] for path in sorted(others) if path.is_file()]
    }
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if base and pathlib.Path(base).resolve() != folder.resolve():
            files["base"] = [base, stamp(base)]
    return files
