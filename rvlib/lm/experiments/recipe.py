"""Recipes: an experiment is one YAML file, a base and its differences, read into settings whose every field is checked.

    rvlib recipes                     the recipes that ship
    rvlib recipes tiny-4.1            what one resolves to, and how it deviates from the paper

A recipe names its `base` and writes only what differs, laid into what the base says, or in its place for the fields that it lists
under `replace`. A policy or a reward model set to null is taken out. Whatever is not
in `paper`, the base of all, is a deviation from the paper's own settings (sections 4.1 and 4.2, arXiv 2503.15477).
"""

import argparse
import difflib
import pathlib
import sys
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rvlib.cli import sentence
from rvlib.files import RECIPES

FOLDER = RECIPES
PAPER = "paper"
RENAMED = {  # fields and values that recipes had by other names
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
}
RENAMED_ALGORITHMS = {"grpo_unscaled": "dr_grpo"}
NOT_DEVIATIONS = (
    "title",
    "runtime",
)  # what a run is called and how it fits a machine changes no number beyond rounding


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Data(Settings):
    """Where prompts come from: `preferences` gives prompts with a pair of replies each, the off-policy pairs."""

    preferences: str
    prompts: int | None = Field(ge=4)  # None: all there are
    reward_model_share: float = Field(
        gt=0, lt=1
    )  # of the prompts, for training reward models; the rest is for policy gradient
    max_tokens: int = Field(ge=1)  # of a prompt, and of a reply; longer examples are dropped


class LoRA(Settings):
    """Low-rank adapters on every linear layer, W + (alpha/rank) B A, trained by policy gradient in place of the weights."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)


class PolicySettings(Settings):
    """An initial policy: a model by its name, and the demonstrations of its supervised fine-tuning (None: as it is)."""

    model: str
    demonstrations: str | None = None
    count: int | None = Field(default=None, ge=1)  # of demonstrations; None: all
    learning_rate: float | None = Field(default=None, gt=0)  # of its fine-tuning, where it is not that of `sft`
    lora: LoRA | None = None


class GroundTruth(Settings):
    model: str
    trust_remote_code: bool = False


class RewardModelSettings(Settings):
    """A teacher, of one of three kinds: trained on a share of on-policy pairs; somebody's, by name; the ground truth, scaled."""

    on_policy: float | None = Field(default=None, ge=0, le=1)
    policy: str | None = None  # trained from this policy and on its replies; by default from the one that it teaches
    model: str | None = None
    trust_remote_code: bool = False
    scale: float | None = Field(default=None, gt=0)  # of the ground truth, on `share` of the prompts of policy gradient
    share: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _one_kind(self):
        if sum(kind is not None for kind in (self.on_policy, self.model, self.scale)) != 1:
            raise ValueError("a reward model must have exactly one of on_policy, model and scale")
        return self


class TrainingSettings(Settings):
    """Adam on batches of `batch_size` examples, for `epochs` over the data."""

    epochs: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)


class RewardTrainingSettings(TrainingSettings):
    center_rewards_coef: float = Field(ge=0)  # coefficient of (r(y) + r(y'))² in the loss
    pairs: int | None = Field(default=None, ge=1)  # None: one for each prompt kept for reward models


class Measure(Settings):
    """Replies of the initial policy on which reward models are measured and normalised."""

    prompts: int = Field(ge=2)
    outputs: int = Field(ge=2)
    scheme: Literal["joint", "variance"]


class PolicyGradient(TrainingSettings):
    """Policy gradient. `batch_size` counts replies, and so does an epoch: as many replies as there are prompts."""

    algorithm: Literal["rloo", "grpo", "dr_grpo", "reinforce"]
    num_generations: int = Field(ge=1)  # k replies to each prompt of a batch
    num_mini_batches: int = Field(ge=1)
    clip_range: float = Field(gt=0)  # of the ratio of probabilities, after the first mini-batch
    kl_coef: float = Field(ge=0)
    max_new_tokens: int = Field(ge=1)
    temperature: float = Field(gt=0)

    @model_validator(mode="after")
    def _divides(self):
        if self.batch_size % (self.num_generations * self.num_mini_batches):
            raise ValueError(
                f"batch_size must be a multiple of num_generations × num_mini_batches = {self.num_generations * self.num_mini_batches}, got {self.batch_size}"
            )
        return self


