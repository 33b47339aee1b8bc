"""`rvlib bench gpu`: how near each stage of a run comes to what the machine can do, with random weights.

The stages themselves are in `bench`; here each is measured, and what was measured is written and printed.
"""

import argparse
import contextlib
import difflib
import json
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from tqdm import tqdm

from rvlib._terminal import Defaults, sentence
from rvlib.files import ROOT, write_text
from rvlib.lm import origin
from rvlib.lm.experiments import cost
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments.bench.architectures import ARCHITECTURES
from rvlib.lm.experiments.bench.bench import MEAN_REPLY_TOKENS, Bench, Stage
from rvlib.lm.experiments.bench.device_timing import idle_share, machine_rates
from rvlib.lm.experiments.bench.record import BenchRecord, MachineRates, StageRecord
from rvlib.lm.experiments.planning import plan
from rvlib.lm.experiments.recipe import NamedRewardModel, Recipe

MINUTES = {"large": 5.5, "small": 1.7}  # of a whole call, by the size of the model, what is compiled included
LARGE_MODEL = 1e9  # parameters


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `rvlib bench`. Exits with one sentence for what is wrong."""
    options = _parser().parse_args(arguments)
    if options.model not in ARCHITECTURES:
        near = difflib.get_close_matches(options.model, ARCHITECTURES, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        sys.exit(f"The model must be one of {', '.join(ARCHITECTURES)}, got {options.model!r}{hint}.")
    if options.layers is not None and options.layers < 1:
        sys.exit(f"The layers must be at least one, got {options.layers}; leave --layers out for all.")

    def write(result: BenchRecord) -> None:
        write_text(out, json.dumps(result, indent=1) + "\n")

    try:
        recipe = recipes.load(options.recipe, options.set)
        if options.where == "gpu" and not torch.cuda.is_available():
            raise RuntimeError(
                "A GPU must be there for `rvlib bench gpu`, but torch sees none; try `rvlib bench cpu --model tiny`, "
                "or install a build of torch for this machine's GPU."
            )
        device = "cuda" if options.where == "gpu" else "cpu"
        out = options.out or _results_folder() / _file_name(options.where, options.model)
        with contextlib.suppress(FileExistsError):
            out.parent.mkdir(parents=True)
        recipe = settled(options.model, recipe, options.layers)
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
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"a stage that is not through by then is cut off (default: {MINUTES['large']:g}, or "
        f"{MINUTES['small']:g} of a model below a billion parameters)",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="the JSON to write (default: cpu-MODEL.json or gpu-GPU-MODEL.json, in benchmarks/results of a checkout, "
        "else in the working directory)",
    )
    return parser


def _results_folder() -> pathlib.Path:
    """benchmarks/results in a checkout; of an installed package, the working directory."""
    return ROOT / "benchmarks/results" if (ROOT / "pyproject.toml").exists() else pathlib.Path.cwd()


def _file_name(where: str, model: str) -> str:
    """Of a result: the device, the GPU's short name where the planner knows it, the model."""
    gpu = torch.cuda.get_device_name() if where == "gpu" else ""
    known = next((name.lower() for name in cost.MACHINES if name in gpu), None)
    return "-".join(filter(None, (where, known, model))) + ".json"


def settled(name: str, recipe: Recipe, layers: int | None = None) -> Recipe:
    """The recipe with what it leaves to the planner set for a policy and a reward model of the architecture `name`.

    layers: how many of the architecture's (None: all). The reward model is counted as large as the policy, and no
    ground truth is loaded here.
    """
    if not recipe.runtime.auto():
        return recipe
    if (model := cost.named(name)) is None:
        raise ValueError(
            f"The planner must know the size of {name} to set {', '.join(recipe.runtime.auto())}; set them by --set."
        )
    update = {
        "policies": {key: policy.model_copy(update={"model": model}) for key, policy in recipe.policies.items()},
        "reward_models": {"reward-model": NamedRewardModel(model=model)},
        "ground_truth": recipe.ground_truth.model_copy(update={"model": "sentiment"}),
    }
    size = cost.MODELS[model]
    embeddings = 2 * size.vocabulary * size.width
    # Of fewer layers nothing takes a larger part than the weights do.
    part = (
        1 if layers is None else (embeddings + (size.parameters - embeddings) * layers / size.layers) / size.parameters
    )
    runtime = plan.choose(recipe.model_copy(update=update), plan.memory_here()[0] / part).runtime
    return recipe.model_copy(update={"runtime": runtime})


