"""`rvlib bench gpu`: how near each stage of a run comes to what the machine can do, on a real architecture with random weights.

    share of the matrix rate = f (N tokens + H reply tokens) / (seconds × rate)   f = 2 to score (H = 0), 6 to update (8 with activations computed twice)
    share of the bandwidth   = (weights + mean keys and values) × steps / (seconds × bandwidth)                                             to sample

N parameters of the layers and H of the output head: the table of embeddings is looked up, not multiplied, and attention between
tokens is left out; so is the last matrix of a layer that is computed twice, which stops before it. Rate and bandwidth are measured first, in the same call. Then a whole step of
policy gradient, and the same step as the official code does it: replies scored one by one, and log-probabilities taken one reply at
a time with the logits of every position. Then the memory of a step at its longest, beside what the planner says. Last, the engines that sample otherwise than the recipe says. Nothing is downloaded. Random weights know no end of a reply, so one token in `MEAN`,
by number, is taken for one: lengths are nearly geometric with that mean, cut at the recipe's longest.
"""

import argparse
import contextlib
import difflib
import json
import pathlib
import sys
import tempfile
import time
from dataclasses import replace

import numpy as np
import tokenizers
import torch
import transformers
from tqdm import tqdm

from rvlib.cli import Defaults, sentence
from rvlib.files import write_whole
from rvlib.lm import origin
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.experiments import cost, plan
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.models.policies import Policy
from rvlib.lm.models.reward_models import SequenceReward, forward
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.encoding import decode_replies, encode_prompt
from rvlib.lm.sampling.generation import generate
from rvlib.lm.sampling.log_probs import log_probs, reply_log_probs
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training import policy_gradient
from rvlib.lm.training.trainer import Trainer

