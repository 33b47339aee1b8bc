"""`rvlib samples`: real replies to real prompts, scored with two real rewards, for the book's chapter on them.

The replies stay in the data folder. What is written for the book is numbers, and the replies to the book's own prompts.
The book reads them with `rvlib.results.load_real_policy`, without torch.
"""

import argparse
import datetime
import json
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rvlib._terminal import Defaults, sentence
from rvlib.files import data_folder, write_text
from rvlib.lm import origin
from rvlib.lm.data.prompts import MEMBER, OWN, PACKAGE, VERSION, Prompt, alpaca_eval
from rvlib.lm.models import SMOLLM2, fixed_rewards
from rvlib.lm.models.policies import load_policy
from rvlib.lm.sampling.replies import ReplyRecord, Sampling, sample_replies, sampling_seconds
from rvlib.results import REAL_POLICY


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `rvlib samples`. Exits with one sentence for what is wrong."""
    parser = argparse.ArgumentParser(
        prog="rvlib samples", description=(__doc__ or "").split("\n")[0], formatter_class=Defaults
    )
    parser.add_argument("--policy", default=SMOLLM2, help="a folder, or a name on the hub")
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
    options = parser.parse_args(arguments)
    options.folder, options.out = options.folder or data_folder() / "samples", options.out or REAL_POLICY
    try:
        run(options, Sampling(**{name: getattr(options, name) for name in vars(Sampling())}))
    except (OSError, ValueError, ModuleNotFoundError) as error:
        sys.exit(sentence(error))


def run(options: argparse.Namespace, sampling: Sampling) -> None:
    """Sample, score and write: the body of the command, with the options of `main`."""
    prompts = [*OWN, *alpaca_eval(options.prompts, max_words=options.max_words, seed=options.seed)]
    similarity = fixed_rewards.Similarity()  # before the long part, in case its package is missing
    fixed_rewards.sentiment([""])
    policy = load_policy(options.policy, dtype=options.dtype)
    records = sample_replies(policy, prompts, options.folder, sampling)
    print("Scoring …")
    start = time.perf_counter()
    rows = [_scored(*pair, fixed_rewards.sentiment, similarity) for pair in zip(prompts, records)]
    began = datetime.date.fromtimestamp((options.folder / "settings.json").stat().st_mtime)
    made = {
        "command": "rvlib samples",
        "date": began.isoformat(),
        "git_commit": origin.git_commit(),
        "policy": policy.source,
        "prompts": {
            "package": f"{PACKAGE}=={VERSION}",
            "file": MEMBER,
            "count": options.prompts,
            "max_words": options.max_words,
        },
        "sampling": vars(sampling),
        "seconds": {
            "sampling": round(sampling_seconds(options.folder), 1),
            "scoring": round(time.perf_counter() - start, 1),
        },
        "device": origin.device(policy.model.device),
        "versions": origin.versions(),
    }
    lines = ",\n".join(json.dumps(row) for row in rows)
    text = '{"made": ' + json.dumps(made, indent=1) + ',\n"prompts": [\n' + lines + "\n]}\n"
    write_text(options.out, text)
    print(f"Replies: {options.folder}\nNumbers: {options.out}")


def _scored(
    prompt: Prompt,
    record: ReplyRecord,
    sentiment: Callable[[list[str]], list[float]],
    similarity: Callable[[list[str], list[str]], list[float]],
) -> dict[str, Any]:
    """The numbers of one prompt; its texts too where they are ours to show."""
    replies = record["replies"]
    scores = {
        "sentiment": sentiment(replies),
        "similarity": [round(score, 6) for score in similarity(replies, [prompt.reference_reply] * len(replies))],
        "tokens": [len(tokens) for tokens in record["tokens"]],
        "ended": record["ended"],
        "log_probs": [round(value, 3) for value in record["log_probs"]],
        "same_as": [replies.index(reply) for reply in replies],
    }
    texts = {"text": prompt.text, "reference": prompt.reference_reply, "replies": replies} if prompt in OWN else {}
    return {"name": prompt.name} | texts | scores


if __name__ == "__main__":
    main()
