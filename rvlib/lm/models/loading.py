"""What loading any model shares: where it is, quiet, sentences for what failed, files that packages carry."""

import contextlib
import functools
import importlib.util
import json
import pathlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import transformers
from huggingface_hub.errors import GatedRepoError

from rvlib._terminal import first_line, missing
from rvlib.lm.data import hub

NETWORK_PACKAGES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")  # whose errors are the network's

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model")  # as their names begin or end


def locate(name: str | pathlib.Path) -> str | None:
    """The commit of a model's name on the hub, None of a folder. hub.NotThere for what is neither."""
    if pathlib.Path(name).is_dir():
        return None
    if misspelt := hub.misspelt_path(str(name)):
        raise hub.NotThere(misspelt)
    return hub.revision(str(name))


@dataclass(frozen=True)
class AdapterBase:
    """The model that an adapter was trained on: a folder or a name on the hub, and the revision that it names.

    task_type: what PEFT says that it was trained for, "SEQ_CLS" or "CAUSAL_LM".
    """

    name: str
    revision: str = "main"
    task_type: str | None = None


def adapter_base(name: str | pathlib.Path) -> AdapterBase | None:
    """The base of the adapter (PEFT's) in a folder or a repository, None of a model with weights of its own.

    ValueError or hub.NotThere, in words for `loading_failure`, for an adapter that does not say its base, or whose base
    is not there.
    """
    if pathlib.Path(name).is_dir():
        path = transformers.utils.find_adapter_config_file(str(name))
    else:
        path = _adapter_config_on_the_hub(str(name), locate(name))
    if path is None or any(pathlib.Path(name).glob("model*.safetensors*")):  # an adapter of the model beside it
        return None
    config = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if not base:
        raise ValueError(
            "its adapter_config.json has no base_model_name_or_path; write there which model it was trained on"
        )
    try:
        locate(base)
    except hub.NotThere as error:
        raise hub.NotThere(f"its base is {base}, but {error}") from error
    return AdapterBase(base, config.get("revision") or "main", config.get("task_type"))


@functools.lru_cache
def _adapter_config_on_the_hub(name: str, commit: str | None) -> str | None:
    """The file of an adapter's configuration, in the cache: the hub is asked once, and out of reach it takes long."""
    return transformers.utils.find_adapter_config_file(name)


@contextlib.contextmanager
def known_words(tokenizer_of: str, text: str) -> Iterator[None]:
    """Within it, words that a tokenizer lacks (a bare Exception of `tokenizers`) are a ValueError of one sentence.

    tokenizer_of: whose tokenizer reads the text, "the policy".
    """
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise ValueError(
            f"A text must be of words that the tokenizer of {tokenizer_of} has, got {text[:80]!r} ({error}); choose "
            "other texts, or another model."
        ) from error


def read_tokenizer(name: str | pathlib.Path, **options: Any) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer of a folder or a name on the hub; an adapter that has none has that of its base."""
    try:
        return transformers.AutoTokenizer.from_pretrained(name, **options)
    except Exception:
        base = adapter_base(name)
        if base is None:
            folder = pathlib.Path(name)
            if folder.is_dir() and not any(path for files in _TOKENIZER_FILES for path in folder.glob(files)):
                raise OSError("it has no tokenizer; put it there with tokenizer.save_pretrained(FOLDER)") from None
            raise
        return transformers.AutoTokenizer.from_pretrained(base.name, revision=base.revision, **options)


def with_adapter(
    model: transformers.PreTrainedModel, name: str | pathlib.Path, missing_keys: Iterable[str]
) -> tuple[transformers.PreTrainedModel, set[str]]:
    """A base model with an adapter in its layers, and which of `missing_keys`, weights that it lacks, both lack."""
    import peft  # slow to import, and only adapters need it

    adapted = peft.PeftModel.from_pretrained(model, str(name))
    trained = {key.removeprefix("base_model.model.") for key in peft.utils.load_peft_weights(str(name), device="cpu")}
    # Not merged: in bfloat16 the sum would round the adapter away.
    return adapted.get_base_model(), set(missing_keys) - trained


def check_safetensors(name: str | pathlib.Path) -> None:
    """OSError, in words for `loading_failure`, for a folder or a repository without whole safetensors weights.

    Nothing is fetched for it; where the files of a repository cannot be told, loading tells.
    """
    folder = pathlib.Path(name)
    for path in sorted(folder.glob("*.safetensors")):
        _check_whole(path)
    files = [path.name for path in folder.iterdir()] if folder.is_dir() else hub.file_names(str(name))
    if files is None or any(file.endswith(".safetensors") for file in files):
        return
    pickles = sorted(file for file in files if file.endswith(".bin") and "model" in file)
    if not pickles:
        raise OSError("it has no weights in a file that ends in .safetensors")
    raise OSError(
        f"its weights are {pickles[0]} alone, a pickle, which may run code; if you trust it, load it with "
        "transformers' from_pretrained(..., use_safetensors=False), and save_pretrained(FOLDER) writes safetensors"
    )


def _check_whole(path: pathlib.Path) -> None:
    """OSError, in words for `loading_failure`, for a file of weights that is a pointer to them, or a part of them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            raise OSError(f"its {path.name} is a pointer of Git LFS, not the weights; get them with `git lfs pull`")
        header_size = int.from_bytes(start, "little")
        whole = 8 + header_size
        if whole <= size:
            try:
                header = json.loads(file.read(header_size))
            except ValueError:
                raise OSError(f"its {path.name} is not of the format that its name says; save it again") from None
            whole += max((entry["data_offsets"][1] for entry in header.values() if "data_offsets" in entry), default=0)
    if size < whole:
        raise OSError(f"its {path.name} is cut off, {size} bytes of at least {whole}; copy it again")


def loading_failure(error: BaseException | None) -> str:
    """Why a model did not load, in words that say what to do.

    Of the error and its causes: a name that nobody has, no consent or token, a download cut off, or else the error's
    first line.
    """
    cause = error
    while cause:
        if isinstance(cause, hub.NotThere):
            return str(cause)
        if isinstance(cause, GatedRepoError):
            return "its owner asks for consent: accept the terms on its page and log in with `hf auth login`"
        package = type(cause).__module__.split(".")[0]
        if isinstance(cause, (ConnectionError, TimeoutError)) or package in NETWORK_PACKAGES:
            return "its download was cut off, or the hub is out of reach; the same command goes on with it"
        cause = cause.__cause__ or cause.__context__
    return first_line(error)


def packaged(file: str, module: str) -> pathlib.Path:
    """The path of a file in an installed package, found without importing it: its own imports may be missing.

    ModuleNotFoundError, in one sentence, where the package is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise missing(module)
    return pathlib.Path(spec.submodule_search_locations[0]) / file


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars from transformers while weights load or are saved.

    Nor warnings of a head that is new because it is to be trained, nor those that are for the authors of packages.
    """
    log = transformers.utils.logging
    had_progress_bars, verbosity = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.set_verbosity(verbosity)
        if had_progress_bars:
            log.enable_progress_bar()
