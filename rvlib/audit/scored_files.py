"""An audit of replies and scores from files: nothing is drawn or scored here, and no language model is needed."""

import os.path
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rvlib import _checks
from rvlib.audit.assembly import Records, ScoredReplies, Scores, assemble, made_here
from rvlib.audit.audited import Audit
from rvlib.audit.exchange import ScoreTable, read_replies, read_scores
from rvlib.audit.outcome import UNNAMED_POLICY
from rvlib.lm.data.prompts import Preference
from rvlib.lm.experiments import cost

ScoresFile = str | pathlib.Path | ScoreTable  # a table is a file that was read


@dataclass(frozen=True)
class ScoreColumn:
    """One named score of a file, which takes the place of a reward model."""

    table: ScoreTable
    name: str

    def scores(
        self,
        prompts: Sequence[str],
        replies: Sequence[Sequence[str]],
        pair_prompts: Sequence[str] = (),
        pairs: Sequence[Sequence[str]] = (),
    ) -> Scores:
        """The `Scores` of the replies, and of the pairs (chosen and rejected reply), none where the file has none."""
        preferences = self.table.preferences(self.name, pair_prompts, pairs)
        return Scores(self.table.rewards(self.name, prompts, replies), () if preferences is None else preferences)


def audit_files(
    replies: str | pathlib.Path,
    scores: Sequence[ScoresFile] | ScoresFile,
    *,
    ground_truth: str | None = None,
    policy: str | None = None,
    num_generations: int | None = None,
    limit: int | None = None,
    group: int | None = None,
    min_scored: float = 0.9,
    texts: bool = True,
    folder: str | pathlib.Path | None = None,
    command: str | None = None,
) -> Audit:
    """The `Audit` of replies and scores from files; nothing is drawn, and neither torch nor transformers is needed.

    replies, scores: as `exchange` describes them; scores may be tables that were read. ground_truth: the score that
    says what you want, "FILE:name" where two files have one of that name; all others are audited as reward models.
    policy: what the report calls it. group: replies to a prompt from which a step of training learns. min_scored: the
    share of the prompts of which at least two replies must have each score, and with it the ground truth. texts:
    whether the report keeps replies to look at. Written into `folder`, if one is named.
    OSError or ValueError, in one sentence, for what is wrong.
    """
    files = [scores] if isinstance(scores, (str, pathlib.Path, ScoreTable)) else list(scores)
    if not files:
        raise ValueError("scores must be at least one file of scores, got none.")
    drawn = read_replies(replies, num_generations=num_generations, limit=limit)
    check_group(group, len(drawn.replies[0]))
    min_scored = _checks.number("min_scored", min_scored, low=0, high=1)
    compared, no_pairs = different_pairs(drawn.pairs)
    prompts, pair_prompts = [prompt.text for prompt in drawn.prompts], [pair.prompt.text for pair in compared]
    pairs = [[pair.chosen, str(pair.rejected)] for pair in compared]
    columns = score_columns(files)
    truth_label = None if ground_truth is None else score_label(columns, ground_truth)
    names = [name for name in columns if name != truth_label]
    if not names:
        no_scores = [name for column in columns.values() for name in column.table.no_scores]
        beside = f" beside {', '.join(no_scores)}, without numbers" if no_scores else " alone"
        raise ValueError(f"There must be a score beside the ground truth, got {ground_truth!r}{beside}; add a column.")
    if ground_truth is not None and truth_label is None:
        raise ValueError(f"The ground truth must be one of the scores {', '.join(columns)}, got {ground_truth!r}.")

    scores_of = {name: column.scores(prompts, drawn.replies, pair_prompts, pairs) for name, column in columns.items()}
    truth = None if truth_label is None else scores_of[truth_label]
    few_scores = _few_scores({name: scores_of[name] for name in names}, truth, min_scored)
    audit = assemble(
        {name: scores_of[name] for name in names},
        truth,
        ScoredReplies(
            prompts=prompts,
            replies=drawn.replies,
            log_probs=drawn.log_probs,
            pair_prompts=pair_prompts,
            names=[prompt.name for prompt in drawn.prompts],
            left_out=[
                *drawn.left_out,
                *no_pairs,
                *few_scores,
                *notes_on_scores(columns, prompts, drawn.replies, pair_prompts, pairs, texts=texts),
            ],
            ended=drawn.ended,
        ),
        Records({"name": policy or UNNAMED_POLICY}, pathlib.Path(replies).name, made_here(command), {}, truth_label),
        group=group,
        texts=texts,
    )
    if folder is not None:
        audit.write(folder)
    return audit


