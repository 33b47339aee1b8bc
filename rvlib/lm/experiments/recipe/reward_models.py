"""The reward models of a recipe: a class for each way to get one; the fields of an entry decide which it is.

    {on_policy: 1.0}                   trained on pairs of replies that the ground truth labels, all on-policy;
                                       pairs_share: on few of them; label_noise: with wrong labels; seed: another
    {model: sentiment}                 finished: a fixed function, a folder or a name on the hub
    {scale: 0.001, share: 0.5}         the ground truth, scaled on half of the prompts
    {levels: 2}                        the ground truth, in two levels that are equally frequent at the start
    {saturation: 3}                    tanh(3 g), g the ground truth in standard deviations of the measured replies
    {noise: 0.5}                       g + 0.5 z, z a standard normal number that the text of the reply decides
    {length: 3}                        g + 3 l, l the length of the reply in such deviations; below 0 it praises brevity

`small-study` uses all of them.
"""

import abc
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails
from typing_extensions import override

from rvlib import metrics
from rvlib.lm.experiments.recipe.settings import Settings
from rvlib.lm.models import RewardFunction

if TYPE_CHECKING:  # a recipe is read without torch
    from rvlib.lm.data.prompts import Prompt
    from rvlib.lm.experiments.cost import Size
    from rvlib.lm.experiments.recipe.recipe import Recipe
    from rvlib.lm.experiments.run import Run

Alteration = Callable[[NDArray[np.float64], Sequence[Sequence[str]]], NDArray[np.float64]]


class RewardModelSettings(Settings):
    """A reward model in a recipe, of one of the `KINDS` below; the field `key` of a kind tells which.

    Everything that other modules ask of a kind is a method here, so a new kind is one new class.
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
        if unknown := [field for field in value if field not in field_names(RewardModelSettings)]:
            errors = [InitErrorDetails(type="extra_forbidden", loc=(key,), input=value[key]) for key in unknown]
            raise ValidationError.from_exception_data(cls.__name__, errors)
        kinds = [kind for kind in KINDS if kind.key in value]
        if len(kinds) != 1:
            *first, last = (kind.key for kind in KINDS)
            raise ValueError(f"a reward model must have exactly one of {', '.join(first)} and {last}")
        (kind,) = kinds
        if foreign := [field for field in value if field not in kind.model_fields]:
            fields = ", ".join(kind.model_fields)
            raise ValueError(f"a reward model with {kind.key} must have no fields but {fields}, got {foreign[0]}")
        return kind.model_validate(value)

    def check_recipe(self, key: str, recipe: "Recipe") -> None:
        """ValueError, one sentence, if it contradicts the rest of the recipe, which calls it `key`."""

    def is_trained_from(self, policy: str) -> bool:
        """Whether it is trained from this policy: the one that its settings name, or else the one that it teaches."""
        return False

    def draws_pairs(self, policy: str) -> bool:
        """Whether it is trained on pairs of this policy's own replies."""
        return False

    def training_pairs(self, pairs: int) -> int:
        """On how many of so many pairs it is trained."""
        return 0

    def downloads(self) -> list[str]:
        """Names of the models that it takes from elsewhere."""
        return []

    @abc.abstractmethod
    def size(self, policy: "Size", ground_truth: "Size", size_of: Callable[[str], "Size"]) -> "Size":
        """The size of the model that gives its rewards when it teaches `policy`; size_of: by a model's name."""

    def check(self, run: "Run") -> None:
        """Raise, before the long part of a run, the errors of data and models that would come up in it."""

    def prepare(self, run: "Run", key: str, policy: str) -> None:
        """Train it, before anything is measured, if it is trained in the run."""

    @abc.abstractmethod
    def build(self, run: "Run", key: str, policy: str) -> RewardFunction:
        """The rewards with which it teaches `policy`, before normalisation."""


class TrainedRewardModel(RewardModelSettings):
    """Trained on pairs that the ground truth labels: on-policy ones for a share `on_policy` of the prompts."""

    key = "on_policy"
    trained = True
    on_policy: float = Field(ge=0, le=1)
    policy: str | None = None  # trained from this policy and on its replies; by default from the one that it teaches
    pairs_share: float | None = Field(default=None, gt=0, le=1)  # of the pairs, on which it is trained; None: all
    label_noise: float | None = Field(default=None, ge=0, le=1)  # the share of the labels turned round; None: none
    seed: int | None = Field(default=None, ge=0)  # of its head's first weights and of the order of pairs; None: 0

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
    def training_pairs(self, pairs: int) -> int:
        return round((self.pairs_share or 1.0) * pairs)

    @override
    def size(self, policy: "Size", ground_truth: "Size", size_of: Callable[[str], "Size"]) -> "Size":
        return policy

    @override
    def check(self, run: "Run") -> None:
        from rvlib.lm.experiments import stages  # imports torch

        stages.check_pairs(run, self.training_pairs(len(stages.split(run).pairs)))

    @override
    def prepare(self, run: "Run", key: str, policy: str) -> None:
        self._train(run, key, policy)

    @override
    def build(self, run: "Run", key: str, policy: str) -> RewardFunction:
        return run.load_reward_model(self._train(run, key, policy))

    def _train(self, run: "Run", key: str, policy: str) -> pathlib.Path:
        from rvlib.lm.experiments import stages  # imports torch

        return stages.reward_model(run, key, self.policy or policy, self)


