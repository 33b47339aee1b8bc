"""Log-probabilities of replies: ln π_θ(y|x) = Σ_l ln softmax(f_θ(x, y_<l))_{y_l}, with a gradient or without."""

from collections.abc import Sequence

import torch
import transformers

from rvlib.lm.models.batches import batches_of_tokens
from rvlib.lm.models.policies import Policy
from rvlib.lm.sampling import LOGITS_AT_ONCE


def log_probs(
    policy: Policy,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    *,
    temperature: float = 1.0,
    batch_size: int = 16,
) -> list[float]:
    """ln π_θ(y|x) in nats, one float a reply, without a gradient.

    batch_size: as many tokens go through at once as that many of the longest text have (`batches_of_tokens`).
    """
    logprobs = [0.0] * len(completion_ids)
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompt_ids, completion_ids, strict=True)]
    for indices in batches_of_tokens(lengths, batch_size):
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
    """ln π_θ(y|x) in nats of replies that go through at once, a float64 tensor (replies,) that gradients pass through.

    Padding is on the right, and only the positions that predict a reply's tokens become logits, `LOGITS_AT_ONCE` at a
    time: of the others only what the gradient needs is kept, one 32-bit number for each of tokens × vocabulary.
    """
    model = policy.model
    input_ids = [torch.tensor(prompt + reply) for prompt, reply in zip(prompt_ids, completion_ids, strict=True)]
    padded = torch.nn.utils.rnn.pad_sequence(input_ids, batch_first=True)[:, :-1]  # the last token predicts nothing
    attention_mask = torch.arange(padded.shape[1]) < torch.tensor([[len(ids)] for ids in input_ids])
    # Of each token of a reply: which row it is in, which position predicts it, and which token it is.
    predicted = torch.tensor(
        [
            (i, len(prompt) - 1 + j, token)
            for i, (prompt, reply) in enumerate(zip(prompt_ids, completion_ids))
            for j, token in enumerate(reply)
        ],
        dtype=torch.long,
    )

    def totals() -> torch.Tensor:  # on the device of the gathered weights, which may have come from the host's memory
        row, position, token = predicted.to(model.device).view(-1, 3).unbind(1)
        hidden = model.base_model(
            padded.to(model.device), attention_mask=attention_mask.to(model.device), use_cache=False
        ).last_hidden_state
        token_logprobs = torch.cat(
            [
                log_softmax_at(model, states, targets, temperature)
                for states, targets in zip(hidden[row, position].split(LOGITS_AT_ONCE), token.split(LOGITS_AT_ONCE))
            ]
        )
        zeros = torch.zeros(len(input_ids), dtype=torch.float64, device=row.device)
        return zeros.index_add(0, row, token_logprobs.double())

    return policy.sharing.through(totals)


def log_softmax_at(
    model: transformers.PreTrainedModel, hidden: torch.Tensor, tokens: torch.Tensor, temperature: float
) -> torch.Tensor:
    """ln softmax(logits / temperature) of a token each, (tokens,), in 32 bits, from the last states (tokens, width).

    Logits are scaled and capped as the model's own forward pass does it: Cohere multiplies, Granite divides, Gemma-2
    caps.
    """
    config = model.config.get_text_config()
    logits = model.get_output_embeddings()(hidden).float()
    if (scale := getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)) != 1:
        logits = logits * scale
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return -torch.nn.functional.cross_entropy(logits / temperature, tokens, reduction="none")
