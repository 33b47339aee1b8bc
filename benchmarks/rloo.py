"""A step of RLOO on a real language model: this book's loop, and TRL's RLOOTrainer with its defaults at the same batch.

TRL is also measured without gradient checkpointing, which is on by default there and off here. How it is measured: both
train SmolLM2-135M-Instruct on the same 8 prompts of AlpacaEval × 4 replies of at most 24 tokens a step, by the same
reward (VADER's sentiment), learning rate, KL coefficient and group size, on the same machine, one after the other in
one process, alternating. The first step of each is left out.

That both learn the same is seen where learning is quick: the tiny policy of recipe tiny-4.1, as many replies a step,
its learning rate, constant for both (TRL's falls to nothing by default), several seeds each; the reward of each step
with its standard error.

    python benchmarks/rloo.py [FILE]            writes benchmarks/results/rloo.json, or FILE
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import transformers
import trl
from datasets import Dataset
from numpy.typing import NDArray

from rvlib.files import write_text
from rvlib.lm import origin
from rvlib.lm.data.prompts import Prompt, alpaca_eval
from rvlib.lm.experiments import live, recipe
from rvlib.lm.models import fixed_rewards
from rvlib.lm.models.policies import Policy, load_policy
from rvlib.lm.training import policy_gradient
from rvlib.lm.training.trainer import Trainer

PROMPTS, NUM_GENERATIONS, MAX_NEW_TOKENS = 8, 4, 24
STEPS, LEARNING_RATE = 6, 1e-6
LEARNING: dict[str, Any] = {"steps": 60, "rate": 3e-4, "seeds": 6}  # on the tiny policy


@dataclass(frozen=True)
class Steps:
    """Seconds and mean reward of each step of a training."""

    seconds: list[float]
    rewards: list[float]


def sentiment(prompts: Sequence[Prompt], replies: Sequence[list[str]]) -> NDArray[np.float64]:
    """Rewards (prompts, replies), for rvlib's loop."""
    return np.array([fixed_rewards.sentiment(texts) for texts in replies])


class Clock(transformers.TrainerCallback):
    """When each of TRL's steps ended, and its mean reward."""

    def __init__(self) -> None:
        self.ends = [time.perf_counter()]
        self.rewards: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called by TRL after each step."""
        self.ends.append(time.perf_counter())

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        """Called by TRL with the numbers of each step."""
        if logs and "reward" in logs:
            self.rewards.append(float(logs["reward"]))


def train_with_rvlib(
    base: str,
    policy: Policy,
    ref_policy: Policy,
    prompts: Sequence[Prompt],
    folder: str,
    *,
    steps: int,
    learning_rate: float,
    seed: int = 0,
) -> Steps:
    """Train `policy` by this book's loop, in the precision of recipe `base`."""
    changes = {
        "policy_gradient.batch_size": PROMPTS * NUM_GENERATIONS,
        "policy_gradient.num_generations": NUM_GENERATIONS,
        "policy_gradient.num_mini_batches": 1,
        "policy_gradient.max_new_tokens": MAX_NEW_TOKENS,
        "policy_gradient.learning_rate": learning_rate,
        "runtime.micro_batch": 32,
    }
    settings = recipe.load(base, [f"{key}={value}" for key, value in changes.items()])
    trainer = Trainer(policy.model, folder, learning_rate, settings.runtime)
    seconds, rewards = [], []
    for step in range(steps):
        start = time.perf_counter()
        batch = [prompts[i] for i in policy_gradient.batch_indices(len(prompts), PROMPTS, step, seed)]
        numbers = policy_gradient.policy_gradient_step(
            trainer, policy, ref_policy, sentiment, batch, settings, (seed, step, 0)
        )
        seconds.append(time.perf_counter() - start)
        rewards.append(numbers["reward"])
    return Steps(seconds, rewards)


