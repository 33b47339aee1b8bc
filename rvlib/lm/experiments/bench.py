"""How near each stage of a run comes to what the machine can do, on a real architecture with random weights.

    share of the matrix rate = f (N tokens + H reply tokens) / (seconds × rate)
    share of the bandwidth   = (weights + mean keys and values) × steps / (seconds × bandwidth)

The first is of scoring (f = 2, H = 0) and of updating (f = 6, or 8 with activations computed twice), the second of
sampling. N parameters of the layers and H of the output head: the table of embeddings is looked up, not multiplied, and
attention between tokens is left out; so is the last matrix of a layer that is computed twice, which stops before it.
Rate and bandwidth are measured first, in the same call. Then a whole step of policy gradient, and the same step as the
official code does it: replies scored one by one, and log-probabilities taken one reply at a time with the logits of
every position. Then the memory of a step at its longest, beside what the planner says. Last, the engines that sample
otherwise than the recipe says. Nothing is downloaded. Random weights know no end of a reply, so one token in
`MEAN_REPLY_TOKENS`, by number, is taken for one: lengths are nearly geometric with that mean, cut at the recipe's
longest. `bench_report` measures them, by the command, `rvlib bench`.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import transformers

from rvlib.lm.experiments import cost, plan
from rvlib.lm.experiments.architectures import ARCHITECTURES, PROMPT_TOKENS, make_tokenizer, random_prompts
from rvlib.lm.experiments.recipe import Recipe
from rvlib.lm.models.policies import Policy
from rvlib.lm.models.reward_models import SequenceReward, forward
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.encoding import decode_replies, encode_prompt
from rvlib.lm.sampling.generation import generate
from rvlib.lm.sampling.log_probs import log_probs, reply_log_probs
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training import policy_gradient
from rvlib.lm.training.trainer import Trainer

MEAN_REPLY_TOKENS = 128
STAGES = ("sampling", "scoring", "update", "step", "official", "memory", "graph", "continuous")
T = TypeVar("T")


@dataclass(frozen=True)
class Generated:
    """Replies to a batch of prompts, as token ids, those to one prompt after one another.

    prompt_ids: of each reply's prompt; chunks: the replies' own, in the chunks in which they were drawn.
    """

    prompt_ids: list[list[int]]
    chunks: list[list[list[int]]]

    @property
    def completion_ids(self) -> list[list[int]]:
        """The ids of all replies, a list each."""
        return [completion for chunk in self.chunks for completion in chunk]

    @property
    def tokens(self) -> int:
        """Tokens of all replies and of a prompt each."""
        return sum(map(len, self.prompt_ids)) + sum(map(len, self.completion_ids))


class Bench:
    """The models of one architecture, and a stage of work each method: what each returns is written to JSON.

    name: one of `ARCHITECTURES`; recipe: of which batch and runtime are used; device: "cuda" or "cpu"; layers: how many
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
        self.reference = self._random_policy(runtime.frozen_dtype)
        self.config.num_labels, self.config.pad_token_id = 1, 0
        self.reward_model = SequenceReward(
            name,
            self._random_model(transformers.AutoModelForSequenceClassification, runtime.frozen_dtype),
            self.tokenizer,
            {},
            runtime.batch_size,
        )
        self.prompts = random_prompts(settings.batch_size // settings.num_generations, self.config.vocab_size)
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

    def machine_rates(self) -> dict[str, float]:
        """Matrix rate (bfloat16 operations a second) and memory's bandwidth (bytes a second), the best of ten tries."""
        side, nbytes = (8192, 2**31) if self.device.type == "cuda" else (1024, 2**26)
        a, b = (torch.randn(side, side, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        source = torch.empty(nbytes, device=self.device, dtype=torch.uint8)
        target = torch.empty_like(source)
        matrix = min(self._timed(lambda: a @ b)[0] for _ in range(10))
        copy = min(self._timed(lambda: target.copy_(source))[0] for _ in range(10))
        return {"matrix_rate": 2 * side**3 / matrix, "bandwidth": 2 * nbytes / copy}

    def _generate(self, engine: str) -> Generated:
        """The replies to a batch, in the chunks in which `policy_gradient.rollout` draws them."""
        settings, runtime, chunks = self.recipe.policy_gradient, self.recipe.runtime, []
        prompts = [encode_prompt(self.tokenizer, prompt.text) for prompt in self.prompts]
        padded = engine in engines.PADDED
        prompts_at_once = max(runtime.batch_size // settings.num_generations, 1) if padded else len(prompts)
        for start in range(0, len(prompts), prompts_at_once):
            with torch_seed(0, 0, 0, start):
                chunks.append(
                    generate(
                        self.policy,
                        prompts[start : start + prompts_at_once],
                        settings.num_generations,
                        max_new_tokens=settings.max_new_tokens,
                        temperature=settings.temperature,
                        engine=engine,
                        batch_size=runtime.batch_size,
                        server=runtime.server,
                    )
                )
        return Generated([prompt for prompt in prompts for _ in range(settings.num_generations)], chunks)

    def _texts(self, completion_ids: list[list[int]]) -> list[list[str]]:
        """Replies as texts, a list a prompt."""
        texts = decode_replies(self.policy, completion_ids)
        return policy_gradient.group_by_prompt(texts, self.recipe.policy_gradient.num_generations)

    def graph(self) -> dict[str, Any]:
        """A batch of replies by a token step that is replayed."""
        return self.sampling("graph")

    def continuous(self) -> dict[str, Any]:
        """A batch of replies by continuous batching."""
        return self.sampling("continuous")

    def sampling(self, engine: str | None = None) -> dict[str, Any]:
        """A batch of replies, by the recipe's engine unless another is named.

        Of continuous batching the fewest steps are counted that it can have taken, and of it and of graph the
        fewest keys and values, so their share is at least what is said.
        """
        engine = engines.chosen(engine or self.recipe.runtime.engine, self.policy.model)
        seconds, generated = self._timed(lambda: self._generate(engine))
        self.generated = generated
        config, itemsize = self.config, self.policy.model.dtype.itemsize
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        cache_a_token = config.num_hidden_layers * heads * head_dim * 2  # numbers: keys and values
        bytes_read, steps, padded = 0.0, 0, engine in engines.PADDED
        for chunk in generated.chunks:
            lengths = [len(completion) for completion in chunk]
            longest, fewest = max(lengths), -(-sum(lengths) // self.recipe.runtime.batch_size)
            chunk_steps = longest if padded else max(longest, fewest)
            seen = [longest] * len(chunk) if engine == "generate" else lengths  # which reads padding to the end
            cached = sum(length * (PROMPT_TOKENS + length / 2) for length in seen)  # tokens, over all steps
            weights = (self.layer_parameters + self.head_parameters) * chunk_steps
            bytes_read += (weights + cached * cache_a_token) * itemsize
            steps += chunk_steps
        lengths = sorted(map(len, generated.completion_ids))
        return {
            "seconds": seconds,
            "tokens": sum(lengths),
            "steps": steps,
            "bytes": bytes_read,
            "lengths": lengths,
            "engine": engine,
        }

    def scoring(self) -> dict[str, Any]:
        """The rewards of the batch, prompts read too."""
        generated = self._sampled()
        texts = self._texts(generated.completion_ids)
        seconds, self.rewards = self._timed(lambda: self.reward_model(self.prompts, texts))
        return {
            "seconds": seconds,
            "tokens": generated.tokens,
            "operations": 2 * self.layer_parameters * generated.tokens,
        }

    def update(self) -> dict[str, Any]:
        """One step of Adam on the batch."""
        generated, config = self._sampled(), self.config
        prompt_ids, completion_ids = generated.prompt_ids, generated.completion_ids

        def loss_of(rows: list[int]) -> torch.Tensor:
            return -reply_log_probs(self.policy, [prompt_ids[i] for i in rows], [completion_ids[i] for i in rows])

        def length(row: int) -> int:
            return len(prompt_ids[row]) + len(completion_ids[row])

        rows = list(range(len(completion_ids)))
        seconds, _ = self._timed(lambda: self.trainer.update(rows, loss_of, length))
        recomputed = self.layer_parameters - config.num_hidden_layers * config.hidden_size * config.intermediate_size
        operations_a_token = 6 * self.layer_parameters
        operations_a_token += 2 * recomputed * self.recipe.runtime.gradient_checkpointing
        head = 6 * self.head_parameters * sum(map(len, completion_ids))  # the head is not computed twice
        return {
            "seconds": seconds,
            "tokens": generated.tokens,
            "operations": operations_a_token * generated.tokens + head,
            "micro_batch": self.trainer.micro_batch,
        }

    def step(self) -> dict[str, Any]:
        """A whole step of policy gradient, by this library."""
        seconds, numbers = self._timed(
            lambda: policy_gradient.policy_gradient_step(
                self.trainer, self.policy, self.reference, self.reward_model, self.prompts, self.recipe, (0, 0, 0)
            )
        )
        return {"seconds": seconds, "tokens": numbers["reply_tokens"]}

    def official(self) -> dict[str, Any]:
        """The same as the official code does it, on the same number of prompts."""
        seconds, tokens = self._timed(self._official_step)
        return {"seconds": seconds, "tokens": tokens}

    def _official_step(self) -> int:
        """Tokens of the replies of a step in which one reply at a time is scored and learnt from."""
        generated, num_mini_batches = self._generate("generate"), self.recipe.policy_gradient.num_mini_batches
        prompt_ids, completion_ids = generated.prompt_ids, generated.completion_ids
        for prompt, texts in zip(self.prompts, self._texts(completion_ids)):
            for text in texts:
                self.reward_model([prompt], [[text]])
        with torch.inference_mode():
            for model in (self.policy.model, self.reference.model):
                for ids, completion in zip(prompt_ids, completion_ids):
                    one_log_prob(model, ids, completion)

        def loss_of(rows: list[int]) -> torch.Tensor:
            return torch.stack([-one_log_prob(self.policy.model, prompt_ids[i], completion_ids[i]) for i in rows])

        before, self.trainer.micro_batch = self.trainer.micro_batch, 1
        for rows in np.arange(len(completion_ids)).reshape(num_mini_batches, -1):
            self.trainer.update(rows.tolist(), loss_of)
        self.trainer.micro_batch = before
        return sum(map(len, completion_ids))

    def memory(self) -> dict[str, Any]:
        """Sampling, scoring and an update with texts as long as the recipe allows, and the memory planned."""
        runtime, model = self.recipe.runtime, self.policy.model
        prompt, completion = [1] * self.recipe.data.max_tokens, [1] * self.recipe.policy_gradient.max_new_tokens
        prompts, completions = [prompt] * runtime.batch_size, [completion] * runtime.batch_size

        def longest_step() -> None:
            model.generate(
                torch.tensor(prompts, device=self.device),
                max_new_tokens=len(completion),
                min_new_tokens=len(completion),
                do_sample=True,
                top_k=0,
                pad_token_id=0,
            )
            for policy in (self.policy, self.reference):
                log_probs(policy, prompts, completions, batch_size=runtime.batch_size)
            with torch.inference_mode():
                forward(self.reward_model.model, self.tokenizer, [prompt + completion] * runtime.batch_size)
            self.trainer.update(
                [0] * 2 * runtime.micro_batch,
                lambda rows: -reply_log_probs(self.policy, [prompt] * len(rows), [completion] * len(rows)),
            )

        seconds, _ = self._timed(longest_step)
        planned = self._planned_memory(len(prompt), len(completion))
        return {"seconds": seconds, "tokens": runtime.batch_size * len(completion), "planned_memory": planned}

    def _planned_memory(self, prompt_tokens: int, reply_tokens: int) -> float:
        """Bytes at the peak of a step, as the planner adds them up."""
        runtime, policy = self.recipe.runtime, plan.shape(self.policy.model)
        parts = cost.memory(
            policy,
            replace(policy, parameters=self.reward_model.model.num_parameters()),
            micro_batch=runtime.micro_batch,
            rows=runtime.batch_size,
            prompt=prompt_tokens,
            reply=reply_tokens,
            optimizer=runtime.optimizer,
            dtype=runtime.weights_dtype,
            compute=runtime.compute_dtype,
            frozen=runtime.frozen_dtype,
            checkpointing=runtime.gradient_checkpointing,
        )
        return cost.total(parts)

    def _sampled(self) -> Generated:
        """The replies that `sampling` drew. RuntimeError, one sentence, if it failed."""
        if self.generated is None:
            raise RuntimeError("There must be replies to work on, but sampling failed.")
        return self.generated

    def _timed(self, work: Callable[[], T]) -> tuple[float, T]:
        """(seconds, what work() returned), the device's queue empty before and after."""
        wait = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None
        wait()
        start = time.perf_counter()
        returned = work()
        wait()
        return time.perf_counter() - start, returned


def one_log_prob(model: transformers.PreTrainedModel, prompt_ids: list[int], completion_ids: list[int]) -> torch.Tensor:
    """ln π(y|x) of one reply, a number, by the logits of every position: the official code's way."""
    tokens = torch.tensor([prompt_ids + completion_ids], device=model.device)
    logits = model(tokens, use_cache=False).logits[0, len(prompt_ids) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, tokens[0, len(prompt_ids) :, None]).sum().double()
