"""What each stage of a recipe takes: GB of memory by part, and hours, on each GPU.

Memory and time are those of `cost`, for the longest prompts and replies that a recipe allows; hours for prompts of 200
tokens, which few exceed. `plan` puts the stages together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rvlib.lm.experiments import cost
from rvlib.lm.experiments.cost import GB, Machine, Size
from rvlib.lm.experiments.planning.sizes import size
from rvlib.lm.experiments.recipe import PolicySettings, Recipe, RewardModelSettings

PROMPTS = {
    "ultrafeedback": 41419,
    "ultrafeedback-chosen": 41419,
    "alpacafarm": 10000,
    "demo-preferences": 300,
    "demo-instructions": 999,
    "instructions": 2085,
}  # at most 512 tokens


@dataclass(frozen=True)
class PlannedStage:
    """A stage as planned: its name, GB of memory by part, and hours, on each GPU.

    busy_hours: of these, the hours in which the GPU works at its measured rates. The rest is launching of kernels,
    which several trainings on one GPU can do at the same time.
    """

    name: str
    memory: dict[str, float]
    hours: float
    busy_hours: float

    @property
    def peak(self) -> float:
        """GB at the peak."""
        return cost.total(self.memory)

    @property
    def largest_part(self) -> str:
        """What takes most of its memory."""
        return max(self.memory, key=lambda part: self.memory[part])


@dataclass(frozen=True)
class Seconds:
    """How long work takes, and how much of that the GPU works at its measured rates."""

    all: float = 0.0
    busy: float = 0.0

    @classmethod
    def of(cls, busy: float, launching: float) -> "Seconds":
        """Work that the GPU does in `busy` seconds while its kernels are launched, which takes `launching`."""
        return cls(max(busy, launching), busy)

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.all + other.all, self.busy + other.busy)

    def __mul__(self, times: float) -> "Seconds":
        return Seconds(self.all * times, self.busy * times)


@dataclass(frozen=True)
class Planner:
    """What the stages of a recipe take on `gpus` of a machine, one method a kind of stage."""

    recipe: Recipe
    gpus: int
    machine: Machine

    @property
    def prompts(self) -> int:
        """Prompts of the data."""
        return self.recipe.data.prompts or PROMPTS.get(self.recipe.data.preferences, 1000)

    @property
    def pairs(self) -> int:
        """Prompts kept for reward models."""
        return round(self.prompts * self.recipe.data.reward_model_share)

    @property
    def prompt(self) -> int:
        """Tokens of the longest prompt."""
        return self.recipe.data.max_tokens

    @property
    def engine(self) -> str:
        """What samples: "auto" is graph on one GPU, and generate on several."""
        engine = self.recipe.runtime.engine
        return ("graph" if self.gpus == 1 else "generate") if engine == "auto" else engine

    @property
    def usual(self) -> int:
        """Tokens of a usual prompt."""
        return min(self.prompt, cost.USUAL_PROMPT_TOKENS)

    @property
    def reply(self) -> int:
        """Tokens of the longest reply."""
        return self.recipe.policy_gradient.max_new_tokens

    @property
    def ground_truth(self) -> Size:
        """The size of the ground truth's model."""
        return size(self.recipe.ground_truth.model)

    def passes(self, model: Size, share: float, passes: float, texts: float, tokens: int, batch_size: int) -> Seconds:
        """Forward passes over so many texts of `tokens` tokens, `batch_size` texts at once, each `passes` times.

        2 N operations for each token, at a share of the matrix rate.
        """
        rate = getattr(self.machine, self.recipe.runtime.compute_dtype) * share * self.gpus
        batches = math.ceil(texts / (batch_size * self.gpus))
        return Seconds.of(
            2 * passes * texts * tokens * model.parameters / rate, cost.launching(model, passes * batches)
        )

    def drawing(self, policy: Size, replies: int, dtype: str) -> Seconds:
        """Sampling of so many replies."""
        prompt, reply, batch_size = self.usual, self.reply, self.recipe.runtime.batch_size
        busy = cost.sampling(policy, replies, batch_size, prompt, reply, self.machine, dtype, self.gpus, self.engine)
        steps = math.ceil(replies / (batch_size * self.gpus)) * reply
        return Seconds.of(busy, cost.launching(policy, steps, replayed=self.engine == "graph"))

    def scoring(self, models: Sequence[Size], replies: int) -> Seconds:
        """A forward pass of each model over so many replies and their prompts."""
        share, batch_size = self.machine.shares.scoring, self.recipe.runtime.batch_size
        seconds = [self.passes(model, share, 1, replies, self.usual + self.reply, batch_size) for model in models]
        return sum(seconds, Seconds())

    def learning(self, model: Size, texts: float, tokens: int, micro_batch: int, rank: int | None = None) -> Seconds:
        """Gradients of so many texts of `tokens` tokens; rank: of an adapter, if only that is trained."""
        passes = cost.operations(self.recipe.runtime.gradient_checkpointing, rank) / 2
        return self.passes(model, self.machine.shares.updating, passes, texts, tokens, micro_batch)

    def trained(self, model: Size, batch_size: int, reply: int) -> dict[str, float]:
        """Bytes by part while a whole model is trained on so many texts at once."""
        runtime = self.recipe.runtime
        activations = cost.gradient_pass(
            model,
            batch_size,
            self.prompt,
            reply,
            compute_dtype=runtime.compute_dtype,
            gradient_checkpointing=runtime.gradient_checkpointing,
        )
        state = cost.training_state(
            model,
            optimizer=runtime.optimizer,
            weights_dtype=runtime.weights_dtype,
            compute_dtype=runtime.compute_dtype,
            gpus=self.gpus,
        )
        return state | {"activations": activations}

    def sft(self, name: str, policy: PolicySettings) -> PlannedStage:
        """Fine-tuning of policy `name` on its demonstrations."""
        model = size(policy.model)
        demonstrations = policy.count or PROMPTS.get(policy.demonstrations or "", self.prompts)
        return _stage(
            f"sft/{name}",
            self.trained(model, self.recipe.runtime.micro_batch, self.reply),
            self.learning(
                model,
                self.recipe.sft.epochs * demonstrations,
                self.usual + self.reply,
                self.recipe.runtime.micro_batch,
            ),
        )

    def sampling(self, name: str, policy: PolicySettings) -> PlannedStage:
        """Sampling of its replies and of their log-probabilities."""
        runtime, model, dtype = self.recipe.runtime, size(policy.model), self.recipe.dtype(name)
        memory = {
            "weights": model.parameters * cost.BYTES[dtype],
            "KV cache": runtime.batch_size
            * (self.prompt + self.reply)
            * model.layers
            * model.keys
            * 2
            * cost.BYTES[dtype],
            "scoring": cost.log_prob_pass(model, runtime.batch_size, self.prompt, self.reply, compute_dtype=dtype),
        }
        replies = self.replies(name)
        return _stage(f"samples/{name}", memory, self.drawing(model, replies, dtype) + self.scoring([model], replies))

    def labels(self, name: str) -> PlannedStage:
        """Ground truth rewards of these replies."""
        runtime, ground_truth = self.recipe.runtime, self.ground_truth
        tokens = runtime.batch_size * (self.prompt + self.reply)
        memory = {
            "ground truth": ground_truth.parameters * cost.BYTES[runtime.frozen_dtype],
            "scoring": cost.scoring_pass(ground_truth, tokens, runtime.frozen_dtype) if ground_truth.parameters else 0,
        }
        return _stage(f"labels/{name}", memory, self.scoring([ground_truth], self.replies(name)))

    def replies(self, name: str) -> int:
        """Replies of a policy that are drawn and labelled before policy gradient."""
        measure = self.recipe.measure
        return 2 * self.pairs * self.recipe.draws_pairs(name) + measure.prompts * measure.num_generations

    def reward_model(self, key: str, policy: PolicySettings, reward_model: RewardModelSettings) -> PlannedStage:
        """Training of the reward model `key` from a policy."""
        model, batch_size = size(policy.model), 2 * self.recipe.runtime.micro_batch
        texts = 2 * self.recipe.reward_training.epochs * reward_model.training_pairs(self.pairs)
        return _stage(
            f"reward-models/{key}",
            self.trained(model, batch_size, 0),
            self.learning(model, texts, self.usual + self.reply, batch_size),
        )

    def policy_gradient(
        self, name: str, policy: PolicySettings, key: str, reward_model: RewardModelSettings
    ) -> PlannedStage:
        """Policy gradient on policy `name` with the reward model `key`, from all seeds."""
        recipe, runtime, gradient = self.recipe, self.recipe.runtime, self.recipe.policy_gradient
        model, ground_truth, rank = size(policy.model), self.ground_truth, policy.lora.rank if policy.lora else None
        teacher = reward_model.size(model, ground_truth, size)
        memory = cost.memory(
            model,
            teacher if reward_model.holds_weights else None,
            ground_truth,
            micro_batch=runtime.micro_batch,
            batch_size=runtime.batch_size,
            prompt=self.prompt,
            reply=self.reply,
            optimizer=runtime.optimizer,
            weights_dtype=runtime.weights_dtype,
            compute_dtype=runtime.compute_dtype,
            frozen_dtype=runtime.frozen_dtype,
            frozen_placement=runtime.frozen_placement,
            gradient_checkpointing=runtime.gradient_checkpointing,
            rank=rank,
            gpus=self.gpus,
        )
        replies = gradient.batch_size
        step = self.drawing(model, replies, runtime.compute_dtype) + self.scoring([model, model, teacher], replies)
        step += self.learning(model, replies, self.usual + self.reply, runtime.micro_batch, rank)
        evaluated = recipe.evaluation.prompts * recipe.evaluation.num_generations
        evaluation = self.drawing(model, evaluated, runtime.compute_dtype)
        evaluation += self.scoring([model, model, teacher, ground_truth], evaluated)
        evaluations = round(gradient.epochs * recipe.evaluation.per_epoch) + 1
        training = step * gradient.steps(self.prompts - self.pairs) + evaluation * evaluations
        return _stage(f"policy-gradient/{name}/{key}", memory, training * len(recipe.seeds))


def _stage(name: str, memory: dict[str, float], seconds: Seconds) -> PlannedStage:
    """A planned stage, of bytes by part."""
    parts = {part: amount / GB for part, amount in memory.items() if amount}
    return PlannedStage(name, parts, seconds.all / 3600, seconds.busy / 3600)
