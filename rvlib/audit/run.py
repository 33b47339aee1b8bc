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
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from rvlib._terminal import Defaults, sentence
from rvlib.audit import report
from rvlib.audit.grading import Audit, Grade, advice, grade, order_of_teachers
from rvlib.files import data_folder, fingerprint, write_whole
from rvlib.lm import origin
from rvlib.lm.data.files import read_examples
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.data.sources import Preference
from rvlib.lm.models import policies, reward_models
from rvlib.lm.models.reward_models import check_reward_model
from rvlib.lm.sampling.replies import Sampling, sample_replies, sampling_seconds

CHUNK = 64  # prompts scored between two moves of the progress bar
# Files in a model's folder, beside its weights, on which replies or rewards depend.
READ_NAMES = {
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
}
READ_SUFFIXES = {".jinja", ".model", ".tiktoken", ".py"}

Score = Callable[[Sequence[Prompt], Sequence[Sequence[str]]], ArrayLike]  # (prompts, replies) → (prompts, replies)
RewardModel = str | pathlib.Path | Score


@dataclass(frozen=True)
class _Texts:
    """Prompts and as many replies to each of them: what is scored."""

    prompts: list[Prompt]
    replies: list[list[str]]


@dataclass(frozen=True)
class _Scores:
    """Rewards of one reward model. rewards: (prompts, replies) of the policy's; preferences: (pairs, 2)."""

    rewards: list[list[float]]
    preferences: list[list[float]]


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
    skip_bad_lines: bool = False,
    trust_remote_code: bool = False,
    folder: str | pathlib.Path | None = None,
    progress: bool = True,
    command: str | None = None,
) -> Audit:
    """Draw replies of a policy, score them with each reward model, and say what kind of teacher it is: an `Audit`.

    policy: a name (`policies.load_policy`). reward_models: names (`reward_models.load_reward_model`), or {label: a name
    or a function score(prompts, replies) → (prompts, replies)}. prompts: as `read_examples` takes them. ground_truth: a
    name or such a function. num_generations: replies to each prompt. What was drawn and scored stays in `folder` (one
    of the data folder by default), and a run that was cut off goes on from there. OSError or ValueError, in one
    sentence, for what is missing or wrong.
    """
    labelled_models: Mapping[str, RewardModel] = (
        reward_models if isinstance(reward_models, Mapping) else _labelled(reward_models)
    )
    if not labelled_models:
        raise ValueError("reward_models must name at least one reward model, got none.")
    examples, bad_lines = read_examples(prompts, limit=limit, skip_bad_lines=skip_bad_lines, seed=seed)
    count = len({example.prompt.text for example in examples})
    if count < 2 or num_generations < 2:
        different_ones = " different" * (count < len(examples))
        raise ValueError(
            "An audit needs at least two prompts and two replies to each, "
            f"got {count}{different_ones} and {num_generations}; its intervals are over prompts."
        )
    scoring = list(labelled_models.values()) + ([] if ground_truth is None else [ground_truth])
    for reward_model in scoring:  # before the long part
        if not callable(reward_model):
            check_reward_model(reward_model, trust_remote_code=trust_remote_code)
    sampling = Sampling(
        num_generations=num_generations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    )
    audited = [example.prompt for example in examples]
    loaded_policy = policies.load_policy(policy, dtype=dtype)
    loaded_policy = replace(loaded_policy, source=loaded_policy.source | _stamp(policy))
    key = fingerprint([loaded_policy.source, asdict(sampling), [[p.name, p.text] for p in audited]])
    folder = pathlib.Path(
        folder or data_folder() / "audits" / f"{pathlib.Path(str(prompts).split(':')[0]).stem}-{key[:8]}"
    )
    records = sample_replies(loaded_policy, audited, folder / "samples", sampling, progress=progress)
    source, seconds = loaded_policy.source, {"sampling": round(sampling_seconds(folder / "samples"), 1)}
    del loaded_policy  # a reward model may need its memory

    replies = [record["replies"] for record in records]
    pairs = [
        Preference(example.prompt, example.chosen, example.rejected)
        for example in examples
        if example.chosen is not None and example.rejected is not None
    ]
    drawn = _Texts(audited, replies)
    preferred = _Texts([pair.prompt for pair in pairs], [[pair.chosen, pair.rejected] for pair in pairs])

    def scores_of(label: str, reward_model: RewardModel, clock: str) -> _Scores:
        start = time.perf_counter()
        scores = _scores(label, reward_model, drawn, preferred, folder, dtype, trust_remote_code, progress)
        seconds[clock] = round(time.perf_counter() - start, 1)
        return scores

    scores = {label: scores_of(label, reward_model, label) for label, reward_model in labelled_models.items()}
    truth = None if ground_truth is None else scores_of("the ground truth", ground_truth, "ground truth")
    different = [[[a != b for a in row] for b in row] for row in replies]

    def graded(scores: _Scores) -> Grade:
        result = grade(
            scores.rewards,
            None if truth is None else truth.rewards,
            scores.preferences,
            different,
            prompts=[prompt.text for prompt in drawn.prompts],
            pair_prompts=[prompt.text for prompt in preferred.prompts],
        )
        return result | {"rewards": scores.rewards, "preferences": scores.preferences}

    teachers = {label: graded(teacher) for label, teacher in scores.items()}
    result = Audit(
        made=origin.record() | {"command": command, "seconds": seconds},
        policy=source,
        sampling=asdict(sampling),
        prompts={
            "source": pathlib.Path(prompts).name if pathlib.Path(prompts).is_file() else str(prompts),
            "names": [prompt.name for prompt in audited],
            "left_out": bad_lines,
        },
        ground_truth=None if ground_truth is None else _name(ground_truth),
        replies={
            "cut_off": float(np.mean([not ended for record in records for ended in record["ended"]])),
            "same": float(np.mean([1 - len(set(row)) / len(row) for row in replies])),
        },
        teachers=teachers,
        reference=None if truth is None else graded(truth),
        order=order_of_teachers(teachers),
        advice=[],
    )
    result.advice.extend(advice(result))
    result.write(folder)
    if progress:
        print(f"Report: {folder / 'audit.html'}")
    return result


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