def train_with_trl(
    policy: Policy,
    prompts: Sequence[Prompt],
    folder: str,
    *,
    steps: int,
    learning_rate: float,
    seed: int = 0,
    **settings: Any,
) -> Steps:
    """Train `policy` by TRL's RLOOTrainer; settings: further ones of its `RLOOConfig`."""
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": prompt.text}]} for prompt in prompts])
    config = trl.RLOOConfig(
        output_dir=folder,
        per_device_train_batch_size=PROMPTS * NUM_GENERATIONS,
        num_generations=NUM_GENERATIONS,
        max_completion_length=MAX_NEW_TOKENS,
        learning_rate=learning_rate,
        max_steps=steps,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=seed,
        **settings,
    )
    clock = Clock()

    def reward(completions: list[list[dict[str, str]]], **_: Any) -> list[float | None]:
        return [*fixed_rewards.sentiment([turns[0]["content"] for turns in completions])]

    trainer = trl.RLOOTrainer(
        model=policy.model,
        reward_funcs=reward,
        args=config,
        train_dataset=rows,
        processing_class=policy.tokenizer,
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return Steps([end - start for start, end in zip(clock.ends, clock.ends[1:])], clock.rewards)


def learning() -> dict[str, Any]:
    """Mean reward of each step on the tiny policy, rvlib's and TRL's, and standard errors over seeds."""
    world = live.World()
    rewards: dict[str, list[list[float]]] = {"ours": [], "trl": []}  # the names in the file that the book reads
    settings = {"steps": LEARNING["steps"], "learning_rate": LEARNING["rate"]}
    for seed in range(LEARNING["seeds"]):
        with tempfile.TemporaryDirectory() as folder:
            policy, ref_policy = (load_policy(world.start) for _ in range(2))
            trained = train_with_rvlib("tiny-4.1", policy, ref_policy, world.prompts, folder, seed=seed, **settings)
            rewards["ours"].append(trained.rewards)
        with tempfile.TemporaryDirectory() as folder:
            policy = load_policy(world.start)
            trained = train_with_trl(policy, world.prompts, folder, seed=seed, lr_scheduler_type="constant", **settings)
            rewards["trl"].append(trained.rewards)
    curves = {
        name: {
            "mean": np.mean(by_seed, 0).round(4).tolist(),
            "standard_error": (np.std(by_seed, 0, ddof=1) / len(by_seed) ** 0.5).round(4).tolist(),
        }
        for name, by_seed in rewards.items()
    }
    # Means over thirds of the training, (seeds, 3).
    thirds = {name: np.array(by_seed).reshape(len(by_seed), 3, -1).mean(-1) for name, by_seed in rewards.items()}
    difference = (thirds["ours"] - thirds["trl"]).mean(0)
    error = np.sqrt(sum(third.var(0, ddof=1) / len(third) for third in thirds.values()))
    return (
        LEARNING
        | curves
        | {
            "thirds": {name: third.mean(0).round(4).tolist() for name, third in thirds.items()},
            "difference_in_standard_errors": (difference / error).round(2).tolist(),
            "made": origin.record(),
        }
    )


def main(file: pathlib.Path) -> None:
    """Time both, alternating, see that both learn the same, and write the numbers to `file`."""
    prompts = alpaca_eval(PROMPTS, max_words=20)
    settings: dict[str, Any] = {"steps": STEPS, "learning_rate": LEARNING_RATE}
    trainings = {
        "ours": lambda folder: train_with_rvlib(
            "small-4.1", load_policy(), load_policy(dtype="bfloat16"), prompts, folder, **settings
        ),
        "trl": lambda folder: train_with_trl(load_policy(), prompts, folder, **settings),
        # Its default computes activations a second time in the backward pass, which ours does not.
        "trl_keeping_activations": lambda folder: train_with_trl(
            load_policy(), prompts, folder, gradient_checkpointing=False, **settings
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    rewards: dict[str, list[list[float]]] = {name: [] for name in trainings}
    for _ in range(2):
        for name, train in trainings.items():
            with tempfile.TemporaryDirectory() as folder:
                trained = train(folder)
            seconds[name] += trained.seconds[1:]
            rewards[name].append(trained.rewards)
            print(
                f"{name}: {statistics.median(trained.seconds[1:]):.2f} s a step, "
                f"rewards {[round(reward, 2) for reward in trained.rewards]}",
                flush=True,
            )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "what": (__doc__ or "").split("\n")[0],
        "median_seconds": median,
        "ratio": median["trl"] / median["ours"],
        "ratio_keeping_activations": median["trl_keeping_activations"] / median["ours"],
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "mean_rewards": rewards,
        "learning": learning(),
        "made": origin.record() | {"trl": trl.__version__},
    }
    write_text(file, json.dumps(result, indent=1) + "\n")
    print(
        f"TRL's step takes {result['ratio']:.1f} times as long as ours, and "
        f"{result['ratio_keeping_activations']:.1f} times where it keeps activations too. Written to {file}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    results = ROOT / "benchmarks/results/rloo.json"
    parser.add_argument("file", nargs="?", type=pathlib.Path, default=results, help="where the results are written")
    main(parser.parse_args().file)
