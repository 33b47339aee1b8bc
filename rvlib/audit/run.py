"""`rvlib audit`: is this reward model a good teacher for this policy? Replies are drawn once, and every reward model
scores them.

    reward variance   Var_{y~π}[r(x, y)]          how fast it can teach                              Def. 2, arXiv
    2503.15477
    accuracy          P[orders a pair as r_G]     whether it is right                                Def. 1
    covariance        Cov_{y~π}[r, r_G]           both at once: what the order of teachers goes by
    `rvlib.tabular.scores`

The variance and the covariance are of rewards in units of their standard deviation over all replies, so reward models
compare. Means and 95 % intervals are over prompts. `grade` and the report need neither torch nor transformers.
"""

import argparse
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from rvlib._terminal import Defaults, sentence
from rvlib.audit import report
from rvlib.audit.grading import Audit, advice, grade, order_of_teachers
from rvlib.files import data_folder, fingerprint, write_whole
from rvlib.lm import origin
from rvlib.lm.data.files import read_examples
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models import RewardFunction, policies
from rvlib.lm.models import reward_models as loaders
from rvlib.lm.sampling.replies import Sampling, sample_replies, sampling_seconds

Scored = tuple[Sequence[Prompt], Sequence[Sequence[str]]]  # prompts, and the replies to each
CHUNK = 64  # prompts scored between two moves of the progress bar


def audit(
    policy: str,
    reward_models: Sequence[str] | Mapping[str, str | RewardFunction],
    prompts: str | pathlib.Path,
    *,
    ground_truth: str | RewardFunction | None = None,
    samples: int = 8,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    dtype: str = "float32",
    limit: int | None = None,
    skip_bad_lines: bool = False,
    trust_remote_code: bool = False,
    folder: str | pathlib.Path | None = None,
    progress: bool = True,
    command: str | None = None,
) -> Audit:
    """Draw replies of a policy, score them with each reward model, and say what kind of teacher it is: an `Audit`.

    policy: a name (`models.load_policy`). reward_models: names (`reward_models.load_reward_model`), or {label: a name
    or a function score(prompts, replies) → (prompts, samples)}. prompts: as `prompts.read` takes them. ground_truth: a
    name or such a function. What was drawn and scored stays in `folder` (one of the data folder by default), and a run
    that was cut off goes on from there. OSError or ValueError, in one sentence, for what is missing or wrong.
    """

    judges = dict(reward_models) if isinstance(reward_models, Mapping) else dict(_labelled(reward_models))
    if not judges:
        raise ValueError("reward_models must name at least one reward model, got none.")
    examples, bad = read_examples(prompts, limit=limit, skip_bad_lines=skip_bad_lines, seed=seed)
    if len(examples) < 2 or samples < 2:
        raise ValueError(
            f"An audit needs at least two prompts and two samples of each, got {len(examples)} and {samples}; "
            "its intervals are over prompts."
        )
    for judge in [*judges.values(), ground_truth]:  # before the long part
        if isinstance(judge, str):
            loaders.check_reward_model(judge, trust_remote_code=trust_remote_code)
    sampling = Sampling(samples=samples, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    asked = [example.prompt for example in examples]
    student = policies.load_policy(policy, dtype=dtype)
    student = replace(student, source=student.source | _stamp(policy))
    key = fingerprint([student.source, asdict(sampling), [[p.name, p.text] for p in asked]])
    folder = pathlib.Path(
        folder or data_folder() / "audits" / f"{pathlib.Path(str(prompts).split(':')[0]).stem}-{key[:8]}"
    )
    records = sample_replies(student, asked, folder / "samples", sampling, progress=progress)
    source, seconds = student.source, {"sampling": round(sampling_seconds(folder / "samples"), 1)}
    del student  # a reward model may need its memory

    replies = [record["replies"] for record in records]
    paired = [example for example in examples if example.rejected is not None]
    texts = [(asked, replies), ([e.prompt for e in paired], [[e.chosen, e.rejected] for e in paired])]

    def score(label: str, judge: str | RewardFunction) -> list[list[list[float]]]:
        return _scores(label, judge, texts, folder, dtype, trust_remote_code, progress)

    different = [[[a != b for a in to_prompt] for b in to_prompt] for to_prompt in replies]
    scores = {}
    for label, judge in judges.items():
        start = time.perf_counter()
        scores[label] = score(label, judge)
        seconds[label] = round(time.perf_counter() - start, 1)
    truth, reference, truth_name = None, None, None
    if ground_truth is not None:
        start = time.perf_counter()
        truth, truth_preferences = score("the ground truth", ground_truth)
        seconds["ground truth"] = round(time.perf_counter() - start, 1)
        properties = grade(truth, truth, truth_preferences, different)
        reference = properties | {"rewards": truth, "preferences": truth_preferences}
        truth_name = getattr(ground_truth, "name", "the ground truth")
        if isinstance(ground_truth, str):
            (truth_name,) = _labelled([ground_truth])
    teachers = {
        label: grade(rewards, truth, preferences, different) | {"rewards": rewards, "preferences": preferences}
        for label, (rewards, preferences) in scores.items()
    }
    result = Audit(
        made=origin.record() | {"command": command, "seconds": seconds},
        policy=source,
        sampling=asdict(sampling),
        prompts={
            "source": pathlib.Path(prompts).name if pathlib.Path(prompts).is_file() else str(prompts),
            "names": [prompt.name for prompt in asked],
            "left_out": bad,
        },
        ground_truth=truth_name,
        replies={
            "cut_off": float(np.mean([not ended for record in records for ended in record["ended"]])),
            "same": float(np.mean([1 - len(set(texts)) / len(texts) for texts in replies])),
        },
        teachers=teachers,
        reference=reference,
        order=order_of_teachers(teachers),
        advice=[],
    )
    result.advice.extend(advice(result))
    result.write(folder)
    if progress:
        print(f"Report: {folder / 'audit.html'}")
    return result


def _labelled(names: Sequence[str]) -> dict[str, str]:
    """{label: name}: the last part of each name, the whole where two would be alike."""
    last = [str(name).rstrip("/").rsplit("/", 1)[-1] for name in names]
    labels = last if len(set(last)) == len(last) else [str(name) for name in names]
    if len(set(labels)) < len(labels):
        raise ValueError(f"reward_models must name each reward model once, got {', '.join(labels)}.")
    return dict(zip(labels, names))


def _stamp(name: Any) -> dict[str, Any]:
    """What changes when a file in a model's folder does: weights, adapter, configuration, tokenizer or chat template.

    Nothing for a name on the hub.
    """
    folder = pathlib.Path(str(name))
    if not folder.is_dir():
        return {}
    files = [path for path in folder.rglob("*") if path.is_file()]
    stamps = [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return {"files": sorted(stamps)}


def _scores(
    label: str,
    judge: str | RewardFunction,
    texts: Sequence[Scored],
    folder: pathlib.Path,
    dtype: str,
    trust_remote_code: bool,
    progress: bool,
) -> list[list[list[float]]]:
    """Rewards of each of `texts` [(prompts, replies), …] as lists, from a file in `folder` where they were written
    before."""

    if callable(judge):
        return [_score(judge, prompts, replies, label, progress) for prompts, replies in texts]
    judged = [[[vars(prompt) for prompt in prompts], replies] for prompts, replies in texts]
    path = folder / f"scores-{fingerprint([str(judge), dtype, _stamp(judge), judged])[:12]}.json"
    if not path.exists():
        score = loaders.load_reward_model(judge, dtype=dtype, trust_remote_code=trust_remote_code)
        scores = [_score(score, prompts, replies, label, progress) for prompts, replies in texts]
        write_whole(path, lambda partial: partial.write_text(json.dumps(scores), encoding="utf-8"))
    return json.loads(path.read_text(encoding="utf-8"))


def _score(
    score: RewardFunction, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]], label: str, progress: bool
) -> list[list[float]]:
    """Rewards (prompts, samples) as lists; ValueError unless they are finite and as many as the replies."""

    if not prompts:
        return []
    starts = tqdm(range(0, len(prompts), CHUNK), desc=f"Scoring by {label}", unit="batch", disable=not progress)
    rewards = np.concatenate(
        [np.asarray(score(prompts[i : i + CHUNK], replies[i : i + CHUNK]), dtype=float) for i in starts]
    )
    if rewards.shape != (len(prompts), len(replies[0])) or not np.isfinite(rewards).all():
        expected = f"{len(prompts)} × {len(replies[0])}"
        raise ValueError(
            f"A reward must be one finite number for each of {expected} replies, got shape {rewards.shape} with "
            f"{int((~np.isfinite(rewards)).sum())} not finite of {label}."
        )
    return [[float(f"{x:.8g}") for x in row] for row in rewards]


