"""Numbers that the book reads: what the library's long commands wrote into `rvlib/data/results`, as arrays. Needs no
torch."""

import json
import pathlib
from typing import Any

import numpy as np

from rvlib.files import RESULTS

REAL_POLICY = RESULTS / "real_policy.json"
ENUMERATED_TRANSFORMERS = RESULTS / "enumerated_transformers.json"
RARITY = RESULTS / "rarity.json"
REMEDIES_ON_TRANSFORMERS = RESULTS / "remedies.json"
TEACHING = RESULTS / "teaching.json"
GROUND_TRUTHS = RESULTS / "ground_truths.json"
SMALL_STUDY = RESULTS / "small_study.json"


def load_real_policy(path: pathlib.Path | str = REAL_POLICY) -> dict[str, Any]:
    """What `rvlib samples` wrote, by default for the book.

    A dictionary with `made` (how and when), `names`, `own` (our prompts, with replies), and arrays (prompts, replies)
    `sentiment`, `similarity`, `tokens`, `ended`, `log_probs` and `same_as` (the first reply with the same text).
    """
    content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    rows = content["prompts"]
    keys = ("sentiment", "similarity", "tokens", "ended", "log_probs", "same_as")
    return {
        "made": content["made"],
        "names": [row["name"] for row in rows],
        "own": {row["name"]: row for row in rows if "replies" in row},
    } | {key: np.array([row[key] for row in rows]) for key in keys}


def load_enumerated_transformers(path: pathlib.Path | str = ENUMERATED_TRANSFORMERS) -> dict[str, Any]:
    """What `python -m rvlib.lm.enumerable.study` wrote: {"made": how and when, "one": …, "many": …}, lists as
    arrays."""
    content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    return {"made": content["made"]} | {name: _arrays(content[name]) for name in ("one", "many")}


def load_rarity(path: pathlib.Path | str = RARITY) -> dict[str, Any]:
    """What `python -m rvlib.lm.enumerable.rarity` wrote: `made` (how and when), and arrays (models,) `probability`,
    `flow`, `natural` (times) and `adam` (steps)."""
    return {
        name: np.array(value) if isinstance(value, list) else value
        for name, value in json.loads(pathlib.Path(path).read_text(encoding="utf-8")).items()
    }


def load_remedies(path: pathlib.Path | str = REMEDIES_ON_TRANSFORMERS) -> dict[str, Any]:
    """What `python -m rvlib.lm.enumerable.remedies` wrote: `made` (how and when), and for each of `remedies` arrays
    (worlds,) `accuracy`, `variance`, `steps` (inf where the gain was not reached), `gained` and `lost_again`."""
    content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    remedies = {
        name: {key: np.array([np.inf if value is None else value for value in values]) for key, values in row.items()}
        for name, row in content["remedies"].items()
    }
    return {"made": content["made"], "remedies": remedies}


def load_ground_truths(path: pathlib.Path | str = GROUND_TRUTHS) -> dict[str, Any]:
    """What `python -m rvlib.lm.experiments.ground_truths` wrote: `made` (how and when), `prompts`, `replies`, and for
    each of `candidates` what a reward model learned of it: `pairs`, the pooled within-prompt `correlation`, and each
    [mean, low, high] over prompts `accuracy`, `chance`, `over_chance`, `ties` and `variance`."""
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def load_small_study(path: pathlib.Path | str = SMALL_STUDY) -> dict[str, Any]:
    """What `python -m rvlib.lm.experiments.dry_run` wrote of the recipe `small-study`: `recipe` (its settings), the
    `gpu` for which its time is estimated, `minutes` there, and `disk` in GB."""
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _arrays(entry) for name, entry in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_arrays(entry) for entry in value]
    return np.array(value) if isinstance(value, list) else value
