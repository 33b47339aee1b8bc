"""How much of a GPU's stated rates each stage of a step reaches, by what `rvlib bench gpu` measured.

    python -m rvlib.lm.experiments.bench.rates    benchmarks/results/gpu-*.json → rvlib/data/results/rates.json

A share is the work that `cost` counts, divided by the time that was measured and by the rate that the maker states. So
the plan of a batch that was measured takes the time that was measured. Each GPU's shares are from its largest model.
"""

import json
from dataclasses import asdict, replace

from rvlib.files import RESULTS, ROOT, write_text
from rvlib.lm.experiments import cost
from rvlib.lm.experiments.bench.record import BenchRecord
from rvlib.lm.experiments.cost import Machine, Shares, Size

MEASURED = ROOT / "benchmarks/results"


def shares(result: BenchRecord, size: Size, machine: Machine) -> Shares:
    """The shares of a machine's stated rates in a result of `rvlib bench gpu` on a model of that size."""
    runtime, stages = result["settings"]["runtime"], result["stages"]
    rate = getattr(machine, runtime["compute_dtype"])
    scoring, update = stages["scoring"], stages["update"]
    # Of the reward model all but the table of embeddings is counted there, and all here.
    parameters = scoring["operations"] / (2 * scoring["tokens"]) + size.vocabulary * size.width
    operations = cost.operations(runtime["gradient_checkpointing"]) * size.parameters * update["tokens"]
    sampling = {}
    prompt = (scoring["tokens"] - sum(stages["sampling"]["lengths"])) / len(stages["sampling"]["lengths"])
    for drawn in stages.values():
        if "lengths" in drawn and drawn["engine"] not in sampling:  # the smallest batch comes first
            replies, longest = len(drawn["lengths"]), max(drawn["lengths"])
            nbytes = cost.reading_bytes(size, replies, prompt, longest, runtime["compute_dtype"]) * longest
            sampling[drawn["engine"]] = nbytes / drawn["seconds"] / machine.bandwidth
    return Shares(
        sampling={engine: round(share, 4) for engine, share in sampling.items()},
        scoring=round(2 * parameters * scoring["tokens"] / scoring["seconds"] / rate, 4),
        updating=round(operations / update["seconds"] / rate, 4),
        gpu=machine.name,
        date=result["made"]["date"][:10],
    )


def table() -> dict[str, Shares]:
    """{GPU: its `shares`} of all GPUs in `cost.MACHINES` for which there is a result."""
    largest: dict[str, BenchRecord] = {}
    for path in sorted(MEASURED.glob("gpu-*.json")):
        result: BenchRecord = json.loads(path.read_text(encoding="utf-8"))
        gpu = next((name for name in cost.MACHINES if name in result["made"]["device"]), None)
        through = all(
            "seconds" in result.get("stages", {}).get(stage, {}) for stage in ("sampling", "scoring", "update")
        )
        if gpu and through and (gpu not in largest or result["parameters"] > largest[gpu]["parameters"]):
            largest[gpu] = result
    return {gpu: shares(result, _size(result), cost.MACHINES[gpu]) for gpu, result in largest.items()}


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
