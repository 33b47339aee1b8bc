"""A step of RLOO on a real language model: this book's loop, and TRL's RLOOTrainer with its defaults at the same batch.

How it is measured. Both train SmolLM2-135M-Instruct on the same 8 prompts of AlpacaEval × 4 replies of at most 24 tokens a step, by
the same reward (VADER's sentiment), learning rate, KL coefficient and group size, on the same machine, one after the other in
one process, alternating. The first step of each is left out.

That both learn the same is seen where learning is quick: the tiny policy of recipe tiny-4.1, as many replies a step, its learning
rate, constant for both (TRL's falls to nothing by default), several seeds each; the reward of each step with its standard error.

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

import numpy as np  # noqa: E402
import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from trl import RLOOConfig, RLOOTrainer  # noqa: E402

from rvlib.lm import origin  # noqa: E402
from rvlib.lm.data import prompts  # noqa: E402
from rvlib.lm.experiments import live, recipe  # noqa: E402
from rvlib.lm.models import fixed_rewards, policies  # noqa: E402
from rvlib.lm.training import policy_gradient  # noqa: E402

PROMPTS, GROUP, TOKENS, STEPS, RATE = 8, 4, 24, 6, 1e-6
LEARNING = {"steps": 60, "rate": 3e-4, "seeds": 6}


def sentiment(prompts, replies):
    """Rewards (prompts, replies), for our loop."""
    return np.array([fixed_rewards.sentiment(some) for some in replies])


class Clock(transformers.TrainerCallback):
    """When each of TRL's steps ended, and its mean reward."""

    def __init__(self):
        self.ends, self.rewards = [time.perf_counter()], []

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())

    def on_log(self, *_, logs=None, **__):
        if logs and "reward" in logs:
            self.rewards.append(float(logs["reward"]))


def ours(base, policy, reference, prompts, folder, *, steps, rate, seed=0):
    """Seconds and mean rewards of each step of our loop, in the precision of recipe `base`."""
    changes = [
        f"policy_gradient.{key}={value}"
        for key, value in dict(
            batch_size=PROMPTS * GROUP,
            num_generations=GROUP,
            num_mini_batches=1,
            max_new_tokens=TOKENS,
            learning_rate=rate,
        ).items()
    ]
    settings = recipe.load(base, [*changes, "runtime.micro_batch=32"])
    trainer = policy_gradient.Learner(policy.model, folder, rate, settings.runtime)
    seconds, means = [], []
    for step in range(steps):
        start = time.perf_counter()
        batch = [prompts[i] for i in policy_gradient.batch_indices(len(prompts), PROMPTS, step, seed)]
        numbers = policy_gradient.policy_gradient_step(
            trainer, policy, reference, sentiment, batch, settings, (seed, step, 0)
        )
        seconds.append(time.perf_counter() - start)
        means.append(numbers["reward"])
    return seconds, means


def theirs(policy, prompts, folder, *, steps, rate, seed=0, **more):
    """The same of TRL's trainer."""
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": p.text}]} for p in prompts])
    how = RLOOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=PROMPTS * GROUP,
        num_generations=GROUP,
        max_completion_length=TOKENS,
        learning_rate=rate,
        max_steps=steps,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=seed,
        **more,
    )
    clock = Clock()

    def reward(completions, **_):
        return fixed_rewards.sentiment([turn[0]["content"] for turn in completions])

    trainer = RLOOTrainer(
        model=policy.model,
        reward_funcs=reward,
        args=how,
        train_dataset=rows,
        processing_class=policy.tokenizer,
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return [b - a for a, b in zip(clock.ends, clock.ends[1:])], clock.rewards


def learning():
    """Mean reward of each step on the tiny policy, ours and TRL's, and standard errors over seeds."""
    world, curves, how = live.World(), {"ours": [], "trl": []}, {key: LEARNING[key] for key in ("steps", "rate")}
    for seed in range(LEARNING["seeds"]):
        with tempfile.TemporaryDirectory() as folder:
            policy, reference = (policies.load_policy(world.start) for _ in range(2))
            curves["ours"].append(
                ours("tiny-4.1", policy, reference, world.prompts, pathlib.Path(folder), seed=seed, **how)[1]
            )
        with tempfile.TemporaryDirectory() as folder:
            curves["trl"].append(
                theirs(
                    policies.load_policy(world.start),
                    world.prompts,
                    folder,
                    seed=seed,
                    lr_scheduler_type="constant",
                    **how,
                )[1]
            )
    found = {
        name: {
            "mean": np.mean(c, 0).round(4).tolist(),
            "standard_error": (np.std(c, 0, ddof=1) / len(c) ** 0.5).round(4).tolist(),
        }
        for name, c in curves.items()
    }
    thirds = {
        name: np.array(c).reshape(len(c), 3, -1).mean(-1) for name, c in curves.items()
    }  # of the training, (seeds, 3)
    differ = thirds["ours"] - thirds["trl"]
    error = np.sqrt(sum(t.var(0, ddof=1) / len(t) for t in thirds.values()))
    return (
        LEARNING
        | found
        | {
            "thirds": {name: t.mean(0).round(4).tolist() for name, t in thirds.items()},
            "difference_in_standard_errors": (differ.mean(0) / error).round(2).tolist(),
            "made": origin.record(),
        }
    )


def main(file=ROOT / "benchmarks/results/rloo.json"):
    questions = prompts.alpaca_eval(PROMPTS, max_words=20)
    found, how = {"ours": ([], []), "trl": ([], [])}, {"steps": STEPS, "rate": RATE}
    each = {
        "ours": lambda folder: ours(
            "small-4.1", policies.load_policy(), policies.load_policy(dtype="bfloat16"), questions, folder, **how
        ),
        "trl": lambda folder: theirs(policies.load_policy(), questions, folder, **how),
    }
    for _ in range(2):
        for name, run in each.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds, means = run(pathlib.Path(folder))
            found[name][0].extend(seconds[1:])
            found[name][1].append(means)
            print(
                f"{name}: {statistics.median(seconds[1:]):.2f} s a step, rewards {[round(m, 2) for m in means]}",
                flush=True,
            )
    median = {name: statistics.median(seconds) for name, (seconds, _) in found.items()}
    result = {
        "what": __doc__.split("\n")[0],
        "median_seconds": median,
        "ratio": median["trl"] / median["ours"],
        "seconds": {name: [round(s, 3) for s in seconds] for name, (seconds, _) in found.items()},
        "mean_rewards": {name: means for name, (_, means) in found.items()},
        "learning": learning(),
        "made": origin.record() | {"trl": __import__("trl").__version__},
    }
    pathlib.Path(file).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"TRL's step takes {result['ratio']:.1f} times as long as ours. Written to {file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
