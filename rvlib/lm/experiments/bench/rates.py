"""How much of a GPU's stated rates each stage of a step reaches, by what `rvlib bench gpu` measured.

    python -m rvlib.lm.experiments.bench.rates    benchmarks/results/*gpu-*.json → rvlib/data/results/rates.json

A share is the work that `cost` counts, divided by the time that was measured and by the rate that the maker states. So
the plan of a batch that was measured takes the time that was measured. Each GPU's shares are from its largest model,
and each stage's from its newest measurement, also in a call that was cut short (partial-gpu-*.json) after that stage.
"""

import json
from dataclasses import asdict, replace
from typing import get_args

from rvlib.files import RESULTS, ROOT, write_text
from rvlib.lm.experiments import cost
from rvlib.lm.experiments.bench.record import BenchRecord
from rvlib.lm.experiments.cost import Machine, Shares, Size
from rvlib.lm.settings import RuntimeSettings

MEASURED = ROOT / "benchmarks/results"
ENGINES = get_args(RuntimeSettings.model_fields["engine"].annotation)  # a result may have one that is gone


def shares(result: BenchRecord, size: Size, machine: Machine) -> dict[str, float]:
    """{engine, "scoring" or "updating": share of a machine's stated rate}, of the stages that a result has.

    result: of `rvlib bench gpu`, on a model of that size.
    """
    runtime = result["settings"]["runtime"]
    stages = {name: stage for name, stage in result["stages"].items() if stage.get("warm")}
    rate, reached, prompt = getattr(machine, runtime["compute_dtype"]), {}, float(cost.USUAL_PROMPT_TOKENS)
    if scoring := stages.get("scoring"):
        # Of the reward model all but the table of embeddings is counted there, and all here.
        parameters = scoring["operations"] / (2 * scoring["tokens"]) + size.vocabulary * size.width
        reached["scoring"] = 2 * parameters * scoring["tokens"] / scoring["seconds"] / rate
        if "sampling" in stages:
            lengths = stages["sampling"]["lengths"]
            prompt = (scoring["tokens"] - sum(lengths)) / len(lengths)
    if update := stages.get("update"):
        operations = cost.operations(runtime["gradient_checkpointing"]) * size.parameters * update["tokens"]
        reached["updating"] = operations / update["seconds"] / rate
    for drawn in stages.values():  # the smallest batch comes first
        if "lengths" in drawn and drawn["engine"] in ENGINES and drawn["engine"] not in reached:
            replies, longest = len(drawn["lengths"]), max(drawn["lengths"])
            nbytes = cost.reading_bytes(size, replies, prompt, longest, runtime["compute_dtype"]) * longest
            reached[drawn["engine"]] = nbytes / drawn["seconds"] / machine.bandwidth
    return reached


def table() -> dict[str, Shares]:
    """{GPU: its `Shares`} of all GPUs in `cost.MACHINES` whose largest model has results for all three stages."""
    by_gpu: dict[str, list[BenchRecord]] = {gpu: [] for gpu in cost.MACHINES}
    for path in MEASURED.glob("*gpu-*.json"):
        result: BenchRecord = json.loads(path.read_text(encoding="utf-8"))
        gpu = next((name for name in cost.MACHINES if name in result["made"]["device"]), None)
        if gpu and "stages" in result:
            by_gpu[gpu].append(result)
    table = {}
    for gpu, results in by_gpu.items():
        largest = max((result["parameters"] for result in results), default=0)
        reached: dict[str, float] = {}
        dates: dict[str, str] = {}
        for result in sorted(results, key=lambda result: result["made"]["date"]):  # the newest overwrites
            if result["parameters"] == largest:
                newer = shares(result, _size(result), cost.MACHINES[gpu])
                reached |= newer
                dates |= dict.fromkeys(newer, result["made"]["date"][:10])
        engines = [name for name in ENGINES if name in reached]
        if engines and {"scoring", "updating"} <= reached.keys():
            table[gpu] = Shares(
                sampling={engine: round(reached[engine], 4) for engine in engines},
                scoring=round(reached["scoring"], 4),
                updating=round(reached["updating"], 4),
                gpu=gpu,
                dates=dates,
            )
    return table


def _size(result: BenchRecord) -> Size:
    """The `Size` of a result's model. ValueError for one that the planner does not know."""
    if model := cost.named(result["model"]):  # perhaps with fewer layers
        return replace(cost.MODELS[model], parameters=result["parameters"], layers=result["layers"])
    raise ValueError(
        f"The model of a result must be one that `cost.MODELS` has, got {result['model']!r}; add its size."
    )


if __name__ == "__main__":
    write_text(
        RESULTS / "rates.json", json.dumps({gpu: asdict(shares) for gpu, shares in table().items()}, indent=1) + "\n"
    )
