"""`rvlib COMMAND …`: the experiments from a terminal. Each command is one module's `main`, imported only when it is called."""

import importlib
import sys

COMMANDS = {
    "run": ("rvlib.lm.run", "run the stages of a recipe, or go on with them"),
    "report": ("rvlib.lm.report", "tables and figures of a run"),
    "recipes": ("rvlib.lm.recipe", "list the recipes, or show what one resolves to"),
    "samples": ("rvlib.lm.samples", "draw replies for the chapter on a real policy"),
    "bench": ("rvlib.lm.bench", "how near each stage comes to what the machine can do"),
    "audit": ("rvlib.audit", "is this reward model a good teacher for this policy?"),
}


def main(arguments=None):
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
        importlib.import_module(COMMANDS[command][0]).main(rest)
