"""Batches of texts of similar length: how much is padded, what is together, and that rewards stay the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvlib.lm.models.batches import FEWEST_TOKENS, LARGEST_PADDING, batches_of_tokens


def padded(lengths, batches):
    """Tokens of each batch with its padding."""
    return [len(batch) * max(lengths[i] for i in batch) for batch in batches]


@given(st.lists(st.integers(1, 900), max_size=30), st.integers(1, 40))
def test_every_text_is_in_one_batch_within_both_bounds(lengths, batch_size):
    batches = batches_of_tokens(lengths, batch_size)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch, tokens in zip(batches, padded(lengths, batches)):
        together = [lengths[i] for i in batch]
        assert together == sorted(together) and tokens <= batch_size * max(lengths)
        if len(lengths) * max(lengths) > FEWEST_TOKENS:
            assert sum(together) >= (1 - LARGEST_PADDING) * tokens - 1e-9


@given(st.lists(st.integers(1, 900), max_size=30), st.integers(2, 40), st.integers(0, 5000))
def test_no_batch_pads_more_than_a_tenth_or_than_another_launch_costs(lengths, batch_size, launch_tokens):
    batches = batches_of_tokens(lengths, batch_size, launch_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    if len(lengths) * max(lengths, default=0) > FEWEST_TOKENS:
        for batch, tokens in zip(batches, padded(lengths, batches)):
            assert tokens <= batch_size * max(lengths)
            assert tokens - sum(lengths[i] for i in batch) <= max(LARGEST_PADDING * tokens, launch_tokens) + 1e-9


def test_a_small_model_on_a_gpu_takes_texts_of_all_lengths_at_once():
    """Sixteen batches of a model of 135 million parameters take as long to launch as one that is mostly padding."""
    lengths = np.geomspace(20, 512, 32).astype(int).tolist()
    assert len(batches_of_tokens(lengths, 32)) > 8
    assert len(batches_of_tokens(lengths, 32, 22_000)) == 1
    assert len(batches_of_tokens(lengths, 32, 375)) > 4  # eight billion


@pytest.mark.parametrize("replies", [32, 128, 512])
@pytest.mark.parametrize("prompt", [0, 128])
def test_less_than_a_tenth_is_padding_where_lengths_are_geometric(replies, prompt):
    """Replies as random weights write them: a mean of 128 tokens, cut at 512."""
    for seed in range(20):
        lengths = (prompt + np.minimum(np.random.default_rng(seed).geometric(1 / 128, replies), 512)).tolist()
        batches = batches_of_tokens(lengths, 32)
        assert 1 - sum(lengths) / sum(padded(lengths, batches)) < 0.1
        assert len(batches) <= 25  # and there are few


def test_short_texts_are_more_than_long_ones():
    lengths = [512] * 4 + [64] * 64
    sizes = [len(batch) for batch in batches_of_tokens(lengths, 4)]
    assert sizes == [4, 32, 32]


def test_texts_of_one_length_are_batches_of_as_many_rows_in_their_order():
    assert batches_of_tokens([1] * 7, 3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches_of_tokens([5, 1, 3], 1) == [[1], [2], [0]]
    assert batches_of_tokens([9, 1, 8, 2, 5], 2) == [[1, 3], [4, 2], [0]] and batches_of_tokens([], 3) == []