def _few_scores(reward_models: Mapping[str, Scores], truth: Scores | None, min_scored: float) -> list[str]:
    """A sentence for each score with prompts or pairs from which it cannot be measured, alone or with the ground truth.

    ValueError, in one sentence, where fewer than the share `min_scored` of the prompts can be measured.
    """
    sentences = []
    for name, scores in reward_models.items():
        known = np.isfinite(scores.rewards) & (True if truth is None else np.isfinite(truth.rewards))
        measured, prompts = int((known.sum(-1) > 1).sum()), len(known)
        with_truth = "" if truth is None else ", and with it the ground truth,"
        if measured < min_scored * prompts:
            raise ValueError(
                f"A score{with_truth} must be there for at least two replies to at least {min_scored:.0%} of the "
                f"prompts, got {measured} of {prompts} by {name}; add scores, or lower --min-scored (min_scored)."
            )
        if measured < prompts:
            by_both = "" if truth is None else " and the ground truth"
            sentences.append(
                f"{prompts - measured} of {prompts} prompts: fewer than two replies known to {name}{by_both}"
            )
        pairs = np.isfinite(np.asarray(scores.preferences, dtype=float).reshape(-1, 2)).all(-1)
        if not pairs.all():
            sentences.append(f"{(~pairs).sum()} of {len(pairs)} pairs: no scores of both replies by {name}")
    return sentences


def different_pairs(pairs: Sequence[Preference]) -> tuple[list[Preference], list[str]]:
    """The pairs whose two texts differ, and a sentence on each of the others."""
    same = [
        f"{pair.prompt.name}: chosen and rejected replies that are the same"
        for pair in pairs
        if pair.chosen == pair.rejected
    ]
    return [pair for pair in pairs if pair.chosen != pair.rejected], same


def names_a_model(name: str | None) -> bool:
    """Whether the ground truth is a model to score with, and not a column of scores."""
    return name is not None and ("/" in name or name in cost.MODELS or os.path.isdir(name))


def check_group(group: int | None, num_generations: int) -> None:
    """ValueError, in one sentence, unless `group` replies can be taken of each prompt's."""
    if group is not None and not 2 <= group <= num_generations:
        raise ValueError(
            f"group must be from 2 to the {num_generations} replies that each prompt has, got {group}; "
            "set --group, or draw more replies with --num-generations."
        )


def score_columns(files: Sequence[ScoresFile], taken: Iterable[str] = ()) -> dict[str, ScoreColumn]:
    """{label: its scores} of all files; scores of one name from two files are told apart by the files' names.

    taken: the labels of reward models, from which scores are told apart in the same way.
    """
    tables = [file if isinstance(file, ScoreTable) else read_scores(file) for file in files]
    places = [file.source if isinstance(file, ScoreTable) else str(file) for file in files]
    if len({table.source for table in tables}) < len(tables):
        raise ValueError(
            f"Files of scores must differ in their names, got {', '.join(places)}; rename or leave out one."
        )
    names = [*taken, *(name for table in tables for name in table.scores)]
    return {
        (name if names.count(name) == 1 else f"{table.source}:{name}"): ScoreColumn(table, name)
        for table in tables
        for name in table.scores
    }


def score_label(columns: Mapping[str, ScoreColumn], name: str) -> str | None:
    """The label of the score that one calls so, or by its file too, "FILE:name"; None where there is none."""
    return next(
        (label for label, score in columns.items() if name in (label, f"{score.table.source}:{score.name}")), None
    )


def check_one_meaning(columns: Mapping[str, ScoreColumn], ground_truth: str) -> None:
    """ValueError, in one sentence, where the name of a score is also that of a model to score with."""
    files = [score.table.source for score in columns.values() if score.name == ground_truth]
    if files and (ground_truth in cost.MODELS or os.path.isdir(ground_truth)):
        raise ValueError(
            f"The ground truth must be a name of one thing, got {ground_truth!r}, a reward model and a score of "
            f"{' and '.join(files)}; name the score by {files[0]}:{ground_truth}, or rename it for the reward model."
        )


def notes_on_scores(
    columns: Mapping[str, ScoreColumn],
    prompts: Sequence[str],
    replies: Sequence[Sequence[str]],
    pair_prompts: Sequence[str] = (),
    pairs: Sequence[Sequence[str]] = (),
    *,
    texts: bool = True,
) -> list[str]:
    """Sentences on columns that hold no scores, and on scores of none of these replies; texts: with an example."""
    rows = [*zip(prompts, replies), *zip(pair_prompts, pairs)]
    keys = {(prompt, reply) for prompt, row in rows for reply in row}
    tables = {id(column.table): column.table for column in columns.values()}
    no_scores = [
        f"columns of {table.source} that hold no scores: {', '.join(table.no_scores)}"
        for table in tables.values()
        if table.no_scores
    ]
    unmatched = [table.unmatched(keys, texts=texts) for table in tables.values()]
    return [*no_scores, *(sentence for sentence in unmatched if sentence is not None)]
