"""`rvlib audit`: is this reward model a good teacher for this policy?

Replies are drawn once, and every reward model scores them.

    reward variance   Var_{y~π}[r(x, y)]        how fast it can teach              Def. 2, arXiv 2503.15477
    accuracy          P[orders a pair as r_G]   whether it is right                Def. 1
    covariance        Cov_{y~π}[r, r_G]         both at once: what teachers are    `rvlib.tabular.scores`
                                                ordered by

The variance and the covariance are of rewards in units of their standard deviation over all replies, so reward models
compare. Means and 95 % intervals are over prompts. `grading` and `report` need neither torch nor transformers.
"""

import argparse
import errno
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvlib._checks import number
from rvlib._terminal import Defaults, sentence
from rvlib.audit import report, scoring
from rvlib.audit.fitting import readable_examples
from rvlib.audit.grading import Audit, Grade, advice, grade, order_of_teachers
from rvlib.audit.scoring import Rewards, Score, Scores, Texts
from rvlib.audit.stamps import stamp
from rvlib.files import data_folder, fingerprint, write_whole
from rvlib.lm import origin
from rvlib.lm.data.files import read_examples
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.data.sources import Preference
from rvlib.lm.models import policies, reward_models
from rvlib.lm.models.reward_models import load_reader
from rvlib.lm.sampling.replies import Sampling, sample_replies, sampling_seconds

FORMAT = 2  # of what is kept in a folder: 1 had replies without their special tokens
THE_TRUTH = "the ground truth"  # its label among the reward models
FULL = "The disk is full; make room, or choose another with --folder: the same command goes on from what is on it."
RewardModel = str | pathlib.Path | Score


