"""What else a reward model rewards: features of the replies that a reward may go by, and replies to look at.

A probe is a number for each reply that has nothing to do with its worth. What is asked of it is its correlation with
the reward *within prompts*, since that is what a policy learns from: a reward model that likes long replies shows it
here, and not in a correlation over all replies, where long prompts have long replies. Nothing here needs torch.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib.audit import statistics
from rvlib.audit.statistics import Interval

OPENINGS = 5  # phrases that replies begin with, at most
VARIED = 5  # prompts whose replies a probe must tell apart, or an interval over prompts would say nothing
EXAMPLES = 3  # prompts shown for each reward model
_MARKDOWN = re.compile(r"^\s*(#{1,6} |[-*+] |\d+[.)] |> |```|\|.*\|)|\*\*[^*\n]+\*\*|`[^`\n]+`", re.MULTILINE)
_THANKS = re.compile(
    r"\b(thank|thanks|thank you|great question|good question|happy to help|glad|sorry)\b", re.IGNORECASE
)

ReplyTexts = Sequence[Sequence[str]]  # (prompts, replies)


class BestAndWorst(TypedDict):
    """The replies to one prompt that a reward model likes best and least; truths are None without a ground truth."""

    prompt: str
    best: str
    worst: str
    best_reward: float
    worst_reward: float
    best_truth: float | None
    worst_truth: float | None
    measure: float  # the covariance with the ground truth in this prompt, or the reward variance


def features(
    replies: ReplyTexts, log_probs: ArrayLike | None = None, *, texts: bool = True
) -> dict[str, NDArray[np.float64]]:
    """{probe: (prompts, replies)}: length, repetition, markdown, thanks, openings and, where known, log-probability.

    replies: as many texts for each prompt; log_probs: (prompts, replies) of whole replies under the policy. A probe
    that differs among the replies to fewer than `VARIED` prompts, if there are as many, is left out. texts: whether a
    probe may be named by the phrase that replies begin with, which has a number otherwise.
    """
    probes = {
        "length": _each(replies, len),
        "repetition": _each(replies, repetition),
        "markdown": _each(replies, lambda reply: len(_MARKDOWN.findall(reply))),
        "thanks or sorry": _each(replies, lambda reply: bool(_THANKS.search(reply))),
    }
    for number, phrase in enumerate(openings(replies), start=1):
        probes[f"begins “{phrase} …”" if texts else f"opening {number}"] = _each(
            replies, lambda reply, phrase=phrase: opening(reply) == phrase
        )
    if log_probs is not None:
        probes["log-probability"] = np.asarray(log_probs, dtype=float)
    enough = min(VARIED, len(replies))
    return {name: values for name, values in probes.items() if (np.ptp(values, axis=-1) > 0).sum() >= enough}


def repetition(reply: str) -> float:
    """The share of the pairs of neighbouring words of a text that came before in it; 0 for fewer than three words."""
    words = reply.lower().split()
    pairs = list(zip(words, words[1:]))
    return 1 - len(set(pairs)) / len(pairs) if len(pairs) > 1 else 0.0


def opening(reply: str) -> str:
    """The first two words of a text in small letters, without the marks around them."""
    return " ".join(re.findall(r"[\w'’]+", reply.lower())[:2])


def openings(replies: ReplyTexts) -> list[str]:
    """The commonest openings, at most `OPENINGS`, that divide the replies to at least `VARIED` prompts."""
    divided: Counter[str] = Counter()
    for texts in replies:
        begun = Counter(map(opening, texts))
        divided.update(phrase for phrase, count in begun.items() if phrase and count < len(texts))
    return [phrase for phrase, prompts in divided.most_common(OPENINGS) if prompts >= VARIED]


def correlations(
    rewards: ArrayLike, probes: dict[str, NDArray[np.float64]], prompts: NDArray[np.int64] | None = None
) -> dict[str, Interval]:
    """{probe: [correlation of the reward with it within prompts, low, high]}; those without spread are left out.

    prompts: (prompts,), a number for each, where equal numbers are one prompt.
    """
    results = {name: statistics.within_correlation(rewards, feature, prompts) for name, feature in probes.items()}
    return {name: interval for name, interval in results.items() if interval is not None}


def examples(
    prompts: Sequence[str], replies: ReplyTexts, rewards: ArrayLike, ground_truth: ArrayLike | None = None
) -> list[BestAndWorst]:
    """The prompts where reward and ground truth disagree most, with the replies that the reward likes best and least.

    Those of the most negative covariance, at most `EXAMPLES`, and each prompt once; without a ground truth those of the
    largest reward variance. rewards, ground_truth: (prompts, replies), NaN where there is none.
    """
    rewards = np.asarray(rewards, dtype=float)
    truth = None if ground_truth is None else np.asarray(ground_truth, dtype=float)
    measure = statistics.covariances(rewards, rewards if truth is None else truth)
    ranked = np.argsort(-measure if truth is None else measure, kind="stable")
    by_prompt: dict[str, BestAndWorst] = {}
    for row in ranked[np.isfinite(measure[ranked])]:
        if (measure[row] <= 0 if truth is None else measure[row] >= 0) or len(by_prompt) == EXAMPLES:
            break
        best, worst = int(np.nanargmax(rewards[row])), int(np.nanargmin(rewards[row]))
        example: dict[str, Any] = {"prompt": prompts[row], "measure": float(measure[row])}
        for name, reply in (("best", best), ("worst", worst)):
            example[name] = replies[row][reply]
            example[f"{name}_reward"] = float(rewards[row, reply])
            known = truth is not None and np.isfinite(truth[row, reply])
            example[f"{name}_truth"] = float(truth[row, reply]) if truth is not None and known else None
        by_prompt.setdefault(prompts[row], BestAndWorst(**example))  # type: ignore[typeddict-item]  # its keys, made in a loop
    return list(by_prompt.values())


def _each(replies: ReplyTexts, function: Any) -> NDArray[np.float64]:
    return np.array([[float(function(reply)) for reply in texts] for texts in replies])
