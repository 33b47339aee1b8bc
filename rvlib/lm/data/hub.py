"""Names on the Hugging Face Hub: which revision a name stands for now, and which names are misspelt paths.

transformers and datasets try five times over 25 seconds before they say that a name does not exist.
"""

import functools
import pathlib

from rvlib._terminal import nearest

TIMEOUT = 10  # seconds for the one question to the hub
FILE_ENDINGS = (
    ".json",
    ".jsonl",
    ".ndjson",
    ".csv",
    ".tsv",
    ".txt",
    ".parquet",
    ".gz",
    ".safetensors",
    ".gguf",
    ".bin",
)


class NotThere(OSError):
    """A name that is neither a file or a folder here nor a name on the hub; says so in a few words."""


def misspelt_path(name: str) -> str | None:
    """Why `name`, which is no file or folder here, must be a misspelt path and no name on the hub; None if it may be.

    It is a path where it has more than one "/", a leading "." or "~", or a file's ending.
    """
    is_path = name.count("/") > 1 or name.startswith((".", "~", "/")) or name.endswith(FILE_ENDINGS)
    return f"it is not there{nearest(name)}" if is_path else None


def revision(name: str, kind: str = "model") -> str | None:
    """The commit that a repository's name on the hub stands for, asked once; the cache's, if there is no network.

    kind: "model" or "dataset". None where the hub answers otherwise and the cache does not know. NotThere for an
    invalid name, for one that does not exist, and for one that is not in the cache if the hub is out of reach.
    """
    return repository(name, kind)[0]


def file_names(name: str) -> tuple[str, ...] | None:
    """The files of a model's repository on the hub, in the cache if there is no network; None where nobody can say."""
    return repository(name, "model")[1]


@functools.lru_cache
def repository(name: str, kind: str) -> tuple[str | None, tuple[str, ...] | None]:
    """What `revision` and `file_names` say, for which the hub is asked once."""
    import huggingface_hub  # of the language models' packages; files of prompts are read without it
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        info = huggingface_hub.HfApi().repo_info(name, repo_type=kind, timeout=TIMEOUT)
        return info.sha, None if info.siblings is None else tuple(file.rfilename for file in info.siblings)
    except HFValidationError:
        raise NotThere("it is not there, and no name on the hub looks like that") from None
    except GatedRepoError:
        return _cached(name, kind), None  # the error is raised when its files are asked for
    except RepositoryNotFoundError as error:
        raise NotThere(
            f"it is neither here nor on the hub{nearest(name)}; a private one needs `hf auth login`"
        ) from error
    except HfHubHTTPError:
        return _cached(name, kind), None  # an answer without a commit, such as a mirror's
    except Exception as error:  # whatever a network can do
        cached = _cached(name, kind)
        if cached is None:
            raise NotThere(f"it is not here, and the hub is out of reach{nearest(name)}") from error
        return cached, _cached_files(name, kind, cached)


def _cached(name: str, kind: str) -> str | None:
    """The commit of a repository in the cache; None where it is not there."""
    ref = _cache(name, kind) / "refs" / "main"
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None


def _cached_files(name: str, kind: str, commit: str) -> tuple[str, ...] | None:
    """The files of a commit in the cache, all that there are without a network; None where it has none."""
    folder = _cache(name, kind) / "snapshots" / commit
    return tuple(path.name for path in folder.iterdir()) if folder.is_dir() else None


def _cache(name: str, kind: str) -> pathlib.Path:
    from huggingface_hub.constants import HF_HUB_CACHE  # as in `repository`

    return pathlib.Path(HF_HUB_CACHE, f"{kind}s--{name.replace('/', '--')}")
