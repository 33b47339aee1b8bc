"""Batches of texts of similar length, so that little of what goes through a model is padding."""

from collections.abc import Sequence

import torch

LARGEST_PADDING = 0.1  # of a batch's tokens
# Tokens × parameters that a GPU computes while the host launches the kernels of one batch. On an H200 a batch takes at
# least 20 ms forward and 50 ms backward, in which 8 billion parameters go through some 400 tokens and 135 million
# through 22,000 (at half of the matrix rate).
COMPUTED_PER_LAUNCH = 3e12
FEWEST_TOKENS = 2048  # of all texts, padding included, below which a model takes about as long for fewer


def launch_tokens(model: torch.nn.Module) -> int:
    """How many tokens a model goes through in the time in which the host launches a batch; 0 on a CPU, which waits."""
    parameters = list(model.parameters())
    if not parameters or not parameters[0].is_cuda:
        return 0
    # Of weights that ZeRO-3 has shared out, each process holds none between two layers and knows how many there are.
    return int(COMPUTED_PER_LAUNCH / sum(getattr(value, "ds_numel", value.numel()) for value in parameters))


def batches_of_tokens(lengths: Sequence[int], batch_size: int, launch_tokens: int = 0) -> list[list[int]]:
    """Batches of texts: lists of indices into `lengths`, each list from short to long.

    lengths: tokens of each text. A batch has at most as many tokens, padding included, as `batch_size` texts of the
    longest length have, so it holds more of short ones. At most `LARGEST_PADDING` of them are padding, or as many as
    `launch_tokens`, since another batch would cost as much as these (`launch_tokens` of its model). With
    `batch_size` 1 each text is a batch of its own. Texts that are at most `FEWEST_TOKENS` together are cut into batches
    of `batch_size` texts.
    """
    by_length = sorted(range(len(lengths)), key=lambda i: lengths[i])
    longest = max(lengths, default=0)
    if batch_size == 1 or len(lengths) * longest <= FEWEST_TOKENS:
        return [by_length[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    batches: list[list[int]] = []
    tokens = 0  # of the last batch, without padding
    for i in sorted(by_length, key=lambda i: -lengths[i]):
        tokens += lengths[i]
        padded = (len(batches[-1]) + 1) * lengths[batches[-1][0]] if batches else 0
        padding = max(LARGEST_PADDING * padded, launch_tokens)
        if batches and padded <= batch_size * longest and padded - tokens <= padding:
            batches[-1].append(i)
        else:
            batches.append([i])
            tokens = lengths[i]
    return [sorted(batch, key=lambda i: lengths[i]) for batch in batches]
