"""A step of policy gradient as the official code makes it, to compare ours with.

That code is princeton-pli/what-makes-good-rm, `custom_rloo_trainer.py`, with the defaults of TRL 0.12. All replies of a
batch go through each model together, padded to the longest: `generate` draws them and gives the logits of every token
that it drew, from which ln π_old is taken; the frozen copy of the policy computes the logits of every position, prompts
too; the reward model scores them. The policy then learns from micro-batches of `MICRO_BATCH` replies, as long as the
longest reply of all, with the logits of every position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import transformers

from rvlib.lm.models.reward_functions import ClassifierReward, forward
from rvlib.lm.sampling.generation import until_end
from rvlib.lm.training.policy_gradient import clipped_loss
from rvlib.lm.training.trainer import Trainer
from rvlib.tabular.estimators import advantages as estimate_advantages

REPLIES_AT_ONCE = 64  # TRL's default of local_rollout_forward_batch_size, which no configuration of the code sets
MICRO_BATCH = 2  # per_device_train_batch_size of its configuration for Section 4.1
KL_COEF, CLIP_RANGE = 0.05, 0.2


@dataclass(frozen=True)
class OfficialModels:
    """The models of a step."""

    policy: transformers.PreTrainedModel
    ref_policy: transformers.PreTrainedModel
    reward_model: ClassifierReward


@dataclass(frozen=True)
class OfficialRollout:
    """A batch of replies, padded on both sides; tensors have one row a reply.

    token_ids: of prompts and replies, (rows, longest); attention_mask: the same shape, 0 where there is no text; start:
    where replies begin; logprobs, ref_logprobs: (rows,), of whole replies in nats; rewards: (rows,).
    """

    token_ids: torch.Tensor
    attention_mask: torch.Tensor
    start: int
    logprobs: torch.Tensor
    ref_logprobs: torch.Tensor
    rewards: torch.Tensor

    @property
    def reply_tokens(self) -> int:
        """Tokens of all replies."""
        return int(self.attention_mask[:, self.start :].sum())


@torch.no_grad()
def official_rollout(
    models: OfficialModels, prompt_ids: Sequence[list[int]], *, max_new_tokens: int, eos_token_ids: Sequence[int]
) -> OfficialRollout:
    """Draw a reply to each of `prompt_ids`, at most `REPLIES_AT_ONCE`; take its log-probabilities and its reward."""
    tokenizer = models.reward_model.tokenizer  # which is the policy's too
    padded = tokenizer.pad({"input_ids": list(prompt_ids)}, padding_side="left", return_tensors="pt")
    inputs = padded.to(models.policy.device)
    start = inputs["input_ids"].shape[1]
    drawn = models.policy.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=True,
        top_k=0,
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    completion_ids = drawn.sequences[:, start:]
    completion_mask = until_end(completion_ids, list(eos_token_ids)).long()
    attention_mask = torch.cat([inputs["attention_mask"], completion_mask], -1)
    logprobs = _gather(torch.stack(drawn.scores, 1), completion_ids, completion_mask)
    texts = [row[mask == 1].tolist() for row, mask in zip(drawn.sequences, attention_mask)]
    return OfficialRollout(
        token_ids=drawn.sequences,
        attention_mask=attention_mask,
        start=start,
        logprobs=logprobs,
        ref_logprobs=official_log_probs(models.ref_policy, drawn.sequences, attention_mask, start),
        rewards=forward(models.reward_model.model, tokenizer, texts),
    )


def official_log_probs(
    model: transformers.PreTrainedModel, token_ids: torch.Tensor, attention_mask: torch.Tensor, start: int
) -> torch.Tensor:
    """The log-probability ln π(y|x) of each row, (rows,), by the logits of every position; replies begin at `start`."""
    positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(token_ids, attention_mask=attention_mask, position_ids=positions, use_cache=False).logits
    return _gather(logits[:, start - 1 : -1], token_ids[:, start:], attention_mask[:, start:])


def _gather(logits: torch.Tensor, token_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The log-probability of each row's tokens, (rows,)."""
    logprobs = logits.float().log_softmax(-1).gather(-1, token_ids[..., None]).squeeze(-1)
    return (logprobs * mask).sum(-1, dtype=torch.float64)


def official_step(
    models: OfficialModels,
    trainer: Trainer,
    prompt_ids: Sequence[list[int]],
    num_generations: int,
    *,
    max_new_tokens: int,
    eos_token_ids: Sequence[int],
    num_mini_batches: int,
) -> int:
    """A whole step by RLOO on `num_generations` replies to each prompt; returns how many tokens the replies have.

    ValueError for more than `REPLIES_AT_ONCE` replies, which that code reads in several parts.
    """
    batch = [ids for ids in prompt_ids for _ in range(num_generations)]
    if len(batch) > REPLIES_AT_ONCE:
        raise ValueError(
            f"A step must have at most {REPLIES_AT_ONCE} replies, got {len(batch)}; set a smaller batch_size."
        )
    drawn = official_rollout(models, batch, max_new_tokens=max_new_tokens, eos_token_ids=eos_token_ids)
    regularised = drawn.rewards.double() - KL_COEF * (drawn.logprobs - drawn.ref_logprobs)
    by_prompt = regularised.reshape(-1, num_generations).cpu().numpy()
    advantages = torch.from_numpy(estimate_advantages(by_prompt, "rloo").ravel()).to(drawn.token_ids.device)

    def loss_of(indices: list[int]) -> torch.Tensor:
        token_ids, attention_mask = drawn.token_ids[indices], drawn.attention_mask[indices]
        logprobs = official_log_probs(models.policy, token_ids, attention_mask, drawn.start)
        return clipped_loss(logprobs, drawn.logprobs[indices], advantages[indices], CLIP_RANGE)

    micro_batch, trainer.micro_batch = trainer.micro_batch, MICRO_BATCH
    for mini_batch in np.arange(len(batch)).reshape(num_mini_batches, -1):
        trainer.update(mini_batch.tolist(), loss_of)
    trainer.micro_batch = micro_batch
    return drawn.reply_tokens
