"""What the stages of a recipe will need: GB of memory by part, and hours, on each GPU.

Memory and time are those of `cost`, for the longest prompts and replies that a recipe allows; hours for prompts of 200
tokens, which few exceed. What a recipe leaves to the planner ("auto" under `runtime`) `choose` sets. Nothing is
downloaded: sizes of the models in the shipped recipes are in `cost.MODELS`, others are asked of the hub. torch and
transformers are imported only where this machine or the hub is asked. `dry_run` prints a plan.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rvlib.lm.experiments import cost
from rvlib.lm.experiments.cost import GB, MODELS, Machine, Size
from rvlib.lm.experiments.recipe import PolicySettings, Recipe, RewardModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MACHINE = cost.MACHINES["H100"]  # where there is no GPU to ask
USABLE = 0.95  # of a GPU's memory: the rest is CUDA's own, and pieces too small for use
MOST_ROWS = 512  # the largest batch_size that the planner chooses
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
    """A stage as planned: its name, GB of memory by part, and hours, on each GPU."""

    name: str
    memory: dict[str, float]
    hours: float

    @property
    def peak(self) -> float:
        """GB at the peak."""
        return cost.total(self.memory)

    @property
    def largest_part(self) -> str:
        """What takes most of its memory."""
        return max(self.memory, key=lambda part: self.memory[part])


@functools.lru_cache
def size(name: str) -> Size:
    """The `Size` of a model, by its name. OSError, one sentence, for one that neither `MODELS` nor the hub knows."""
    if name in MODELS:
        return MODELS[name]
    import torch  # only for a model that is not in the shipped recipes
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise OSError(
            f"The size of {name!r} must be known to plan, but its configuration did not load "
            f"({str(error).splitlines()[0]})."
        ) from error
    return shape(model)


def shape(model: "PreTrainedModel") -> Size:
    """The `Size` of a causal language model that is there."""
    config: Any = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    gated = any("gate" in module for module, _ in model.named_modules())
    return Size(
        model.num_parameters(),
        config.num_hidden_layers,
        config.hidden_size,
        heads * head_dim,
        config.vocab_size,
        config.intermediate_size,
        3 if gated else 2,
    )


def plan(recipe: Recipe, gpus: int = 1, machine: Machine | None = None) -> list[PlannedStage]:
    """The stages of a recipe, on each of `gpus`; machine: the GPU here, or `MACHINE`.

    What the recipe leaves to the planner is what `choose` takes for that GPU's memory.
    """
    machine = machine or machine_here()
    recipe = choose(recipe, machine.memory, gpus, machine)
    planner, stages = _Plan(recipe, gpus, machine), []
    for name, policy in recipe.policies.items():
        if policy.demonstrations:
            stages.append(planner.sft(name, policy))
        stages.append(planner.sampling(name, policy))
        if planner.ground_truth.parameters:  # a fixed function takes neither memory nor time
            stages.append(planner.labels(name))
        for key, reward_model in recipe.reward_models.items():
            if reward_model.trained:
                stages.append(planner.reward_model(key, policy, reward_model))
            stages.append(planner.policy_gradient(name, policy, key, reward_model))
    return stages


def choose(recipe: Recipe, memory: float, gpus: int = 1, machine: Machine | None = None) -> Recipe:
    """The recipe with each field of `runtime` that is "auto" set so that the run is fastest and fits.

    memory: bytes of each of `gpus`; the share `USABLE` of it is used. Among equally fast choices it takes the largest
    micro_batch and then the smallest batch_size. If nothing fits, it takes what needs least memory.
    """
    auto = recipe.runtime.auto()
    if not auto:
        return recipe
    candidates = []
    for values in itertools.product(*(_values(recipe, field) for field in auto)):
        settings = dict(zip(auto, values))
        runtime = recipe.runtime.model_copy(update=settings)
        resolved = recipe.model_copy(update={"runtime": runtime})
        stages = plan(resolved, gpus, machine)
        peak, hours = largest(stages).peak * GB, sum(stage.hours for stage in stages)
        order = (hours, -runtime.micro_batch, runtime.batch_size)
        candidates.append(((False, *order) if peak <= USABLE * memory else (True, peak, *order), resolved))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _values(recipe: Recipe, field: str) -> list[Any]:
    """What a field that is "auto" may be: powers of two, as far as they can be of use to the recipe."""
    if field == "gradient_checkpointing":
        return [False, True]
    gradient, measure, evaluation = recipe.policy_gradient, recipe.measure, recipe.evaluation
    if field == "micro_batch":
        most = gradient.batch_size // gradient.num_mini_batches
    else:
        replies = (measure.prompts * measure.outputs, evaluation.prompts * evaluation.outputs)
        most = min(max(gradient.batch_size, *replies), MOST_ROWS)
    return [2**power for power in range(most.bit_length())]


@dataclass(frozen=True)
class _Plan:
    """What the stages of a recipe take on `gpus` of a machine, one method a kind of stage."""

    recipe: Recipe
    gpus: int
    machine: Machine

    @property
    def prompts(self) -> int:
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
    def usual(self) -> int:
        """Tokens of a usual prompt."""
        return min(self.prompt, cost.USUAL_PROMPT_TOKENS)

    @property
    def reply(self) -> int:
        """Tokens of the longest reply."""
        return self.recipe.policy_gradient.max_new_tokens

    @property
    def passes_of_training(self) -> int:
        """How many forward passes take as long as a training step on the same row."""
        return 3 + self.recipe.runtime.gradient_checkpointing

    @property
    def ground_truth(self) -> Size:
        return size(self.recipe.ground_truth.model)

    @property
    def shared_out(self) -> dict[str, Any]:
        runtime = self.recipe.runtime
        return {
            "optimizer": runtime.optimizer,
            "weights_dtype": runtime.weights_dtype,
            "compute_dtype": runtime.compute_dtype,
            "gpus": self.gpus,
        }

    @property
    def arithmetic(self) -> dict[str, Any]:
        runtime = self.recipe.runtime
        return {"compute_dtype": runtime.compute_dtype, "gradient_checkpointing": runtime.gradient_checkpointing}

    def hours(self, share: float, passes: float, tokens: float, parameters: float) -> float:
        """Hours of forward passes over tokens, 2 N operations for each token, at a share of the matrix rate."""
        rate = getattr(self.machine, self.recipe.runtime.compute_dtype) * share * self.gpus
        return 2 * passes * tokens * parameters / rate / 3600

    def sampling_hours(self, policy: Size, replies: int, dtype: str) -> float:
        runtime = self.recipe.runtime
        prompt, reply, rows = self.usual, self.reply, runtime.batch_size
        seconds = cost.sampling(policy, replies, rows, prompt, reply, self.machine, dtype, self.gpus, runtime.engine)
        return seconds / 3600

    def trained(self, model: Size, rows: int, reply: int) -> dict[str, float]:
        """Bytes by part while a whole model is trained on micro-batches of `rows`."""
        activations = cost.gradient_pass(model, rows, self.prompt, reply, **self.arithmetic)
        return cost.training_state(model, **self.shared_out) | {"activations": activations}

    def sft(self, name: str, policy: PolicySettings) -> PlannedStage:
        model = size(policy.model)
        demonstrations = policy.count or PROMPTS.get(policy.demonstrations or "", self.prompts)
        return _stage(
            f"sft/{name}",
            self.trained(model, self.recipe.runtime.micro_batch, self.reply),
            self.hours(
                self.machine.shares.updating,
                self.passes_of_training * self.recipe.sft.epochs,
                demonstrations * (self.usual + self.reply),
                model.parameters,
            ),
        )

    def sampling(self, name: str, policy: PolicySettings) -> PlannedStage:
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
        scoring = self.hours(self.machine.shares.scoring, 1, replies * (self.usual + self.reply), model.parameters)
        return _stage(f"samples/{name}", memory, self.sampling_hours(model, replies, dtype) + scoring)

    def labels(self, name: str) -> PlannedStage:
        runtime, truth = self.recipe.runtime, self.ground_truth
        tokens = runtime.batch_size * (self.prompt + self.reply)
        memory = {
            "ground truth": truth.parameters * cost.BYTES[runtime.frozen_dtype],
            "scoring": cost.scoring_pass(truth, tokens, runtime.frozen_dtype) if truth.parameters else 0,
        }
        replies = self.replies(name)
        hours = self.hours(self.machine.shares.scoring, 1, replies * (self.usual + self.reply), truth.parameters)
        return _stage(f"labels/{name}", memory, hours)

    def replies(self, name: str) -> int:
        """Replies of a policy that are drawn and labelled before policy gradient."""
        measure = self.recipe.measure
        return 2 * self.pairs * self.recipe.draws_pairs(name) + measure.prompts * measure.outputs

    def reward_model(self, key: str, policy: PolicySettings, reward_model: RewardModelSettings) -> PlannedStage:
        model, passes = size(policy.model), 2 * self.passes_of_training * self.recipe.reward_training.epochs
        tokens = reward_model.training_pairs(self.pairs) * (self.usual + self.reply)
        return _stage(
            f"reward-models/{key}",
            self.trained(model, 2 * self.recipe.runtime.micro_batch, 0),
            self.hours(self.machine.shares.updating, passes, tokens, model.parameters),
        )

    def policy_gradient(
        self, name: str, policy: PolicySettings, key: str, reward_model: RewardModelSettings
    ) -> PlannedStage:
        recipe, runtime, gradient = self.recipe, self.recipe.runtime, self.recipe.policy_gradient
        model, truth, rank = size(policy.model), self.ground_truth, policy.lora.rank if policy.lora else None
        teacher = reward_model.size(model, truth, size)
        memory = cost.memory(
            model,
            teacher if reward_model.holds_weights else None,
            truth,
            micro_batch=runtime.micro_batch,
            batch_size=runtime.batch_size,
            prompt=self.prompt,
            reply=self.reply,
            frozen_dtype=runtime.frozen_dtype,
            frozen_placement=runtime.frozen_placement,
            gradient_checkpointing=runtime.gradient_checkpointing,
            rank=rank,
            **self.shared_out,
        )
        steps = gradient.steps(self.prompts - self.pairs)
        seconds_a_step = cost.step(
            model,
            teacher,
            replies=gradient.batch_size,
            batch_size=runtime.batch_size,
            prompt=self.usual,
            reply=self.reply,
            machine=self.machine,
            rank=rank,
            gpus=self.gpus,
            engine=runtime.engine,
            **self.arithmetic,
        )
        evaluation = recipe.evaluation
        evaluations = round(gradient.epochs * evaluation.per_epoch) + 1
        replies = evaluation.prompts * evaluation.outputs * evaluations
        evaluating = self.sampling_hours(model, replies, runtime.compute_dtype) + self.hours(
            self.machine.shares.scoring,
            1,
            replies * (self.usual + self.reply),
            2 * model.parameters + teacher.parameters + truth.parameters,
        )
        hours = steps * sum(seconds_a_step.values()) / 3600 + evaluating
        return _stage(f"policy-gradient/{name}/{key}", memory, hours * len(recipe.seeds))


def _stage(name: str, memory: dict[str, float], hours: float) -> PlannedStage:
    """A planned stage, of bytes by part."""
    return PlannedStage(name, {part: amount / GB for part, amount in memory.items() if amount}, hours)


def largest(stages: Sequence[PlannedStage]) -> PlannedStage:
    """The stage that takes most memory."""
    return max(stages, key=lambda stage: stage.peak)


def machine_here() -> Machine:
    """The GPU here as a `cost.Machine`, if it is one that we know, else `MACHINE`."""
    import torch  # asks this machine

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return next((machine for model, machine in cost.MACHINES.items() if model in name), MACHINE)
    return MACHINE


def memory_here() -> tuple[float, str]:
    """Bytes of memory that models can take here, and of what."""
    import psutil  # asks this machine
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1], "The GPU"
    return psutil.virtual_memory().total, "This machine, which has no GPU,"
