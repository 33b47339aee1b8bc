"""`rvlib bench gpu`: how near each stage of a run comes to what the machine can do, with random weights.

The stages themselves are in `bench`; here each is measured, and what was measured is written and printed.
"""

import argparse
import contextlib
import difflib
import json
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tqdm import tqdm

from rvlib._terminal import Defaults, sentence
from rvlib.files import ROOT, write_whole
from rvlib.lm import origin
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments.architectures import ARCHITECTURES
from rvlib.lm.experiments.bench import MEAN_REPLY_TOKENS, STAGES, Bench
from rvlib.lm.experiments.recipe import Recipe

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


def measure(
    name: str,
    recipe: Recipe,
    device: str,
    minutes: float,
    write: Callable[[dict[str, Any]], object],
    layers: int | None = None,
) -> dict[str, Any]:
    """All stages, each measured twice, of which the first warms up; `write(result)` after each.

    What fails is one sentence in the result.

    No repetition begins after `minutes`, nor one whose first took longer than is left of them; a stage that had time
    for one alone is marked as not warmed up.
    """
    end = time.monotonic() + 60 * minutes
    settings = {
        "policy_gradient": recipe.policy_gradient.model_dump(mode="json"),
        "runtime": recipe.runtime.model_dump(mode="json"),
    }
    stages: dict[str, dict[str, Any]] = {}
    result = {
        "model": name,
        "recipe": recipe.title,
        "settings": settings,
        "reply_lengths": f"geometric with mean {MEAN_REPLY_TOKENS}",
        "made": origin.record(),
        "stages": stages,
    }
    try:
        bench = Bench(name, recipe, device, layers)
        rates = bench.machine_rates()
        result |= {
            "parameters": bench.parameters,
            "layers": bench.config.num_hidden_layers,
            "machine_rates": rates,
        }
    except Exception as error:
        result["failed"] = _sentence(error)
        write(result)
        return result
    # torch counts a GPU's memory alone
    measurable = [stage for stage in STAGES if device == "cuda" or stage != "memory"]
    for stage in tqdm(measurable, desc=name, unit="stage"):
        try:
            stages[stage] = _measure_stage(bench, stage, rates, end, minutes)
        except Exception as error:  # one stage's failure must not lose the others
            stages[stage] = {"failed": _sentence(error)}
        write(result)
    step, official = (stages[stage].get("tokens_per_second") for stage in ("step", "official"))
    if (
        step and official
    ):  # a token of reply, since the replies are not quite the same: the weights have moved in between
        result["official_over_ours"] = step / official
    write(result)
    return result


def _measure_stage(bench: Bench, stage: str, rates: dict[str, float], end: float, minutes: float) -> dict[str, Any]:
    """A stage's numbers, with its shares of the machine's `rates`. TimeoutError if it cannot begin before `end`."""
    numbers: dict[str, Any] = {}
    cuda = bench.device.type == "cuda"
    for warm in (False, True):
        if time.monotonic() + numbers.get("seconds", 0.0) > end:
            break
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        numbers = getattr(bench, stage)() | {"warm": warm}
    if not numbers:
        raise TimeoutError(
            f"The {minutes:g} minutes of this call were over before it was measured; give it more with --minutes."
        )
    numbers["tokens_per_second"] = numbers["tokens"] / numbers["seconds"]
    if "operations" in numbers:
        numbers["share_of_matrix_rate"] = numbers["operations"] / numbers["seconds"] / rates["matrix_rate"]
    if "bytes" in numbers:
        numbers["share_of_bandwidth"] = numbers["bytes"] / numbers["seconds"] / rates["bandwidth"]
    numbers["peak_memory"] = torch.cuda.max_memory_allocated() if cuda else None  # bytes
    return numbers


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def format_result(result: dict[str, Any]) -> str:
    """What `measure` returns, as lines of text."""
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
