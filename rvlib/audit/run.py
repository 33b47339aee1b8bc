"""`rvlib audit`: is this reward model a good teacher for this policy?

Replies are drawn once, and every reward model scores them.

    reward variance   Var_{y~π}[r(x, y)]        how fast it can teach              Def. 2, arXiv 2503.15477
    accuracy          P[orders a pair as r_G]   whether it is right                Def. 1
    covariance        Cov_{y~π}[r, r_G]         both at once: what teachers are    `rvlib.tabular.scores`
                                                ordered by

The variance and the covariance are of rewards in units of their standard deviation over all replies, so reward models
compare. Means and 95 % intervals are over prompts. `grading` and `report` need neither torch nor transformers.
"""

import json
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from rvlib._terminal import sentence
from rvlib.audit import report
from rvlib.audit.arguments import parser
from rvlib.audit.assembly import Drawn, Records, Scores, assemble
from rvlib.audit.exchange import read_replies, share_cut_off, write_replies
from rvlib.audit.grading import Audit
from rvlib.audit.planning import resolved_dtype, show_plan
from rvlib.audit.scored_files import ScoreColumn, check_group, score_columns, strangers
from rvlib.files import data_folder, fingerprint, write_whole
from rvlib.lm import origin, processes
from rvlib.lm.data.files import read_examples
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.data.sources import Example, Preference
from rvlib.lm.models import policies, reward_models
from rvlib.lm.models.reward_models import check_reward_model
from rvlib.lm.sampling.replies import Sampling, sample_replies, sampling_seconds