def audit(
    policy: str | pathlib.Path,
    reward_models: Sequence[str | pathlib.Path] | Mapping[str, RewardModel],
    prompts: str | pathlib.Path,
    *,
    ground_truth: RewardModel | None = None,
    num_generations: int = 8,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    dtype: str = "float32",
    limit: int | None = None,
    column: str | None = None,
    skip_bad_lines: bool = False,
    min_scored: float = 0.9,
    compare_dtype: str | None = None,
    trust_remote_code: bool = False,
    folder: str | pathlib.Path | None = None,
    progress: bool = True,
    command: str | None = None,
) -> Audit:
    """Draw replies of a policy, score them with each reward model, and say what kind of teacher it is: an `Audit`.

    policy: a name (`policies.load_policy`). reward_models: names (`reward_models.load_reward_model`), or {label: a name
    or a function score(prompts, replies) → (prompts, replies)}. Where a function gives None for a reply, its prompt is
    left out for all reward models, and at least the share `min_scored` of the prompts must remain. prompts, column: as
    `read_examples` takes them. ground_truth: a name or such a function. num_generations: replies to each prompt.
    compare_dtype: a second precision, whose difference from `dtype` counts as noise. What was drawn and scored stays in
    `folder` (one of the data folder by default), and a run that was cut off goes on from there. OSError or ValueError,
    in one sentence, for what is missing or wrong.
    """
    labelled_models: Mapping[str, RewardModel] = (
        reward_models if isinstance(reward_models, Mapping) else _labelled(reward_models)
    )
    if not labelled_models:
        raise ValueError("reward_models must name at least one reward model, got none.")
    examples, bad_lines = read_examples(prompts, limit=limit, skip_bad_lines=skip_bad_lines, seed=seed, column=column)
    _check_counts([example.prompt for example in examples], num_generations)
    number("min_scored", min_scored, low=0, high=1)
    if compare_dtype not in (None, *scoring.MANTISSA):
        raise ValueError(f"compare_dtype must be one of {', '.join(scoring.MANTISSA)}, got {compare_dtype!r}.")
    if THE_TRUTH in labelled_models:
        raise ValueError(f"reward_models must not be called {THE_TRUTH!r}, the label of ground_truth; rename it.")
    scorers = dict(labelled_models) | ({} if ground_truth is None else {THE_TRUTH: ground_truth})
    # Before the long part, what can be said of models without their weights.
    named = {label: reward_model for label, reward_model in scorers.items() if not callable(reward_model)}
    readers = {label: load_reader(name, trust_remote_code=trust_remote_code) for label, name in named.items()}
    sampling = Sampling(
        num_generations=num_generations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    )
    loaded_policy = policies.load_policy(policy, dtype=dtype)
    loaded_policy = replace(loaded_policy, source=loaded_policy.source | stamp(policy))
    reading = {label: reader for label, reader in readers.items() if reader is not None}
    examples, misfits = readable_examples(
        examples, loaded_policy, reading, max_new_tokens=max_new_tokens, skip_bad_lines=skip_bad_lines
    )
    audited = [example.prompt for example in examples]
    _check_counts(audited, num_generations)
    key = fingerprint([FORMAT, loaded_policy.source, asdict(sampling), [[p.name, p.text] for p in audited]])
    folder = pathlib.Path(
        folder or data_folder() / "audits" / f"{pathlib.Path(str(prompts).split(':')[0]).stem}-{key[:8]}"
    )
    records = sample_replies(loaded_policy, audited, folder / "samples", sampling, progress=progress)
    source, seconds = loaded_policy.source, {"sampling": round(sampling_seconds(folder / "samples"), 1)}
    has_template = bool(loaded_policy.tokenizer.chat_template)
    del loaded_policy  # a reward model may need its memory

    pairs = [
        Preference(example.prompt, example.chosen, example.rejected)
        for example in examples
        if example.chosen is not None and example.rejected is not None
    ]
    drawn = Texts(audited, [record["replies"] for record in records])
    preferred = Texts([pair.prompt for pair in pairs], [[pair.chosen, pair.rejected] for pair in pairs])
    scores: dict[str, Scores] = {}
    for label, reward_model in scorers.items():
        start = time.perf_counter()
        scores[label] = _scores(
            label, reward_model, drawn, preferred, folder, dtype, trust_remote_code, progress, compare_dtype
        )
        seconds["ground truth" if label == THE_TRUTH else label] = round(time.perf_counter() - start, 1)
    scored = scoring.scored_by_all(drawn, {label: each.rewards for label, each in scores.items()}, min_scored)
    of_pairs = {label: each.preferences for label, each in scores.items()}
    scored_pairs = scoring.scored_by_all(preferred, of_pairs, min_scored, "preferred and other replies")
    drawn, preferred = drawn.where(scored.mask), preferred.where(scored_pairs.mask)
    _check_counts(drawn.prompts, num_generations)
    records = [record for record, keep in zip(records, scored.mask) if keep]
    different = [[[a != b for a in row] for b in row] for row in drawn.replies]

    def cleaned(rewards: Rewards, mask: list[bool], noise: float) -> NDArray[np.float64]:
        return scoring.without_noise([row for row, keep in zip(rewards, mask) if keep], noise)

    truth = None if ground_truth is None else cleaned(scores[THE_TRUTH].rewards, scored.mask, scores[THE_TRUTH].noise)

    def graded(scores: Scores) -> Grade:
        rewards = cleaned(scores.rewards, scored.mask, scores.noise)
        preferences = cleaned(scores.preferences, scored_pairs.mask, scores.noise)
        result = grade(
            rewards,
            truth,
            preferences,
            different,
            prompts=[prompt.text for prompt in drawn.prompts],
            pair_prompts=[prompt.text for prompt in preferred.prompts],
        )
        result |= {"rewards": rewards.tolist(), "preferences": preferences.tolist(), "noise": scores.noise}
        return result | scores.reading  # type: ignore[return-value]  # keys of a Grade, as JSON held them

    teachers = {label: graded(scores[label]) for label in labelled_models}
    result = Audit(
        made=origin.record() | {"command": command, "seconds": seconds},
        policy=source | {"chat_template": has_template},
        sampling=asdict(sampling),
        prompts={
            "source": pathlib.Path(prompts).name if pathlib.Path(prompts).is_file() else str(prompts),
            "names": [prompt.name for prompt in drawn.prompts],
            "left_out": [*bad_lines, *misfits, *scored.left_out, *scored_pairs.left_out],
        },
        ground_truth=None if ground_truth is None else _name(ground_truth),
        replies={
            "cut_off": float(np.mean([not ended for record in records for ended in record["ended"]])),
            "same": float(np.mean([1 - len(set(row)) / len(row) for row in drawn.replies])),
        },
        teachers=teachers,
        reference=None if truth is None else graded(scores[THE_TRUTH]),
        order=order_of_teachers(teachers),
        advice=[],
    )
    result.advice.extend(advice(result))
    result.write(folder)
    if progress:
        print(f"Report: {folder / 'audit.html'}")
    return result