class Evaluation(Settings):
    """Mean rewards of `outputs` replies to each of `prompts`, `per_epoch` times in an epoch and at the start."""

    prompts: int = Field(ge=1)
    outputs: int = Field(ge=1)
    per_epoch: float = Field(gt=0)


class RuntimeSettings(Settings):
    """What fits a machine: precision of the arithmetic, rows at once, and steps between checkpoints."""

    weights_dtype: Literal[
        "float32", "bfloat16"
    ]  # of weights that are trained: at the paper's learning rate bfloat16 ones move only with adam8bit, which rounds at random
    optimizer: Literal["adam", "adam8bit"] = "adam"
    engine: Literal["generate", "static", "continuous", "vllm"] = "generate"  # that samples: see `sample.generate`
    server: str = "http://localhost:8000"  # of the engine vllm
    gradient_checkpointing: bool = False  # compute activations twice instead of keeping them
    compute_dtype: Literal["float32", "bfloat16"]
    frozen_dtype: Literal[
        "float32", "bfloat16"
    ]  # of weights that are only read: reference, reward models, ground truth
    micro_batch: int = Field(ge=1)
    batch_size: int = Field(ge=1)  # that are sampled or scored at once
    save_every: int = Field(ge=1)
    max_grad_norm: float = Field(gt=0)

    @model_validator(mode="after")
    def _moves(self):
        if (self.weights_dtype == "bfloat16") != (self.optimizer == "adam8bit") or (
            self.weights_dtype,
            self.compute_dtype,
        ) == ("bfloat16", "float32"):
            raise ValueError(
                "weights_dtype and compute_dtype must be bfloat16 with the optimizer adam8bit, and weights_dtype float32 with adam, under which bfloat16 weights do not move, "
                f"got weights_dtype {self.weights_dtype}, compute_dtype {self.compute_dtype} and optimizer {self.optimizer}"
            )
        return self


class Recipe(Settings):
    title: str
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    data: Data
    policies: dict[str, PolicySettings] = Field(min_length=1)
    ground_truth: GroundTruth
    reward_models: dict[str, RewardModelSettings] = Field(min_length=1)
    sft: TrainingSettings
    reward_training: RewardTrainingSettings
    measure: Measure
    policy_gradient: PolicyGradient
    evaluation: Evaluation
    runtime: RuntimeSettings

    def dtype(self, name):
        """The type of number in which policy `name` is loaded: that of its weights, or of the arithmetic where an adapter is trained in their place."""
        return self.runtime.compute_dtype if self.policies[name].lora else self.runtime.weights_dtype

    def draws_pairs(self, name):
        """Whether a reward model is trained on pairs of policy `name`'s own replies."""
        return any(spec.on_policy and (spec.policy or name) == name for spec in self.reward_models.values())

    @model_validator(mode="after")
    def _agrees(self):
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {self.seeds}")
        if self.runtime.engine == "vllm" and any(spec.lora for spec in self.policies.values()):
            raise ValueError(
                "runtime.engine must be generate, static or continuous where an adapter is trained, since vllm is sent whole weights, got 'vllm'"
            )
        for name, spec in self.reward_models.items():
            if spec.policy is not None and spec.policy not in self.policies:
                raise ValueError(
                    f"reward_models.{name}.policy must be one of {', '.join(self.policies)}, got {spec.policy!r}"
                )
        return self


