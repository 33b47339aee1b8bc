"""The report of a finished run: its settings, what was measured of the teachers, and what they taught, as JSON.

`report` reads it and draws tables and figures from it, without torch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rvlib.files import write_text
from rvlib.lm import processes
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments import stages
from rvlib.lm.experiments.report import MEASURED, OUTCOMES, Report, page

if TYPE_CHECKING:  # `run` imports this module
    from rvlib.lm.experiments.run import Run


def make(run: Run) -> Report:
    """The report of a finished `run.Run`, a dictionary that JSON can hold.

    It has settings, deviations, origin, and for each policy the measured properties [mean, low, high], the candidates
    of `teacher_choice` and the curves (seeds, times) of each teacher.
    """
    recipe, policies = run.recipe, {}
    for name in recipe.policies:
        measured, teachers = stages.measure(run, name), {}
        for key in recipe.reward_models:
            logs = [
                [line for line in run.policy_gradient(key, name, seed) if "eval_kl" in line] for seed in recipe.seeds
            ]
            teacher = {quantity: [round(x, 5) for x in measured[key][quantity]] for quantity in MEASURED}
            teacher |= {"normalizer": measured[key]["normalizer"], "steps": [line["step"] for line in logs[0]]}
            if candidates := measured[key].get("candidates"):  # a run that was begun before there were any has none
                teacher["candidates"] = candidates
            for outcome in (*OUTCOMES, "kl"):
                teacher[outcome] = [[round(line[f"eval_{outcome}"], 5) for line in log] for log in logs]
            teachers[key] = teacher
        policies[name] = teachers
    manifests = {
        str(path.parent.relative_to(run.folder)): json.loads(path.read_text())
        for path in sorted(run.folder.rglob("manifest.json"))
    }
    last = max(manifests.values(), key=lambda made: made["date"])
    return {
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "deviations": {key: list(both) for key, both in recipes.deviations(recipe).items()},
        "made": {key: last[key] for key in ("date", "git_commit", "versions", "device")},
        "seconds": {stage: made["seconds"] for stage, made in manifests.items()},
        "policies": policies,
    }


def write(run: Run) -> Report:
    """Write report.json and report.html into the run's folder and return the report."""
    report = make(run)

    def write_files() -> None:
        write_text(run.folder / "report.json", json.dumps(report))
        write_text(run.folder / "report.html", page(report))

    processes.only_first(write_files)
    return report
