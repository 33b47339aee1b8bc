"""Recipes: an experiment is one YAML file, a base and its differences, read into settings whose every field is checked.

    rvlib recipes                     the recipes that ship
    rvlib recipes tiny-4.1            what one resolves to, and how it deviates from the paper

A recipe names its `base` and writes only what differs, laid into what the base says, or in its place for the fields
that it lists under `replace`. A policy or a reward model set to null is taken out. Whatever is not in `paper`, the base
of all, is a deviation from the paper's own settings (sections 4.1 and 4.2, arXiv 2503.15477).
"""

import abc
import argparse
import difflib
import pathlib
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_origin

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails
from typing_extensions import override

from rvlib._terminal import sentence
from rvlib.files import RECIPES
from rvlib.lm.models import RewardFunction
from rvlib.tabular.estimators import ADVANTAGES

if TYPE_CHECKING:  # a recipe is read without torch
    from rvlib.lm.data.prompts import Prompt
    from rvlib.lm.experiments.cost import Size
    from rvlib.lm.experiments.run import Run

    Algorithm = str
else:
    Algorithm = Literal[tuple(ADVANTAGES)]  # the registry of estimators is the only list of them

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
NOT_DEVIATIONS = ("title", "runtime")  # neither changes a number beyond rounding


class Settings(BaseModel):
    """A group of a recipe's fields: what is not one of them is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Data(Settings):
    """Where prompts come from: `preferences` gives prompts with a pair of replies each, the off-policy pairs."""

    preferences: str
    prompts: int | None = Field(ge=4)  # None: all there are
    reward_model_share: float = Field(gt=0, lt=1)  # of prompts, for reward models; the rest is for policy gradient
    max_tokens: int = Field(ge=1)  # of a prompt, and of a reply; longer examples are dropped
    others: "PolicySettings | None" = None  # writes the second off-policy reply to a prompt for which there is one


class LoRA(Settings):
    """Low-rank adapters on every linear layer, W + (alpha/rank) B A, trained by policy gradient, not the weights."""

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
    """The reward that stands for what is wanted, by its name, a folder or a name on the hub."""

    model: str
    trust_remote_code: bool = False


class RewardModelSettings(Settings):
    """A teacher, of one of the `KINDS` below: the one whose own field, `key`, a recipe gives it.

    A kind answers here all that others ask of it, so another one is another class.
    """

    key: ClassVar[str]
    trained: ClassVar[bool] = False  # in the run itself, on pairs that the ground truth labels
    holds_weights: ClassVar[bool] = True  # of its own, beside those of the policy and the ground truth

    @model_validator(mode="wrap")
    @classmethod
    def _of_one_kind(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
        if cls is not RewardModelSettings or not isinstance(value, dict):
            return handler(value)
        value = {field: content for field, content in value.items() if content is not None}
        if unknown := [field for field in value if field not in _fields(RewardModelSettings)]:
            errors = [InitErrorDetails(type="extra_forbidden", loc=(key,), input=value[key]) for key in unknown]
            raise ValidationError.from_exception_data(cls.__name__, errors)
        kinds = [kind for kind in KINDS if kind.key in value]
        if len(kinds) != 1:
            *first, last = (kind.key for kind in KINDS)
            raise ValueError(f"a reward model must have exactly one of {', '.join(first)} and {last}")
        (kind,) = kinds
        if others := [field for field in value if field not in kind.model_fields]:
            fields = ", ".join(kind.model_fields)
            raise ValueError(f"a reward model with {kind.key} must have no fields but {fields}, got {others[0]}")
        return kind.model_validate(value)

    def check_recipe(self, key: str, recipe: "Recipe") -> None:
        """ValueError, one sentence, where it does not agree with the rest of a recipe, in which it is called `key`."""

    def is_trained_from(self, policy: str) -> bool:
        """Whether it is trained from this policy, where it is the only one or its own."""
        return False

    def draws_pairs(self, policy: str) -> bool:
        """Whether it is trained on pairs of this policy's own replies."""
        return False

    def downloads(self) -> list[str]:
        """Names of the models that it takes from elsewhere."""
        return []

    @abc.abstractmethod
    def size(self, policy: "Size", ground_truth: "Size", size_of: Callable[[str], "Size"]) -> "Size":
        """Of the model that gives its rewards, where it teaches `policy`; size_of: that of a model by its name."""

    def check(self, run: "Run") -> None:
        """Raise before the long part of a run what data and models by name would raise in it."""

    def prepare(self, run: "Run", key: str, policy: str) -> None:
        """Train it, if the run does, before anything is measured."""

    @abc.abstractmethod
    def build(self, run: "Run", key: str, policy: str) -> RewardFunction:
        """The rewards that it teaches `policy` by, before normalisation."""