def main(arguments: Sequence[str] | None = None) -> None:
    """`rvlib audit`. Exits with one sentence for what is missing or wrong."""
    parser = argparse.ArgumentParser(prog="rvlib audit", description=__doc__.split("\n")[0], formatter_class=Defaults)
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
        help="a .jsonl file, a text file, a data set's name[:split], alpaca-eval or demo-preferences",
    )
    parser.add_argument("--ground-truth", help="what you want, named as a reward model is")
    parser.add_argument("--samples", type=int, default=8, help="replies to each prompt")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="the longest reply")
    parser.add_argument("--temperature", type=float, default=1.0, help="of sampling")
    parser.add_argument("--limit", type=int, help="how many prompts")
    parser.add_argument("--seed", type=int, default=0, help="of sampling, and of choosing prompts")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument(
        "--skip-bad-lines", action="store_true", help="leave out lines that hold no prompt, and say which"
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a reward model")
    parser.add_argument(
        "--folder", type=pathlib.Path, help="for replies, scores and the report (default: one in the data folder)"
    )
    arguments = sys.argv[1:] if arguments is None else arguments
    given = vars(parser.parse_args(arguments))
    try:
        found = audit(
            given.pop("policy"),
            given.pop("reward_model"),
            given.pop("prompts"),
            **given,
            command=shlex.join(["rvlib", "audit", *arguments]),
        )
    except (OSError, ValueError, ModuleNotFoundError, MemoryError) as error:
        sys.exit(sentence(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from what was drawn and scored.")
    report.show(found)
