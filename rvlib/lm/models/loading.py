"""What loading any model shares: quiet, sentences for what failed, files that packages carry."""

import contextlib
import importlib.util
import pathlib
from collections.abc import Iterator

import transformers
from huggingface_hub.errors import GatedRepoError

from rvlib.lm import missing

NETWORK_PACKAGES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")  # whose errors are the network's


def loading_failure(error: BaseException | None) -> str:
    """Why something did not load, in words that say what to do.

    Of the error and its causes: no consent or token, a download cut off, or else the error's first line.
    """
    cause = error
    while cause:
        if isinstance(cause, GatedRepoError):
            return "its owner asks for consent: accept the terms on its page and log in with `hf auth login`"
        package = type(cause).__module__.split(".")[0]
        if isinstance(cause, (ConnectionError, TimeoutError)) or package in NETWORK_PACKAGES:
            return "its download was cut off, or the hub is out of reach; the same command goes on with it"
        cause = cause.__cause__ or cause.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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

    Nor warnings of a head that is new because it is to be trained.
    """
    log = transformers.utils.logging
    had_progress_bars, verbosity = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if had_progress_bars:
            log.enable_progress_bar()