class TrainedRewardModel(RewardModelSettings):
    """Trained on pairs that the ground truth labels: on-policy ones for a share `on_policy` of the prompts."""

    key = "on_policy"
    trained = True
    on_policy: float = Field(ge=0, le=1)
    policy: str | None = None  # trained from this policy and on its replies; by default from the one that it teaches

    @override
    def check_recipe(self, key: str, recipe: "Recipe") -> None:
        if self.policy is not None and self.policy not in recipe.policies:
            raise ValueError(
                f"reward_models.{key}.policy must be one of {', '.join(recipe.policies)}, got {self.policy!r}"
            )

    @override
    def is_trained_from(self, policy: str) -> bool:
        return (self.policy or policy) == policy

    @override
    def draws_pairs(self, policy: str) -> bool:
        return self.on_policy > 0 and self.is_trained_from(policy)

    @override
    def size(self, policy: "Size", ground_truth: "Size", size_of: Callable[[str], "Size"]) -> "Size":
        return policy

    @override
    def check(self, run: "Run") -> None:
        from rvlib.lm.experiments import stages  # imports torch

        pairs = stages.split(run).pairs
        stages.check_batch(len(pairs), run.recipe.reward_training, "pairs for reward models")

    @override
    def prepare(self, run: "Run", key: str, policy: str) -> None:
        self._train(run, key, policy)

    @override
    def build(self, run: "Run", key: str, policy: str) -> RewardFunction:
        return run.load_reward_model(self._train(run, key, policy))

    def _train(self, run: "Run", key: str, policy: str) -> pathlib.Path:
        from rvlib.lm.experiments import stages  # imports torch

        return stages.reward_model(run, key, self.policy or policy, self.on_policy)


class NamedRewardModel(RewardModelSettings):
    """Somebody's, by its name: a fixed function, a folder, or a model on the hub."""

    key = "model"
    model: str
    trust_remote_code: bool = False

    @override
    def downloads(self) -> list[str]:
        return [self.model]

    @override
    def size(self, policy: "Size", ground_truth: "Size", size_of: Callable[[str], "Size"]) -> "Size":
        return size_of(self.model)

    @override
    def check(self, run: "Run") -> None:
        run.check_reward_model(self.model, self.trust_remote_code)

    @override
    def build(self, run: "Run", key: str, policy: str) -> RewardFunction:
        return run.load_reward_model(self.model, self.trust_remote_code)


class ScaledGroundTruth(RewardModelSettings):
    """The ground truth, scaled on a share of the prompts of policy gradient: accurate to the last pair."""

    key = "scale"
    holds_weights = False
    scale: float = Field(gt=0)
    share: float = Field(default=1.0, ge=0, le=1)

    @override
    def size(self, policy: "Size", ground_truth: "Size", size_of: Callable[[str], "Size"]) -> "Size":
        return ground_truth

    @override
    def build(self, run: "Run", key: str, policy: str) -> RewardFunction:
        scaled, ground_truth = self._scaled_prompts(run), run.ground_truth()

        def rewards(prompts: Sequence["Prompt"], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
            scales = np.array([[self.scale if prompt.name in scaled else 1.0] for prompt in prompts])
            return ground_truth(prompts, replies) * scales

        return rewards

    def _scaled_prompts(self, run: "Run") -> set[str]:
        """Names of `share` of the prompts of policy gradient, of every prompt at 1."""
        from rvlib.lm.experiments import stages  # imports torch

        prompts = stages.split(run).prompts
        scaled = np.random.default_rng(8122).permutation(len(prompts))[: round(self.share * len(prompts))]
        return {prompts[i].name for i in scaled}


KINDS: tuple[type[RewardModelSettings], ...] = (TrainedRewardModel, NamedRewardModel, ScaledGroundTruth)


class TrainingSettings(Settings):
    """Adam on batches of `batch_size` examples, for `epochs` over the data."""

    epochs: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)


class RewardTrainingSettings(TrainingSettings):
    """Training of reward models on pairs."""

    center_rewards_coef: float = Field(ge=0)  # coefficient of (r(y) + r(y'))² in the loss
    pairs: int | None = Field(default=None, ge=1)  # None: one for each prompt kept for reward models


