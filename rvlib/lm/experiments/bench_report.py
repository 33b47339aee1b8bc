"""`rvlib bench gpu`: how near each stage of a run comes to what the machine can do, with random weights.

The stages and how they are measured are in `bench`; here are the command and what it prints.
"""

import argparse
import contextlib
import difflib
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import torch

from rvlib.cli import Defaults, sentence
from rvlib.files import ROOT, write_whole
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments.architectures import ARCHITECTURES
from rvlib.lm.experiments.bench import measure

SHARES = {"share_of_matrix_rate": "the matrix rate", "share_of_bandwidth": "the bandwidth"}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `rvlib bench`. Exits with one sentence for what is wrong."""
    options = _parser().parse_args(arguments)
    out = options.out or ROOT / f"benchmarks/results/{options.where}-{options.model}.json"
    if options.model not in ARCHITECTURES:
        near = difflib.get_close_matches(options.model, ARCHITECTURES, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        sys.exit(f"The model must be one of {', '.join(ARCHITECTURES)}, got {options.model!r}{hint}.")
    if options.layers is not None and options.layers < 1:
        sys.exit(f"The layers must be at least one, got {options.layers}; leave --layers out for all.")

    def write(result: dict[str, Any]) -> None:
        write_whole(out, lambda partial: partial.write_text(json.dumps(result, indent=1) + "\n"))

    try:
        recipe = recipes.load(options.recipe, options.set)
        if options.where == "gpu" and not torch.cuda.is_available():
            raise RuntimeError(
                "A GPU must be there for `rvlib bench gpu`, but torch sees none; try `rvlib bench cpu --model tiny`, "
                "or install a build of torch for this machine's GPU."
            )
        with contextlib.suppress(FileExistsError):
            out.parent.mkdir(parents=True)
        device = "cuda" if options.where == "gpu" else "cpu"
        result = measure(options.model, recipe, device, options.minutes, write, options.layers)
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError, MemoryError) as error:
        sys.exit(sentence(error))
    print(format_result(result))
    print(f"Written to {out}")


def _parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="rvlib bench", description=description, formatter_class=Defaults)
    parser.add_argument("where", choices=["gpu", "cpu"], help="the device")
    parser.add_argument("--model", default="llama-3.1-8b", help=f"one of {', '.join(ARCHITECTURES)}")
    parser.add_argument("--recipe", default="scale-8b", help="whose batch and runtime are used")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the recipe")
    parser.add_argument(
        "--layers", type=int, help="of the model, for a machine that is too small for all (default: all)"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="no stage begins later than this")
    parser.add_argument(
        "--out", type=pathlib.Path, help="the JSON to write (default: benchmarks/results/WHERE-MODEL.json)"
    )
    return parser


def format_result(result: dict[str, Any]) -> str:
    """What `bench.measure` returns, as lines of text."""
    model = f"{result['model']} on {result['made']['device']}"
    if "failed" in result:
        return f"{model}: {result['failed']}"
    rates = result["machine_rates"]
    lines = [f"{model}: {rates['matrix_rate'] / 1e12:.3g} TFLOP/s, {rates['bandwidth'] / 1e9:.3g} GB/s"]
    for stage, numbers in result["stages"].items():
        lines.append(f"  {stage:<10} {numbers.get('failed') or _format_stage(numbers)}")
    if "official_over_ours" in result:
        lines.append(f"  the official code's step takes {result['official_over_ours']:.2f} times as long as ours")
    return "\n".join(lines)


def _format_stage(numbers: dict[str, Any]) -> str:
    parts = [f"{numbers['tokens_per_second']:.4g} tokens/s"]
    parts += [f"{100 * numbers[key]:.1f} % of {rate}" for key, rate in SHARES.items() if key in numbers]
    if numbers.get("peak_memory"):
        parts.append(f"{numbers['peak_memory'] / 1e9:.1f} GB")
    if "planned_memory" in numbers:
        parts.append(f"{numbers['planned_memory'] / 1e9:.1f} GB planned")
    return ", ".join(parts)
