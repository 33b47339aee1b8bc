"""`rvlib audit`: is this reward model a good teacher for this policy? Replies are drawn once, and every reward model scores them.

    reward variance   Var_{y~π}[r(x, y)]          how fast it can teach                              Def. 2, arXiv 2503.15477
    accuracy          P[orders a pair as r_G]     whether it is right                                Def. 1
    covariance        Cov_{y~π}[r, r_G]           both at once: what the order of teachers goes by   `rvlib.tabular.scores`

The variance and the covariance are of rewards in units of their standard deviation over all replies, so reward models compare. Means
and 95 % intervals are over prompts. `grade` and the report need neither torch nor transformers.
"""

import argparse
import json
import pathlib
import shlex
import sys
import time
from dataclasses import asdict, replace

import numpy as np

from rvlib._terminal import Defaults, sentence
from rvlib.audit.grading import Audit, advice, grade, order_of_teachers
from rvlib.files import data_folder

CHUNK = 64  # prompts scored between two moves of the progress bar


def audit(
    policy,
    reward_models,
    prompts,
    *,
    ground_truth=None,
    samples=8,
    max_new_tokens=64,
    temperature=1.0,
    seed=0,
    dtype="float32",
    limit=None,
    skip_bad_lines=False,
    trust_remote_code=False,
    folder=None,
    progress=True,
    command=None,
):
    """Draw replies of a policy, score them with each reward model, and say what kind of teacher it is: an `Audit`.

    policy: a name (`models.load_policy`). reward_models: names (`reward_models.load_reward_model`), or {label: a name or a
    function score(prompts, replies) → (prompts, samples)}. prompts: as `prompts.read` takes them. ground_truth: a name or such a
    function. What was drawn and scored stays in `folder` (one of the data folder by default), and a run that was cut off goes
    on from there. OSError or ValueError, in one sentence, for what is missing or wrong.
    """
    from rvlib.files import fingerprint
    from rvlib.lm import origin
    from rvlib.lm.data.files import read_examples
    from rvlib.lm.models import policies
    from rvlib.lm.models import reward_models as loaders
    from rvlib.lm.sampling.replies import Sampling, sample_replies, sampling_seconds

    judges = reward_models if isinstance(reward_models, dict) else _labelled(reward_models)
    if not judges:
        raise ValueError("reward_models must name at least one reward model, got none.")
    if ground_truth is not None:
        judges = judges | {None: ground_truth}
    examples, bad = read_examples(prompts, limit=limit, skip_bad_lines=skip_bad_lines, seed=seed)
    if len(examples) < 2 or samples < 2:
        raise ValueError(
            f"An audit needs at least two prompts and two samples of each, got {len(examples)} and {samples}; its intervals are over prompts."
        )
    for judge in judges.values():  # before the long part
        if not callable(judge):
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
    rewards, preferences = {}, {}
    for label, judge in judges.items():
        start = time.perf_counter()
        rewards[label], preferences[label] = _scores(
            label or "the ground truth", judge, texts, folder, dtype, trust_remote_code, progress
        )
        seconds[label or "ground truth"] = round(time.perf_counter() - start, 1)

    truth = rewards.pop(None, None)
    different = [[[a != b for a in some] for b in some] for some in replies]
    shown = {
        label: grade(r, truth, preferences[label], different) | {"rewards": r, "preferences": preferences[label]}
        for label, r in rewards.items()
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
        ground_truth=truth
        and (
            _labelled([ground_truth]).popitem()[0]
            if isinstance(ground_truth, str)
            else getattr(ground_truth, "name", "the ground truth")
        ),
        replies={
            "cut_off": float(np.mean([not ended for record in records for ended in record["ended"]])),
            "same": float(np.mean([1 - len(set(some)) / len(some) for some in replies])),
        },
        teachers=shown,
        reference=truth
        and grade(truth, truth, preferences[None], different) | {"rewards": truth, "preferences": preferences[None]},
        order=order_of_teachers(shown),
        advice=[],
    )
    result.advice.extend(advice(result))
    result.write(folder)
    if progress:
        print(f"Report: {folder / 'audit.html'}")
    return result


def _labelled(names):
    """{label: name}: the last part of each name, the whole where two would be alike."""
    last = [str(name).rstrip("/").rsplit("/", 1)[-1] for name in names]
    labels = last if len(set(last)) == len(last) else [str(name) for name in names]
    if len(set(labels)) < len(labels):
        raise ValueError(f"reward_models must name each reward model once, got {', '.join(labels)}.")
    return dict(zip(labels, names))


def _stamp(name):
    """What changes when the weights in a folder do; nothing for a name on the hub."""
    folder = pathlib.Path(str(name))
    if not folder.is_dir():
        return {}
    return {
        "files": sorted(
            [path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in folder.glob("*.safetensors")
        )
    }


def _scores(label, judge, texts, folder, dtype, trust_remote_code, progress):
    """Rewards of each of `texts` [(prompts, replies), …] as lists, from a file in `folder` where they were written before."""
    from rvlib.files import fingerprint
    from rvlib.lm.models import reward_models

    if callable(judge):
        return [_score(judge, *some, label, progress) for some in texts]
    path = (
        folder
        / f"scores-{fingerprint([str(judge), dtype, _stamp(judge), [[[vars(p) for p in prompts], replies] for prompts, replies in texts]])[:12]}.json"
    )
    if not path.exists():
        score = reward_models.load_reward_model(judge, dtype=dtype, trust_remote_code=trust_remote_code)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps([_score(score, *some, label, progress) for some in texts]), encoding="utf-8")
        partial.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def _score(score, prompts, replies, label, progress):
    """Rewards (prompts, samples) as lists; ValueError unless they are finite and as many as the replies."""
    from tqdm import tqdm

    if not prompts:
        return []
    starts = tqdm(range(0, len(prompts), CHUNK), desc=f"Scoring by {label}", unit="batch", disable=not progress)
    found = np.concatenate(
        [np.asarray(score(prompts[i : i + CHUNK], replies[i : i + CHUNK]), dtype=float) for i in starts]
    )
    if found.shape != (len(prompts), len(replies[0])) or not np.isfinite(found).all():
        wanted = f"{len(prompts)} × {len(replies[0])}"
        raise ValueError(
            f"A reward must be one finite number for each of {wanted} replies, got shape {found.shape} with {int((~np.isfinite(found)).sum())} not finite of {label}."
        )
    return [[float(f"{x:.8g}") for x in row] for row in found]


def main(arguments=None):
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
        from rvlib.audit import report

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