def names():
    """The recipes that ship, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name, changes=()):
    """The `Recipe` called `name` (or a path of a YAML file) with `changes`, texts "key.of.field=value", made to it.

    ValueError, one sentence, for an unknown name or field (with the nearest that exists) or a value that does not fit.
    """
    tree = _tree(str(name))
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"A change must be written key=value, got {change!r}.")
        *path, last = key.strip().split(".")
        place = tree
        for part in path:
            if not isinstance(place.get(part), dict):
                place[part] = {}  # what is no group of fields, or null, becomes one, and is judged as that
            place = place[part]
        place[last] = _value(value)
    for group in ("policies", "reward_models"):
        if isinstance(tree.get(group), dict):
            tree[group] = {key: value for key, value in tree[group].items() if value is not None}
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        errors = sorted(
            error.errors(), key=lambda error: ".".join(map(str, error["loc"])) not in RENAMED
        )  # a new name first
        raise ValueError(_sentence(errors[0], tree)) from None


def deviations(recipe, paper=None):
    """Fields in which a recipe differs from the paper's: {"policy_gradient.learning_rate": (ours, the paper's), …}, None where one has none."""
    ours, theirs = (_flat(r.model_dump(mode="json")) for r in (recipe, paper or load(PAPER)))
    keys = [key for key in ours | theirs if key.split(".")[0] not in NOT_DEVIATIONS]
    return {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="rvlib recipes", description="List the recipes, or show what one resolves to."
    )
    parser.add_argument("name", nargs="?", help="a recipe, or a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field")
    given = parser.parse_args(arguments)
    try:
        if given.name is None:
            width = max(map(len, names()))
            print("\n".join(f"{name:<{width}}  {load(name).title}" for name in names()))
            return
        recipe = load(given.name, given.set)
    except (OSError, ValueError) as error:
        sys.exit(sentence(error))
    print(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False), end="")
    print("\n# Deviations from the paper's settings (ours, the paper's):")
    print("\n".join(f"#   {key}: {ours}, {theirs}" for key, (ours, theirs) in deviations(recipe).items()) or "#   none")


def _tree(name, seen=()):
    """A recipe's nested dictionary, laid over its base's."""
    path = pathlib.Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"The recipe must be a YAML file or one of {', '.join(names())}, got {name!r}{_nearest(name, names())}."
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
    below = _tree(str(base), (*seen, name))
    if not isinstance(replaced, list) or any(key not in list(below) for key in replaced):
        raise ValueError(f"The recipe {name} must list under replace some of {', '.join(below)}, got {replaced!r}.")
    return _merged({key: value for key, value in below.items() if key not in replaced}, tree)


def _merged(base, differences):
    merged = dict(base)
    for key, value in differences.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _value(text):
    """A value from the command line, read as YAML would, and 1e-3 as the number that people mean by it."""
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


def _flat(tree, prefix=""):
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return {key: value for key, value in flat.items() if value is not None}


def _sentence(error, tree):
    """One sentence out of pydantic's report of one error."""
    key, value = ".".join(map(str, error["loc"])), error.get("input")
    if key in RENAMED:
        inner = [f"{key}.{field}" for field in value if f"{key}.{field}" in RENAMED] if isinstance(value, dict) else []
        old = inner[0] if inner else key
        return f"The recipe's field {old!r} is now called {RENAMED[old]!r}; rename it."
    if key == "policy_gradient.algorithm" and isinstance(value, str) and value in RENAMED_ALGORITHMS:
        return f"The algorithm {value!r} is now called {RENAMED_ALGORITHMS[value]!r}; rename it."
    if error["type"] == "extra_forbidden":
        model = Recipe
        for part in error["loc"][:-1]:
            kind = (
                model.model_fields[part].annotation
                if isinstance(model, type) and part in getattr(model, "model_fields", {})
                else None
            )
            model = kind if kind is not None else (getattr(model, "__args__", (None, None))[-1])
        fields = list(getattr(model, "model_fields", {}))
        return f"The recipe has no field {key!r}{_nearest(str(error['loc'][-1]), fields)}; it has {', '.join(fields)} there."
    got = "" if isinstance(error.get("input"), dict) else f", got {error.get('input')!r}"
    return f"The recipe's {key + ': ' if key else ''}{error['msg'].removeprefix('Value error, ')}{got}."


def _nearest(word, known):
    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