def measure(
    name: str,
    recipe: Recipe,
    device: str,
    minutes: float | None,
    write: Callable[[BenchRecord], object],
    layers: int | None = None,
) -> BenchRecord:
    """All stages, the most important first, with `write(result)` after each. What fails is a sentence in the result.

    minutes: for all stages, by default `MINUTES`. A stage that is not finished by then is cut off, and none begins
    after it, nor a second repetition that would not end before it. A stage with one repetition is marked as not warm.
    """
    start = time.monotonic()
    settings = {
        "policy_gradient": recipe.policy_gradient.model_dump(mode="json"),
        "runtime": recipe.runtime.model_dump(mode="json"),
    }
    stages: dict[str, StageRecord] = {}
    result: BenchRecord = {
        "model": name,
        "recipe": recipe.title,
        "settings": settings,
        "reply_lengths": f"geometric with mean {MEAN_REPLY_TOKENS}",
        "made": origin.record(),
        "stages": stages,
    }
    try:
        bench = Bench(name, recipe, device, layers)
        rates = machine_rates(bench.device)
        minutes = minutes if minutes is not None else MINUTES["large" if bench.parameters > LARGE_MODEL else "small"]
        end = start + 60 * minutes
        result |= {
            "parameters": bench.parameters,
            "layers": bench.config.num_hidden_layers,
            "machine_rates": rates,
        }
    except Exception as error:
        result["failed"] = _sentence(error)
        write(result)
        return result
    for stage, work in tqdm(bench.stages().items(), desc=name, unit="stage"):
        try:
            stages[stage] = _measure_stage(bench, work, rates, end)
        except TimeoutError:
            stages[stage] = {"failed": f"The {minutes:g} minutes of this call were over; give it more with --minutes."}
        except Exception as error:  # the other stages are still measured
            stages[stage] = {"failed": _sentence(error)}
            torch.cuda.empty_cache()
        write(result)
    step, official = (stages[stage].get("tokens_per_second") for stage in ("step", "official"))
    if step and official:  # compared by token, since the weights have moved in between and the replies differ a little
        result["official_over_ours"] = step / official
    write(result)
    return result


def _measure_stage(bench: Bench, stage: Stage, rates: MachineRates, end: float) -> StageRecord:
    """A stage's numbers, with its shares of the machine's `rates`. TimeoutError if it is not through by `end`."""
    cuda = bench.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with _cut_off(end):
        numbers: StageRecord = {**stage.work(), "warm": False}
    with contextlib.suppress(TimeoutError):  # what there is remains
        if stage.warm_up and time.monotonic() + numbers["seconds"] < end:
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            with _cut_off(end):
                numbers = {**stage.work(), "warm": True}
        numbers["peak_memory"] = torch.cuda.max_memory_allocated() if cuda else None  # bytes
        if cuda and stage.profiled:
            with _cut_off(end):
                numbers |= _idle_share(bench, stage.profiled)
    numbers["tokens_per_second"] = numbers["tokens"] / numbers["seconds"]
    if "operations" in numbers:
        numbers["share_of_matrix_rate"] = numbers["operations"] / numbers["seconds"] / rates["matrix_rate"]
    if "bytes" in numbers:
        numbers["share_of_bandwidth"] = numbers["bytes"] / numbers["seconds"] / rates["bandwidth"]
    return numbers


def _idle_share(bench: Bench, work: Callable[[], object]) -> StageRecord:
    """{"idle_share": of the GPU's time}, or why there is none: what was measured is not lost with it."""
    try:
        return {"idle_share": idle_share(bench.device, work)}
    except TimeoutError:
        raise
    except Exception as error:
        return {"idle_share_failed": _sentence(error)}


@contextlib.contextmanager
def _cut_off(end: float) -> Iterator[None]:
    """Raise TimeoutError inside at the moment `end` of the monotonic clock, or immediately if it is past.

    Threads other than the main one get no signals: there it is raised only if `end` is past already.
    """

    def out_of_time(*_: object) -> None:
        raise TimeoutError

    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def format_result(result: BenchRecord) -> str:
    """What `measure` returns, as lines of text."""
    model = f"{result['model']} on {result['made']['device']}"
    if "failed" in result:
        return f"{model}: {result['failed']}"
    rates = result["machine_rates"]
    lines = [f"{model}: {rates['matrix_rate'] / 1e12:.3g} TFLOP/s, {rates['bandwidth'] / 1e9:.3g} GB/s"]
    for stage, numbers in result["stages"].items():
        lines.append(f"  {stage:<14} {numbers.get('failed') or _format_stage(numbers)}")
    if "official_over_ours" in result:
        lines.append(f"  the official code's step takes {result['official_over_ours']:.2f} times as long as ours")
    return "\n".join(lines)


def _format_stage(numbers: StageRecord) -> str:
    parts = [f"{numbers['seconds']:.3g} s", f"{numbers['tokens_per_second']:.4g} tokens/s"]
    if "share_of_matrix_rate" in numbers:
        parts.append(f"{100 * numbers['share_of_matrix_rate']:.1f} % of the matrix rate")
    if "share_of_bandwidth" in numbers:
        parts.append(f"{100 * numbers['share_of_bandwidth']:.1f} % of the bandwidth")
    if "idle_share" in numbers:
        parts.append(f"GPU idle {numbers['idle_share']:.0%}")
    if peak_memory := numbers.get("peak_memory"):
        parts.append(f"{peak_memory / 1e9:.1f} GB")
        if "planned_memory" in numbers:
            parts.append(f"{numbers['planned_memory'] / 1e9:.1f} GB planned at the most")
    if not numbers["warm"]:
        parts.append("measured once")
    return ", ".join(parts)