class NamedRewardModel(RewardModelSettings):
    """A finished reward model by its name: a fixed function, a folder, or a model on the hub."""

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


class OfGroundTruth(RewardModelSettings):
    """Computed from the ground truth, whose model it shares."""

    holds_weights = False

    @override
    def size(self, policy: "Size", ground_truth: "Size", size_of: Callable[[str], "Size"]) -> "Size":
        return ground_truth


class ScaledGroundTruth(OfGroundTruth):
    """The ground truth, scaled on a share of the prompts of policy gradient: accurate to the last pair."""

    key = "scale"
    scale: float = Field(gt=0)
    share: float = Field(default=1.0, ge=0, le=1)

    @override
    def build(self, run: "Run", key: str, policy: str) -> RewardFunction:
        scaled, ground_truth = self._scaled_prompts(run), run.ground_truth()

        def rewards(prompts: Sequence["Prompt"], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
            scales = np.array([[self.scale if prompt.name in scaled else 1.0] for prompt in prompts])
            return ground_truth(prompts, replies) * scales

        return rewards

    def _scaled_prompts(self, run: "Run") -> set[str]:
        """The names of a share `share` of the prompts of policy gradient."""
        from rvlib.lm.experiments import stages  # imports torch

        prompts = stages.split(run).prompts
        scaled = np.random.default_rng(8122).permutation(len(prompts))[: round(self.share * len(prompts))]
        return {prompts[i].name for i in scaled}


class AlteredGroundTruth(OfGroundTruth):
    """A function of the ground truth g of a reply, in standard deviations of the policy's measured replies, and of its
    text."""

    @override
    def build(self, run: "Run", key: str, policy: str) -> RewardFunction:
        judged, alter = run.judged(policy), self.alteration(run, policy)

        def rewards(prompts: Sequence["Prompt"], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
            return alter(judged(prompts, replies), replies)

        return rewards

    @abc.abstractmethod
    def alteration(self, run: "Run", policy: str) -> Alteration:
        """The function: of g, (prompts, replies), and the replies' texts; what it gives has the shape of g."""


class DiscreteGroundTruth(AlteredGroundTruth):
    """The ground truth in `levels`, of which each has as many of the measured replies, as far as ties let it."""

    key = "levels"
    levels: int = Field(ge=2)

    @override
    def alteration(self, run: "Run", policy: str) -> Alteration:
        from rvlib.lm.experiments import stages  # imports torch

        measured = np.array(stages.labels(run, policy)["measure"])
        truth = metrics.Normalizer.fit(measured).transform(measured)
        cuts = np.quantile(truth, np.arange(1, self.levels) / self.levels)
        return lambda truth, replies: np.digitize(truth, cuts).astype(float)


class SaturatedGroundTruth(AlteredGroundTruth):
    """tanh(saturation × g): good replies of different worth are nearly alike to it, and so are bad ones."""

    key = "saturation"
    saturation: float = Field(gt=0)

    @override
    def alteration(self, run: "Run", policy: str) -> Alteration:
        return lambda truth, replies: np.tanh(self.saturation * truth)


class NoisyGroundTruth(AlteredGroundTruth):
    """g + noise × z, z a standard normal number for each text: the same reply has the same error at all times."""

    key = "noise"
    noise: float = Field(gt=0)

    @override
    def alteration(self, run: "Run", policy: str) -> Alteration:
        return lambda truth, replies: truth + self.noise * _each(text_noise, replies)


class LengthPraisingGroundTruth(AlteredGroundTruth):
    """g + length × the reply's characters, in standard deviations of the measured replies: harmful where it is large.

    A negative number praises short replies.
    """

    key = "length"
    length: float

    @override
    def alteration(self, run: "Run", policy: str) -> Alteration:
        from rvlib.lm.experiments import stages  # imports torch

        measured = [record["replies"] for record in stages.initial_replies(run, policy).measured]
        lengths = metrics.Normalizer.fit(_each(len, measured))
        return lambda truth, replies: truth + self.length * lengths.transform(_each(len, replies))


def text_noise(text: str) -> float:
    """A standard normal number that the text alone decides."""
    return float(np.random.default_rng([20, *text.encode()]).normal())


def _each(function: Callable[[str], float], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """A number for each reply, (prompts, replies)."""
    return np.array([[function(reply) for reply in texts] for texts in replies], dtype=float)


KINDS: tuple[type[RewardModelSettings], ...] = (
    TrainedRewardModel,
    NamedRewardModel,
    ScaledGroundTruth,
    DiscreteGroundTruth,
    SaturatedGroundTruth,
    NoisyGroundTruth,
    LengthPraisingGroundTruth,
)


def field_names(settings: type[Settings]) -> list[str]:
    """The names of the fields of settings; of a reward model's settings, those of every kind."""
    kinds = KINDS if settings is RewardModelSettings else (settings,)
    return [field for kind in kinds for field in kind.model_fields]