CHUNK = 4  # batches of texts scored between two moves of the progress bar
NUM_GENERATIONS = 8  # replies to each prompt
BATCH_SIZE = 32  # texts that go through a reward model at once
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
class _Scoring:
    """How replies are scored, and where scores are kept."""

    folder: pathlib.Path
    dtype: str
    batch_size: int
    trust_remote_code: bool
    progress: bool


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
    engine: str = "generate",
    batch_size: int | None = None,
    limit: int | None = None,
    skip_bad_lines: bool = False,
    trust_remote_code: bool = False,
    dry_run: bool = False,
    texts: bool = True,
    folder: str | pathlib.Path | None = None,
    progress: bool = True,
    command: str | None = None,
) -> Audit | None:
    """Draw replies of a policy, score them with each reward model, and say what kind of teacher it is: an `Audit`.

    policy: a name (`policies.load_policy`). reward_models: names (`reward_models.load_reward_model`), or {label: a name
    or a function score(prompts, replies) → (prompts, replies)}. prompts: as `read_examples` takes them. ground_truth: a
    name or such a function, or a column of `scores`. num_generations: replies to each prompt, 8 by default. replies: a
    file of replies drawn elsewhere (`exchange`), in place of prompts and sampling; scores: files of scores, which are
    audited beside the reward models. export: write the replies that were drawn to this file and return None, as
    dry_run does when it has shown what is to be done. group: as in `grade`. texts: whether
    the report keeps the replies that show what a reward model likes. engine, batch_size: as in `sample_replies`;
    batch_size is also how many texts go through a reward model at once. dtype: "auto" is bfloat16 on a GPU. Several
    processes (`rvlib.lm.processes`) share sampling and scoring. What was drawn and scored stays in `folder` (one
    of the data folder by default), and a run that was cut off goes on from there. OSError or ValueError, in one
    sentence, for what is missing or wrong.
    """
    labelled_models: dict[str, RewardModel] = dict(
        reward_models if isinstance(reward_models, Mapping) else _labelled(reward_models)
    )
    if not labelled_models and not scores and export is None:
        raise ValueError("reward_models must name at least one reward model, got none.")
    dtype, brought = resolved_dtype(dtype), None
    if replies is not None:
        brought = read_replies(replies, num_generations=num_generations, limit=limit)
        by_prompt = {prompt.text: pair for prompt, *pair in brought.pairs}
        examples = [Example(prompt, *by_prompt.get(prompt.text, (None, None))) for prompt in brought.prompts]
        bad_lines, num_generations = list(brought.left_out), len(brought.replies[0])
    elif policy is None or prompts is None:
        raise ValueError("An audit needs a policy and prompts, or a file of replies; name --policy and --prompts.")
    else:
        examples, bad_lines = read_examples(prompts, limit=limit, skip_bad_lines=skip_bad_lines, seed=seed)
        num_generations = NUM_GENERATIONS if num_generations is None else num_generations
    count = len({example.prompt.text for example in examples})
    if count < 2 or num_generations < 2:
        different_ones = " different" * (count < len(examples))
        raise ValueError(
            "An audit needs at least two prompts and two replies to each, "
            f"got {count}{different_ones} and {num_generations}; its intervals are over prompts."
        )
    check_group(group, num_generations)
    columns = score_columns(scores)
    truth_model = columns.pop(ground_truth, ground_truth) if isinstance(ground_truth, str) else ground_truth
    scoring = list(labelled_models.values())
    scoring += [] if truth_model is None or isinstance(truth_model, ScoreColumn) else [truth_model]
    for reward_model in scoring:  # before the long part
        if not callable(reward_model):
            check_reward_model(reward_model, trust_remote_code=trust_remote_code)
    sampling = Sampling(
        num_generations=num_generations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    )
    audited = [example.prompt for example in examples]
    asked = [prompt.text for prompt in audited]
    if progress or dry_run:
        truths = {"the ground truth": truth_model} if len(scoring) > len(labelled_models) else {}
        known = brought and [p.text + reply for p, row in zip(audited, brought.replies) for reply in row]
        show_plan(
            None if brought else policy,
            labelled_models | truths,
            known or asked,
            known and 1 or num_generations,
            0 if known else max_new_tokens,
            dtype,
        )
        if dry_run:
            return None
    seconds: dict[str, float] = {}
    if brought:
        records = brought.records()
        source: dict[str, Any] = {"name": str(policy or "the policy")}
        key = fingerprint([source, brought.replies, [[p.name, p.text] for p in audited]])
        name = pathlib.Path(str(replies)).name.split(".")[0]
        folder = pathlib.Path(folder or data_folder() / "audits" / f"{name}-{key[:8]}")
        folder.mkdir(parents=True, exist_ok=True)
    else:
        loaded_policy = policies.load_policy(str(policy), dtype=dtype)
        loaded_policy = replace(loaded_policy, source=loaded_policy.source | _stamp(str(policy)))
        key = fingerprint([loaded_policy.source, asdict(sampling), [[p.name, p.text] for p in audited]])
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
        del loaded_policy  # a reward model may need its memory

    reply_texts = [record["replies"] for record in records]
    pairs = [
        Preference(example.prompt, example.chosen, example.rejected)
        for example in examples
        if example.chosen is not None and example.rejected is not None
    ]
    drawn = _Texts(audited, reply_texts)
    preferred = _Texts([pair.prompt for pair in pairs], [[pair.chosen, pair.rejected] for pair in pairs])
    pair_prompts = [pair.prompt.text for pair in pairs]
    if export is not None:
        written = [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]
        number = processes.only_first(lambda: write_replies(export, audited, reply_texts, written))
        if progress and processes.first():
            print(f"{number} replies to be scored: {export}")
        return None
    settings = _Scoring(folder, dtype, batch_size or BATCH_SIZE, trust_remote_code, progress)

    def scores_of(label: str, reward_model: RewardModel | ScoreColumn, clock: str) -> Scores:
        start = time.perf_counter()
        scored = _scores(label, reward_model, drawn, preferred, settings)
        seconds[clock] = round(time.perf_counter() - start, 1)
        return scored

    scored = {label: scores_of(label, model, label) for label, model in (labelled_models | columns).items()}
    truth = None if truth_model is None else scores_of("the ground truth", truth_model, "ground truth")
    result = assemble(
        scored,
        truth,
        Drawn(
            prompts=asked,
            replies=reply_texts,
            log_probs=None
            if any(record["log_probs"] is None for record in records)
            else [r["log_probs"] for r in records],
            pair_prompts=pair_prompts,
            names=[prompt.name for prompt in audited],
            left_out=bad_lines + strangers(columns, asked, reply_texts, pair_prompts, preferred.replies),
            cut_off=share_cut_off(records),
        ),
        Records(
            policy=source,
            source=pathlib.Path(str(replies or prompts)).name
            if pathlib.Path(str(replies or prompts)).is_file()
            else str(prompts),
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
    label: str, reward_model: RewardModel | ScoreColumn, drawn: _Texts, preferred: _Texts, settings: _Scoring
) -> Scores:
    """Rewards of both kinds of texts, from a file in the folder where they were written before."""
    if isinstance(reward_model, ScoreColumn):
        prompts, pair_prompts = ([prompt.text for prompt in texts.prompts] for texts in (drawn, preferred))
        return reward_model.scores(prompts, drawn.replies, pair_prompts, preferred.replies)
    if callable(reward_model):
        of_replies, of_pairs = (_score(reward_model, texts, label, settings) for texts in (drawn, preferred))
        return Scores(of_replies, of_pairs)
    contents = [[[vars(prompt) for prompt in texts.prompts], texts.replies] for texts in (drawn, preferred)]
    key = fingerprint([str(reward_model), settings.dtype, _stamp(reward_model), contents])
    path = settings.folder / f"scores-{key[:12]}.json"
    if not path.exists():
        score = reward_models.load_reward_model(
            reward_model, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code
        )
        if isinstance(score, reward_models.SequenceReward):
            score = replace(score, batch_size=settings.batch_size)
        rewards = [_score(score, texts, label, settings) for texts in (drawn, preferred)]
        processes.only_first(
            lambda: write_whole(path, lambda partial: partial.write_text(json.dumps(rewards), encoding="utf-8"))
        )
    return Scores(*json.loads(path.read_text(encoding="utf-8")))


def _as_array(score: Score) -> processes.Score:
    return lambda prompts, replies: np.asarray(score(prompts, replies), dtype=float)


def _score(score: Score, texts: _Texts, label: str, settings: _Scoring) -> list[list[float]]:
    """Rewards (prompts, replies) as lists; ValueError unless they are finite and as many as the replies."""
    if not texts.prompts:
        return []
    num_generations = len(texts.replies[0])
    size = max(1, CHUNK * settings.batch_size * processes.world() // num_generations)  # prompts of a chunk
    chunks = []
    hidden = not settings.progress or not processes.first()
    with tqdm(
        total=len(texts.prompts) * num_generations, desc=f"Scoring by {label}", unit="reply", disable=hidden
    ) as bar:
        for start in range(0, len(texts.prompts), size):
            prompts, replies = texts.prompts[start : start + size], texts.replies[start : start + size]
            chunks.append(processes.score(_as_array(score), prompts, replies))
            bar.update(len(prompts) * num_generations)
    rewards = np.concatenate(chunks)
    shape = (len(texts.prompts), num_generations)
    if rewards.shape != shape or not np.isfinite(rewards).all():
        raise ValueError(
            f"A reward must be one finite number for each of {shape[0]} × {shape[1]} replies, "
            f"got shape {rewards.shape} with {int((~np.isfinite(rewards)).sum())} not finite of {label}."
        )
    return [[float(f"{reward:.8g}") for reward in row] for row in rewards]


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