def _check_counts(prompts: Sequence[Prompt], num_generations: int) -> None:
    """ValueError, in one sentence, for too few prompts or replies to have an interval."""
    count = len({prompt.text for prompt in prompts})
    if count < 2 or num_generations < 2:
        different_ones = " different" * (count < len(prompts))
        raise ValueError(
            "An audit needs at least two prompts and two replies to each, "
            f"got {count}{different_ones} and {num_generations}; its intervals are over prompts."
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
    if callable(ground_truth):
        return getattr(ground_truth, "name", "the ground truth")
    return next(iter(_labelled([ground_truth])))


def _scores(
    label: str,
    reward_model: RewardModel,
    drawn: Texts,
    preferred: Texts,
    folder: pathlib.Path,
    dtype: str,
    trust_remote_code: bool,
    progress: bool,
    compare_dtype: str | None = None,
) -> Scores:
    """Rewards of both kinds of texts, from a file in `folder` where they were written before."""
    if callable(reward_model):
        return scoring.score_all(reward_model, drawn, preferred, label, scoring.ChunkFile(None), progress=progress)
    contents = [[[vars(prompt) for prompt in texts.prompts], texts.replies] for texts in (drawn, preferred)]
    key = fingerprint([str(reward_model), dtype, compare_dtype, stamp(reward_model), contents])[:12]
    path, chunks = folder / f"scores-{key}.json", folder / f"scores-{key}.partial.jsonl"
    if not path.exists():

        def load(dtype: str) -> Any:
            return reward_models.load_reward_model(reward_model, dtype=dtype, trust_remote_code=trust_remote_code)

        score = load(dtype)
        scores = scoring.score_all(score, drawn, preferred, label, scoring.ChunkFile(chunks), progress=progress)
        if isinstance(score, reward_models.SequenceReward):
            others = [] if compare_dtype in (None, dtype) else [load(str(compare_dtype))]
            prompt, reply = drawn.prompts[0], drawn.replies[0][0]
            scores = replace(
                scores,
                noise=scoring.noise(score, drawn, scores.rewards, others),
                reading={
                    "chat_template": bool(score.tokenizer.chat_template),
                    "example": {"prompt": prompt.name} | score.example(prompt, reply),
                    "notes": score.notes(prompt, reply),
                },
            )
        text = json.dumps(asdict(scores))
        write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
        chunks.unlink(missing_ok=True)
    return Scores(**json.loads(path.read_text(encoding="utf-8")))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `rvlib audit`; exits with one sentence for what is missing or wrong."""
    parser = argparse.ArgumentParser(
        prog="rvlib audit", description=(__doc__ or "").split("\n")[0], formatter_class=Defaults
    )
    parser.add_argument("--policy", required=True, help="SmolLM2-135M-Instruct, a folder, or a name on the hub")
    parser.add_argument(
        "--reward-model",
        required=True,
        action="append",
        help="sentiment, similarity, a folder, or a name on the hub; once for each",
    )
    parser.add_argument(
        "--prompts",
        required=True,
        help="a file (.jsonl, .json, .csv, .tsv, .parquet, .txt, perhaps .gz), a data set's name[:split], alpaca-eval "
        "or demo-preferences",
    )
    parser.add_argument("--ground-truth", help="what you want, named as a reward model is")
    parser.add_argument("--num-generations", type=int, default=8, help="replies to each prompt")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="the longest reply")
    parser.add_argument("--temperature", type=float, default=1.0, help="of sampling")
    parser.add_argument("--limit", type=int, help="how many prompts")
    parser.add_argument("--seed", type=int, default=0, help="of sampling, and of choosing prompts")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--compare-dtype", help="a second precision, whose difference from --dtype counts as noise")
    parser.add_argument("--column", help="the key or column that holds the prompt, where it is none of the known")
    parser.add_argument(
        "--min-scored", type=float, default=0.9, help="share of the prompts whose replies must all have a reward"
    )
    parser.add_argument(
        "--skip-bad-lines",
        action="store_true",
        help="leave out lines without a prompt that all models can read, and say which",
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a reward model")
    parser.add_argument(
        "--folder", type=pathlib.Path, help="for replies, scores and the report (default: one in the data folder)"
    )
    arguments = sys.argv[1:] if arguments is None else arguments
    options = vars(parser.parse_args(arguments))
    try:
        result = audit(
            options.pop("policy"),
            options.pop("reward_model"),
            options.pop("prompts"),
            **options,
            command=shlex.join(["rvlib", "audit", *arguments]),
        )
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        sys.exit(FULL if full else sentence(error))
    except (ValueError, MemoryError) as error:
        sys.exit(sentence(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from what was drawn and scored.")
    report.show(result)