def _stamp(name: str | pathlib.Path | Score) -> dict[str, list]:
    """What changes when any file that a model in a folder is read from does; nothing for a name on the hub.

    Weights are known by size and time, since to read them takes long; other files by what is in them. An adapter's
    folder stands for that of its base model too.
    """
    folder = pathlib.Path(str(name))
    if not folder.is_dir():
        return {}
    weights = sorted(folder.glob("*.safetensors"))
    others = [path for path in folder.glob("*") if path.name in READ_NAMES or path.suffix in READ_SUFFIXES]
    others += folder.glob("additional_chat_templates/*")
    stamp: dict[str, list] = {
        "files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in weights]
        + [[str(path.relative_to(folder)), fingerprint(path)] for path in sorted(others) if path.is_file()]
    }
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if base and pathlib.Path(base).resolve() != folder.resolve():
            stamp["base"] = _stamp(base).get("files", [base])
    return stamp


def _scores(
    label: str,
    reward_model: RewardModel,
    drawn: _Texts,
    preferred: _Texts,
    folder: pathlib.Path,
    dtype: str,
    trust_remote_code: bool,
    progress: bool,
) -> _Scores:
    """Rewards of both kinds of texts, from a file in `folder` where they were written before."""
    if callable(reward_model):
        return _Scores(*(_score(reward_model, texts, label, progress) for texts in (drawn, preferred)))
    contents = [[[vars(prompt) for prompt in texts.prompts], texts.replies] for texts in (drawn, preferred)]
    path = folder / f"scores-{fingerprint([str(reward_model), dtype, _stamp(reward_model), contents])[:12]}.json"
    if not path.exists():
        score = reward_models.load_reward_model(reward_model, dtype=dtype, trust_remote_code=trust_remote_code)
        rewards = [_score(score, texts, label, progress) for texts in (drawn, preferred)]
        write_whole(path, lambda partial: partial.write_text(json.dumps(rewards), encoding="utf-8"))
    return _Scores(*json.loads(path.read_text(encoding="utf-8")))


def _score(score: Score, texts: _Texts, label: str, progress: bool) -> list[list[float]]:
    """Rewards (prompts, replies) as lists; ValueError unless they are finite and as many as the replies."""
    if not texts.prompts:
        return []
    starts = tqdm(range(0, len(texts.prompts), CHUNK), desc=f"Scoring by {label}", unit="batch", disable=not progress)
    rewards = np.concatenate(
        [np.asarray(score(texts.prompts[i : i + CHUNK], texts.replies[i : i + CHUNK]), dtype=float) for i in starts]
    )
    shape = (len(texts.prompts), len(texts.replies[0]))
    if rewards.shape != shape or not np.isfinite(rewards).all():
        raise ValueError(
            f"A reward must be one finite number for each of {shape[0]} × {shape[1]} replies, "
            f"got shape {rewards.shape} with {int((~np.isfinite(rewards)).sum())} not finite of {label}."
        )
    return [[float(f"{reward:.8g}") for reward in row] for row in rewards]


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
        help="a .jsonl file, a text file, a data set's name[:split], alpaca-eval or demo-preferences",
    )
    parser.add_argument("--ground-truth", help="what you want, named as a reward model is")
    parser.add_argument("--num-generations", type=int, default=8, help="replies to each prompt")
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
    options = vars(parser.parse_args(arguments))
    try:
        result = audit(
            options.pop("policy"),
            options.pop("reward_model"),
            options.pop("prompts"),
            **options,
            command=shlex.join(["rvlib", "audit", *arguments]),
        )
    except (OSError, ValueError, MemoryError) as error:
        sys.exit(sentence(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from what was drawn and scored.")
    report.show(result)
