"""Training on examples, beside policy gradient: batches of them for some epochs, and the loss of a reward model.

    L = -ln σ(r(y) - r(y')) + c (r(y) + r(y'))²     Bradley and Terry's, centred by TRL's `center_rewards_coefficient` c

The loss of fine-tuning is -ln π of the replies (`sampling.log_probs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers

from rvlib.lm.models.reward_functions import forward
from rvlib.lm.settings import TrainingSettings
from rvlib.lm.training.trainer import Trainer


def batches(
    trainer: Trainer, rows: Sequence[Any], settings: TrainingSettings, label: str, seed: int = 0
) -> Iterator[tuple[int, list[Any]]]:
    """(step, batch of rows) for `settings.epochs`, each pass in a new order; a last batch that is not full is left out.

    seed: of the orders. ValueError, one sentence, where there is not one full batch.
    """
    check_batch(len(rows), settings, label)
    steps_per_epoch = len(rows) // settings.batch_size
    for step in trainer.steps(max(round(settings.epochs * steps_per_epoch), 1), label):
        epoch, step_in_epoch = divmod(step, steps_per_epoch)
        order = np.random.default_rng([7, epoch, seed]).permutation(len(rows))
        start = step_in_epoch * settings.batch_size
        yield step, [rows[i] for i in order[start : start + settings.batch_size]]


def check_batch(rows: int, settings: TrainingSettings, label: str) -> None:
    """ValueError, one sentence, if there are fewer rows than one batch of `settings` has."""
    if rows < settings.batch_size:
        raise ValueError(
            f"There must be at least {settings.batch_size} rows for one batch ({label}), got {rows}; "
            "use more data, a larger data.max_tokens or a smaller batch_size."
        )


def bradley_terry(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    pairs: Sequence[Sequence[list[int]]],
    center_rewards_coef: float,
) -> torch.Tensor:
    """Loss -ln σ(r(y) - r(y')) + c (r(y) + r(y'))² of each pair, a tensor (pairs,).

    pairs: [[ids of the preferred text, ids of the other], …].
    """
    texts = [token_ids for pair in pairs for token_ids in pair]
    preferred, other = forward(model, tokenizer, texts).view(-1, 2).unbind(1)
    return -torch.nn.functional.logsigmoid(preferred - other) + center_rewards_coef * (preferred + other) ** 2
