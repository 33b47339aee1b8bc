"""`rvlib recipes`: list the recipes, or show what one resolves to and how it deviates from the paper's settings."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Sequence

import yaml

from rvlib._terminal import sentence
from rvlib.lm.experiments.recipe.files import deviations, load, names


def main(arguments: Sequence[str] | None = None) -> None:
    """`rvlib recipes`: list them, or show what one resolves to."""
    parser = argparse.ArgumentParser(
        prog="rvlib recipes", description="List the recipes, or show what one resolves to."
    )
    parser.add_argument("name", nargs="?", help="a recipe, or a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field")
    options = parser.parse_args(arguments)
    try:
        if options.name is None:
            return print(_list())
        recipe = load(options.name, options.set)
    except (OSError, ValueError) as error:
        sys.exit(sentence(error))
    print(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False), end="")
    print("\n# Deviations from the paper's settings (ours, the paper's):")
    lines = [f"#   {key}: {value}, {papers}" for key, (value, papers) in deviations(recipe).items()]
    print("\n".join(lines or ["#   none"]))


def _list() -> str:
    """The names and titles of the recipes, each title in a column of its own, as wide as the terminal leaves it."""
    width = max(map(len, names())) + 2
    return "\n".join(
        textwrap.fill(
            load(name).title,
            max(shutil.get_terminal_size().columns, width + 30),
            initial_indent=f"{name:<{width}}",
            subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
        for name in names()
    )
