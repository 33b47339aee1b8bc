"""`rvlib audit`: is this reward model a good teacher for this policy?

Replies are drawn once, and every reward model scores them.

    reward variance   Var_{y~π}[r(x, y)]        how fast it can teach              Def. 2, arXiv 2503.15477
    accuracy          P[orders a pair as r_G]   whether it is right                Def. 1
    covariance        Cov_{y~π}[r, r_G]         both together: teachers are        `rvlib.tabular.scores`
                                                ordered by it

The variance and the covariance are of rewards in units of their standard deviation over all replies, so reward models
compare. Means and 95 % intervals are over prompts. `grading` and `report` need neither torch nor transformers.
"""

import errno
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvlib._checks import number, whole
from rvlib._terminal import sentence
from rvlib.audit import assembly, report, scoring
from rvlib.audit.arguments import parser
from rvlib.audit.exchange import Replies, read_replies, write_replies
from rvlib.audit.fitting import readable_examples, readable_replies
from rvlib.audit.grading import Audit
from rvlib.audit.model_scores import RewardModel, ScoringSettings, model_scores, texts_of
from rvlib.audit.planning import resolved_dtype, show_plan
from rvlib.audit.scored_files import ScoreColumn, check_group, score_columns, unmatched_scores
from rvlib.audit.scoring import ModelScores, Rewards, Texts
from rvlib.audit.stamps import stamp
from rvlib.audit.statistics import MANTISSA
from rvlib.files import data_folder, fingerprint
from rvlib.lm import origin, processes
from rvlib.lm.data.files import list_bad_lines, read_examples
from rvlib.lm.data.prompts import Example, Preference, Prompt
from rvlib.lm.models import policies
from rvlib.lm.models.reading import Reader
from rvlib.lm.models.reward_models import check_references, load_reader
from rvlib.lm.sampling.replies import Sampling, sample_replies, sampling_seconds

FORMAT = 2  # of what is kept in a folder: 1 had replies without their special tokens
GROUND_TRUTH = "the ground truth"  # its label among the reward models
DISK_FULL = "The disk is full; make room, or choose another with --folder: the same command goes on from what is on it."
NUM_GENERATIONS = 8  # replies to each prompt


