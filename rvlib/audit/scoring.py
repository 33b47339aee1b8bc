"""Rewards of texts for an audit: chunk by chunk, kept as they come, with what rounding alone changes in them."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from rvlib.audit.statistics import MANTISSA, precision_step
from rvlib.files import read_lines, write_text
from rvlib.lm import processes
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models.reward_functions import ClassifierReward, check_finite

CHUNK = 16  # prompts that are lost at most where scoring is stopped
COMPARED = 8  # replies that are scored once more, each alone

Score = Callable[[Sequence[Prompt], Sequence[Sequence[str]]], ArrayLike]  # (prompts, replies) → (prompts, replies)
Rewards = list[list[float | None]]  # None where the reward model abstained


@dataclass(frozen=True)
class Texts:
    """Prompts and as many replies to each of them: what is scored."""

    prompts: list[Prompt]
    replies: list[list[str]]

    def where(self, mask: Sequence[bool]) -> "Texts":
        """Those of the prompts for which `mask` is true."""
        return Texts(
            [prompt for prompt, keep in zip(self.prompts, mask) if keep],
            [replies for replies, keep in zip(self.replies, mask) if keep],
        )


@dataclass(frozen=True)
class ModelScores:
    """Rewards of one reward model. rewards: (prompts, replies) of the policy's; preferences: (pairs, 2).

    noise: what rounding changed in a reward of a model at most, in its unit; 0 of a function. reading: how a model read
    its texts, {"chat_template", "example", "notes"}; nothing of a function.
    """

    rewards: Rewards
    preferences: Rewards
    noise: float = 0.0
    reading: dict[str, Any] = field(default_factory=dict)


class ChunkFile:
    """The chunks of rewards that were scored before a stop, in a file of JSON lines; None keeps nothing."""

    def __init__(self, path: pathlib.Path | None) -> None:
        self.path = path
        lines = [] if path is None else processes.only_first(lambda: _whole_lines(path))
        self.chunks: dict[tuple[str, int], Rewards] = {(kind, start): rewards for kind, start, rewards in lines}

    def add(self, kind: str, start: int, rewards: Rewards) -> None:
        """Write one chunk."""
        self.chunks[kind, start] = rewards
        if self.path is not None and processes.first():
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([kind, start, rewards]) + "\n")


def _whole_lines(path: pathlib.Path) -> list[Any]:
    """The lines of a file of chunks, if there is one, which is left without a line that was cut off."""
    lines = read_lines(path) if path.exists() else []
    if lines:
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return lines


def score_all(
    score: Score, drawn: Texts, preferred: Texts, label: str, chunk_file: ChunkFile, *, progress: bool
) -> ModelScores:
    """The rewards of both kinds of texts, without asking again for those that `chunk_file` has.

    ValueError, in one sentence, unless there is a finite number, or None, for each reply.
    """
    shown, rewards, world = progress and processes.first(), dict[str, Rewards](), processes.world()
    total = sum(len(texts.prompts) * len(texts.replies[0]) for texts in (drawn, preferred) if texts.prompts)
    with tqdm(total=total, desc=f"Scoring by {label}", unit="reply", disable=not shown) as bar:
        if isinstance(score, ClassifierReward):  # the bar moves with each batch of the model's
            score = replace(score, on_batch=lambda count: bar.update(min(count * world, total - bar.n)))
        done = 0
        for kind, texts in (("rewards", drawn), ("preferences", preferred)):
            starts = range(0, len(texts.prompts), CHUNK)
            for start in starts:
                chunk = Texts(texts.prompts[start : start + CHUNK], texts.replies[start : start + CHUNK])
                if (kind, start) not in chunk_file.chunks:
                    chunk_file.add(kind, start, _checked(_shared(score)(chunk.prompts, chunk.replies), chunk, label))
                done += len(chunk.prompts) * len(chunk.replies[0])
                bar.update(done - bar.n)
            rewards[kind] = [row for start in starts for row in chunk_file.chunks[kind, start]]
    return ModelScores(rewards["rewards"], rewards["preferences"])


def _shared(score: Score) -> Score:
    """The same reward, each process scoring its share of the prompts."""
    if processes.world() == 1:
        return score
    return lambda prompts, replies: processes.score(lambda p, r: np.asarray(score(p, r)), prompts, replies)


def noise(
    score: ClassifierReward, texts: Texts, rewards: Rewards, other_precisions: Sequence[ClassifierReward] = ()
) -> float:
    """What rounding alone changes in a reward at most, in its unit, as far as a few replies show it.

    The difference between a reply that goes through the model alone and in its batch; of each of `other_precisions`,
    the same model in another one, that between the two; and at least the step between two numbers of the model's own
    precision.
    """
    indices = np.unique(np.linspace(0, len(texts.prompts) - 1, COMPARED).astype(int))
    prompts, replies = [texts.prompts[i] for i in indices], [texts.replies[i][0] for i in indices]
    in_batch = np.array([rewards[i][0] for i in indices], dtype=float)
    differences = [np.abs(model.alone(prompts, replies) - in_batch).max() for model in (score, *other_precisions)]
    largest = np.abs(np.array(rewards, dtype=float)).max(keepdims=True)
    return float(max(*differences, precision_step(largest, MANTISSA[score.source["dtype"]])[0, 0]))


@dataclass(frozen=True)
class ScoredByAll:
    """Which prompts all reward models have scored. mask: (prompts,); left_out: a sentence of each of the others."""

    mask: list[bool]
    left_out: list[str]


def scored_by_all(
    texts: Texts, rewards: Mapping[str, Rewards], min_scored: float, kind: str = "replies"
) -> ScoredByAll:
    """Which prompts have a reward for every reply from each reward model, so that all are measured on the same.

    rewards: by label; kind: what a sentence calls the replies. ValueError, in one sentence, if that is less than the
    share `min_scored` of them.
    """
    left_out, mask = [], []
    for i, prompt in enumerate(texts.prompts):
        absent = {label: table[i].count(None) for label, table in rewards.items() if None in table[i]}
        mask.append(not absent)
        left_out += [
            f"{prompt.name}: {label} gave no reward to {count} of its {len(texts.replies[i])} {kind}"
            for label, count in absent.items()
        ]
    if sum(mask) < min_scored * len(mask):
        raise ValueError(
            f"Reward models must score all replies to at least {min_scored:.0%} of the prompts, got {sum(mask)} of "
            f"{len(mask)} ({left_out[0]}); correct the reward model, or lower --min-scored (min_scored)."
        )
    return ScoredByAll(mask, left_out)


def _checked(rewards: Any, texts: Texts, label: str) -> Rewards:
    """A chunk's rewards as lists of numbers, None where the reward model abstained."""
    shape = (len(texts.prompts), len(texts.replies[0]))
    rewards = rewards.detach().float().cpu().numpy() if hasattr(rewards, "detach") else rewards
    try:
        values = np.asarray(rewards, dtype=float)  # None becomes NaN
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != shape:
        given = f"shape {values.shape}" if values.size else type(rewards).__name__
        raise ValueError(
            f"A reward must be one finite number for each of {shape[0]} × {shape[1]} replies, or None for a reply that "
            f"is not scored, got {given} of {label}; return them as an array of that shape."
        )
    abstained = np.frompyfunc(lambda value: value is None, 1, 1)(np.array(rewards, dtype=object)).astype(bool)
    check_finite(label, texts.prompts, texts.replies, np.where(abstained, 0.0, values))
    return [
        [None if absent else float(f"{value:.10g}") for value, absent in zip(*row)] for row in zip(values, abstained)
    ]
