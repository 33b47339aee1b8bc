"""`rvlib audit`: is this reward model a good teacher for this policy?

Replies are drawn once, and every reward model scores them.

    reward variance   Var_{y~π}[r(x, y)]        how fast it can teach              Def. 2, arXiv 2503.15477
    accuracy          P[orders a pair as r_G]   whether it is right                Def. 1
    covariance        Cov_{y~π}[r, r_G]         both together: reward models are   `rvlib.tabular.predictors`
                                                ordered by it

The variance and the covariance are of rewards in units of their standard deviation over all replies, so reward models
compare. Means and 95 % intervals are over prompts. `measuring` and `report` need neither torch nor transformers.
"""

import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import accelerate.utils.memory

from rvlib._checks import number, whole
from rvlib._terminal import first_line, sentence
from rvlib.audit import assembly, report
from rvlib.audit.arguments import parser
from rvlib.audit.audited import Audit
from rvlib.audit.export import check_export, write_replies
from rvlib.audit.model_scores import RewardModel, ScoringSettings, texts_of
from rvlib.audit.outcome import TRUTH_LABEL, UNNAMED_POLICY, Made
from rvlib.audit.planning import resolved_dtype, show_plan
from rvlib.audit.scored_files import (
    ScoreColumn,
    ScoresFile,
    check_group,
    check_one_meaning,
    names_a_model,
    notes_on_scores,
    score_columns,
    score_label,
)
from rvlib.audit.statistics import MANTISSA
from rvlib.audit.steps import (
    GROUND_TRUTH_LABEL,
    Request,
    check_counts,
    draw,
    from_file,
    read_request,
    score,
)
from rvlib.lm import origin, processes
from rvlib.lm.data.files import read_examples
from rvlib.lm.models import reward_models as roles
from rvlib.lm.models.reward_models import check_reference_replies, load_reader
from rvlib.lm.sampling.replies import Sampling

NUM_GENERATIONS = 8  # replies to each prompt


