"""The report of a finished run: its settings, what was measured of the teachers, and what they taught, as JSON.

The package `report` reads it, and makes figures and tables of it without torch.
"""

import json

from rvlib.files import write_text
from rvlib.lm import processes
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments import teachers
from rvlib.lm.experiments.report import MEASURED, OUTCOMES, Report, TeacherRecord
from rvlib.lm.experiments.report.page import page
from rvlib.lm.experiments.run_folder import Run
from rvlib.lm.experiments.trainings import policy_gradient


def make(run: Run) -> Report:
    """The report of a finished run."""
    recipe = run.recipe
    policies: dict[str, dict[str, TeacherRecord]] = {}
    for name in recipe.policies:
        measured, policies[name] = teachers.measure(run, name), {}
        for key in recipe.reward_models:
            logs = [
                [line for line in policy_gradient(run, key, name, seed) if "eval_kl" in line] for seed in recipe.seeds
            ]
            teacher: TeacherRecord = {quantity: [round(x, 5) for x in measured[key][quantity]] for quantity in MEASURED}
            teacher |= {"normalizer": measured[key]["normalizer"], "steps": [line["step"] for line in logs[0]]}
            # "candidates" in the folder of an older run; one that was begun before there were any has neither
            if predictors := measured[key].get("predictors") or measured[key].get("candidates"):
                teacher["predictors"] = predictors
            if per_prompt := measured[key].get("per_prompt"):  # the folder of an older run has none
                teacher["per_prompt"] = per_prompt
            for outcome in (*OUTCOMES, "kl"):
                teacher[outcome] = [[round(line[f"eval_{outcome}"], 5) for line in log] for log in logs]
            policies[name][key] = teacher
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
