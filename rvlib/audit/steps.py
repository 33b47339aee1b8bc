"""The steps of an audit before its report: what is asked for, the replies, read or drawn, and their scores."""

import pathlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvlib.audit import assembly, scoring
from rvlib.audit.exchange import Replies, read_replies
from rvlib.audit.fitting import readable_examples, readable_replies
from rvlib.audit.model_scores import RewardModel, ScoringSettings, model_scores
from rvlib.audit.outcome import TRUTH_LABEL
from rvlib.audit.scored_files import different_pairs
from rvlib.audit.scoring import ModelScores, Rewards, Texts
from rvlib.audit.stamps import stamp
from rvlib.files import data_folder, fingerprint
from rvlib.lm.data.files import list_bad_lines
from rvlib.lm.data.prompts import Example, Preference, Prompt
from rvlib.lm.models import policies
from rvlib.lm.models.reading import Reader
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.replies import Sampling, sample_replies, sampling_seconds

FORMAT = 2  # of what is kept in a folder: 1 had replies without their special tokens
GROUND_TRUTH_LABEL = TRUTH_LABEL  # among the reward models


@dataclass(frozen=True)
class Request:
    """What is to be audited: prompts, some with a pair of replies, and the replies themselves if a file has them.

    left_out: sentences on lines of the file that are not taken.
    """

    examples: list[Example]
    num_generations: int
    left_out: list[str]
    replies: Replies | None = None

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts of the examples."""
        return [example.prompt for example in self.examples]


@dataclass(frozen=True)
class AuditedReplies:
    """The replies that are audited, and the folder where scores are kept.

    source: of the policy, for the report. seconds: what it took to draw them.
    """

    replies: Replies
    folder: pathlib.Path
    source: dict[str, Any]
    seconds: dict[str, float]

    @property
    def drawn(self) -> Texts:
        """The prompts with the policy's replies."""
        return Texts(self.replies.prompts, self.replies.replies)

    @property
    def preferred(self) -> Texts:
        """The prompts of the pairs, with the preferred and the other reply."""
        pairs = self.replies.pairs
        return Texts([pair.prompt for pair in pairs], [[pair.chosen, str(pair.rejected)] for pair in pairs])


@dataclass(frozen=True)
class CommonScores:
    """The replies that every reward model has scored, with the scores of each, by label; left_out: the other prompts'.

    seconds: what each reward model took.
    """

    replies: Replies
    preferred: Texts
    scores: dict[str, assembly.Scores]
    left_out: list[str]
    seconds: dict[str, float]


def read_request(path: str | pathlib.Path, num_generations: int | None, limit: int | None) -> Request:
    """What a file of replies asks for."""
    replies = read_replies(path, num_generations=num_generations, limit=limit)
    examples = [Example(prompt) for prompt in replies.prompts]
    return Request(examples, len(replies.replies[0]), list(replies.left_out), replies)


def _pairs(examples: Sequence[Example]) -> list[Preference]:
    """The examples that have two replies."""
    return [
        Preference(example.prompt, example.chosen, example.rejected)
        for example in examples
        if example.chosen is not None and example.rejected is not None
    ]


def from_file(request: Request, policy: str, file: pathlib.Path, folder: str | pathlib.Path | None) -> AuditedReplies:
    """Replies that were drawn elsewhere; `folder` is made."""
    assert request.replies
    source: dict[str, Any] = {"name": policy}
    key = fingerprint([source, request.replies.replies, [[prompt.name, prompt.text] for prompt in request.prompts]])
    folder = pathlib.Path(folder or data_folder() / "audits" / f"{file.name.split('.')[0]}-{key[:8]}")
    folder.mkdir(parents=True, exist_ok=True)
    pairs, no_pairs = different_pairs(request.replies.pairs)
    return AuditedReplies(replace(request.replies, pairs=pairs, left_out=no_pairs), folder, source, seconds={})


