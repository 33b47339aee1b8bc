"""The groups of a recipe's fields, a class each: what an experiment tells training and models."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WrapValidator, model_validator

from rvlib.tabular.estimators import ADVANTAGES

if TYPE_CHECKING:
    Algorithm = str
else:
    Algorithm = Literal[tuple(ADVANTAGES)]  # the registry of estimators is the only list of them


class Settings(BaseModel):
    """A group of a recipe's fields: what is not one of them is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Data(Settings):
    """Where prompts come from: `preferences` gives prompts with a pair of replies each, the off-policy pairs."""

    preferences: str
    prompts: int | None = Field(ge=4)  # None: all there are
    reward_model_share: float = Field(gt=0, lt=1)  # of prompts, for reward models; the rest is for policy gradient
    max_tokens: int = Field(ge=1)  # of a prompt, and of a reply; longer examples are dropped
    others: "OtherPolicySettings | None" = None  # writes replies of the off-policy pairs


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


class OtherPolicySettings(PolicySettings):
    """The policy that writes `replies` of every off-policy pair: 1, where the data have one, or 2, both of every pair.

    Where the ground truth is a similarity to the data's reply, a pair that has this reply is ordered before anything is
    measured: then the policy has to write both.
    """

    replies: Literal[1, 2] = 1


class GroundTruth(Settings):
    """The reward that stands for what is wanted: its name, a folder, or a name on the hub."""

    model: str
    trust_remote_code: bool = False


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
    num_generations: int = Field(ge=2)
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
        """The number of steps of a training on so many prompts."""
        return max(round(self.epochs * prompts / self.batch_size), 1)


class Evaluation(Settings):
    """Mean rewards of `num_generations` replies to each of `prompts`: at the start, and `per_epoch` times an epoch."""

    prompts: int = Field(ge=1)
    num_generations: int = Field(ge=1)
    per_epoch: float = Field(gt=0)


AUTO = "auto"  # the planner sets the field to what is fastest among what fits the GPU
CHOOSABLE = ("gradient_checkpointing", "micro_batch", "batch_size")  # fields of `runtime` that may be so


def _or_auto(value: Any, validate: Callable[[Any], Any]) -> Any:
    return value if value == AUTO else validate(value)


_AUTO = (WrapValidator(_or_auto), PlainSerializer(lambda value: value))
CountOrAuto = Annotated[int, Field(ge=1), *_AUTO]
SwitchOrAuto = Annotated[bool, *_AUTO]


class RuntimeSettings(Settings):
    """How a run fits its machine: precision of the arithmetic, sizes of batches, steps between checkpoints.

    gradient_checkpointing, micro_batch and batch_size may be "auto": `plan.choose` sets them before a run begins.
    """

    # Of weights that are trained. At the paper's learning rate bfloat16 weights move only with adam8bit and its
    # stochastic rounding.
    weights_dtype: Literal["float32", "bfloat16"]
    optimizer: Literal["adam", "adam8bit"] = "adam"
    # What draws replies: see `sampling.generation`.
    engine: Literal["auto", "graph", "generate", "continuous", "vllm", "vllm-colocate"] = "auto"
    server: str = "http://localhost:8000"  # of the engine vllm
    gradient_checkpointing: SwitchOrAuto = False  # compute activations twice instead of keeping them
    compute_dtype: Literal["float32", "bfloat16"]
    # Of weights that are not trained: the frozen copy of the policy, reward models, ground truth.
    frozen_dtype: Literal["float32", "bfloat16"]
    # Where these weights are if there are several processes: whole in each, sharded, or sharded in the host's memory.
    frozen_placement: Literal["whole", "shared", "host"] = "whole"
    # How many replies of the longest length are in a micro-batch of training, and in a batch of sampling or scoring; of
    # shorter replies there are more in a batch, with as many tokens.
    micro_batch: CountOrAuto
    batch_size: CountOrAuto
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