def audit(
    policy: str | pathlib.Path | None,
    reward_models: Sequence[str | pathlib.Path] | Mapping[str, RewardModel],
    prompts: str | pathlib.Path | None = None,
    *,
    ground_truth: RewardModel | None = None,
    replies: str | pathlib.Path | None = None,
    scores: Sequence[str | pathlib.Path] = (),
    export: str | pathlib.Path | None = None,
    num_generations: int | None = None,
    group: int | None = None,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    dtype: str = "float32",
    engine: str = "auto",
    batch_size: int | None = None,
    limit: int | None = None,
    column: str | None = None,
    skip_bad_lines: bool = False,
    min_scored: float = 0.9,
    compare_dtype: str | None = None,
    trust_remote_code: bool = False,
    dry_run: bool = False,
    texts: bool = True,
    folder: str | pathlib.Path | None = None,
    progress: bool = True,
    command: str | None = None,
) -> Audit | None:
    """Draw replies of a policy, score them with each reward model, and say what kind of teacher it is: an `Audit`.

    policy: a name (`policies.load_policy`). reward_models: names (`reward_models.load_reward_model`), or {label: a name
    or a function score(prompts, replies) → (prompts, replies)}. Where a function gives None for a reply, its prompt is
    left out for all reward models, and at least the share `min_scored` of the prompts must remain. prompts, column: as
    `read_examples` takes them. ground_truth: a name or such a function, or a column of `scores`. num_generations:
    replies to each prompt, 8 by default. replies: a file of replies drawn elsewhere (`exchange`), in place of prompts
    and sampling; scores: files of scores, which are audited beside the reward models. export: write the replies that
    were drawn to this file and return None, as dry_run does when it has shown the plan. group: as in `grade`.
    texts: whether the report keeps the replies that show what a reward model likes. engine, batch_size: as in
    `sample_replies`; batch_size is also the number of texts in a batch of a reward model. dtype: "auto" is bfloat16 on
    a GPU; compare_dtype: a second precision, whose difference from `dtype` counts as noise. Several processes
    (`rvlib.lm.processes`) share sampling and scoring. What was drawn and scored stays in `folder` (one of the data
    folder by default), and a run that was cut off goes on from there. OSError or ValueError, in one sentence, for what
    is missing or wrong.
    """
    labelled_models: dict[str, RewardModel] = dict(
        reward_models if isinstance(reward_models, Mapping) else _labelled(reward_models)
    )
    if not labelled_models and not scores and export is None:
        raise ValueError("reward_models must name at least one reward model, got none.")
    dtype = resolved_dtype(dtype)
    if replies is not None:
        request = _read_replies(replies, num_generations, limit)
    elif policy is None or prompts is None:
        raise ValueError("An audit needs a policy and prompts, or a file of replies; name --policy and --prompts.")
    else:
        examples, bad_lines = read_examples(
            prompts, limit=limit, skip_bad_lines=skip_bad_lines, seed=seed, column=column
        )
        request = _Request(examples, NUM_GENERATIONS if num_generations is None else num_generations, bad_lines)
    num_generations = request.num_generations
    _check_counts(request.prompts, num_generations)
    check_group(group, num_generations)
    number("min_scored", min_scored, low=0, high=1)
    batch_size = None if batch_size is None else whole("batch_size", batch_size)
    if compare_dtype not in (None, *MANTISSA):
        raise ValueError(f"compare_dtype must be one of {', '.join(MANTISSA)}, got {compare_dtype!r}.")
    columns = score_columns(scores, taken=labelled_models)
    truth_model = columns.pop(ground_truth, ground_truth) if isinstance(ground_truth, str) else ground_truth
    labelled_models |= columns
    if GROUND_TRUTH in labelled_models:
        raise ValueError(f"reward_models must not be called {GROUND_TRUTH!r}, the label of ground_truth; rename it.")
    scorers = labelled_models | ({} if truth_model is None else {GROUND_TRUTH: truth_model})
    # Before the long part, what can be said of models without their weights.
    named = {label: model for label, model in scorers.items() if isinstance(model, (str, pathlib.Path))}
    for name in named.values():
        check_references(name, request.prompts)
    all_readers = {label: load_reader(name, trust_remote_code=trust_remote_code) for label, name in named.items()}
    readers = {label: reader for label, reader in all_readers.items() if reader is not None}
    sampling = Sampling(
        num_generations=num_generations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    )
    if progress or dry_run:
        if request.replies:  # nothing is drawn: each reply is scored with its prompt
            rows = zip(request.prompts, request.replies.replies)
            show_plan(None, named, [prompt.text + reply for prompt, row in rows for reply in row], 1, 0, dtype)
        else:
            texts_to_plan = [prompt.text for prompt in request.prompts]
            show_plan(policy, named, texts_to_plan, num_generations, max_new_tokens, dtype)
        if dry_run:
            return None
    file = pathlib.Path(str(replies or prompts))
    if request.replies:
        audited = _from_file(request, str(policy or "the policy"), file, folder)
    else:
        audited = _draw(
            request,
            str(policy),
            sampling,
            str(prompts),
            folder,
            readers,
            dtype=dtype,
            engine=engine,
            batch_size=batch_size,
            skip_bad_lines=skip_bad_lines,
            progress=progress,
        )
    drawn, preferred = audited.drawn, audited.preferred
    if export is not None:
        exported = processes.only_first(lambda: write_replies(export, drawn.prompts, drawn.replies, audited.pairs))
        if progress and processes.first():
            print(f"{exported} replies to be scored: {export}")
        return None
    settings = ScoringSettings(audited.folder, dtype, compare_dtype, batch_size, trust_remote_code, progress)
    scored = _score(audited, scorers, readers, settings, skip_bad_lines=skip_bad_lines, min_scored=min_scored)
    log_probs, ended = ([record[key] for record in scored.records] for key in ("log_probs", "ended"))
    unmatched = unmatched_scores(columns, *texts_of(drawn), *texts_of(preferred))
    result = assembly.assemble(
        {label: scored.scores[label] for label in labelled_models},
        scored.scores.get(GROUND_TRUTH),
        assembly.ScoredReplies(
            prompts=[prompt.text for prompt in scored.drawn.prompts],
            replies=scored.drawn.replies,
            log_probs=None if None in log_probs else log_probs,
            pair_prompts=[prompt.text for prompt in scored.preferred.prompts],
            names=[prompt.name for prompt in scored.drawn.prompts],
            left_out=[*request.left_out, *audited.left_out, *scored.left_out, *unmatched],
            ended=None if None in ended else ended,
        ),
        assembly.Records(
            policy=audited.source,
            source=file.name if file.is_file() else str(prompts),
            sampling={"num_generations": num_generations} if request.replies else asdict(sampling),
            made=origin.record() | {"command": command, "seconds": audited.seconds | scored.seconds},
            ground_truth=None if ground_truth is None else _name(ground_truth),
        ),
        group=group,
        texts=texts,
    )
    processes.only_first(lambda: result.write(audited.folder))
    if progress and processes.first():
        print(f"Report: {audited.folder / 'audit.html'}")
    return result


