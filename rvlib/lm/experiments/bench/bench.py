"""How near each stage of a run comes to what the machine can do, on a real architecture with random weights.

    share of the matrix rate = (f N tokens + h H reply tokens) / (seconds × rate)
    share of the bandwidth   = (weights + mean keys and values) × steps / (seconds × bandwidth)

The first is of scoring (f = 2, h = 0) and of updating (f = 6, or 8 with activations computed twice; h = 6, since the
head is never computed twice), the second of sampling. N parameters of the layers and H of the output head: the table
of embeddings is looked up, not multiplied, and attention between tokens is left out; so is the last matrix of a layer
that is computed twice, which stops before it.
Rate and bandwidth are measured first, in the same call. Then the stages, the most important first: those of a step, the
whole step, a step on `LARGE` replies, the same step as the official code makes it (`official`), the memory of a step at
its longest beside what the planner says, and every engine that samples here at each of `BATCH_SIZES`. Nothing is
downloaded.
Random weights know no end of a reply, so one token in `MEAN_REPLY_TOKENS`, by number, is taken for one: lengths are
nearly geometric with that mean, cut at the recipe's longest. `command` measures the stages, by the
command `rvlib bench`.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
import transformers

from rvlib.lm.data.prompts import Prompt
from rvlib.lm.experiments import cost
from rvlib.lm.experiments.bench.architectures import ARCHITECTURES, PROMPT_TOKENS, make_tokenizer, random_prompts
from rvlib.lm.experiments.bench.device_timing import timed
from rvlib.lm.experiments.bench.generated import Generated
from rvlib.lm.experiments.bench.official import OfficialModels, official_step
from rvlib.lm.experiments.bench.record import StageRecord
from rvlib.lm.experiments.planning import sizes
from rvlib.lm.experiments.recipe import Recipe, RuntimeSettings
from rvlib.lm.models.policies import Policy
from rvlib.lm.models.reward_functions import ClassifierReward, forward
from rvlib.lm.sampling import cuda_graph, engines
from rvlib.lm.sampling.encoding import decode_replies, encode_prompt
from rvlib.lm.sampling.generation import generate
from rvlib.lm.sampling.log_probs import log_probs, reply_log_probs
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training import policy_gradient
from rvlib.lm.training.trainer import Trainer

MEAN_REPLY_TOKENS = 128
LARGE = 512  # replies in a large step
BATCH_SIZES = (32, 256)  # with which each engine is measured
LONGEST_BATCH_SIZE = 64  # of the step at its longest, at the most: more takes as long again and shows nothing new
PROFILED_TOKENS = 16  # of each reply while the kernels of sampling are counted
ENGINES = tuple(  # "auto" is one of the others, and vllm's are measured by vllm
    engine
    for engine in get_args(RuntimeSettings.model_fields["engine"].annotation)
    if not engine.startswith(("auto", "vllm"))
)
# The parts of memory that only one stage needs.
TURNS = {"sampling": ("KV cache",), "scoring": ("scoring",), "update": ("activations",)}


@dataclass(frozen=True)
class Stage:
    """A stage to be measured: work() returns its numbers.

    profiled: less of the same work, in which the kernels are counted; None: none of it is.
    warm_up: whether it is done twice, and the second time counts.
    """

    work: Callable[[], StageRecord]
    profiled: Callable[[], object] | None = None
    warm_up: bool = False


class Bench:
    """The models of one architecture, and a stage of work each method: what each returns is written to JSON.

    name: one of `ARCHITECTURES`; recipe: its batch and runtime are used; device: "cuda" or "cpu"; layers: how many
    of the architecture's (None: all).
    """

    def __init__(self, name: str, recipe: Recipe, device: str, layers: int | None = None) -> None:
        self.recipe, self.device = recipe, torch.device(device)
        self.config = transformers.AutoConfig.for_model(
            **ARCHITECTURES[name] | ({"num_hidden_layers": layers} if layers else {})
        )
        self.tokenizer = make_tokenizer(self.config.vocab_size)
        runtime, settings = recipe.runtime, recipe.policy_gradient
        self.policy = self._random_policy(runtime.weights_dtype)
        self.ref_policy = self._random_policy(runtime.frozen_dtype)
        self.config.num_labels, self.config.pad_token_id = 1, 0
        self.reward_model = ClassifierReward(
            name,
            self._random_model(transformers.AutoModelForSequenceClassification, runtime.frozen_dtype),
            self.tokenizer,
            {},
            runtime.batch_size,
        )
        self.prompts = self._prompts(settings.batch_size)
        model = self.policy.model
        self.parameters = model.num_parameters()
        self.head_parameters = model.get_output_embeddings().weight.numel()
        self.layer_parameters = model.base_model.num_parameters() - model.get_input_embeddings().weight.numel()
        self.generated: Generated | None = None
        self.folder = tempfile.TemporaryDirectory()
        self.trainer = Trainer(model, self.folder.name, settings.learning_rate, runtime)

    def _random_model(self, kind: Any, dtype: str) -> Any:
        with self.device:  # random numbers for the weights come from the device too
            return kind.from_config(self.config, dtype=getattr(torch, dtype)).eval()

    def _random_policy(self, dtype: str) -> Policy:
        model = self._random_model(transformers.AutoModelForCausalLM, dtype)
        model.generation_config.eos_token_id = list(range(1, self.config.vocab_size // MEAN_REPLY_TOKENS + 1))
        return Policy(model, self.tokenizer, {})

    def stages(self) -> dict[str, Stage]:
        """The stages by name, the most important first."""
        runtime, replies = self.recipe.runtime, self.recipe.policy_gradient.batch_size
        default = engines.resolved(runtime.engine, self.policy.model)
        measured = (default, min(runtime.batch_size, replies))  # as "sampling"

        def engine_stage(engine: str, replies: int, batch_size: int) -> Stage:
            return Stage(
                lambda: self.sampling(engine, replies, batch_size),
                lambda: self._generate(engine, replies, batch_size, PROFILED_TOKENS),
                warm_up=True,
            )

        # Lambdas look a method up when they are called, so that a method that a test replaces is measured.
        stages = {
            "sampling": engine_stage(runtime.engine, replies, runtime.batch_size),
            "scoring": Stage(lambda: self.scoring(), lambda: self.scoring(), warm_up=True),
            "update": Stage(lambda: self.update(), lambda: self.update(), warm_up=True),
            "step": Stage(lambda: self.step()),
            "large": Stage(lambda: self.step(LARGE)),
            "official": Stage(lambda: self.official()),
            "memory": Stage(lambda: self.memory()),
        }
        if self.device.type != "cuda":  # torch counts a GPU's memory alone, and a processor's batch is the recipe's
            del stages["large"], stages["memory"]
        for batch_size in BATCH_SIZES if self.device.type == "cuda" else (replies,):
            for engine in ENGINES:
                if (engine, batch_size) != measured:
                    stages[f"{engine}-{batch_size}"] = engine_stage(engine, batch_size, batch_size)
        return stages

    def _prompts(self, replies: int) -> list[Prompt]:
        """Prompts for so many replies."""
        return random_prompts(replies // self.recipe.policy_gradient.num_generations, self.config.vocab_size)

    def _generate(self, engine: str, replies: int, batch_size: int, max_new_tokens: int | None = None) -> Generated:
        """Draw replies in the chunks of `batch_size` in which `policy_gradient.rollout` draws them."""
        settings, runtime, chunks = self.recipe.policy_gradient, self.recipe.runtime, []
        prompts = [encode_prompt(self.tokenizer, prompt.text) for prompt in self._prompts(replies)]
        prompts_at_once = max(batch_size // settings.num_generations, 1) if engine in engines.PADDED else len(prompts)
        for start in range(0, len(prompts), prompts_at_once):
            with torch_seed(0, 0, 0, start):
                chunks.append(
                    generate(
                        self.policy,
                        prompts[start : start + prompts_at_once],
                        settings.num_generations,
                        max_new_tokens=max_new_tokens or settings.max_new_tokens,
                        temperature=settings.temperature,
                        engine=engine,
                        batch_size=batch_size,
                        server=runtime.server,
                    )
                )
        return Generated([prompt for prompt in prompts for _ in range(settings.num_generations)], chunks)

    def _texts(self, completion_ids: list[list[int]]) -> list[list[str]]:
        """Replies as texts, a list a prompt."""
        texts = decode_replies(self.policy, completion_ids)
        return policy_gradient.group_by_prompt(texts, self.recipe.policy_gradient.num_generations)

    def sampling(self, engine: str, replies: int, batch_size: int) -> StageRecord:
        """Draw replies in batches of `batch_size`; as many as the recipe has in a step are kept for the other stages.

        The traffic of continuous batching is counted with the fewest steps, and that of continuous batching and of
        graph with the fewest keys and values, that they can have had. So their share is a lower bound.
        """
        engine = engines.resolved(engine, self.policy.model)
        seconds, generated = timed(self.device, lambda: self._generate(engine, replies, batch_size))
        if engine == "graph" and cuda_graph.unsupported(self.policy.model):
            engine = "generate"  # by which they were drawn, after a warning that says why
        if replies == self.recipe.policy_gradient.batch_size:
            self.generated = generated
        config, itemsize = self.config, self.policy.model.dtype.itemsize
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        cache_a_token = config.num_hidden_layers * heads * head_dim * 2  # numbers: keys and values
        traffic = generated.memory_traffic(
            weights=(self.layer_parameters + self.head_parameters) * itemsize,
            cache=cache_a_token * itemsize,
            prompt=PROMPT_TOKENS,
            batch_size=batch_size,
            padded=engine in engines.PADDED,
            reads_ended=engine == "generate",
        )
        lengths = sorted(map(len, generated.completion_ids))
        return {
            "seconds": seconds,
            "tokens": sum(lengths),
            "steps": traffic.steps,
            "bytes": traffic.nbytes,
            "lengths": lengths,
            "engine": engine,
            "rows": min(batch_size, replies),
            "planned_memory": self._planned_memory("sampling", min(batch_size, replies)),
        }

    def scoring(self) -> StageRecord:
        """The rewards of the batch, prompts read too."""
        generated = self._sampled()
        texts = self._texts(generated.completion_ids)
        seconds, self.rewards = timed(self.device, lambda: self.reward_model(self.prompts, texts))
        return {
            "seconds": seconds,
            "tokens": generated.tokens,
            "operations": 2 * self.layer_parameters * generated.tokens,
            "planned_memory": self._planned_memory("scoring", len(generated.completion_ids)),
        }

    def update(self) -> StageRecord:
        """One step of Adam on the batch."""
        generated, config = self._sampled(), self.config
        prompt_ids, completion_ids = generated.prompt_ids, generated.completion_ids

        def loss_of(rows: list[int]) -> torch.Tensor:
            return -reply_log_probs(self.policy, [prompt_ids[i] for i in rows], [completion_ids[i] for i in rows])

        def length(row: int) -> int:
            return len(prompt_ids[row]) + len(completion_ids[row])

        rows = list(range(len(completion_ids)))
        seconds, _ = timed(self.device, lambda: self.trainer.update(rows, loss_of, length))
        recomputed = self.layer_parameters - config.num_hidden_layers * config.hidden_size * config.intermediate_size
        operations_a_token = 6 * self.layer_parameters
        operations_a_token += 2 * recomputed * self.recipe.runtime.gradient_checkpointing
        head = 6 * self.head_parameters * sum(map(len, completion_ids))  # the head is not computed twice
        return {
            "seconds": seconds,
            "tokens": generated.tokens,
            "operations": operations_a_token * generated.tokens + head,
            "micro_batch": self.trainer.micro_batch,
            "planned_memory": self._planned_memory("update", 1),
        }

    def step(self, replies: int | None = None) -> StageRecord:
        """A whole step of policy gradient, by this library, on the recipe's number of replies or another."""
        settings = self.recipe.policy_gradient
        settings = settings.model_copy(update={"batch_size": replies or settings.batch_size})
        recipe = self.recipe.model_copy(update={"policy_gradient": settings})
        prompts = self._prompts(settings.batch_size)
        seconds, numbers = timed(
            self.device,
            lambda: policy_gradient.policy_gradient_step(
                self.trainer, self.policy, self.ref_policy, self.reward_model, prompts, recipe, (0, 0, 0)
            ),
        )
        return {"seconds": seconds, "tokens": int(numbers["reply_tokens"]), "replies": settings.batch_size}

    def official(self) -> StageRecord:
        """The same as the official code makes it, on the same number of prompts."""
        settings, generation_config = self.recipe.policy_gradient, self.policy.model.generation_config
        seconds, tokens = timed(
            self.device,
            lambda: official_step(
                OfficialModels(self.policy.model, self.ref_policy.model, self.reward_model),
                self.trainer,
                [encode_prompt(self.tokenizer, prompt.text) for prompt in self.prompts],
                settings.num_generations,
                max_new_tokens=settings.max_new_tokens,
                eos_token_ids=generation_config.eos_token_id,
                num_mini_batches=settings.num_mini_batches,
            ),
        )
        return {"seconds": seconds, "tokens": tokens}

    def memory(self) -> StageRecord:
        """Sampling, scoring and an update with texts as long as the recipe allows, and the memory planned."""
        runtime, model = self.recipe.runtime, self.policy.model
        batch_size = min(runtime.batch_size, LONGEST_BATCH_SIZE)
        prompt, completion = [1] * self.recipe.data.max_tokens, [1] * self.recipe.policy_gradient.max_new_tokens
        prompts, completions = [prompt] * batch_size, [completion] * batch_size

        def longest_step() -> None:
            model.generate(
                torch.tensor(prompts, device=self.device),
                max_new_tokens=len(completion),
                min_new_tokens=len(completion),
                do_sample=True,
                top_k=0,
                pad_token_id=0,
            )
            for policy in (self.policy, self.ref_policy):
                log_probs(policy, prompts, completions, batch_size=batch_size)
            with torch.inference_mode():
                forward(self.reward_model.model, self.tokenizer, [prompt + completion] * batch_size)
            self.trainer.update(
                [0] * 2 * runtime.micro_batch,
                lambda rows: -reply_log_probs(self.policy, [prompt] * len(rows), [completion] * len(rows)),
            )

        seconds, _ = timed(self.device, longest_step)
        planned = self._planned_memory(None, batch_size, len(prompt))
        return {"seconds": seconds, "tokens": batch_size * len(completion), "planned_memory": planned}

    def _planned_memory(self, stage: str | None, batch_size: int, prompt_tokens: int = PROMPT_TOKENS) -> float:
        """Bytes at the peak of a stage, or of a whole step, as the planner adds them up for the longest replies."""
        runtime, policy = self.recipe.runtime, sizes.shape(self.policy.model)
        parts = cost.memory(
            policy,
            replace(policy, parameters=self.reward_model.model.num_parameters()),
            micro_batch=runtime.micro_batch,
            batch_size=batch_size,
            prompt=prompt_tokens,
            reply=self.recipe.policy_gradient.max_new_tokens,
            optimizer=runtime.optimizer,
            weights_dtype=runtime.weights_dtype,
            compute_dtype=runtime.compute_dtype,
            frozen_dtype=runtime.frozen_dtype,
            gradient_checkpointing=runtime.gradient_checkpointing,
        )
        return cost.total(
            parts if stage is None else {k: v for k, v in parts.items() if k not in parts_of_other_stages(stage)}
        )

    def _sampled(self) -> Generated:
        """The replies that `sampling` drew. RuntimeError, one sentence, if it failed."""
        if self.generated is None:
            raise RuntimeError("There must be replies to work on, but sampling failed.")
        return self.generated


def parts_of_other_stages(stage: str) -> set[str]:
    """The parts of memory that only another stage needs."""
    return {part for turn in TURNS.values() for part in turn} - set(TURNS[stage])
