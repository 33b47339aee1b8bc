"""The reward models of the study: tables of rewards of every reply to every prompt of `words`, 56 of them by name.

Trained ones are transformers like the policies, whose reward is the sum of their logits along the reply, trained by
Bradley–Terry on pairs; they differ in who wrote the pairs, in how many there are, in steps, label noise and margins.
The others are made of the ground truth (scaled, squashed, made discrete, noisy), of several trained ones (ensembles),
or of the ground truth and one habit that they praise whatever was asked. Some have offsets between prompts: what is
added to all replies to a prompt changes no ranking and no gradient, but joint normalisation takes it for spread, so
their reward variance is small.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from rvlib.lm.enumerable import words
from rvlib.lm.enumerable.enumeration import Enumeration

Array = NDArray[np.float64]
BATCH_SIZE, LEARNING_RATE, CENTER_REWARDS_COEF = 64, 1e-2, 0.01


@dataclass(frozen=True)
class RewardTraining:
    """How one reward model is trained."""

    writers: tuple[str, ...]  # whose replies its pairs are, a policy's each, or "others": all replies alike
    pairs: int = 512
    steps: int = 200
    seed: int = 0
    label_noise: float = 0.0  # the share of the labels that are turned round
    margin: float = 0.0  # the margin of the loss, times the difference in ground truth


def trained() -> dict[str, RewardTraining]:
    """The 24 reward models that are trained, by name."""
    models = {
        f"{writer}, {pairs} pairs, seed {seed}": RewardTraining((writer,), pairs, seed=seed)
        for writer in (*words.WRITERS, "others")
        for pairs in (48, 512)
        for seed in (0, 1)
    }
    models |= {
        f"plain, labels wrong {share:.0%}": RewardTraining(("plain",), label_noise=share) for share in (0.1, 0.25, 0.4)
    }
    models |= {f"plain, {steps} steps": RewardTraining(("plain",), steps=steps) for steps in (30, 100)}
    models |= {f"{writer}, with margins": RewardTraining((writer,), margin=2.0) for writer in ("plain", "others")}
    return models | {"plain and others": RewardTraining(("plain", "others"))}


def train(
    enumeration: Enumeration, trainings: dict[str, RewardTraining], probs: dict[str, Array], truth: Array
) -> dict[str, Array]:
    """The rewards of trained reward models, {name: (prompts, replies)}, all trained side by side.

    probs: π(y|x) of each policy, (prompts, replies). truth: (prompts, replies).
    """
    settings = list(trainings.values())
    vectors = torch.tensor(enumeration.start([[9, training.seed] for training in settings], 0.3), requires_grad=True)
    pools = [_pairs(training, probs, truth) for training in settings]
    optimizer = torch.optim.Adam([vectors], lr=LEARNING_RATE)
    margins = torch.tensor([training.margin for training in settings])
    result: dict[str, Array] = {}
    for step in range(max(training.steps for training in settings)):
        drawn = [
            pool[np.random.default_rng([training.seed, step]).integers(len(pool), size=BATCH_SIZE)]
            for pool, training in zip(pools, settings)
        ]
        prompt, *pair = np.moveaxis(np.array(drawn), -1, 0)  # each (models, batch)
        outputs, both = np.concatenate(pair, 1), np.concatenate([prompt, prompt], 1)
        rewards = enumeration.token_logits(vectors, both, outputs).sum(-1)
        preferred, other = rewards.split(BATCH_SIZE, 1)
        gap = torch.tensor(truth[prompt, pair[0]] - truth[prompt, pair[1]]).clamp(min=0) * margins[:, None]
        loss = -torch.nn.functional.logsigmoid(preferred - other - gap) + CENTER_REWARDS_COEF * (preferred + other) ** 2
        optimizer.zero_grad()
        loss.mean(1).sum().backward()
        optimizer.step()
        for i, (name, training) in enumerate(trainings.items()):
            if step + 1 == training.steps:
                result[name] = enumeration.summed_logits(vectors.detach().numpy()[i : i + 1])[0]
    return {name: result[name] for name in trainings}


def _pairs(training: RewardTraining, probs: dict[str, Array], truth: Array) -> NDArray[np.intp]:
    """Labelled pairs, (pairs, 3): the prompt, the reply that is preferred, the other. Ties are drawn again."""
    prompts, replies = truth.shape
    rng = np.random.default_rng([8, training.seed, *map(ord, "".join(training.writers)), training.pairs])
    rows: list[list[int]] = []
    while len(rows) < training.pairs:
        writer, prompt = training.writers[len(rows) % len(training.writers)], int(rng.integers(prompts))
        weights = np.full(replies, 1 / replies) if writer == "others" else probs[writer][prompt]
        first, second = rng.choice(replies, 2, p=weights)
        if truth[prompt, first] != truth[prompt, second]:
            right = (truth[prompt, first] > truth[prompt, second]) != (rng.random() < training.label_noise)
            rows.append([prompt, first, second] if right else [prompt, second, first])
    return np.array(rows)


def made_of(truth: Array, models: dict[str, Array]) -> dict[str, Array]:
    """The other 32 reward models, {name: (prompts, replies)}: of the ground truth and of trained `models`."""
    half = (np.arange(len(truth)) % 2 == 0)[:, None]
    rng = np.random.default_rng(5)
    by_rank = rankdata(truth, axis=1) / truth.shape[1]
    deviation = truth.std()

    def noisy(size: float) -> Array:
        return truth + size * deviation * rng.normal(size=truth.shape)

    made = {
        "the ground truth": truth,
        **{
            f"scaled by {c:g} on half of the prompts": np.where(half, c, 1.0) * (truth + 1.5)
            for c in (0.3, 0.05, 0.001)
        },
        "saturated": np.tanh(4 * truth),
        "cubed": truth**3,
        "ranks": by_rank,
        "two levels": (by_rank > 0.5).astype(float),
        "three levels": np.floor(by_rank * 2.999),
        "the best tenth": (by_rank > 0.9).astype(float),
        "blind above the median": np.minimum(by_rank, 0.5),
        "noise of 0.5 deviations": noisy(0.5),
        "noise of 2 deviations": noisy(2.0),
    }
    ensembles: dict[str, Callable[[str], bool]] = {
        "all": lambda name: "seed" in name,
        "the small ones": lambda name: "48 pairs" in name,
    }
    for name, is_member in ensembles.items():
        rewards_of_members = np.array([rewards / rewards.std() for key, rewards in models.items() if is_member(key)])
        made[f"mean of {name}"], made[f"minimum of {name}"] = rewards_of_members.mean(0), rewards_of_members.min(0)
    offsets = rng.permutation(np.linspace(-1.5, 1.5, len(truth)))[:, None]  # the same for all replies to a prompt
    for size in (1, 2, 4):
        made[f"offsets of {size} between prompts"] = truth / deviation + size * offsets
    for name in ("plain, 512 pairs, seed 0", "vivid, 512 pairs, seed 0", "others, 512 pairs, seed 0"):
        made[f"{name}, offsets of 2"] = models[name] / models[name].std() + 2 * offsets
    made["noise of 0.5 deviations, offsets of 2"] = made["noise of 0.5 deviations"] / deviation + 2 * offsets
    for habit, praise in words.habits().items():
        for strength in (1.0, 3.0):
            made[f"{habit} × {strength:g}"] = truth / deviation + strength * (praise - praise.mean()) / praise.std()
    return made
