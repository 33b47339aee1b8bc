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
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.stats import binomtest

from rvlib.cli import Defaults, sentence
from rvlib.lm import data_folder, measure
from rvlib.metrics import Normalizer, ranking_accuracy, reward_covariance, reward_variance

ALMOST_NONE = 0.01  # of the mean reward variance: below it a prompt counts as having (almost) none
BOOK = pathlib.Path(__file__).resolve().parent.parent / "book/data/audit.json"  # what the book's chapter reads
CHUNK = 64  # prompts scored between two moves of the progress bar


@dataclass(frozen=True)
class Audit:
    """What an audit found, all of it made of what JSON can hold; `audit_report` shows it. An interval is [value, low, high].

    made: when, with what versions, where, in how many seconds. policy, sampling: as recorded. prompts: {"source", "names", "left_out"}.
    ground_truth: its name, or None. replies: {"cut_off", "same"}, shares. teachers: {name: `grade`, "rewards" (prompts, samples) and
    "preferences" (pairs, 2)}; reference: the same of the ground truth. order: see `order_of_teachers`. advice: sentences.
    """

    made: dict
    policy: dict
    sampling: dict
    prompts: dict
    ground_truth: str | None
    replies: dict
    teachers: dict
    reference: dict | None
    order: dict
    advice: list

    @classmethod
    def load(cls, path=BOOK):
        """The audit in an audit.json, or in the folder that has it; the book's by default."""
        path = pathlib.Path(path)
        return cls(**json.loads((path / "audit.json" if path.is_dir() else path).read_text(encoding="utf-8")))

    def write(self, folder):
        """Write audit.json and audit.html into `folder`."""
        from rvlib import audit_report

        for name, text in (("audit.json", json.dumps(asdict(self), allow_nan=False)), ("audit.html", audit_report.page(self))):
            partial = pathlib.Path(folder, name + ".partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(pathlib.Path(folder, name))

    def _repr_html_(self):
        from rvlib import audit_report

        return audit_report.tables(self)


def audit(policy, reward_models, prompts, *, ground_truth=None, samples=8, max_new_tokens=64, temperature=1.0, seed=0, dtype="float32",
          limit=None, skip_bad_lines=False, trust_remote_code=False, folder=None, progress=True, command=None):  # fmt: skip
    """Draw replies of a policy, score them with each reward model, and say what kind of teacher it is: an `Audit`.

    policy: a name (`models.load_policy`). reward_models: names (`reward_models.load_reward_model`), or {label: a name or a
    function score(prompts, replies) → (prompts, samples)}. prompts: as `prompts.read` takes them. ground_truth: a name or such a
    function. What was drawn and scored stays in `folder` (one of the data folder by default), and a run that was cut off goes
    on from there. OSError or ValueError, in one sentence, for what is missing or wrong.
    """
    from rvlib.lm import models, origin, reward_models as loaders
    from rvlib.lm.data import fingerprint
    from rvlib.lm.prompts import read
    from rvlib.lm.sample import Sampling, sample, sampling_seconds

    judges = reward_models if isinstance(reward_models, dict) else _labelled(reward_models)
    if not judges:
        raise ValueError("reward_models must name at least one reward model, got none.")
    if ground_truth is not None:
        judges = judges | {None: ground_truth}
    examples, bad = read(prompts, limit=limit, skip_bad_lines=skip_bad_lines, seed=seed)
    if len(examples) < 2 or samples < 2:
        raise ValueError(f"An audit needs at least two prompts and two samples of each, got {len(examples)} and {samples}; its intervals are over prompts.")
    for judge in judges.values():  # before the long part
        if not callable(judge):
            loaders.check_reward_model(judge, trust_remote_code=trust_remote_code)
    sampling = Sampling(samples=samples, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    asked = [example.prompt for example in examples]
    student = models.load_policy(policy, dtype=dtype)
    student = replace(student, source=student.source | _stamp(policy))
    key = fingerprint([student.source, asdict(sampling), [[p.name, p.text] for p in asked]])
    folder = pathlib.Path(folder or data_folder() / "audits" / f"{pathlib.Path(str(prompts).split(':')[0]).stem}-{key[:8]}")
    records = sample(student, asked, folder / "samples", sampling, progress=progress)
    source, seconds = student.source, {"sampling": round(sampling_seconds(folder / "samples"), 1)}
    del student  # a reward model may need its memory

    replies = [record["replies"] for record in records]
    paired = [example for example in examples if example.rejected is not None]
    texts = [(asked, replies), ([e.prompt for e in paired], [[e.chosen, e.rejected] for e in paired])]
    rewards, preferences = {}, {}
    for label, judge in judges.items():
        start = time.perf_counter()
        rewards[label], preferences[label] = _scores(label or "the ground truth", judge, texts, folder, dtype, trust_remote_code, progress)
        seconds[label or "ground truth"] = round(time.perf_counter() - start, 1)

    truth = rewards.pop(None, None)
    different = [[[a != b for a in some] for b in some] for some in replies]
    shown = {label: grade(r, truth, preferences[label], different) | {"rewards": r, "preferences": preferences[label]} for label, r in rewards.items()}
    result = Audit(
        made=origin.record() | {"command": command, "seconds": seconds},
        policy=source,
        sampling=asdict(sampling),
        prompts={"source": pathlib.Path(prompts).name if pathlib.Path(prompts).is_file() else str(prompts), "names": [prompt.name for prompt in asked], "left_out": bad},
        ground_truth=truth and (_labelled([ground_truth]).popitem()[0] if isinstance(ground_truth, str) else getattr(ground_truth, "name", "the ground truth")),
        replies={
            "cut_off": float(np.mean([not ended for record in records for ended in record["ended"]])),
            "same": float(np.mean([1 - len(set(some)) / len(some) for some in replies])),
        },
        teachers=shown,
        reference=truth and grade(truth, truth, preferences[None], different) | {"rewards": truth, "preferences": preferences[None]},
        order=order_of_teachers(shown),
        advice=[],
    )
    result.advice.extend(advice(result))
    result.write(folder)
    if progress:
        print(f"Report: {folder / 'audit.html'}")
    return result


def grade(rewards, ground_truth=None, preferences=(), different=None):
    """What is known of one teacher, a dictionary; a mean over prompts is [value, low, high], with its 95 % interval.

    rewards, ground_truth: (prompts, samples). preferences: (pairs, 2), rewards of a preferred reply and of the other.
    different: (prompts, samples, samples), which two replies differ as texts, all by default; a reply that was drawn twice is no pair
    for accuracy. "per_prompt" has "reward_variance", and with a ground truth "covariance" and "accuracy" (None where no two differ).
    """
    rewards = np.asarray(rewards, dtype=float)
    scale = Normalizer.fit(rewards).scale if np.ptp(rewards) else 0.0
    variance = reward_variance(rewards)
    normalised = variance / (scale**2 or 1)
    flat = int((variance <= ALMOST_NONE * variance.mean()).sum())
    found = {
        "mean": float(rewards.mean()),
        "scale": scale,
        "reward_variance": _mean(normalised),
        "reward_variance_own_unit": _mean(variance),
        "spread": np.quantile(normalised, [0.1, 0.5, 0.9]).tolist(),
        "spread_of_mean": (np.quantile(variance, [0.1, 0.5, 0.9]) / (variance.mean() or 1)).tolist(),  # scheme="variance": its mean is 1
        "flat": _share(flat, len(variance)),
        "prompts": len(variance),
        "per_prompt": {"reward_variance": normalised.tolist()},
    }
    if ground_truth is not None:
        truth = np.asarray(ground_truth, dtype=float)
        distinct = np.ones((*rewards.shape, rewards.shape[1])) if different is None else np.array(different, dtype=float)
        distinct *= ~np.eye(rewards.shape[1], dtype=bool)
        some = distinct.any((1, 2))
        accuracy = ranking_accuracy(rewards[some], truth[some], distinct[some]) if some.any() else np.array([])
        units = (scale or 1) * (Normalizer.fit(truth).scale if np.ptp(truth) else 1)
        covariance = reward_covariance(rewards, truth) / units
        tied = (distinct * (rewards[:, :, None] == rewards[:, None, :])).sum() / max(distinct.sum(), 1)
        per_prompt = np.full(len(rewards), None)
        per_prompt[some] = accuracy
        found |= {"accuracy": _mean(accuracy) if some.sum() > 1 else None, "covariance": _mean(covariance), "tied": float(tied)}
        found["per_prompt"] |= {"accuracy": per_prompt.tolist(), "covariance": covariance.tolist()}
    if len(preferences) > 1:
        margin = np.subtract(*np.transpose(preferences)) / (scale or 1)
        found |= {
            "preference_accuracy": _share(int((margin > 0).sum()), len(margin)),
            "preference_covariance": _mean(margin / 2),  # of the reward with 1 for the preferred reply and 0 for the other
            "pairs": len(margin),
        }
        found["per_prompt"]["preference_covariance"] = (margin / 2).tolist()
    return found


def order_of_teachers(teachers):
    """Who is expected to teach most, {"by", "names" (best first), "gaps"}: by "covariance" with the ground truth, else by
    "preference_covariance", else by "reward_variance" alone. teachers: {name: `grade`}.

    gaps: of each neighbours in the order {"difference": [value, low, high], "prompts": so many would tell them apart, or None where
    these do}, paired over prompts.
    """
    by = next(key for key in ("covariance", "preference_covariance", "reward_variance") if all(key in found for found in teachers.values()))
    names = sorted(teachers, key=lambda name: -teachers[name][by][0])
    gaps = []
    for first, second in zip(names, names[1:]):
        one, other = (np.array(teachers[name]["per_prompt"][by]) for name in (first, second))
        # One reward in two units differs from itself by rounding alone.
        value, low, high = _mean(np.where(np.isclose(one, other, rtol=1e-9, atol=1e-12), 0.0, one - other))
        count = len(one)
        # An interval narrows as the square root of the prompts; it must not reach 0 from the value.
        needed = None if low > 0 or value <= 0 else int(np.ceil(count * ((value - low) / value) ** 2))
        gaps.append({"difference": [value, low, high], "prompts": needed, "apart": low > 0})
    return {"by": by, "names": names, "gaps": gaps}


def advice(found):
    """Plain sentences on an `Audit`: what to mind, and what to do."""
    said, samples, order = [], found.sampling["samples"], found.order
    if order["by"] == "reward_variance":
        said.append("There is no ground truth and there are no preferences: the order says who teaches fastest what it wants itself, not whether that is what you want. Add --ground-truth, or chosen and rejected replies.")
    elif order["by"] == "preference_covariance":
        said.append("The preferences are over replies that the policy did not write: what a reward model knows of those need not hold for the policy's own. A ground truth for its own replies would tell more.")
    for (first, second), gap in zip(zip(order["names"], order["names"][1:]), order["gaps"]):
        if not gap["apart"]:
            more = f"; about {gap['prompts']} would" if gap["prompts"] else ""
            said.append(f"{first} and {second} cannot be told apart with these prompts{more}.")
    for name, grade in found.teachers.items():
        flat, count = grade["flat"][0], grade["prompts"]
        if grade["scale"] == 0:
            said.append(f"{name} gives every reply the same reward: it cannot teach.")
            continue
        if flat > 0.2:
            said.append(f"{name} gives (almost) the same reward to all {samples} replies on {round(flat * count)} of {count} prompts, from which nothing is learnt: leave such prompts out, draw more replies, or use a finer reward.")
        if grade["reward_variance"][2] < 0.25:
            said.append(f"Of what {name} distinguishes, {grade['reward_variance'][0]:.0%} is between replies to one prompt; the rest is between prompts and teaches nothing. Expect it to be slow.")
        if "covariance" in grade:
            value, low, high = grade["covariance"]
            if high < 0:
                said.append(f"{name} pulls against {found.ground_truth}: training on it will lower what you want.")
            elif low <= 0:
                said.append(f"{name} cannot be told from one that has nothing to do with {found.ground_truth}: its covariance may be 0.")
            if grade["tied"] > 0.1:
                said.append(f"{name} ties {grade['tied']:.0%} of the pairs, which accuracy counts as wrong and a policy gradient does not count at all: go by the covariance.")
    if order["by"] == "covariance" and len(order["names"]) > 1:
        for other, key in (("accuracy", "accuracy"), ("reward variance", "reward_variance")):
            first = max(order["names"], key=lambda name: (found.teachers[name][key] or [0])[0])
            if first != order["names"][0]:
                said.append(f"{first} has the larger {other}, and {order['names'][0]} is expected to teach more.")
    if found.replies["cut_off"] > 0.5:
        said.append(f"{found.replies['cut_off']:.0%} of the replies were cut off at {found.sampling['max_new_tokens']} tokens, and judged unfinished: raise --max-new-tokens if you train with longer ones.")
    if found.replies["same"] > 0.2:
        said.append(f"{found.replies['same']:.0%} of the replies repeat another to the same prompt: this policy has little left to choose from.")
    return said


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
    return {"files": sorted([path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in folder.glob("*.safetensors"))}


def _scores(label, judge, texts, folder, dtype, trust_remote_code, progress):
    """Rewards of each of `texts` [(prompts, replies), …] as lists, from a file in `folder` where they were written before."""
    from rvlib.lm import reward_models
    from rvlib.lm.data import fingerprint

    if callable(judge):
        return [_score(judge, *some, label, progress) for some in texts]
    path = folder / f"scores-{fingerprint([str(judge), dtype, _stamp(judge), [[[vars(p) for p in prompts], replies] for prompts, replies in texts]])[:12]}.json"
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
    found = np.concatenate([np.asarray(score(prompts[i : i + CHUNK], replies[i : i + CHUNK]), dtype=float) for i in starts])
    if found.shape != (len(prompts), len(replies[0])) or not np.isfinite(found).all():
        wanted = f"{len(prompts)} × {len(replies[0])}"
        raise ValueError(f"A reward must be one finite number for each of {wanted} replies, got shape {found.shape} with {int((~np.isfinite(found)).sum())} not finite of {label}.")
    return [[float(f"{x:.8g}") for x in row] for row in found]


def _mean(values):
    found = measure.over_prompts(values)
    return [float(found.value), float(found.low), float(found.high)]


def _share(count, total):
    """A share with its exact interval (Clopper and Pearson's), which a bootstrap of zeros would miss."""
    ends = binomtest(count, total).proportion_ci()
    return [count / total, float(ends.low), float(ends.high)]


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="rvlib audit", description=__doc__.split("\n")[0], formatter_class=Defaults)
    parser.add_argument("--policy", required=True, help="SmolLM2-135M-Instruct, a folder, or a name on the hub")
    parser.add_argument("--reward-model", required=True, action="append", help="sentiment, similarity, a folder, or a name on the hub; once for each")
    parser.add_argument("--prompts", required=True, help="a .jsonl file, a text file, a data set's name[:split], alpaca-eval or demo-preferences")
    parser.add_argument("--ground-truth", help="what you want, named as a reward model is")
    parser.add_argument("--samples", type=int, default=8, help="replies to each prompt")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="the longest reply")
    parser.add_argument("--temperature", type=float, default=1.0, help="of sampling")
    parser.add_argument("--limit", type=int, help="how many prompts")
    parser.add_argument("--seed", type=int, default=0, help="of sampling, and of choosing prompts")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--skip-bad-lines", action="store_true", help="leave out lines that hold no prompt, and say which")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a reward model")
    parser.add_argument("--folder", type=pathlib.Path, help="for replies, scores and the report (default: one in the data folder)")
    arguments = sys.argv[1:] if arguments is None else arguments
    given = vars(parser.parse_args(arguments))
    try:
        from rvlib import audit_report

        found = audit(given.pop("policy"), given.pop("reward_model"), given.pop("prompts"), **given, command=shlex.join(["rvlib", "audit", *arguments]))
    except (OSError, ValueError, ModuleNotFoundError, MemoryError) as error:
        sys.exit(sentence(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from what was drawn and scored.")
    audit_report.show(found)
