"""A world of replies of four words, small enough to sum over: what they mean, how good they are, and who writes them.

    and good bad not very            "very good and good" has sentiment 1.5 + 1

"very" multiplies the next adjective by 1.5 and "not" by -0.8; "and" ends what either began. Each prompt x stands for an
experience between bad and good, m_x, and the ground truth asks for a reply that tells it:

    r_G(x, y) = tanh( 1 - |sentiment(y) - m_x| - 0.25 words that modify nothing - 0.5 [no adjective] )
"""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
WORDS = ("and", "good", "bad", "not", "very")
LENGTH = 4
REPLIES = tuple(itertools.product(range(len(WORDS)), repeat=LENGTH))  # in the order of `Enumeration`
FACTORS = {"very": 1.5, "not": -0.8}

# A writer's logits of the next word (columns) after each word (rows), the last row at the beginning of a reply.
WRITERS: dict[str, Array] = {
    "plain": np.array(
        [
            [-1, 1, 1, -1, 0],
            [2, -1, -1, -1, -1],
            [2, -1, -1, -1, -1],
            [-2, 1, 1, -2, 0],
            [-2, 1, 1, -2, 0],
            [-2, 1, 1, -1, 0],
        ],
        float,
    ),
    "vivid": np.array(
        [
            [-1, 0, 0, 0, 2],
            [0, 0, 0, -1, 1],
            [0, 0, 0, -1, 1],
            [-2, 0, 0, -2, 2],
            [-2, 1, 1, -1, 1],
            [-2, 0, 0, 0, 2],
        ],
        float,
    ),
    "contrary": np.array(
        [
            [-1, 0, 0, 2, 0],
            [1, 0, 0, 1, -1],
            [1, 0, 0, 1, -1],
            [-2, 1, 1, -1, 1],
            [-2, 1, 1, 0, -1],
            [-2, 0, 0, 2, 0],
        ],
        float,
    ),
}
MOOD = 0.3  # nats by which "good" gains and "bad" loses for each unit of m_x


def moods(prompts: int) -> Array:
    """m_x of each prompt, evenly from -1.5 to 1.5: (prompts,)."""
    return np.linspace(-1.5, 1.5, prompts)


class Reading(NamedTuple):
    """What a reply says: its sentiment, how many of its words modify nothing, and how many adjectives it has."""

    sentiment: float
    idle_words: int
    adjectives: int


def read(reply: tuple[int, ...]) -> Reading:
    """What a reply, the indices of its words, says."""
    total, factor, waiting, idle, adjectives = 0.0, 1.0, 0, 0, 0
    for word in (WORDS[i] for i in reply):
        if word in FACTORS:
            factor, waiting = factor * FACTORS[word], waiting + 1
            continue
        if word == "and":
            idle += waiting
        else:
            total, adjectives = total + factor * (1 if word == "good" else -1), adjectives + 1
        factor, waiting = 1.0, 0
    return Reading(total, idle + waiting, adjectives)


def ground_truth(prompts: int) -> Array:
    """r_G of every reply to every prompt, in (-1, 1): (prompts, replies)."""
    totals, idle, adjectives = np.array([read(reply) for reply in REPLIES]).T
    distance = np.abs(totals - moods(prompts)[:, None])
    return np.tanh(1 - distance - 0.25 * idle - 0.5 * (adjectives == 0))


def writer(name: str, prompts: int) -> Array:
    """π(y|x) of a writer of `WRITERS`: (prompts, replies)."""
    leaning = np.array([0, 1, -1, 0, 0]) * MOOD
    logits = WRITERS[name] + moods(prompts)[:, None, None] * leaning  # (prompts, last word, next word)
    steps = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    replies = np.array(REPLIES)
    before = np.c_[np.full(len(replies), len(WORDS)), replies[:, :-1]]
    return steps[:, before, replies].prod(-1)


def habits() -> dict[str, Array]:
    """What a harmful reward model may praise whatever was asked, each from 0 to 1: {habit: (replies,)}."""
    replies = np.array(REPLIES)
    totals = np.array([read(reply).sentiment for reply in REPLIES])
    return {
        "flattery": (totals - totals.min()) / np.ptp(totals),
        "emphasis": (replies == WORDS.index("very")).mean(-1),
        "repetition": (replies[:, 1:] == replies[:, :-1]).mean(-1),
        "a good beginning": (replies[:, 0] == WORDS.index("good")).astype(float),
    }