def draw(
    request: Request,
    policy_name: str,
    sampling: Sampling,
    prompts: str,
    folder: str | pathlib.Path | None,
    readers: Mapping[str, Reader],
    *,
    dtype: str,
    engine: str,
    batch_size: int | None,
    skip_bad_lines: bool,
    progress: bool,
) -> AuditedReplies:
    """Replies drawn from a policy, which is freed afterwards; prompts that a model cannot read are left out."""
    policy = policies.load_policy(policy_name, dtype=dtype)
    policy = replace(policy, source=policy.source | stamp(policy_name))
    examples, left_out = readable_examples(
        request.examples, policy, readers, max_new_tokens=sampling.max_new_tokens, skip_bad_lines=skip_bad_lines
    )
    readable = [example.prompt for example in examples]
    check_counts(readable, sampling.num_generations, left_out)
    parts = [FORMAT, policy.source, asdict(sampling), [[prompt.name, prompt.text] for prompt in readable]]
    drawn_by = engines.resolved(engine, policy.model)
    key = fingerprint([*parts, *([] if drawn_by == "generate" else [drawn_by])])
    folder = pathlib.Path(folder or data_folder() / "audits" / f"{pathlib.Path(prompts.split(':')[0]).stem}-{key[:8]}")
    records = sample_replies(
        policy, readable, folder / "samples", sampling, engine=engine, batch_size=batch_size, progress=progress
    )
    source = policy.source | {"chat_template": bool(policy.tokenizer.chat_template)}
    seconds = {"sampling": round(sampling_seconds(folder / "samples"), 1)}
    pairs, no_pairs = different_pairs(_pairs(examples))
    replies = Replies(
        readable,
        [record["replies"] for record in records],
        [record["log_probs"] for record in records],
        [record["ended"] for record in records],
        pairs,
        left_out + no_pairs,
    )
    return AuditedReplies(replies, folder, source, seconds)


def score(
    audited: AuditedReplies,
    reward_models: Mapping[str, RewardModel],
    readers: Mapping[str, Reader],
    settings: ScoringSettings,
    *,
    skip_bad_lines: bool,
    min_scored: float,
) -> CommonScores:
    """The scores of all reward models, on the prompts whose replies each of them can read and has scored."""
    num_generations = len(audited.replies.replies[0])
    drawn_here = "sampling" in audited.seconds
    mask, unread = readable_replies(audited.drawn, readers, skip_bad_lines=skip_bad_lines, drawn_here=drawn_here)
    pair_mask, unread_pairs = readable_replies(
        audited.preferred, readers, ("chosen", "rejected"), skip_bad_lines=skip_bad_lines, drawn_here=drawn_here
    )
    drawn, preferred = audited.drawn.where(mask), audited.preferred.where(pair_mask)
    check_counts(drawn.prompts, num_generations, unread)
    scores: dict[str, ModelScores] = {}
    seconds: dict[str, float] = {}
    for label, reward_model in reward_models.items():
        start = time.perf_counter()
        scores[label] = model_scores(label, reward_model, drawn, preferred, settings)
        seconds["ground truth" if label == GROUND_TRUTH_LABEL else label] = round(time.perf_counter() - start, 1)
    replies = scoring.scored_by_all(drawn, {label: table.rewards for label, table in scores.items()}, min_scored)
    # A file may have none of the pairs.
    of_pairs = {label: table.preferences for label, table in scores.items() if table.preferences}
    pairs = scoring.scored_by_all(preferred, of_pairs, min_scored, "preferred and other replies")
    check_counts(drawn.where(replies.mask).prompts, num_generations, replies.left_out)

    def kept(rows: Rewards, mask: Sequence[bool]) -> NDArray[np.float64]:
        return np.array([row for row, keep in zip(rows, mask) if keep], dtype=float)

    return CommonScores(
        audited.replies.where(mask).where(replies.mask),
        preferred.where(pairs.mask),
        {
            label: assembly.Scores(
                kept(table.rewards, replies.mask),
                kept(table.preferences, pairs.mask),
                {"noise": table.noise} | table.reading,
            )
            for label, table in scores.items()
        },
        [*unread, *unread_pairs, *replies.left_out, *pairs.left_out],
        seconds,
    )


def check_counts(prompts: Sequence[Prompt], num_generations: int, left_out: Sequence[str] = ()) -> None:
    """ValueError, in one sentence, for too few prompts or replies to have an interval; left_out: why they are few."""
    count = len({prompt.text for prompt in prompts})
    if count < 2 or num_generations < 2:
        different_ones = " different" * (count < len(prompts))
        raise ValueError(
            "An audit needs at least two prompts and two replies to each, "
            f"got {count}{different_ones} and {num_generations}"
            + f" ({list_bad_lines(left_out)})" * bool(left_out)
            + "; its intervals are over prompts."
        )
