"""Batches of texts of similar length, so that little of what goes through a model is padding."""

from collections.abc import Sequence

LARGEST_PADDING = 0.1  # of a batch's tokens
FEWEST_TOKENS = 2048  # of all texts, padding included, below which a model takes about as long for fewer


def batches_of_tokens(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of texts: lists of indices into `lengths`, each list from short to long.

    lengths: tokens of each text. A batch has at most as many tokens, padding included, as `batch_size` texts of the
    longest length have, so it holds more of short ones, and at most `LARGEST_PADDING` of them are padding. With
    `batch_size` 1 each text is a batch of its own. Texts that are at most `FEWEST_TOKENS` together are cut into batches
    of `batch_size` texts.
    """
    by_length, longest = sorted(range(len(lengths)), key=lambda i: lengths[i]), max(lengths, default=0)
    if batch_size == 1 or len(lengths) * longest <= FEWEST_TOKENS:
        return [by_length[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    batches: list[list[int]] = []
    tokens = 0  # of the last batch, without padding
    for i in sorted(by_length, key=lambda i: -lengths[i]):
        tokens += lengths[i]
        padded = (len(batches[-1]) + 1) * lengths[batches[-1][0]] if batches else 0
        if batches and padded <= batch_size * longest and tokens >= (1 - LARGEST_PADDING) * padded:
            batches[-1].append(i)
        else:
            batches.append([i])
            tokens = lengths[i]
    return [sorted(batch, key=lambda i: lengths[i]) for batch in batches]
