"""Reading a recipe: its YAML file laid over its bases, with changes from the command line; and comparing two."""

import pathlib
from collections.abc import Iterable
from typing import Any

import yaml

from rvlib.files import RECIPES
from rvlib.lm.experiments.recipe.recipe import Recipe
from rvlib.lm.experiments.recipe.validation import did_you_mean, validated

FOLDER = RECIPES
PAPER = "paper"
NOT_DEVIATIONS = ("title", "runtime")  # neither changes a number beyond rounding


def names() -> list[str]:
    """The recipes that ship, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str | pathlib.Path, changes: Iterable[str] = ()) -> Recipe:
    """The `Recipe` called `name` (or a path of a YAML file) with `changes`, texts "key.of.field=value", made to it.

    ValueError, one sentence, for an unknown name or field (with the nearest that exists) or a value that does not fit.
    """
    tree = read_tree(str(name))
    for change in changes:
        _apply(tree, change)
    for group in ("policies", "reward_models"):
        if isinstance(tree.get(group), dict):
            tree[group] = {key: value for key, value in tree[group].items() if value is not None}
    return validated(tree)


def deviations(recipe: Recipe, other: Recipe | None = None) -> dict[str, tuple[Any, Any]]:
    """Fields in which a recipe differs from another, the paper's by default: {"sft.epochs": (its, the other's), …}.

    None where one of the two has no such field.
    """
    fields, compared = (flatten(r.model_dump(mode="json")) for r in (recipe, other or load(PAPER)))
    keys = [key for key in fields | compared if key.split(".")[0] not in NOT_DEVIATIONS]
    return {key: (fields.get(key), compared.get(key)) for key in keys if fields.get(key) != compared.get(key)}


def read_tree(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A recipe's nested dictionary, laid over its base's."""
    path = pathlib.Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"The recipe must be a YAML file or one of {', '.join(names())}, got {name!r}{did_you_mean(name, names())}."
        )
    if name in seen:
        raise ValueError(f"The base of a recipe must lead to {PAPER!r}, got a circle: {' → '.join([*seen, name])}.")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"The recipe {name} must be YAML, got {str(error).splitlines()[0]}.") from None
    if not isinstance(tree, dict):
        raise ValueError(f"The recipe {name} must be YAML of fields and their values, got {type(tree).__name__}.")
    base, replaced = tree.pop("base", None), tree.pop("replace", [])
    if not base:
        return tree
    below = read_tree(str(base), (*seen, name))
    if not isinstance(replaced, list) or any(key not in list(below) for key in replaced):
        raise ValueError(f"The recipe {name} must list under replace some of {', '.join(below)}, got {replaced!r}.")
    return _merge({key: value for key, value in below.items() if key not in replaced}, tree)


def _apply(tree: dict[str, Any], change: str) -> None:
    """Make a change, "key.of.field=value", to the nested dictionary of a recipe."""
    key, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"A change must be written key=value, got {change!r}.")
    *groups, field = key.strip().split(".")
    for group in groups:
        if not isinstance(tree.get(group), dict):
            tree[group] = {}  # a value or null becomes a group of fields, which validation then judges
        tree = tree[group]
    tree[field] = _parse_value(value)


def _merge(base: dict[str, Any], differences: dict[str, Any]) -> dict[str, Any]:
    """`base` with the differences laid into its groups."""
    merged = dict(base)
    for key, value in differences.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _parse_value(text: str) -> Any:
    """A value from the command line, read as YAML, but 1e-3 as a number, which YAML takes for a text."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(
            f"The value of a change must be YAML, got {text!r}; put quotes around a text of such characters."
        ) from None
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"group.field": value} of a nested dictionary, without the fields that are None."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return {key: value for key, value in flat.items() if value is not None}
