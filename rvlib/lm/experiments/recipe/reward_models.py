"""The reward models of a recipe: a class for each way to get one; the fields of an entry decide which it is.

    {on_policy: 1.0}                   trained on pairs of replies that the ground truth labels, all on-policy;
                                       pairs_share: on few of them; label_noise: with wrong labels; seed: another
    {model: sentiment}                 finished: a fixed function, a folder or a name on the hub
    {scale: 0.001, share: 0.5}         the ground truth, scaled on half of the prompts
    {levels: 2}                        the ground truth, in two levels that are equally frequent at the start
    {saturation: 3}                    tanh(3 g), g the ground truth in standard deviations of the measured replies
    {noise: 0.5}                       g + 0.5 z, z a standard normal number that the text of the reply decides
    {length: 3}                        g + 3 l, l the length of the reply in such deviations; below 0 it praises brevity

`small-study` uses all of them. `rvlib.lm.experiments.teachers` has what gives the rewards.
"""

import abc
from collections.abc import Callable, Collection
from typing import Any, ClassVar

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails
from typing_extensions import override

from rvlib.lm.experiments.cost import Size
from rvlib.lm.settings import Settings


class RewardModelSettings(Settings):
    """A reward model in a recipe, of one of the `KINDS` below; the field `key` of a kind tells which.

    A method here says what a plan or another part of a recipe asks of a kind; `teachers` has how it gives rewards.
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

    def check_policies(self, key: str, policies: Collection[str]) -> None:
        """ValueError, one sentence, if the recipe, which calls it `key`, has no policy of those that it names."""

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
    def size(self, policy: Size, ground_truth: Size, size_of: Callable[[str], Size]) -> Size:
        """The size of the model that gives its rewards when it teaches `policy`; size_of: by a model's name."""


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
    def check_policies(self, key: str, policies: Collection[str]) -> None:
        if self.policy is not None and self.policy not in policies:
            raise ValueError(f"reward_models.{key}.policy must be one of {', '.join(policies)}, got {self.policy!r}")

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
    def size(self, policy: Size, ground_truth: Size, size_of: Callable[[str], Size]) -> Size:
        return policy


class NamedRewardModel(RewardModelSettings):
    """A finished reward model by its name: a fixed function, a folder, or a model on the hub."""

    key = "model"
    model: str
    trust_remote_code: bool = False

    @override
    def downloads(self) -> list[str]:
        return [self.model]

    @override
    def size(self, policy: Size, ground_truth: Size, size_of: Callable[[str], Size]) -> Size:
        return size_of(self.model)


class OfGroundTruth(RewardModelSettings):
    """Computed from the ground truth, whose model it shares."""

    holds_weights = False

    @override
    def size(self, policy: Size, ground_truth: Size, size_of: Callable[[str], Size]) -> Size:
        return ground_truth


class ScaledGroundTruth(OfGroundTruth):
    """The ground truth, scaled on a share of the prompts of policy gradient: accurate to the last pair."""

    key = "scale"
    scale: float = Field(gt=0)
    share: float = Field(default=1.0, ge=0, le=1)


class AlteredGroundTruth(OfGroundTruth):
    """A function of a reply's text and of its ground truth g, in standard deviations of the measured replies."""


class DiscreteGroundTruth(AlteredGroundTruth):
    """The ground truth in `levels`, of which each has as many of the measured replies, as far as ties let it."""

    key = "levels"
    levels: int = Field(ge=2)


class SaturatedGroundTruth(AlteredGroundTruth):
    """tanh(saturation × g): good replies of different worth are nearly alike to it, and so are bad ones."""

    key = "saturation"
    saturation: float = Field(gt=0)


class NoisyGroundTruth(AlteredGroundTruth):
    """g + noise × z, z a standard normal number for each text: the same reply has the same error at all times."""

    key = "noise"
    noise: float = Field(gt=0)


class LengthPraisingGroundTruth(AlteredGroundTruth):
    """g + length × the reply's characters, in standard deviations of the measured replies: harmful where it is large.

    A negative number praises short replies.
    """

    key = "length"
    length: float


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