MEAN = 128  # tokens of a reply
PROMPT = 128  # tokens of a prompt
_LLAMA = {
    "model_type": "llama",
    "vocab_size": 128256,
    "head_dim": 64,
    "num_key_value_heads": 8,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "max_position_embeddings": 8192,
}
ARCHITECTURES = {
    "llama-3.1-8b": _LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "head_dim": 128,
    },
    "llama-3.2-3b": _LLAMA
    | {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "llama-3.2-1b": _LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "tie_word_embeddings": True,
    },
    "smollm2-135m": _LLAMA
    | {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "pythia-2.8b": {
        "model_type": "gpt_neox",
        "vocab_size": 50304,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "pythia-1b": {
        "model_type": "gpt_neox",
        "vocab_size": 50304,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
    },
    "tiny": _LLAMA
    | {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 16,
        "num_key_value_heads": 2,
    },
}


class Bench:
    """The models of one architecture, and a stage of work each method.

    recipe: `recipe.Recipe`, of which batch and runtime are used; layers: how many of the architecture's (None: all).
    """

    def __init__(self, name, recipe, device, layers=None):
        self.recipe, self.device = recipe, torch.device(device)
        self.config = transformers.AutoConfig.for_model(
            **ARCHITECTURES[name] | ({"num_hidden_layers": layers} if layers else {})
        )
        self.tokenizer = _tokenizer(self.config.vocab_size)
        runtime = recipe.runtime
        self.policy, self.reference = self._policy(runtime.weights_dtype), self._policy(runtime.frozen_dtype)
        self.config.num_labels, self.config.pad_token_id = 1, 0
        self.teacher = SequenceReward(
            name,
            self._made(transformers.AutoModelForSequenceClassification, runtime.frozen_dtype),
            self.tokenizer,
            {},
            runtime.batch_size,
        )
        self.batch = _prompts(
            recipe.policy_gradient.batch_size // recipe.policy_gradient.num_generations, self.config.vocab_size
        )
        self.size, self.head = (
            self.policy.model.num_parameters(),
            self.policy.model.get_output_embeddings().weight.numel(),
        )
        self.layers = (
            self.policy.model.base_model.num_parameters() - self.policy.model.get_input_embeddings().weight.numel()
        )
        self.replies = None
        self.folder = tempfile.TemporaryDirectory()
        self.trainer = Trainer(self.policy.model, self.folder.name, recipe.policy_gradient.learning_rate, runtime)

    def _made(self, kind, dtype):
        with self.device:  # random numbers for the weights come from the device too
            return kind.from_config(self.config, dtype=getattr(self.torch, dtype)).eval()

    def _policy(self, dtype):
        model = self._made(transformers.AutoModelForCausalLM, dtype)
        model.generation_config.eos_token_id = list(range(1, self.config.vocab_size // MEAN + 1))
        return Policy(model, self.tokenizer, {})

    def machine_rates(self):
        """Matrix rate (operations a second, bfloat16) and bandwidth of memory (bytes a second), the best of some tries of each."""
        torch, cuda = self.torch, self.device.type == "cuda"
        side, many = (8192, 2**31) if cuda else (1024, 2**26)
        a, b = (torch.randn(side, side, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        source = torch.empty(many, device=self.device, dtype=torch.uint8)
        target = torch.empty_like(source)
        matrix = min(self._timed(lambda: a @ b)[0] for _ in range(10))
        copy = min(self._timed(lambda: target.copy_(source))[0] for _ in range(10))
        return {"matrix_rate": 2 * side**3 / matrix, "bandwidth": 2 * many / copy}

    def _draw(self, engine=None):
        """The replies to a batch in the chunks in which `policy_gradient.rollout` draws them: (their prompts' ids, their ids by chunk)."""
        prompts, settings = (
            [encode_prompt(self.tokenizer, prompt.text) for prompt in self.batch],
            self.recipe.policy_gradient,
        )
        engine, rows, replies = engine or self.recipe.runtime.engine, self.recipe.runtime.batch_size, []
        at_once = max(rows // settings.num_generations, 1) if engine in engines.PADDED else len(prompts)
        for start in range(0, len(prompts), at_once):
            with torch_seed(0, 0, 0, start):
                replies.append(
                    generate(
                        self.policy,
                        prompts[start : start + at_once],
                        settings.num_generations,
                        max_new_tokens=settings.max_new_tokens,
                        temperature=settings.temperature,
                        engine=engine,
                        batch_size=rows,
                        server=self.recipe.runtime.server,
                    )
                )
        return [prompt for prompt in prompts for _ in range(settings.num_generations)], replies

    def static(self):
        """A batch of replies by transformers' cache of fixed size, compiled on a GPU."""
        return self.sampling("static")

    def continuous(self):
        """A batch of replies by continuous batching."""
        return self.sampling("continuous")

    def sampling(self, engine=None):
        """A batch of replies, by the recipe's engine unless another is named; of continuous batching the fewest steps are counted that it can have taken, so its share is at least what is said."""
        engine = engine or self.recipe.runtime.engine
        seconds, (self.ids, chunks) = self._timed(lambda: self._draw(engine))
        self.replies = [reply for chunk in chunks for reply in chunk]
        self.written = policy_gradient.group_by_prompt(
            decode_replies(self.policy, self.replies), self.recipe.policy_gradient.num_generations
        )
        config, itemsize = self.config, self.policy.model.dtype.itemsize
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        read, steps, rows = 0, [], self.recipe.runtime.batch_size
        for chunk in chunks:
            longest, padded = max(map(len, chunk)), engine in engines.PADDED
            steps.append(longest if padded else max(longest, -(-sum(map(len, chunk)) // rows)))
            cached = (
                len(chunk) * longest * (PROMPT + longest / 2)
                if padded
                else sum(len(reply) * (PROMPT + len(reply) / 2) for reply in chunk)
            )
            read += (
                (self.layers + self.head) * steps[-1] + cached * config.num_hidden_layers * heads * head * 2
            ) * itemsize
        lengths = sorted(map(len, self.replies))
        return {
            "seconds": seconds,
            "tokens": sum(lengths),
            "steps": sum(steps),
            "bytes": read,
            "lengths": lengths,
            "engine": engine,
        }

    def scoring(self):
        """The rewards of the batch, prompts read too."""
        self._check()
        seconds, self.rewards = self._timed(lambda: self.teacher(self.batch, self.written))
        return {"seconds": seconds, "tokens": self._tokens(), "operations": 2 * self.layers * self._tokens()}

    def update(self):
        """One step of Adam on the batch."""
        self._check()

        def loss_of(rows):
            return -reply_log_probs(self.policy, [self.ids[i] for i in rows], [self.replies[i] for i in rows])

        seconds, _ = self._timed(
            lambda: self.trainer.update(
                list(range(len(self.replies))), loss_of, lambda i: len(self.ids[i]) + len(self.replies[i])
            )
        )
        again = self.layers - self.config.num_hidden_layers * self.config.hidden_size * self.config.intermediate_size
        each = 6 * self.layers + 2 * again * self.recipe.runtime.gradient_checkpointing
        operations = each * self._tokens() + 6 * self.head * sum(
            map(len, self.replies)
        )  # the head is not computed twice
        return {
            "seconds": seconds,
            "tokens": self._tokens(),
            "operations": operations,
            "micro_batch": self.trainer.micro_batch,
        }

    def step(self):
        """A whole step of policy gradient, ours."""
        seconds, numbers = self._timed(
            lambda: policy_gradient.policy_gradient_step(
                self.trainer, self.policy, self.reference, self.teacher, self.batch, self.recipe, (0, 0, 0)
            )
        )
        return {"seconds": seconds, "tokens": numbers["reply_tokens"]}

    def official(self):
        """The same as the official code does it, on the same number of prompts."""
        settings = self.recipe.policy_gradient

        def work():
            ids, chunks = self._draw("generate")
            replies = [reply for chunk in chunks for reply in chunk]
            rows = list(zip(ids, replies))
            for prompt, some in zip(
                self.batch,
                policy_gradient.group_by_prompt(decode_replies(self.policy, replies), settings.num_generations),
            ):
                for reply in some:
                    self.teacher([prompt], [[reply]])
            with torch.inference_mode():
                for model in (self.policy.model, self.reference.model):
                    for prompt, reply in rows:
                        one_log_prob(model, prompt, reply)
            before, self.trainer.micro_batch = self.trainer.micro_batch, 1
            for some in np.arange(len(rows)).reshape(settings.num_mini_batches, -1):
                self.trainer.update(
                    some.tolist(),
                    lambda chosen: torch.stack([-one_log_prob(self.policy.model, *rows[i]) for i in chosen]),
                )
            self.trainer.micro_batch = before
            return sum(map(len, replies))

        seconds, tokens = self._timed(work)
        return {"seconds": seconds, "tokens": tokens}

    def memory(self):
        """Sampling, scoring and an update with prompts and replies as long as the recipe allows: what the planner says of their memory."""
        runtime, settings, model = self.recipe.runtime, self.recipe.policy_gradient, self.policy.model
        prompt, reply = [1] * self.recipe.data.max_tokens, [1] * settings.max_new_tokens
        size, work = (
            plan.shape(model),
            {
                "optimizer": runtime.optimizer,
                "dtype": runtime.weights_dtype,
                "compute": runtime.compute_dtype,
                "checkpointing": runtime.gradient_checkpointing,
            },
        )
        teacher = replace(size, parameters=self.teacher.model.num_parameters())
        parts = cost.memory(
            size,
            teacher,
            micro_batch=runtime.micro_batch,
            rows=runtime.batch_size,
            prompt=len(prompt),
            reply=len(reply),
            frozen=runtime.frozen_dtype,
            **work,
        )

        def longest():
            model.generate(
                torch.tensor([prompt] * runtime.batch_size, device=self.device),
                max_new_tokens=len(reply),
                min_new_tokens=len(reply),
                do_sample=True,
                top_k=0,
                pad_token_id=0,
            )
            for policy in (self.policy, self.reference):
                rows = runtime.batch_size
                log_probs(policy, [prompt] * rows, [reply] * rows, batch_size=rows)
            with torch.inference_mode():
                forward(self.teacher.model, self.tokenizer, [prompt + reply] * runtime.batch_size)
            self.trainer.update(
                [0] * 2 * runtime.micro_batch,
                lambda rows: -reply_log_probs(self.policy, [prompt] * len(rows), [reply] * len(rows)),
            )

        seconds, _ = self._timed(longest)
        return {"seconds": seconds, "tokens": runtime.batch_size * len(reply), "planned_memory": cost.total(parts)}

    def _tokens(self):
        return sum(len(prompt) + len(reply) for prompt, reply in zip(self.ids, self.replies))

    def _check(self):
        if self.replies is None:
            raise RuntimeError("There must be replies to work on, but sampling failed.")

    def _timed(self, work):
        """(seconds, what work() returned), the device's queue empty before and after."""
        wait = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None
        wait()
        start = time.perf_counter()
        found = work()
        wait()
        return time.perf_counter() - start, found


def one_log_prob(model, prompt, reply):
    """ln π(y|x) of one reply, by the logits of every position: the official code's way."""
    tokens = torch.tensor([prompt + reply], device=model.device)
    logits = model(tokens, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, tokens[0, len(prompt) :, None]).sum().double()


STAGES = ("sampling", "scoring", "update", "step", "official", "memory", "static", "continuous")


def measure(name, recipe, device, minutes, write, layers=None):
    """All stages, each measured twice, of which the first warms up; `write(result)` after each. What fails is one sentence in the result.

    No repetition begins after `minutes`, nor one whose first took longer than is left of them; a stage that had time for one
    alone is marked as not warmed up.
    """
    end = time.monotonic() + 60 * minutes
    recipe_used = {
        "policy_gradient": recipe.policy_gradient.model_dump(mode="json"),
        "runtime": recipe.runtime.model_dump(mode="json"),
    }
    result = {
        "model": name,
        "recipe": recipe.title,
        "settings": recipe_used,
        "reply_lengths": f"geometric with mean {MEAN}",
        "made": origin.record(),
        "stages": {},
    }
    try:
        bench = Bench(name, recipe, device, layers)
        result |= {
            "parameters": bench.size,
            "layers": bench.config.num_hidden_layers,
            "machine_rates": bench.machine_rates(),
        }
    except Exception as error:
        result["failed"] = _sentence(error)
        write(result)
        return result
    rate, bandwidth = result["machine_rates"].values()
    for stage in tqdm(
        [stage for stage in STAGES if device == "cuda" or stage != "memory"], desc=name, unit="stage"
    ):  # torch counts a GPU's memory alone
        found = {}
        try:
            for warm in (False, True):
                if time.monotonic() + found.get("seconds", 0.0) > end:
                    break
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                found = getattr(bench, stage)() | {"warm": warm}
            if not found:
                raise TimeoutError(
                    f"The {minutes:g} minutes of this call were over before it was measured; give it more with --minutes."
                )
        except Exception as error:  # one stage's failure must not lose the others
            result["stages"][stage] = {"failed": _sentence(error)}
            write(result)
            continue
        found["tokens_per_second"] = found["tokens"] / found["seconds"]
        if "operations" in found:
            found["share_of_matrix_rate"] = found["operations"] / found["seconds"] / rate
        if "bytes" in found:
            found["share_of_bandwidth"] = found["bytes"] / found["seconds"] / bandwidth
        found["peak_memory"] = torch.cuda.max_memory_allocated() if device == "cuda" else None  # bytes
        result["stages"][stage] = found
        write(result)
    rates = [result["stages"][stage].get("tokens_per_second") for stage in ("step", "official")]
    if all(rates):  # a token of reply, since the two do not draw quite the same ones: the weights have moved in between
        result["official_over_ours"] = rates[0] / rates[1]
    write(result)
    return result


def _sentence(error):
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="rvlib bench", description=__doc__.split("\n")[0], formatter_class=Defaults)
    parser.add_argument("where", choices=["gpu", "cpu"], help="the device")
    parser.add_argument("--model", default="llama-3.1-8b", help=f"one of {', '.join(ARCHITECTURES)}")
    parser.add_argument("--recipe", default="scale-8b", help="whose batch and runtime are used")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the recipe")
    parser.add_argument(
        "--layers", type=int, help="of the model, for a machine that is too small for all (default: all)"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="no stage begins later than this")
    parser.add_argument(
        "--out", type=pathlib.Path, help="the JSON to write (default: benchmarks/results/WHERE-MODEL.json)"
    )
    given = parser.parse_args(arguments)
    out = given.out or origin.ROOT / f"benchmarks/results/{given.where}-{given.model}.json"
    if given.model not in ARCHITECTURES:
        near = difflib.get_close_matches(given.model, ARCHITECTURES, 1)
        sys.exit(
            f"The model must be one of {', '.join(ARCHITECTURES)}, got {given.model!r}{f' (did you mean {near[0]!r}?)' if near else ''}."
        )
    if given.layers is not None and given.layers < 1:
        sys.exit(f"The layers must be at least one, got {given.layers}; leave --layers out for all.")
    try:
        recipe = recipes.load(given.recipe, given.set)
        if given.where == "gpu" and not torch.cuda.is_available():
            raise RuntimeError(
                "A GPU must be there for `rvlib bench gpu`, but torch sees none; try `rvlib bench cpu --model tiny`, or install a build of torch for this machine's GPU."
            )
        with contextlib.suppress(FileExistsError):
            out.parent.mkdir(parents=True)
        result = measure(
            given.model,
            recipe,
            "cuda" if given.where == "gpu" else "cpu",
            given.minutes,
            lambda found: write_whole(out, lambda partial: partial.write_text(json.dumps(found, indent=1) + "\n")),
            given.layers,
        )
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError, MemoryError) as error:
        sys.exit(sentence(error))
    print(table(result))
    print(f"Written to {out}")


def table(result):
    """The result as lines of text."""
    if "failed" in result:
        return f"{result['model']} on {result['made']['device']}: {result['failed']}"
    lines = [
        f"{result['model']} on {result['made']['device']}: {result['machine_rates']['matrix_rate'] / 1e12:.3g} TFLOP/s, {result['machine_rates']['bandwidth'] / 1e9:.3g} GB/s"
    ]
    for stage, found in result["stages"].items():
        shares = [
            f"{100 * found[key]:.1f} % of {words}"
            for key, words in (("share_of_matrix_rate", "the matrix rate"), ("share_of_bandwidth", "the bandwidth"))
            if key in found
        ]
        memory = [f"{found['peak_memory'] / 1e9:.1f} GB"] if found.get("peak_memory") else []
        memory += [f"{found['planned_memory'] / 1e9:.1f} GB planned"] if "planned_memory" in found else []
        lines.append(
            f"  {stage:<10} "
            + (found.get("failed") or ", ".join([f"{found['tokens_per_second']:.4g} tokens/s", *shares, *memory]))
        )
    if "official_over_ours" in result:
        lines.append(f"  the official code's step takes {result['official_over_ours']:.2f} times as long as ours")
    return "\n".join(lines)


def _tokenizer(size):
    """A tokenizer of `size` words that writes ids as words and reads them back."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="w0", eos_token="w1", padding_side="left"
    )


def _prompts(count, size):
    rng = np.random.default_rng(0)
    return [
        Prompt(f"random/{i}", " ".join(f"w{j}" for j in rng.integers(size // 2, size, PROMPT)), "")
        for i in range(count)
    ]
