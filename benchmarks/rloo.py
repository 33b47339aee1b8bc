"""A step of RLOO on a real language model: this book's loop, and TRL's RLOOTrainer with its defaults at the same batch.

How it is measured. Both train SmolLM2-135M-Instruct on the same 8 prompts of AlpacaEval × 4 replies of at most 24 tokens a step, by
the same reward (VADER's sentiment), learning rate, KL coefficient and group size, on the same machine, one after the other in
one process, alternating. The first step of each is left out. The rewards of both are kept too: the same curve, up to sampling.

    python benchmarks/rloo.py [FILE]            writes benchmarks/results/rloo.json, or FILE
"""

import json
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from trl import RLOOConfig, RLOOTrainer  # noqa: E402

from rvlib.lm import data, models, origin, policy_gradient, recipe, rewards  # noqa: E402

PROMPTS, GROUP, TOKENS, STEPS, RATE = 8, 4, 24, 6, 1e-6


def sentiment(prompts, replies):
    """Rewards (prompts, replies), for our loop."""
    import numpy as np

    return np.array([rewards.sentiment(some) for some in replies])


class Clock(transformers.TrainerCallback):
    """When each of TRL's steps ended, and its mean reward."""

    def __init__(self):
        self.ends, self.rewards = [time.perf_counter()], []

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())

    def on_log(self, *_, logs=None, **__):
        if logs and "reward" in logs:
            self.rewards.append(float(logs["reward"]))


def ours(prompts, folder):
    """Seconds and mean rewards of each step of our loop."""
    changes = [f"policy_gradient.{key}={value}" for key, value in dict(batch=PROMPTS * GROUP, group=GROUP, mini_batches=1, max_new_tokens=TOKENS, learning_rate=RATE).items()]
    settings = recipe.load("small-4.1", [*changes, f"policy_gradient.epochs={STEPS * GROUP}", "evaluation.prompts=1", "evaluation.outputs=2", "evaluation.per_epoch=1", "limits.micro_batch=32", "limits.save_every=1000"])  # fmt: skip
    policy, reference = models.load_policy(), models.load_policy(dtype=settings.limits.frozen)
    learner = policy_gradient.Learner(policy.model, folder, RATE, settings.limits)
    seconds, means = [], []
    for step in range(STEPS):
        start = time.perf_counter()
        numbers = policy_gradient.update(learner, policy, reference, sentiment, prompts, settings, (0, step, 0))
        seconds.append(time.perf_counter() - start)
        means.append(numbers["reward"])
    return seconds, means


def theirs(prompts, folder):
    """The same of TRL's trainer."""
    policy = models.load_policy()
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": p.text}]} for p in prompts])
    how = RLOOConfig(
        output_dir=str(folder), per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, max_completion_length=TOKENS, learning_rate=RATE,
        max_steps=STEPS, logging_steps=1, report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    clock = Clock()

    def reward(completions, **_):
        return rewards.sentiment([turn[0]["content"] for turn in completions])

    RLOOTrainer(model=policy.model, reward_funcs=reward, args=how, train_dataset=rows, processing_class=policy.tokenizer, callbacks=[clock]).train()
    return [b - a for a, b in zip(clock.ends, clock.ends[1:])], clock.rewards


def main(file=ROOT / "benchmarks/results/rloo.json"):
    prompts = data.alpaca_eval(PROMPTS, max_words=20)
    found = {"ours": ([], []), "trl": ([], [])}
    for _ in range(2):
        for name, run in {"ours": ours, "trl": theirs}.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds, means = run(prompts, pathlib.Path(folder))
            found[name][0].extend(seconds[1:])
            found[name][1].append(means)
            print(f"{name}: {statistics.median(seconds[1:]):.2f} s a step, rewards {[round(m, 2) for m in means]}", flush=True)
    median = {name: statistics.median(seconds) for name, (seconds, _) in found.items()}
    result = {
        "what": __doc__.split("\n")[0],
        "median_seconds": median,
        "ratio": median["trl"] / median["ours"],
        "seconds": {name: [round(s, 3) for s in seconds] for name, (seconds, _) in found.items()},
        "mean_rewards": {name: means for name, (_, means) in found.items()},
        "made": origin.record() | {"trl": __import__("trl").__version__},
    }
    pathlib.Path(file).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"TRL's step takes {result['ratio']:.1f} times as long as ours. Written to {file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
