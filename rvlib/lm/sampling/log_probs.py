"""Log-probabilities of replies: ln π_θ(y|x) = Σ_l ln softmax(f_θ(x, y_<l))_{y_l}, with a gradient or without."""

import itertools
from collections.abc import Sequence

import torch
import transformers
from transformers.utils import is_flash_attn_2_available

from rvlib.lm.models.batches import batches_of_tokens, launch_tokens
from rvlib.lm.models.policies import Policy
from rvlib.lm.sampling import LOGITS_AT_ONCE


def log_probs(
    policy: Policy,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    *,
    temperature: float = 1.0,
    batch_size: int | None = None,
) -> list[float]:
    """The ln π_θ(y|x) in nats, one float a reply, without a gradient.

    batch_size: a batch has at most as many tokens as that many of the longest text (`batches_of_tokens`); None is 16.
    """
    logprobs = [0.0] * len(completion_ids)
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompt_ids, completion_ids, strict=True)]
    for indices in batches_of_tokens(lengths, batch_size or 16, launch_tokens(policy.model)):
        with torch.inference_mode():
            batch = reply_log_probs(
                policy, [prompt_ids[i] for i in indices], [completion_ids[i] for i in indices], temperature=temperature
            )
        for i, logprob in zip(indices, batch.tolist()):
            logprobs[i] = logprob
    return logprobs


def reply_log_probs(
    policy: Policy,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    *,
    temperature: float = 1.0,
) -> torch.Tensor:
    """The ln π_θ(y|x) in nats of a batch of replies, a float64 tensor (replies,) that gradients pass through.

    Padding is on the right; with flash-attn (`packs`) there is none. Logits are computed only at the positions that
    predict a reply's tokens, for `LOGITS_AT_ONCE` of them at a time. What is kept of them for the gradient is one
    32-bit number for each token and entry of the vocabulary. If the weights are sharded, call it within `sharing.whole`
    or, for a loss, within `Adam.backward`.
    """
    model = policy.model
    # The last token predicts nothing.
    texts = [torch.tensor((prompt + reply)[:-1]) for prompt, reply in zip(prompt_ids, completion_ids, strict=True)]
    lengths = [len(text) for text in texts]
    inputs: dict[str, torch.Tensor]
    if packs(model):
        inputs = {"input_ids": torch.cat(texts)[None], "position_ids": torch.cat([*map(torch.arange, lengths)])[None]}
        starts = [0, *itertools.accumulate(lengths)]
    else:
        inputs = {"input_ids": torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)}
        inputs["attention_mask"] = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        starts = [i * max(lengths) for i in range(len(texts))]
    # Of each token of a reply: which reply it is of, which position predicts it, and its id.
    reply_numbers: list[int] = []
    positions: list[int] = []
    token_ids: list[int] = []
    for number, (prompt, reply, start) in enumerate(zip(prompt_ids, completion_ids, starts)):
        first = start + len(prompt) - 1
        reply_numbers += [number] * len(reply)
        positions += range(first, first + len(reply))
        token_ids += reply
    predicted = torch.tensor([reply_numbers, positions, token_ids], dtype=torch.long)  # (3, tokens)

    number, position, token = predicted.to(model.device)
    moved = {key: value.to(model.device) for key, value in inputs.items()}
    hidden = model.base_model(**moved, use_cache=False).last_hidden_state.flatten(0, 1)
    token_logprobs = torch.cat(
        [
            log_softmax_at(model, states, targets, temperature)
            for states, targets in zip(hidden[position].split(LOGITS_AT_ONCE), token.split(LOGITS_AT_ONCE))
        ]
    )
    zeros = torch.zeros(len(texts), dtype=torch.float64, device=number.device)
    return zeros.index_add(0, number, token_logprobs.double())


def use_flash_attention(model: transformers.PreTrainedModel) -> None:
    """Have a 16-bit model on a GPU attend by flash-attn, where that is installed, so that texts are packed."""
    if model.device.type == "cuda" and model.dtype == torch.bfloat16 and is_flash_attn_2_available():
        model.set_attn_implementation("flash_attention_2")


def packs(model: transformers.PreTrainedModel) -> bool:
    """Whether texts are packed into one row, where flash-attn separates them by their positions."""
    return "flash" in (model.config.get_text_config()._attn_implementation or "")


def log_softmax_at(
    model: transformers.PreTrainedModel, hidden: torch.Tensor, tokens: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The ln softmax(logits / temperature) of a token each, (tokens,), in 32 bits, by the last states (tokens, width).

    Logits are scaled and capped as the model's own forward pass does it: Cohere multiplies, Granite divides, Gemma-2
    caps.
    """
    config = model.config.get_text_config()
    logits = model.get_output_embeddings()(hidden).float()
    if (scale := getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)) != 1:
        logits = logits * scale
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    logits = logits / temperature  # the same name, so that only one copy is kept
    return -torch.nn.functional.cross_entropy(logits, tokens, reduction="none")
