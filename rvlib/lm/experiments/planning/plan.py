"""What the stages of a recipe will need: GB of memory by part, and hours, on each GPU.

`planned_stages` has what each stage takes. What a recipe leaves to the planner ("auto" under `runtime`) `choose` sets.
Nothing is downloaded. torch is imported only where this machine is asked. `dry_run` prints a plan.
"""

import itertools
from collections.abc import Sequence

from rvlib.lm.experiments import cost
from rvlib.lm.experiments.cost import GB, Machine
from rvlib.lm.experiments.planning.planned_stages import PlannedStage, Planner
from rvlib.lm.experiments.recipe import Recipe

MACHINE = cost.MACHINES["H100"]  # where there is no GPU to ask
USABLE = 0.95  # of a GPU's memory: the rest is CUDA's own, and pieces too small for use
MAX_BATCH_SIZE = 512  # the largest batch_size that the planner chooses


def plan(recipe: Recipe, gpus: int = 1, machine: Machine | None = None) -> list[PlannedStage]:
    """The stages of a recipe, on each of `gpus`; machine: the GPU here, or `MACHINE`.

    What the recipe leaves to the planner is what `choose` takes for that GPU's memory.
    """
    machine = machine or machine_here()
    recipe = choose(recipe, machine.memory, gpus, machine)
    planner, stages = Planner(recipe, gpus, machine), []
    for name, policy in recipe.policies.items():
        if policy.demonstrations:
            stages.append(planner.sft(name, policy))
        stages.append(planner.sampling(name, policy))
        if planner.ground_truth.parameters:  # a fixed function takes neither memory nor time
            stages.append(planner.labels(name))
        for key, reward_model in recipe.reward_models.items():
            if reward_model.trained:
                stages.append(planner.reward_model(key, policy, reward_model))
            stages.append(planner.policy_gradient(name, policy, key, reward_model))
    return stages


def choose(recipe: Recipe, memory: float, gpus: int = 1, machine: Machine | None = None) -> Recipe:
    """The recipe with each field of `runtime` that is "auto" set so that the run is fastest and fits.

    memory: bytes of each of `gpus`; the share `USABLE` of it is used. Among equally fast choices it takes the largest
    micro_batch and then the smallest batch_size. If nothing fits, it takes what needs least memory.
    """
    auto = recipe.runtime.auto()
    if not auto:
        return recipe
    candidates = []
    for values in itertools.product(*(_values(recipe, field) for field in auto)):
        settings = dict(zip(auto, values))
        runtime = recipe.runtime.model_copy(update=settings)
        resolved = recipe.model_copy(update={"runtime": runtime})
        stages = plan(resolved, gpus, machine)
        peak = largest(stages).peak * GB
        order = (hours(stages), -runtime.micro_batch, runtime.batch_size)
        candidates.append(((False, *order) if peak <= USABLE * memory else (True, peak, *order), resolved))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _values(recipe: Recipe, field: str) -> list[bool] | list[int]:
    """What a field that is "auto" may be: powers of two, as far as they can be of use to the recipe."""
    if field == "gradient_checkpointing":
        return [False, True]
    gradient, measure, evaluation = recipe.policy_gradient, recipe.measure, recipe.evaluation
    if field == "micro_batch":
        most = gradient.batch_size // gradient.num_mini_batches
    else:
        replies = (measure.prompts * measure.num_generations, evaluation.prompts * evaluation.num_generations)
        most = min(max(gradient.batch_size, *replies), MAX_BATCH_SIZE)
    return [2**power for power in range(most.bit_length())]


def hours(stages: Sequence[PlannedStage], jobs: int = 1) -> float:
    """Hours of all stages, with `jobs` trainings by policy gradient at once on one GPU.

    These take as long as the GPU works for all of them, or as launching their kernels, which they do at the same time.
    """
    trainings = [stage for stage in stages if stage.name.startswith("policy-gradient/")]
    others = sum(stage.hours for stage in stages if stage not in trainings)
    return others + max(sum(each.busy_hours for each in trainings), sum(each.hours for each in trainings) / jobs)


def largest(stages: Sequence[PlannedStage]) -> PlannedStage:
    """The stage that takes most memory."""
    return max(stages, key=lambda stage: stage.peak)


def machine_here() -> Machine:
    """The GPU here as a `cost.Machine`, if it is one that we know, else `MACHINE`."""
    import torch  # asks this machine

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return next((machine for model, machine in cost.MACHINES.items() if model in name), MACHINE)
    return MACHINE


def memory_here() -> tuple[float, str]:
    """Bytes of memory that models can take here, and of what."""
    import psutil  # asks this machine
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1], "The GPU"
    return psutil.virtual_memory().total, "This machine, which has no GPU,"
