"""`rvlib samples`: real replies to real prompts, scored with two real rewards, for the book's chapter on them.

The replies stay in the data folder. What is written for the book is numbers, and the replies to prompts of our own.
"""

import argparse
import datetime
import json
import pathlib
import sys
import time

from rvlib._terminal import Defaults, sentence
from rvlib.files import data_folder
from rvlib.lm import origin
from rvlib.lm.data import prompts
from rvlib.lm.models import fixed_rewards, policies
from rvlib.lm.sampling.replies import Sampling, sample_replies, sampling_seconds
from rvlib.results import REAL_POLICY


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="rvlib samples", description=__doc__.split("\n")[0], formatter_class=Defaults)
    parser.add_argument("--policy", default=policies.SMOLLM2, help="a folder, or a name on the hub")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--prompts", type=int, default=100, help="how many of AlpacaEval's")
    parser.add_argument("--max-words", type=int, default=40, help="the longest prompt")
    for name, value in vars(Sampling()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument(
        "--folder",
        type=pathlib.Path,
        help="for the replies; a run cut off goes on from it (default: samples in the data folder)",
    )
    parser.add_argument("--out", type=pathlib.Path, help="for the numbers (default: those of the book's chapter)")
    given = parser.parse_args(arguments)
    given.folder, given.out = given.folder or data_folder() / "samples", given.out or REAL_POLICY
    try:
        sampling = Sampling(**{name: getattr(given, name) for name in vars(Sampling())})
        run(given, sampling)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        sys.exit(sentence(error))


def run(given, sampling):
    """Sample, score and write: the body of the command."""
    questions = [*prompts.OWN, *prompts.alpaca_eval(given.prompts, max_words=given.max_words, seed=given.seed)]
    similarity = fixed_rewards.Similarity()  # before the long part, in case its package is missing
    fixed_rewards.sentiment([""])
    policy = policies.load_policy(given.policy, dtype=given.dtype)
    records = sample_replies(policy, questions, given.folder, sampling)
    print("Scoring …")
    start = time.perf_counter()
    lines = [json.dumps(_scored(prompt, record, similarity)) for prompt, record in zip(questions, records)]
    made = {
        "command": "rvlib samples",
        "date": datetime.date.fromtimestamp(
            (given.folder / "settings.json").stat().st_mtime
        ).isoformat(),  # when sampling began
        "git_commit": origin.git_commit(),
        "policy": policy.source,
        "prompts": {
            "package": f"{prompts.PACKAGE}=={prompts.VERSION}",
            "file": prompts.MEMBER,
            "count": given.prompts,
            "max_words": given.max_words,
        },
        "sampling": vars(sampling),
        "seconds": {
            "sampling": round(sampling_seconds(given.folder), 1),
            "scoring": round(time.perf_counter() - start, 1),
        },
        "device": origin.device(policy.model.device),
        "versions": origin.versions(),
    }
    partial = given.out.with_suffix(".partial")
    partial.write_text(
        '{"made": ' + json.dumps(made, indent=1) + ',\n"prompts": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8"
    )
    partial.replace(given.out)
    print(f"Replies: {given.folder}\nNumbers: {given.out}")


def _scored(prompt, record, similarity):
    """The numbers of one prompt; its texts too where they are ours to show."""
    replies = record["replies"]
    scores = {
        "sentiment": fixed_rewards.sentiment(replies),
        "similarity": [round(score, 6) for score in similarity(replies, [prompt.reference] * len(replies))],
        "tokens": [len(tokens) for tokens in record["tokens"]],
        "ended": record["ended"],
        "log_probs": [round(value, 3) for value in record["log_probs"]],
        "same_as": [replies.index(reply) for reply in replies],
    }
    texts = {"text": prompt.text, "reference": prompt.reference, "replies": replies} if prompt in prompts.OWN else {}
    return {"name": prompt.name} | texts | scores


if __name__ == "__main__":
    main()