@dataclass(frozen=True)
class _Request:
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
class _Audited:
    """The replies that are audited: a record for each prompt, as `sample_replies` returns it, and the pairs.

    source: of the policy, for the report. seconds: what it took to draw them. left_out: sentences on prompts that do
    not fit the models.
    """

    prompts: list[Prompt]
    records: list[dict[str, Any]]
    pairs: list[Preference]
    folder: pathlib.Path
    source: dict[str, Any]
    seconds: dict[str, float]
    left_out: list[str]

    @property
    def drawn(self) -> Texts:
        """The prompts with the policy's replies."""
        return Texts(self.prompts, [record["replies"] for record in self.records])

    @property
    def preferred(self) -> Texts:
        """The prompts of the pairs, with the preferred and the other reply."""
        return Texts(
            [pair.prompt for pair in self.pairs], [[str(pair.chosen), str(pair.rejected)] for pair in self.pairs]
        )


@dataclass(frozen=True)
class _Scored:
    """The replies that every reward model has scored, with the scores of each, by label; left_out: the other prompts'.

    records: of the prompts that are left. seconds: what each reward model took.
    """

    drawn: Texts
    preferred: Texts
    records: list[dict[str, Any]]
    scores: dict[str, assembly.Scores]
    left_out: list[str]
    seconds: dict[str, float]


def _read_replies(path: str | pathlib.Path, num_generations: int | None, limit: int | None) -> _Request:
    """What a file of replies asks for."""
    replies = read_replies(path, num_generations=num_generations, limit=limit)
    pairs = {pair.prompt.text: pair for pair in replies.pairs}
    examples = []
    for prompt in replies.prompts:
        pair = pairs.get(prompt.text)
        examples.append(Example(prompt, pair.chosen, pair.rejected) if pair else Example(prompt))
    return _Request(examples, len(replies.replies[0]), list(replies.left_out), replies)


def _pairs(examples: Sequence[Example]) -> list[Preference]:
    """The examples that have two replies."""
    return [
        Preference(example.prompt, example.chosen, example.rejected)
        for example in examples
        if example.chosen is not None and example.rejected is not None
    ]


def _from_file(request: _Request, policy: str, file: pathlib.Path, folder: str | pathlib.Path | None) -> _Audited:
    """Replies that were drawn elsewhere; `folder` is made."""
    assert request.replies
    source: dict[str, Any] = {"name": policy}
    key = fingerprint([source, request.replies.replies, [[prompt.name, prompt.text] for prompt in request.prompts]])
    folder = pathlib.Path(folder or data_folder() / "audits" / f"{file.name.split('.')[0]}-{key[:8]}")
    folder.mkdir(parents=True, exist_ok=True)
    return _Audited(
        request.prompts, request.replies.records(), _pairs(request.examples), folder, source, seconds={}, left_out=[]
    )


def _draw(
    request: _Request,
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
) -> _Audited:
    """Replies drawn from a policy, which is freed afterwards; prompts that a model cannot read are left out."""
    policy = policies.load_policy(policy_name, dtype=dtype)
    policy = replace(policy, source=policy.source | stamp(policy_name))
    examples, left_out = readable_examples(
        request.examples, policy, readers, max_new_tokens=sampling.max_new_tokens, skip_bad_lines=skip_bad_lines
    )
    readable = [example.prompt for example in examples]
    _check_counts(readable, sampling.num_generations, left_out)
    key = fingerprint([FORMAT, policy.source, asdict(sampling), [[prompt.name, prompt.text] for prompt in readable]])
    folder = pathlib.Path(folder or data_folder() / "audits" / f"{pathlib.Path(prompts.split(':')[0]).stem}-{key[:8]}")
    records = sample_replies(
        policy, readable, folder / "samples", sampling, engine=engine, batch_size=batch_size, progress=progress
    )
    source = policy.source | {"chat_template": bool(policy.tokenizer.chat_template)}
    seconds = {"sampling": round(sampling_seconds(folder / "samples"), 1)}
    return _Audited(readable, records, _pairs(examples), folder, source, seconds, left_out)


