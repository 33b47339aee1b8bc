"""Rewards of an audit's replies by one reward model: a file of scores, a function, or a model, kept in the folder."""

import json
import math
import pathlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rvlib.audit import scoring
from rvlib.audit.scored_files import ScoreColumn
from rvlib.audit.scoring import ModelScores, Rewards, Score, Texts
from rvlib.audit.stamps import stamp
from rvlib.files import fingerprint, write_text
from rvlib.lm import processes
from rvlib.lm.models import reward_models
from rvlib.lm.models.reward_functions import ClassifierReward

FORMAT = 1  # of how models read texts: one more, and what was scored before is scored again

RewardModel = str | pathlib.Path | Score | ScoreColumn


@dataclass(frozen=True)
class ScoringSettings:
    """How replies are scored, and where scores are kept."""

    folder: pathlib.Path
    dtype: str
    compare_dtype: str | None
    batch_size: int | None
    trust_remote_code: bool
    progress: bool


def texts_of(texts: Texts) -> tuple[list[str], list[list[str]]]:
    """The texts of prompts, and the replies to them."""
    return [prompt.text for prompt in texts.prompts], texts.replies


def model_scores(
    label: str, reward_model: RewardModel, drawn: Texts, preferred: Texts, settings: ScoringSettings
) -> ModelScores:
    """Rewards of both kinds of texts, from a file in the folder where they were written before."""
    if isinstance(reward_model, ScoreColumn):
        known = reward_model.scores(*texts_of(drawn), *texts_of(preferred))
        return ModelScores(_with_none(known.rewards), _with_none(known.preferences))
    if callable(reward_model):
        return scoring.score_all(
            reward_model, drawn, preferred, label, scoring.ChunkFile(None), progress=settings.progress
        )
    contents = [[[vars(prompt) for prompt in texts.prompts], texts.replies] for texts in (drawn, preferred)]
    dtype, compare_dtype = settings.dtype, settings.compare_dtype
    key = fingerprint([FORMAT, str(reward_model), dtype, compare_dtype, stamp(reward_model), contents])[:12]
    path, chunks = settings.folder / f"scores-{key}.json", settings.folder / f"scores-{key}.partial.jsonl"
    if not path.exists():

        def load(dtype: str) -> Any:
            score = reward_models.load_reward_model(
                reward_model, dtype=dtype, trust_remote_code=settings.trust_remote_code
            )
            if settings.batch_size and isinstance(score, ClassifierReward):
                return replace(score, batch_size=settings.batch_size)
            return score

        score = load(dtype)
        scores = scoring.score_all(
            score, drawn, preferred, label, scoring.ChunkFile(chunks), progress=settings.progress
        )
        if isinstance(score, ClassifierReward):
            other_precisions = [] if compare_dtype in (None, dtype) else [load(str(compare_dtype))]
            prompt, reply = drawn.prompts[0], drawn.replies[0][0]
            scores = replace(
                scores,
                noise=scoring.noise(score, drawn, scores.rewards, other_precisions),
                reading={
                    "chat_template": bool(score.tokenizer.chat_template),
                    "example": {"prompt": prompt.name} | score.example(prompt, reply),
                    "notes": score.notes(prompt, reply),
                },
            )
        text = json.dumps(asdict(scores))

        def write() -> None:
            write_text(path, text)
            chunks.unlink(missing_ok=True)

        processes.only_first(write)
    return ModelScores(**json.loads(path.read_text(encoding="utf-8")))


def _with_none(table: ArrayLike) -> Rewards:
    """A table of rewards as lists, with None for NaN."""
    rows = np.asarray(table, dtype=float).tolist()
    return [[None if math.isnan(reward) else reward for reward in row] for row in rows]
