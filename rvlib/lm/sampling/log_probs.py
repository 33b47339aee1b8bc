"""Log-probabilities of replies: ln π_θ(y|x) = Σ_l ln softmax(f_θ(x, y_<l))_{y_l}, with a gradient or without."""

import torch

from rvlib.lm import processes
from rvlib.lm.sampling import LOGITS_AT_ONCE


def log_probs(policy, prompts, replies, *, temperature=1.0, rows=16):
    """ln π_θ(y|x) in nats, one float a reply, without a gradient. prompts, replies: lists of lists of token ids; rows: how many go through at once.

    They are sorted by length, so that little is padded.
    """
    order = sorted(range(len(replies)), key=lambda i: len(prompts[i]) + len(replies[i]))
    result = [0.0] * len(replies)
    for some in (order[i : i + rows] for i in range(0, len(order), rows)):
        with torch.inference_mode():
            totals = reply_log_probs(
                policy.model, [prompts[i] for i in some], [replies[i] for i in some], temperature=temperature
            )
        for i, total in zip(some, totals.tolist()):
            result[i] = total
    return result


def reply_log_probs(model, prompts, replies, *, temperature=1.0):
    """ln π_θ(y|x) in nats of replies that go through `model` at once, a float64 tensor (replies,) that gradients pass through.

    prompts, replies: lists of lists of token ids. Padding is on the right, and only the positions that predict a reply's tokens
    become logits, `LOGITS_AT_ONCE` at a time: of the others only what the gradient needs is kept, one 32-bit number for each of tokens × vocabulary.
    """
    whole = [torch.tensor(prompt + reply) for prompt, reply in zip(prompts, replies, strict=True)]
    tokens = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)[:, :-1]  # the last token predicts nothing
    attended = torch.arange(tokens.shape[1]) < torch.tensor([[len(row)] for row in whole])
    # Of each token of a reply: which row it is in, which place predicts it, and which token it is.
    where = torch.tensor(
        [
            (i, len(prompt) - 1 + j, token)
            for i, (prompt, reply) in enumerate(zip(prompts, replies))
            for j, token in enumerate(reply)
        ],
        dtype=torch.long,
    )

    def totals():  # on the device of the gathered weights, which may have come from the host's memory
        row, place, token = where.to(model.device).view(-1, 3).unbind(1)
        hidden = model.base_model(
            tokens.to(model.device), attention_mask=attended.to(model.device), use_cache=False
        ).last_hidden_state
        chosen = torch.cat(
            [
                log_softmax_at(model, some, those, temperature)
                for some, those in zip(hidden[row, place].split(LOGITS_AT_ONCE), token.split(LOGITS_AT_ONCE))
            ]
        )
        return torch.zeros(len(whole), dtype=torch.float64, device=row.device).index_add(0, row, chosen.double())

    return processes.through(model, totals)


def log_softmax_at(model, hidden, tokens, temperature):
    """ln softmax(logits / temperature) of a token each, (tokens,), from the last layer's states (tokens, width), in 32 bits."""
    logits = model.get_output_embeddings()(hidden).float() / temperature
    return -torch.nn.functional.cross_entropy(logits, tokens, reduction="none")
