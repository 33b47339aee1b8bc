"""A whole recipe: the groups of its fields, and where they must agree."""

from typing import Annotated

from pydantic import Field, SerializeAsAny, model_validator

from rvlib.lm.experiments.recipe.reward_models import RewardModelSettings
from rvlib.lm.settings import (
    Data,
    Evaluation,
    GroundTruth,
    Measure,
    PolicyGradient,
    PolicySettings,
    RewardTrainingSettings,
    RuntimeSettings,
    Settings,
    TrainingSettings,
)


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
        """The type in which policy `name` is loaded: that of weights, or of arithmetic if an adapter is trained."""
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
            spec.check_policies(key, self.policies)
        return self
