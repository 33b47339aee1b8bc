"""`rvlib COMMAND …`: the experiments from a terminal. Each command is one module's `main`, imported only when it is
called."""

import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "run": ("rvlib.lm.experiments.run", "run the stages of a recipe, or go on with them"),
    "report": ("rvlib.lm.experiments.report", "tables and figures of a run"),
    "recipes": ("rvlib.lm.experiments.recipe", "list the recipes, or show what one resolves to"),
    "samples": ("rvlib.lm.experiments.real_policy", "draw replies for the chapter on a real policy"),
    "bench": ("rvlib.lm.experiments.bench_report", "how near each stage comes to what the machine can do"),
    "audit": ("rvlib.audit.run", "is this reward model a good teacher for this policy?"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point `rvlib`. Exits with 2 and one sentence for an unknown command."""
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print("usage: rvlib COMMAND …\n")
        print("\n".join(f"  {name:<9} {what}" for name, (_, what) in COMMANDS.items()))
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
        except ModuleNotFoundError as error:  # of a package that this command imports
            from rvlib.lm import missing

            sys.exit(str(error if error.name is None or " " in str(error.name) else missing(error.name)))
        except KeyboardInterrupt:  # before the command itself could say how to go on
            sys.exit("Stopped.")
