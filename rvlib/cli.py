"""`rvlib COMMAND …`: the experiments from a terminal. Each command is one module's `main`, imported when called."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "run": ("rvlib.lm.experiments.run", "run the stages of a recipe, or go on with them"),
    "report": ("rvlib.lm.experiments.report", "tables and figures of a run"),
    "recipes": ("rvlib.lm.experiments.recipe", "list the recipes, or show what one resolves to"),
    "samples": ("rvlib.lm.experiments.real_policy", "draw replies for the chapter on a real policy"),
    "bench": ("rvlib.lm.experiments.bench", "how near each stage comes to what the machine can do"),
    "audit": ("rvlib.audit.run", "is this reward model a good teacher for this policy?"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point `rvlib`. Exits with one sentence for an unknown command (2) or a missing package (1)."""
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print("usage: rvlib COMMAND …\n")
        print("\n".join(f"  {name:<9} {purpose}" for name, (_, purpose) in COMMANDS.items()))
        print("\n`rvlib COMMAND --help` says more of each.")
    elif command not in COMMANDS:
        print(f"The command must be one of {', '.join(COMMANDS)}, got {command!r}.", file=sys.stderr)
        sys.exit(2)
    else:
        try:
            importlib.import_module(COMMANDS[command][0]).main(rest)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read, `head` for one, has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except ModuleNotFoundError as error:  # of a package, when the command is imported or later
            if _package(error) == "rvlib":  # a module of ours that is not there is a mistake of ours
                raise
            sys.exit(sentence(error))
        except KeyboardInterrupt:  # before the command itself could say how to go on
            sys.exit("Stopped.")


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help that gives the default of every argument that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, False, []) else action.help


def sentence(error: BaseException) -> str:
    """An error as one sentence that says what was expected and what to do, where the system or an import says less."""
    # What `missing` made is one sentence already; what an import raised is "No module named …" or "import of … halted".
    if isinstance(error, ModuleNotFoundError) and str(error).startswith(("No module named ", "import of ")):
        from rvlib.lm import missing  # only now: `rvlib --help` needs none of it

        return str(missing(_package(error)))
    if not isinstance(error, OSError) or not error.filename or not error.errno:
        return str(error)
    return (
        f"{error.filename} must be where this command can read and write, but is not ({error.strerror}); "
        "choose another place, or mend it."
    )


def _package(error: ModuleNotFoundError) -> str:
    """The package that an import did not find, of whose modules it may have been one."""
    return (error.name or str(error)).partition(".")[0]
