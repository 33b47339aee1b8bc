"""The arguments of `rvlib audit`, which its help lists; apart from what they start, so that help needs no torch."""

import argparse
import pathlib

from rvlib._terminal import Defaults


def parser() -> argparse.ArgumentParser:
    """The parser of `rvlib audit`."""
    result = argparse.ArgumentParser(
        prog="rvlib audit",
        description="Is this reward model a good teacher for this policy?",
        formatter_class=Defaults,
    )
    audited = result.add_argument_group("what is audited")
    audited.add_argument("--policy", help="SmolLM2-135M-Instruct, a folder, or a name on the hub")
    audited.add_argument(
        "--reward-model",
        action="append",
        default=[],
        help="sentiment, similarity, a folder, or a name on the hub; once for each",
    )
    audited.add_argument(
        "--prompts",
        help="a file (.jsonl, .json, .csv, .tsv, .parquet, .txt, perhaps .gz), a data set's name[:split], alpaca-eval "
        "or demo-preferences",
    )
    audited.add_argument(
        "--ground-truth",
        help="what you want, named as a reward model is, or a column of --scores, perhaps as FILE:COLUMN",
    )
    audited.add_argument("--num-generations", type=int, help="replies to each prompt (default: 8, or all of --replies)")
    audited.add_argument("--max-new-tokens", type=int, default=64, help="the longest reply")
    audited.add_argument("--temperature", type=float, default=1.0, help="of sampling")
    audited.add_argument("--limit", type=int, help="how many prompts")
    audited.add_argument("--seed", type=int, default=0, help="of sampling, and of choosing prompts")
    audited.add_argument("--column", help="the key or column that holds the prompt, where it is none of the known")
    audited.add_argument("--group", type=int, help="replies from which a step of training learns (default: all)")
    files = result.add_argument_group("bring your own, or send it out")
    files.add_argument("--replies", type=pathlib.Path, help="replies drawn elsewhere: JSON lines, CSV, TSV or parquet")
    files.add_argument(
        "--scores",
        type=pathlib.Path,
        action="append",
        default=[],
        help="scores from anywhere, by prompt and reply: JSON lines, CSV, TSV or parquet; once for each file",
    )
    files.add_argument("--export", type=pathlib.Path, help="write the replies to be scored to this file, and stop")
    files.add_argument(
        "--compare", nargs=2, type=pathlib.Path, metavar=("A", "B"), help="two folders of audits, beside each other"
    )
    runtime = result.add_argument_group("how it runs")
    runtime.add_argument(
        "--dtype", default="auto", help="float32, bfloat16, or auto: bfloat16 on a GPU, float32 elsewhere"
    )
    runtime.add_argument("--compare-dtype", help="a second precision, whose difference from --dtype counts as noise")
    runtime.add_argument(
        "--min-scored",
        type=float,
        default=0.9,
        help="share of the prompts whose replies must have a reward: all of them, or two where scores come from files",
    )
    runtime.add_argument(
        "--engine", default="auto", choices=["auto", "graph", "generate", "continuous"], help="how replies are drawn"
    )
    runtime.add_argument("--batch-size", type=int, help="texts in a batch of a model")
    runtime.add_argument("--dry-run", action="store_true", help="say what would be drawn and scored, how long it takes")
    runtime.add_argument(
        "--skip-bad-lines",
        action="store_true",
        help="leave out lines without a prompt, and prompts that a model cannot read with their replies; say which",
    )
    runtime.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a reward model")
    runtime.add_argument(
        "--no-texts", dest="texts", action="store_false", help="keep no prompt and no reply in the report"
    )
    runtime.add_argument(
        "--folder", type=pathlib.Path, help="for replies, scores and the report (default: one in the data folder)"
    )
    return result
