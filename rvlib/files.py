"""Files of the library: where data is kept, what files were made from, and writing one, or a folder, whole."""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

PACKAGE = pathlib.Path(__file__).resolve().parent
RESULTS = PACKAGE / "data/results"  # what the book's chapters read: numbers made by the library's own commands
RECIPES = PACKAGE / "recipes"
ROOT = PACKAGE.parent  # of the checkout, where there is one


def data_folder() -> pathlib.Path:
    """Where downloads, models and replies are kept, never in git: $RVLIB_DATA, else `data` in the checkout or here."""
    home = ROOT if (ROOT / "pyproject.toml").exists() else pathlib.Path.cwd()
    return pathlib.Path(os.environ.get("RVLIB_DATA") or home / "data")


def fingerprint(*parts: object) -> str:
    """SHA-256, in hexadecimal, of anything that JSON can hold, or of a file's bytes where a part is a path."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if hasattr(part, "read_bytes") else json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def read_lines(path: str | os.PathLike[str]) -> list[Any]:
    """The JSON lines of a file, up to the first that was cut off."""
    lines = []
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def write_whole(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Call write(a temporary path) and rename the result to `path`.

    So a reader finds all of it or nothing, after a crash too.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text, in UTF-8, as `write_whole` does."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_folder(folder: pathlib.Path, write: Callable[[pathlib.Path], object], *, replaces: bool = True) -> None:
    """Call write(a temporary folder), which is to make it, and rename the result to `folder`, as `write_whole` does.

    replaces: whether it takes the place of an older one. Otherwise several processes may make the same: the first that
    ends has made it, and what the others made is dropped.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}{'' if replaces else f'.{os.getpid()}'}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write(partial)
        if replaces:
            shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if replaces or not isinstance(error, OSError) or not folder.exists():
            raise