class Measure(Settings):
    """Replies of the initial policy on which reward models are measured and normalised."""

    prompts: int = Field(ge=2)
    outputs: int = Field(ge=2)
    scheme: Literal["joint", "variance"]


class PolicyGradient(TrainingSettings):
    """Policy gradient. `batch_size` counts replies, and so does an epoch: as many replies as there are prompts."""

    algorithm: Algorithm
    num_generations: int = Field(ge=1)  # k replies to each prompt of a batch
    num_mini_batches: int = Field(ge=1)
    clip_range: float = Field(gt=0)  # of the ratio of probabilities, after the first mini-batch
    kl_coef: float = Field(ge=0)
    max_new_tokens: int = Field(ge=1)
    temperature: float = Field(gt=0)

    @model_validator(mode="after")
    def _divides(self) -> "PolicyGradient":
        unit = self.num_generations * self.num_mini_batches
        if self.batch_size % unit:
            raise ValueError(
                f"batch_size must be a multiple of num_generations × num_mini_batches = {unit}, got {self.batch_size}"
            )
        return self

    def steps(self, prompts: int) -> int:
        """How many batches a training on so many prompts takes."""
        return max(round(self.epochs * prompts / self.batch_size), 1)


class Evaluation(Settings):
    """Mean rewards of `outputs` replies to each of `prompts`, `per_epoch` times in an epoch and at the start."""

    prompts: int = Field(ge=1)
    outputs: int = Field(ge=1)
    per_epoch: float = Field(gt=0)


AUTO = "auto"  # a field that the planner sets to what is fastest and fits the GPU
CHOOSABLE = ("gradient_checkpointing", "micro_batch", "batch_size")  # fields of `runtime` that may be so


def _or_auto(value: Any, validate: Callable[[Any], Any]) -> Any:
    return value if value == AUTO else validate(value)


_AUTO = (WrapValidator(_or_auto), PlainSerializer(lambda value: value))
Count = Annotated[int, Field(ge=1), *_AUTO]
Switch = Annotated[bool, *_AUTO]


class RuntimeSettings(Settings):
    """What fits a machine: precision of the arithmetic, rows at once, and steps between checkpoints.

    gradient_checkpointing, micro_batch and batch_size may be "auto": `plan.choose` sets them before a run begins.
    """

    # Of weights that are trained. At the paper's learning rate bfloat16 ones move only with adam8bit, which rounds at
    # random.
    weights_dtype: Literal["float32", "bfloat16"]
    optimizer: Literal["adam", "adam8bit"] = "adam"
    # That samples: see `sampling.generation`.
    engine: Literal["auto", "graph", "generate", "continuous", "vllm", "vllm-colocate"] = "auto"
    server: str = "http://localhost:8000"  # of the engine vllm
    gradient_checkpointing: Switch = False  # compute activations twice instead of keeping them
    compute_dtype: Literal["float32", "bfloat16"]
    frozen_dtype: Literal["float32", "bfloat16"]  # of weights only read: reference, reward models, ground truth
    # Where those are, of several processes: whole in each, shared out over them, or so in the host's memory.
    frozen_placement: Literal["whole", "shared", "host"] = "whole"
    # Replies of the longest length whose gradient is taken at once, and that are sampled or scored at once; of shorter
    # ones more are learnt from and scored, of as many tokens.
    micro_batch: Count
    batch_size: Count
    save_every: int = Field(ge=1)
    max_grad_norm: float = Field(gt=0)

    def auto(self) -> list[str]:
        """The fields of `CHOOSABLE` that the planner is to set."""
        return [name for name in CHOOSABLE if getattr(self, name) == AUTO]

    @model_validator(mode="after")
    def _moves(self) -> "RuntimeSettings":
        short = self.weights_dtype == "bfloat16"
        if short != (self.optimizer == "adam8bit") or (short and self.compute_dtype == "float32"):
            raise ValueError(
                "weights_dtype and compute_dtype must be bfloat16 with the optimizer adam8bit, and weights_dtype "
                "float32 with adam, under which bfloat16 weights do not move, "
                f"got weights_dtype {self.weights_dtype}, compute_dtype {self.compute_dtype} "
                f"and optimizer {self.optimizer}"
            )
        return self


