"""`rvlib audit`: is this reward model a good teacher for this policy?

Replies are drawn once, and every reward model scores them.

    reward variance   Var_{y~π}[r(x, y)]        how fast it can teach              Def. 2, arXiv 2503.15477
    accuracy          P[orders a pair as r_G]   whether it is right                Def. 1
    covariance        Cov_{y~π}[r, r_G]         both at once: what teachers are    `rvlib.tabular.scores`
                                                ordered by

The variance and the covariance are of rewards in units of their standard deviation over all replies, so reward models
compare. Means and 95 % intervals are over prompts. `grading` and `report` need neither torch nor transformers.
"""

import errno
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from rvlib._checks import number, whole
from rvlib._terminal import sentence
from rvlib.audit import assembly, report, scoring
from rvlib.audit.arguments import parser
from rvlib.audit.exchange import read_replies, write_replies
from rvlib.audit.fitting import readable_examples, readable_replies
from rvlib.audit.grading import Audit
from rvlib.audit.model_scores import RewardModel, ScoringSettings, model_scores, texts_of
from rvlib.audit.planning import resolved_dtype, show_plan
from rvlib.audit.scored_files import ScoreColumn, check_group, different_pairs, names_a_model, score_columns, strangers
from rvlib.audit.scoring import Scores, Texts
from rvlib.audit.stamps import stamp
from rvlib.audit.statistics import MANTISSA
from rvlib.files import data_folder, fingerprint
from rvlib.lm import origin, processes
from rvlib.lm.data.files import list_bad_lines, read_examples
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.data.sources import Example
from rvlib.lm.models import policies
from rvlib.lm.models.reward_models import GROUND_TRUTH, REWARD_MODEL, check_references, load_reader
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.replies import Sampling, sample_replies, sampling_seconds

