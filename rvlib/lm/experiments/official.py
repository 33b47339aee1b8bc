"""A step of policy gradient as the official code does it (princeton-pli/what-makes-good-rm), to compare ours with.

Replies are scored one by one, and log-probabilities are taken one reply at a time with the logits of every position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import transformers

from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models import RewardFunction
from rvlib.lm.training.trainer import Trainer

Row = tuple[list[int], list[int]]
"""The ids of a prompt and of a reply to it."""


@dataclass(frozen=True)
class OfficialModels:
    """The models of a step."""

    policy: transformers.PreTrainedModel
    reference: transformers.PreTrainedModel
    reward_model: RewardFunction


def official_step(
    models: OfficialModels,
    trainer: Trainer,
    prompts: Sequence[Prompt],
    texts: Sequence[Sequence[str]],
    rows: Sequence[Row],
    num_mini_batches: int,
) -> None:
    """Score the replies `texts` to `prompts`, and learn from the `rows`, which are their ids, one reply at a time."""
    for prompt, replies in zip(prompts, texts):
        for text in replies:
            models.reward_model([prompt], [[text]])
    with torch.inference_mode():
        for model in (models.policy, models.reference):
            for prompt_ids, completion_ids in rows:
                one_log_prob(model, prompt_ids, completion_ids)

    def loss_of(indices: list[int]) -> torch.Tensor:
        return torch.stack([-one_log_prob(models.policy, *rows[i]) for i in indices])

    micro_batch, trainer.micro_batch = trainer.micro_batch, 1
    for mini_batch in np.arange(len(rows)).reshape(num_mini_batches, -1):
        trainer.update(mini_batch.tolist(), loss_of)
    trainer.micro_batch = micro_batch


def one_log_prob(model: transformers.PreTrainedModel, prompt_ids: list[int], completion_ids: list[int]) -> torch.Tensor:
    """ln π(y|x) of one reply, a number, by the logits of every position."""
    tokens = torch.tensor([prompt_ids + completion_ids], device=model.device)
    logits = model(tokens, use_cache=False).logits[0, len(prompt_ids) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, tokens[0, len(prompt_ids) :, None]).sum().double()
