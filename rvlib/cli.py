"""`rvlib COMMAND …`: the experiments from a terminal. Each command is one module's `main`, imported when called."""

import importlib
import os
import sys
from collections.abc import Sequence

from rvlib._terminal import package_of, sentence

COMMANDS = {
    "run": ("rvlib.lm.experiments.run", "run the stages of a recipe, or go on with them"),
    "report": ("rvlib.lm.experiments.report.page", "tables and figures of a run"),
    "recipes": ("rvlib.lm.experiments.recipe.command", "list the recipes, or show what one resolves to"),
    "samples": ("rvlib.lm.experiments.real_policy", "draw replies for the chapter on a real policy"),
    "study": ("rvlib.lm.enumerable.teaching", "which number, measured before training, picks the teacher?"),
    "bench": ("rvlib.lm.experiments.bench.command", "how near each stage comes to what the machine can do"),
    "audit": ("rvlib.audit.command", "is this reward model a good teacher for this policy?"),
    "exercises": ("rvlib.problem_sets", "make a sheet of problems for marks, and mark what comes back"),
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
            if package_of(error) == "rvlib":  # a missing module of rvlib is a bug of rvlib
                raise
            sys.exit(sentence(error))
        except KeyboardInterrupt:  # before the command itself could say how to go on
            sys.exit("Stopped.")