class Recipe(Settings):
    """An experiment: everything that its numbers depend on, and how it fits a machine."""

    title: str
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    data: Data
    policies: dict[str, PolicySettings] = Field(min_length=1)
    ground_truth: GroundTruth
    reward_models: dict[str, SerializeAsAny[RewardModelSettings]] = Field(min_length=1)
    sft: TrainingSettings
    reward_training: RewardTrainingSettings
    measure: Measure
    policy_gradient: PolicyGradient
    evaluation: Evaluation
    runtime: RuntimeSettings

    def dtype(self, name: str) -> str:
        """In what policy `name` is loaded: the type of its weights, or of arithmetic if an adapter is trained."""
        return self.runtime.compute_dtype if self.policies[name].lora else self.runtime.weights_dtype

    def draws_pairs(self, name: str) -> bool:
        """Whether a reward model is trained on pairs of policy `name`'s own replies."""
        return any(spec.draws_pairs(name) for spec in self.reward_models.values())

    @model_validator(mode="after")
    def _agrees(self) -> "Recipe":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {self.seeds}")
        if self.runtime.engine.startswith("vllm") and any(spec.lora for spec in self.policies.values()):
            raise ValueError(
                "runtime.engine must be auto, graph, generate or continuous where an adapter is trained, "
                f"since vllm is sent whole weights, got {self.runtime.engine!r}"
            )
        for key, spec in self.reward_models.items():
            spec.check_recipe(key, self)
        return self


def names() -> list[str]:
    """The recipes that ship, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str | pathlib.Path, changes: Iterable[str] = ()) -> Recipe:
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
    return validated(tree)


def validated(tree: dict[str, Any]) -> Recipe:
    """The `Recipe` of nested dictionaries. ValueError, one sentence, for a field or a value that does not fit."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        # What was renamed first: a missing field may be there by its old name.
        errors = sorted(error.errors(), key=lambda error: _dotted(error["loc"]) not in RENAMED)
        raise ValueError(_sentence(dict(errors[0]))) from None


def deviations(recipe: Recipe, reference: Recipe | None = None) -> dict[str, tuple[Any, Any]]:
    """Fields in which a recipe differs from another, the paper's by default: {"sft.epochs": (its, the other's), …}.

    None where one of the two has no such field.
    """
    flat, other = (_flat(r.model_dump(mode="json")) for r in (recipe, reference or load(PAPER)))
    keys = [key for key in flat | other if key.split(".")[0] not in NOT_DEVIATIONS]
    return {key: (flat.get(key), other.get(key)) for key in keys if flat.get(key) != other.get(key)}


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


def _tree(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
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


def _merged(base: dict[str, Any], differences: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in differences.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _value(text: str) -> Any:
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


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return {key: value for key, value in flat.items() if value is not None}


def _sentence(error: dict[str, Any]) -> str:
    """One sentence out of pydantic's report of one error."""
    key, value = _dotted(error["loc"]), error.get("input")
    if key in RENAMED:
        inner = [f"{key}.{field}" for field in value if f"{key}.{field}" in RENAMED] if isinstance(value, dict) else []
        old = inner[0] if inner else key
        return f"The recipe's field {old!r} is now called {RENAMED[old]!r}; rename it."
    if key == "policy_gradient.algorithm" and isinstance(value, str) and value in RENAMED_ALGORITHMS:
        return f"The algorithm {value!r} is now called {RENAMED_ALGORITHMS[value]!r}; rename it."
    if error["type"] == "extra_forbidden":
        *groups, field = error["loc"]
        fields = _fields(_settings(groups))
        return f"The recipe has no field {key!r}{_nearest(str(field), fields)}; it has {', '.join(fields)} there."
    got = "" if isinstance(value, dict) else f", got {value!r}"
    return f"The recipe's {key + ': ' if key else ''}{error['msg'].removeprefix('Value error, ')}{got}."


def _dotted(loc: Iterable[str | int]) -> str:
    return ".".join(map(str, loc))


def _settings(groups: Iterable[str | int]) -> Any:
    """The class of the settings at a place in a recipe."""
    settings: Any = Recipe
    for group in groups:
        fields = getattr(settings, "model_fields", {})
        settings = fields[group].annotation if group in fields else get_args(settings)[-1]  # of dict[str, settings]
        while get_origin(settings) in (Annotated, UnionType):  # settings | None
            settings = get_args(settings)[0]
    return settings


def _fields(settings: Any) -> list[str]:
    """Names of the fields there, of every kind where a reward model may be of several."""
    kinds = KINDS if settings is RewardModelSettings else (settings,)
    return [field for kind in kinds for field in kind.model_fields]


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