FORMAT = 2  # of what is kept in a folder: 1 had replies without their special tokens
THE_TRUTH = "the ground truth"  # its label among the reward models
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
    were drawn to this file and return None, as dry_run does when it has shown what is to be done. group: as in `grade`.
    texts: whether the report keeps the replies that show what a reward model likes. engine, batch_size: as in
    `sample_replies`; batch_size is also how many texts go through a reward model at once. dtype: "auto" is bfloat16 on
    a GPU; compare_dtype: a second precision, whose difference from `dtype` counts as noise. Several processes
    (`rvlib.lm.processes`) share sampling and scoring. What was drawn and scored stays in `folder` (one of the data
    folder by default), and a run that was cut off goes on from there. OSError or ValueError, in one sentence, for what
    is missing or wrong.
    """
    labelled_models: dict[str, RewardModel] = dict(
        reward_models if isinstance(reward_models, Mapping) else _labelled(reward_models)
    )
    if not labelled_models and not scores and export is None:
        raise ValueError(
            "An audit needs at least one reward model, got none; name it by --reward-model, or its scores by --scores."
        )
    dtype, brought = resolved_dtype(dtype), None
    if export is not None and not pathlib.Path(export).absolute().parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(pathlib.Path(export).parent))
    if replies is not None:
        brought = read_replies(replies, num_generations=num_generations, limit=limit)
        examples = [Example(prompt) for prompt in brought.prompts]
        bad_lines, num_generations = list(brought.left_out), len(brought.replies[0])
    elif policy is None or prompts is None:
        raise ValueError("An audit needs a policy and prompts, or a file of replies; name --policy and --prompts.")
    else:
        examples, bad_lines = read_examples(
            prompts, limit=limit, skip_bad_lines=skip_bad_lines, seed=seed, column=column
        )
        num_generations = NUM_GENERATIONS if num_generations is None else num_generations
    _check_counts([example.prompt for example in examples], num_generations)
    check_group(group, num_generations)
    number("min_scored", min_scored, low=0, high=1)
    batch_size = None if batch_size is None else whole("batch_size", batch_size)
    if compare_dtype not in (None, *MANTISSA):
        raise ValueError(f"compare_dtype must be one of {', '.join(MANTISSA)}, got {compare_dtype!r}.")
    columns = score_columns(scores, taken=labelled_models)
    truth_model = columns.pop(ground_truth, ground_truth) if isinstance(ground_truth, str) else ground_truth
    if columns and isinstance(truth_model, str) and not names_a_model(truth_model):
        raise ValueError(
            f"The ground truth must be one of the scores {', '.join(columns)}, or a reward model by its folder or its "
            f"name on the hub, got {truth_model!r}."
        )
    labelled_models |= columns
    if THE_TRUTH in labelled_models:
        raise ValueError(f"reward_models must not be called {THE_TRUTH!r}, the label of ground_truth; rename it.")
    scorers = labelled_models | ({} if truth_model is None else {THE_TRUTH: truth_model})
    # Before the long part, what can be said of models without their weights.
    named = {label: model for label, model in scorers.items() if isinstance(model, (str, pathlib.Path))}
    for name in named.values():
        check_references(name, [example.prompt for example in examples])
    readers = {
        label: load_reader(
            name, trust_remote_code=trust_remote_code, role=GROUND_TRUTH if label == THE_TRUTH else REWARD_MODEL
        )
        for label, name in named.items()
    }
    sampling = Sampling(
        num_generations=num_generations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    )
    if progress or dry_run:
        known = brought and [p.text + reply for p, row in zip(brought.prompts, brought.replies) for reply in row]
        asked = known or [example.prompt.text for example in examples]
        lengths = (1, 0) if known else (num_generations, max_new_tokens)
        show_plan(None if brought else policy, named, asked, *lengths, dtype, engine=engine)
        if dry_run:
            return None
    misfits: list[str] = []
    reading = {label: reader for label, reader in readers.items() if reader is not None}
    seconds: dict[str, float] = {}
    if brought:
        source: dict[str, Any] = {"name": str(policy or "the policy")}
        records = brought.records()
        audited = brought.prompts
        key = fingerprint([source, brought.replies, [[p.name, p.text] for p in audited]])
        place = pathlib.Path(str(replies)).name.split(".")[0]
        folder = pathlib.Path(folder or data_folder() / "audits" / f"{place}-{key[:8]}")
        folder.mkdir(parents=True, exist_ok=True)
    else:
        loaded_policy = policies.load_policy(str(policy), dtype=dtype)
        loaded_policy = replace(loaded_policy, source=loaded_policy.source | stamp(str(policy)))
        examples, misfits = readable_examples(
            examples, loaded_policy, reading, max_new_tokens=max_new_tokens, skip_bad_lines=skip_bad_lines
        )
        audited = [example.prompt for example in examples]
        _check_counts(audited, num_generations, misfits)
        known_by = [FORMAT, loaded_policy.source, asdict(sampling), [[p.name, p.text] for p in audited]]
        drawn_by = engines.chosen(engine, loaded_policy.model)
        key = fingerprint([*known_by, *([] if drawn_by == "generate" else [drawn_by])])
        folder = pathlib.Path(
            folder or data_folder() / "audits" / f"{pathlib.Path(str(prompts).split(':')[0]).stem}-{key[:8]}"
        )
        records = sample_replies(
            loaded_policy,
            audited,
            folder / "samples",
            sampling,
            engine=engine,
            batch_size=batch_size,
            progress=progress,
        )
        source, seconds = loaded_policy.source, {"sampling": round(sampling_seconds(folder / "samples"), 1)}
        source |= {"chat_template": bool(loaded_policy.tokenizer.chat_template)}
        del loaded_policy  # a reward model may need its memory

    pairs = [
        (example.prompt, example.chosen, example.rejected)
        for example in examples
        if example.chosen is not None and example.rejected is not None
    ]
    pairs += brought.pairs if brought else []
    pairs, no_pairs = different_pairs(pairs)
    drawn = Texts(audited, [record["replies"] for record in records])
    preferred = Texts([prompt for prompt, *_ in pairs], [[chosen, rejected] for _, chosen, rejected in pairs])
    if export is not None:
        of_replies = [_known(records, key, audited) for key in ("log_probs", "ended")]
        exported = processes.only_first(lambda: write_replies(export, audited, drawn.replies, pairs, *of_replies))
        if progress and processes.first():
            print(f"{exported} replies to be scored: {export}")
        return None
    known_texts = (*texts_of(drawn), *texts_of(preferred))
    mask, unread = readable_replies(drawn, reading, skip_bad_lines=skip_bad_lines)
    pair_mask, unread_pairs = readable_replies(
        preferred, reading, ("chosen", "rejected"), skip_bad_lines=skip_bad_lines
    )
    drawn, preferred = drawn.where(mask), preferred.where(pair_mask)
    _check_counts(drawn.prompts, num_generations, unread)
    settings = ScoringSettings(folder, dtype, compare_dtype, batch_size, trust_remote_code, progress)
    scores_of: dict[str, Scores] = {}
    for label, reward_model in scorers.items():
        start = time.perf_counter()
        scores_of[label] = model_scores(label, reward_model, drawn, preferred, settings)
        seconds["ground truth" if label == THE_TRUTH else label] = round(time.perf_counter() - start, 1)
    unknown = strangers(columns, *known_texts)
    scored = scoring.scored_by_all(drawn, {label: each.rewards for label, each in scores_of.items()}, min_scored)
    of_pairs = {
        label: each.preferences for label, each in scores_of.items() if each.preferences
    }  # a file may have none
    scored_pairs = scoring.scored_by_all(preferred, of_pairs, min_scored, "preferred and other replies")
    drawn, preferred = drawn.where(scored.mask), preferred.where(scored_pairs.mask)
    _check_counts(drawn.prompts, num_generations, scored.left_out)

    def cleaned(scores: Scores) -> assembly.Scores:
        rewards, preferences = (
            np.array([row for row, keep in zip(rewards, mask) if keep], dtype=float)
            for rewards, mask in ((scores.rewards, scored.mask), (scores.preferences, scored_pairs.mask))
        )
        return assembly.Scores(rewards, preferences, {"noise": scores.noise} | scores.reading)

    file = pathlib.Path(str(replies or prompts))
    result = assembly.assemble(
        {label: cleaned(scores_of[label]) for label in labelled_models},
        cleaned(scores_of[THE_TRUTH]) if THE_TRUTH in scores_of else None,
        assembly.Drawn(
            prompts=[prompt.text for prompt in drawn.prompts],
            replies=drawn.replies,
            log_probs=_known(records, "log_probs", drawn.prompts),
            pair_prompts=[prompt.text for prompt in preferred.prompts],
            names=[prompt.name for prompt in drawn.prompts],
            left_out=[
                *bad_lines,
                *misfits,
                *no_pairs,
                *unread,
                *unread_pairs,
                *scored.left_out,
                *scored_pairs.left_out,
                *unknown,
            ],
            ended=_known(records, "ended", drawn.prompts),
        ),
        assembly.Records(
            policy=source,
            source=file.name if file.is_file() else str(prompts),
            sampling={"num_generations": num_generations} if brought else asdict(sampling),
            made=origin.record() | {"command": command, "seconds": seconds},
            ground_truth=None if ground_truth is None else _name(ground_truth),
        ),
        group=group,
        texts=texts,
    )
    processes.only_first(lambda: result.write(folder))
    if progress and processes.first():
        print(f"Report: {folder / 'audit.html'}")
    return result


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


def _known(records: Sequence[Mapping[str, Any]], key: str, prompts: Sequence[Prompt]) -> list[Any] | None:
    """What records say under `key` of the replies to these prompts; None where it is not known of all."""
    by_name = {record["prompt"]: record[key] for record in records}
    values = [by_name[prompt.name] for prompt in prompts]
    return None if None in values else values


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
    except (OSError, ValueError, MemoryError) as error:
        sys.exit(processes.exit_message(sentence(error)))
    except KeyboardInterrupt:
        sys.exit(processes.exit_message("Stopped; the same command goes on from what was drawn and scored."))
    if result is not None and processes.first():
        report.show(result)
    processes.stop()
