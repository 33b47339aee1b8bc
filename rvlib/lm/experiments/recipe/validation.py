"""Nested dictionaries as a `Recipe`, or one sentence on what is wrong with them."""

import difflib
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError

from rvlib.lm.experiments.recipe.recipe import Recipe
from rvlib.lm.experiments.recipe.reward_models import field_names

RENAMED = {  # fields that recipes had by other names
    "limits": "runtime",
    "limits.rows": "runtime.batch_size",
    "limits.compute": "runtime.compute_dtype",
    "limits.frozen": "runtime.frozen_dtype",
    "limits.dtype": "runtime.weights_dtype",
    "runtime.rows": "runtime.batch_size",
    "runtime.compute": "runtime.compute_dtype",
    "runtime.frozen": "runtime.frozen_dtype",
    "runtime.dtype": "runtime.weights_dtype",
    "policy_gradient.group": "policy_gradient.num_generations",
    "policy_gradient.batch": "policy_gradient.batch_size",
    "policy_gradient.mini_batches": "policy_gradient.num_mini_batches",
    "policy_gradient.clip": "policy_gradient.clip_range",
    "sft.batch": "sft.batch_size",
    "reward_training.batch": "reward_training.batch_size",
    "reward_training.centring": "reward_training.center_rewards_coef",
    "measure.outputs": "measure.num_generations",
    "evaluation.outputs": "evaluation.num_generations",
}
RENAMED_ALGORITHMS = {"grpo_unscaled": "dr_grpo"}


def validated(tree: dict[str, Any]) -> Recipe:
    """The `Recipe` of nested dictionaries. ValueError, one sentence, for a field or a value that does not fit."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        # Renamed fields first, since a field that is missing may be there by its old name.
        details = sorted(error.errors(), key=lambda detail: _dotted(detail["loc"]) not in RENAMED)
        raise ValueError(_sentence(dict(details[0]))) from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word that is spelt most like `word`, as a question to append to a sentence; empty if there is none."""
    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _sentence(detail: dict[str, Any]) -> str:
    """One entry of pydantic's report as a sentence."""
    key, value = _dotted(detail["loc"]), detail.get("input")
    if key in RENAMED:
        inner = [f"{key}.{field}" for field in value if f"{key}.{field}" in RENAMED] if isinstance(value, dict) else []
        old_name = inner[0] if inner else key
        return f"The recipe's field {old_name!r} is now called {RENAMED[old_name]!r}; rename it."
    if key == "policy_gradient.algorithm" and isinstance(value, str) and value in RENAMED_ALGORITHMS:
        return f"The algorithm {value!r} is now called {RENAMED_ALGORITHMS[value]!r}; rename it."
    if detail["type"] == "extra_forbidden":
        *groups, field = detail["loc"]
        fields = field_names(_settings_class(groups))
        return f"The recipe has no field {key!r}{did_you_mean(str(field), fields)}; it has {', '.join(fields)} there."
    given = "" if isinstance(value, dict) else f", got {value!r}"
    return f"The recipe's {key + ': ' if key else ''}{detail['msg'].removeprefix('Value error, ')}{given}."


def _dotted(location: Iterable[str | int]) -> str:
    return ".".join(map(str, location))


def _settings_class(groups: Iterable[str | int]) -> Any:
    """The class of the settings at a place in a recipe."""
    settings: Any = Recipe
    for group in groups:
        fields = getattr(settings, "model_fields", {})
        settings = fields[group].annotation if group in fields else get_args(settings)[-1]  # of dict[str, settings]
        while get_origin(settings) in (Annotated, UnionType):  # settings | None
            settings = get_args(settings)[0]
    return settings
