"""What the stages of a recipe will need: GB of memory by part, and hours, on each GPU.

Memory and time are those of `cost`, for the longest prompts and replies that a recipe allows; hours for prompts of 200
tokens, which few exceed. What a recipe leaves to the planner ("auto" under `runtime`) `choose` sets. Nothing is
downloaded: sizes of the models in the shipped recipes are in `cost.MODELS`, others are asked of the hub. torch and
transformers are imported only where this machine or the hub is asked. `dry_run` prints a plan.
"""

import functools
import itertools
import math
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
        peak = largest(stages).peak * GB
        order = (hours(stages), -runtime.micro_batch, runtime.batch_size)
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

    def passes(self, model: Size, share: float, passes: float, rows: float, tokens: int, batch_size: int) -> Seconds:
        """Forward passes over `rows` texts of `tokens` tokens, `batch_size` texts at once, each `passes` times.

        2 N operations for each token, at a share of the matrix rate.
        """
        rate = getattr(self.machine, self.recipe.runtime.compute_dtype) * share * self.gpus
        batches = math.ceil(rows / (batch_size * self.gpus))
        return Seconds.of(2 * passes * rows * tokens * model.parameters / rate, cost.launching(model, passes * batches))

    def drawing(self, policy: Size, replies: int, dtype: str) -> Seconds:
        """Sampling of so many replies."""
        runtime = self.recipe.runtime
        prompt, reply, rows = self.usual, self.reply, runtime.batch_size
        busy = cost.sampling(policy, replies, rows, prompt, reply, self.machine, dtype, self.gpus, runtime.engine)
        steps = math.ceil(replies / (rows * self.gpus)) * reply
        return Seconds.of(busy, cost.launching(policy, steps, replayed=runtime.engine in ("auto", "graph")))

    def scoring(self, models: Sequence[Size], replies: int) -> Seconds:
        """A forward pass of each model over so many replies and their prompts."""
        share, rows = self.machine.shares.scoring, self.recipe.runtime.batch_size
        seconds = [self.passes(model, share, 1, replies, self.usual + self.reply, rows) for model in models]
        return sum(seconds, Seconds())

    def learning(self, model: Size, rows: float, tokens: int, micro_batch: int, rank: int | None = None) -> Seconds:
        """Gradients of so many texts of `tokens` tokens; rank: of an adapter, if only that is trained."""
        passes = cost.operations(self.recipe.runtime.gradient_checkpointing, rank) / 2
        return self.passes(model, self.machine.shares.updating, passes, rows, tokens, micro_batch)

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
            self.learning(
                model,
                self.recipe.sft.epochs * demonstrations,
                self.usual + self.reply,
                self.recipe.runtime.micro_batch,
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
        return _stage(f"samples/{name}", memory, self.drawing(model, replies, dtype) + self.scoring([model], replies))

    def labels(self, name: str) -> PlannedStage:
        runtime, truth = self.recipe.runtime, self.ground_truth
        tokens = runtime.batch_size * (self.prompt + self.reply)
        memory = {
            "ground truth": truth.parameters * cost.BYTES[runtime.frozen_dtype],
            "scoring": cost.scoring_pass(truth, tokens, runtime.frozen_dtype) if truth.parameters else 0,
        }
        return _stage(f"labels/{name}", memory, self.scoring([truth], self.replies(name)))

    def replies(self, name: str) -> int:
        """Replies of a policy that are drawn and labelled before policy gradient."""
        measure = self.recipe.measure
        return 2 * self.pairs * self.recipe.draws_pairs(name) + measure.prompts * measure.outputs

    def reward_model(self, key: str, policy: PolicySettings, reward_model: RewardModelSettings) -> PlannedStage:
        model, rows_at_once = size(policy.model), 2 * self.recipe.runtime.micro_batch
        rows = 2 * self.recipe.reward_training.epochs * reward_model.training_pairs(self.pairs)
        return _stage(
            f"reward-models/{key}",
            self.trained(model, rows_at_once, 0),
            self.learning(model, rows, self.usual + self.reply, rows_at_once),
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
        replies = gradient.batch_size
        step = self.drawing(model, replies, runtime.compute_dtype) + self.scoring([model, model, teacher], replies)
        step += self.learning(model, replies, self.usual + self.reply, runtime.micro_batch, rank)
        evaluated = recipe.evaluation.prompts * recipe.evaluation.outputs
        evaluation = self.drawing(model, evaluated, runtime.compute_dtype)
        evaluation += self.scoring([model, model, teacher, truth], evaluated)
        evaluations = round(gradient.epochs * recipe.evaluation.per_epoch) + 1
        training = step * gradient.steps(self.prompts - self.pairs) + evaluation * evaluations
        return _stage(f"policy-gradient/{name}/{key}", memory, training * len(recipe.seeds))


def _stage(name: str, memory: dict[str, float], seconds: Seconds) -> PlannedStage:
    """A planned stage, of bytes by part."""
    parts = {part: amount / GB for part, amount in memory.items() if amount}
    return PlannedStage(name, parts, seconds.all / 3600, seconds.busy / 3600)


def hours(stages: Sequence[PlannedStage], jobs: int = 1) -> float:
    """Hours of all stages, with `jobs` trainings by policy gradient at once on one GPU.

    These take as long as the GPU works for all of them, or as launching their kernels, which they do at the same time.
    """
    trainings = [stage for stage in stages if stage.name.startswith("policy-gradient/")]
    others = sum(stage.hours for stage in stages if stage not in trainings)
    return others + max(sum(each.busy_hours for each in trainings), sum(each.hours for each in trainings) / jobs)


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
