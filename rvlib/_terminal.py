"""What the commands share in a terminal: help that gives defaults, and an error as one sentence."""

import argparse


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help that gives the default of every argument that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, False, []) else action.help


def sentence(error: BaseException) -> str:
    """An error as one sentence; what the system says of a file becomes one that says what was expected and what to
    do."""
    if not isinstance(error, OSError) or not error.filename or not error.errno:
        return str(error)
    return (
        f"{error.filename} must be where this command can read and write, but is not ({error.strerror}); "
        "choose another place, or mend it."
    )