def _score(
    audited: _Audited,
    scorers: Mapping[str, RewardModel],
    readers: Mapping[str, Reader],
    settings: ScoringSettings,
    *,
    skip_bad_lines: bool,
    min_scored: float,
) -> _Scored:
    """The scores of all reward models, on the prompts whose replies each of them can read and has scored."""
    num_generations = len(audited.records[0]["replies"])
    mask, unread = readable_replies(audited.drawn, readers, skip_bad_lines=skip_bad_lines)
    pair_mask, unread_pairs = readable_replies(
        audited.preferred, readers, ("chosen", "rejected"), skip_bad_lines=skip_bad_lines
    )
    drawn, preferred = audited.drawn.where(mask), audited.preferred.where(pair_mask)
    records = [record for record, keep in zip(audited.records, mask) if keep]
    _check_counts(drawn.prompts, num_generations, unread)
    scores: dict[str, ModelScores] = {}
    seconds: dict[str, float] = {}
    for label, reward_model in scorers.items():
        start = time.perf_counter()
        scores[label] = model_scores(label, reward_model, drawn, preferred, settings)
        seconds["ground truth" if label == GROUND_TRUTH else label] = round(time.perf_counter() - start, 1)
    replies = scoring.scored_by_all(drawn, {label: each.rewards for label, each in scores.items()}, min_scored)
    of_pairs = {label: each.preferences for label, each in scores.items() if each.preferences}  # a file may have none
    pairs = scoring.scored_by_all(preferred, of_pairs, min_scored, "preferred and other replies")
    _check_counts(drawn.where(replies.mask).prompts, num_generations, replies.left_out)

    def kept(table: Rewards, mask: Sequence[bool]) -> NDArray[np.float64]:
        return np.array([row for row, keep in zip(table, mask) if keep], dtype=float)

    return _Scored(
        drawn.where(replies.mask),
        preferred.where(pairs.mask),
        [record for record, keep in zip(records, replies.mask) if keep],
        {
            label: assembly.Scores(
                kept(each.rewards, replies.mask),
                kept(each.preferences, pairs.mask),
                {"noise": each.noise} | each.reading,
            )
            for label, each in scores.items()
        },
        [*unread, *unread_pairs, *replies.left_out, *pairs.left_out],
        seconds,
    )


def _check_counts(prompts: Sequence[Prompt], num_generations: int, left_out: Sequence[str] = ()) -> None:
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


def _labelled(names: Sequence[str | pathlib.Path]) -> dict[str, str | pathlib.Path]:
    """{label: name}: the last part of each name, the whole where two would be alike."""
    last = [str(name).rstrip("/").rsplit("/", 1)[-1] for name in names]
    labels = last if len(set(last)) == len(last) else [str(name) for name in names]
    if len(set(labels)) < len(labels):
        raise ValueError(f"reward_models must name each reward model once, got {', '.join(labels)}.")
    return dict(zip(labels, names))


def _name(ground_truth: RewardModel) -> str:
    """What a report calls the ground truth."""
    if isinstance(ground_truth, ScoreColumn):
        return ground_truth.name
    if callable(ground_truth):
        return getattr(ground_truth, "name", "the ground truth")
    return next(iter(_labelled([ground_truth])))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `rvlib audit` where it needs a language model; exits with one sentence for what is wrong."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = vars(parser().parse_args(arguments))
    del options["compare"]
    try:
        processes.start()
        result = audit(
            options.pop("policy"),
            options.pop("reward_model"),
            options.pop("prompts"),
            **options,
            command=shlex.join(["rvlib", "audit", *arguments]),
        )
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        sys.exit(processes.exit_message(DISK_FULL if full else sentence(error)))
    except (ValueError, MemoryError) as error:
        sys.exit(processes.exit_message(sentence(error)))
    except KeyboardInterrupt:
        sys.exit(processes.exit_message("Stopped; the same command goes on from what was drawn and scored."))
    if result is not None and processes.first():
        report.show(result)
    processes.stop()
