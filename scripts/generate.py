"""Make every file of the repository that a program writes in minutes, and say which of them changed.

    python scripts/generate.py [fast]      `fast` leaves out the reference's cases, which take a minute or two

What takes a language model hours or minutes is not among them: CONTRIBUTING.md names the command of each.
"""

import json
import math
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What writes them, and the files, as patterns.
FAST = {
    ("-m", "rvlib.lm.experiments.bench.rates"): ["rvlib/data/results/rates.json"],
    ("-m", "rvlib.lm.experiments.planning.dry_run"): [
        "rvlib/data/results/plans.json",
        "rvlib/data/results/small_plans.json",
    ],
    ("-m", "rvlib.explore.calculator"): ["rvlib/explore/web/sizes.mjs"],
    ("-m", "rvlib.explore.samples"): ["rvlib/explore/web/estimators.mjs"],
    ("-m", "rvlib.explore.tables"): ["rvlib/explore/web/papertables.mjs"],
    ("-m", "rvlib.explore.predictors"): ["rvlib/explore/web/studypoints.mjs"],
    ("-m", "rvlib.explore.draw"): ["rvlib/explore/pictures/*.svg"],
    ("scripts/first_cells.py",): ["notebooks/*.ipynb"],
    ("scripts/architecture.py",): ["book/images/architecture.svg"],
}
SLOW = {
    ("tests/test_rewards.py",): ["tests/cases/rewards.json"],
    ("tests/make_cases.py",): ["tests/cases/flow.json"],
}
ROUNDING = 1e-6  # relative; cases keep their numbers where another machine rounds otherwise


def contents(patterns: list[str]) -> dict[pathlib.Path, bytes]:
    """{path: its bytes} of all that the patterns find."""
    return {path: path.read_bytes() for pattern in patterns for path in sorted(ROOT.glob(pattern))}


def agree(old: object, new: object) -> bool:
    """Whether two trees of JSON differ by rounding at most."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(agree(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(agree, old, new))
    if isinstance(old, float) and isinstance(new, float):
        return old == new or math.isclose(old, new, rel_tol=ROUNDING)
    return type(old) is type(new) and old == new


def generate(jobs: dict[tuple[str, ...], list[str]]) -> list[pathlib.Path]:
    """Run the jobs and return the files that are not what they were."""
    changed = []
    for command, patterns in jobs.items():
        print("python", *command, flush=True)
        before = contents(patterns)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore::RuntimeWarning:runpy"}
        subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        after = contents(patterns)
        for path in sorted(before.keys() | after.keys()):
            old, new = before.get(path), after.get(path)
            if old == new:
                continue
            if path.suffix == ".json" and old and new and agree(json.loads(old), json.loads(new)):
                path.write_bytes(old)
            else:
                changed.append(path)
    return changed


if __name__ == "__main__":
    differ = generate(FAST if sys.argv[1:] == ["fast"] else FAST | SLOW)
    print("\n".join(f"changed: {path.relative_to(ROOT)}" for path in differ) or "Every file is as it was.")