def audit(
    policy: str | pathlib.Path | None,
    reward_models: str | pathlib.Path | Sequence[str | pathlib.Path] | Mapping[str, RewardModel],
    prompts: str | pathlib.Path | None = None,
    *,
    ground_truth: RewardModel | None = None,
    replies: str | pathlib.Path | None = None,
    scores: Sequence[ScoresFile] = (),
    export: str | pathlib.Path | None = None,
    num_generations: int | None = None,
    group: int | None = None,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    dtype: str = "auto",
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
    """Draw replies of a policy, score them with each reward model, and say how good a teacher it is: an `Audit`.

    policy: a name (`policies.load_policy`). reward_models: names (`reward_models.load_reward_model`), or {label: a name
    or a function score(prompts, replies) → (prompts, replies)}. Where a function gives None for a reply, its prompt is
    left out for all reward models, and at least the share `min_scored` of the prompts must remain. prompts, column: as
    `read_examples` takes them. ground_truth: a name or such a function, or a column of `scores`. num_generations:
    replies to each prompt, 8 by default. replies: a file of replies drawn elsewhere (`exchange`), in place of prompts
    and sampling; scores: files of scores, which are audited beside the reward models. export: write the replies that
    were drawn to this file and return None, as dry_run does when it has shown the plan. group: as in `measurements_of`.
    texts: whether the report keeps the replies that show what a reward model likes. engine, batch_size: as in
    `sample_replies`; batch_size is also the number of texts in a batch of a reward model. dtype: "auto" is bfloat16 on
    a GPU, float32 elsewhere; compare_dtype: a second precision, whose difference from `dtype` counts as noise. Several
    processes (`rvlib.lm.processes`) share sampling and scoring. What was drawn, and what models scored, stays in
    `folder` (one of the data folder by default), and a run that was cut off goes on from there. A function scores anew:
    not even its source would tell whether what it calls, holds or asks is still the same, and a score of before would
    be a wrong number that nobody sees. OSError or ValueError, in one sentence, for what is missing or wrong.
    """
    labelled_models = _labelled_models(reward_models)
    if not labelled_models and not scores and export is None:
        raise ValueError(
            "An audit needs at least one reward model, got none; name it by --reward-model, or its scores by --scores."
        )
    dtype = resolved_dtype(dtype)
    if export is not None:
        check_export(export)
    if replies is not None:
        request = read_request(replies, num_generations, limit)
    elif policy is None or prompts is None:
        raise ValueError(
            "An audit needs a policy and prompts, or a file of replies; name --policy and --prompts, or --replies."
        )
    else:
        examples, bad_lines = read_examples(
            prompts, limit=limit, skip_bad_lines=skip_bad_lines, seed=seed, column=column
        )
        request = Request(examples, NUM_GENERATIONS if num_generations is None else num_generations, bad_lines)
    num_generations = request.num_generations
    check_counts(request.prompts, num_generations)
    check_group(group, num_generations)
    number("min_scored", min_scored, low=0, high=1)
    batch_size = None if batch_size is None else whole("batch_size", batch_size)
    if compare_dtype not in (None, *MANTISSA):
        raise ValueError(f"compare_dtype must be one of {', '.join(MANTISSA)}, got {compare_dtype!r}.")
    columns = score_columns(scores, taken=labelled_models)
    truth_label = None
    if isinstance(ground_truth, str):
        check_one_meaning(columns, ground_truth)
        truth_label = score_label(columns, ground_truth)
    truth_model = ground_truth if truth_label is None else columns[truth_label]
    if columns and isinstance(truth_model, str) and not names_a_model(truth_model):
        raise ValueError(
            f"The ground truth must be one of the scores {', '.join(columns)}, or a reward model by its folder or its "
            f"name on the hub, got {truth_model!r}."
        )
    labelled_models |= {label: column for label, column in columns.items() if label != truth_label}
    if not labelled_models and export is None:
        raise ValueError(f"There must be a score beside the ground truth, got {ground_truth!r} alone; add a column.")
    if GROUND_TRUTH_LABEL in labelled_models:
        raise ValueError(
            f"reward_models must not be called {GROUND_TRUTH_LABEL!r}, the label of ground_truth; rename it."
        )
    all_models = labelled_models | ({} if truth_model is None else {GROUND_TRUTH_LABEL: truth_model})
    # Before the long part, what can be said of models without their weights.
    named = {label: model for label, model in all_models.items() if isinstance(model, (str, pathlib.Path))}
    for name in named.values():
        check_reference_replies(name, request.prompts)
    all_readers = {
        label: load_reader(
            name,
            trust_remote_code=trust_remote_code,
            role=roles.GROUND_TRUTH if label == GROUND_TRUTH_LABEL else roles.REWARD_MODEL,
        )
        for label, name in named.items()
    }
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
            show_plan(policy, named, texts_to_plan, num_generations, max_new_tokens, dtype, engine=engine)
        if dry_run:
            return None
    file = pathlib.Path(str(replies or prompts))
    if request.replies:
        audited = from_file(request, str(policy or UNNAMED_POLICY), file, folder)
    else:
        audited = draw(
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
        kept = audited.replies
        known = kept.prompts, kept.replies, kept.pairs, kept.log_probs, kept.ended
        exported = processes.only_first(lambda: write_replies(export, *known))
        if progress and processes.first():
            print(f"{exported} replies to be scored: {export}")
        return None
    functions = [label for label, model in all_models.items() if callable(model)]
    if functions and progress and processes.first():
        print(f"Scores by Python functions ({', '.join(functions)}) are not kept: after a stop they are made anew.")
    settings = ScoringSettings(audited.folder, dtype, compare_dtype, batch_size, trust_remote_code, progress)
    scored = score(audited, all_models, readers, settings, skip_bad_lines=skip_bad_lines, min_scored=min_scored)
    of_scores = notes_on_scores(columns, *texts_of(drawn), *texts_of(preferred), texts=texts)
    here = origin.record()
    result = assembly.assemble(
        {label: scored.scores[label] for label in labelled_models},
        scored.scores.get(GROUND_TRUTH_LABEL),
        assembly.ScoredReplies(
            prompts=[prompt.text for prompt in scored.replies.prompts],
            replies=scored.replies.replies,
            log_probs=scored.replies.log_probs,
            pair_prompts=[prompt.text for prompt in scored.preferred.prompts],
            names=[prompt.name for prompt in scored.replies.prompts],
            left_out=[*request.left_out, *audited.replies.left_out, *scored.left_out, *of_scores],
            ended=scored.replies.ended,
        ),
        assembly.Records(
            policy=audited.source,
            source=file.name if file.is_file() else str(prompts),
            sampling={"num_generations": num_generations} if request.replies else asdict(sampling),
            made=Made(
                date=here["date"],
                git_commit=here["git_commit"],
                versions=here["versions"],
                device=here["device"],
                command=command,
                seconds=audited.seconds | scored.seconds,
            ),
            ground_truth=None if ground_truth is None else truth_label or _name(ground_truth),
        ),
        group=group,
        texts=texts,
    )
    processes.only_first(lambda: result.write(audited.folder))
    if progress and processes.first():
        print(f"Report: {audited.folder / 'audit.html'}")
    return result


def _labelled_models(reward_models: Any) -> dict[str, RewardModel]:
    """{label: reward model} of what `audit` takes; ValueError, in one sentence, for anything else."""
    if isinstance(reward_models, (str, pathlib.Path)):
        reward_models = [reward_models]
    labelled = isinstance(reward_models, Mapping)
    if callable(reward_models) or not all(
        assembly.is_label(name) if labelled else isinstance(name, (str, pathlib.Path)) for name in reward_models
    ):
        raise ValueError(
            "reward_models must be names, or {label: a name or a function} with texts of one line as labels, got "
            f"{str(reward_models)[:60]}."
        )
    return dict(reward_models if labelled else _labelled(reward_models))


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
        return getattr(ground_truth, "name", TRUTH_LABEL)
    return next(iter(_labelled([ground_truth])))


def _explained(error: RuntimeError | MemoryError, batch_size: int | None) -> str:
    """What stopped sampling or scoring, as a sentence that says what to do."""
    goes_on = "the same command goes on from what was drawn and scored"
    if isinstance(error, MemoryError) or accelerate.utils.memory.should_reduce_batch_size(error):
        given = "" if batch_size is None else f" than {batch_size}"
        return f"Memory ran out ({first_line(error)}); give a lower --batch-size{given}, and {goes_on}."
    text = str(error)
    if text.endswith(".") and "\n" not in text:  # a sentence of this library's
        return text
    return (
        f"All replies must be drawn and scored, but that stopped ({first_line(error)}); try --engine generate or "
        f"--dtype float32, and otherwise {goes_on}."
    )


def main(arguments: Sequence[str], scores: Sequence[ScoresFile]) -> None:
    """The command `rvlib audit` where it needs a language model; exits with one sentence for what is wrong.

    scores: the files of `--scores`, or what they hold.
    """
    options = vars(parser().parse_args(arguments)) | {"scores": scores}
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
    except (OSError, ValueError) as error:
        sys.exit(processes.exit_message(sentence(error)))
    except (RuntimeError, MemoryError) as error:
        sys.exit(processes.exit_message(_explained(error, options["batch_size"])))
    except KeyboardInterrupt:
        sys.exit(processes.exit_message("Stopped; the same command goes on from what was drawn and scored."))
    if result is not None and processes.first():
        report.show(result)
    processes.stop()
