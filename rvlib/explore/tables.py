"""The explorable of the paper's Tables 10 to 12: four public reward models, nine pairs of policy and algorithm.

Its data is `rvlib.paper`'s, written into web/papertables.mjs by `python -m rvlib.explore.tables`.
"""

import json
from typing import Any

import traitlets

from rvlib import paper
from rvlib.explore._controls import choice, main_controls, toggle
from rvlib.explore._explorable import WEB, Explorable

COLUMNS = ("reward_variance", "on_policy_accuracy", "off_policy_accuracy", "ground_truth_increase", "proxy_increase")
_SHORT = {
    "Pythia-1B SFT": "Pythia-1B",
    "Pythia-2.8B SFT": "Pythia-2.8B",
    "Llama-3.2-1B SFT": "Llama-1B",
    "Llama-3.2-3B SFT": "Llama-3B",
} | {f"Llama-3.2-{size}-Instruct": f"Llama-{size}-Instruct" for size in ("1B", "3B")}


def pairs() -> list[dict[str, Any]]:
    """[{"label", "models", a list for each of `COLUMNS`}]: the nine pairs of Tables 10 to 12, in their order."""
    table = paper.table("public_reward_models")
    keys = list(dict.fromkeys(zip(table["initial_policy"].tolist(), table["algorithm"].tolist())))
    rows_by_pair = []
    for policy, algorithm in keys:
        rows = (table["initial_policy"] == policy) & (table["algorithm"] == algorithm)
        rows_by_pair.append(
            {"label": f"{_SHORT[policy]}, {algorithm}", "models": table["reward_model"][rows].tolist()}
            | {column: table[column][rows].tolist() for column in COLUMNS}
        )
    return rows_by_pair


def module() -> str:
    """The text of web/papertables.mjs."""
    return (
        "// Tables 10 to 12 of arXiv 2503.15477, written by `python -m rvlib.explore.tables`.\nexport default "
        + json.dumps(pairs(), indent=1)
        + ";\n"
    )


class Tables(Explorable):
    """The paper's Tables 10 to 12: a property of four public reward models against what each has taught.

    Those that are ticked have their correlation shown.
    """

    alt = (
        "Scatter plot of the paper's public reward models: across, reward variance, up, increase of the ground truth "
        "reward, both standardised within each of nine pairs of policy and algorithm. "
        "The points of one reward model, RM-Gemma-2B, lie to the right and low; a falling line goes through the cloud."
    )
    caption = traitlets.Unicode(
        "The numbers are the paper's (Tables 10 to 12, arXiv 2503.15477). The correlations are computed here, from "
        "the reward models that are ticked. “All nine” standardises each pair by itself, so only differences "
        "within a pair count."
    ).tag(sync=True)
    main = main_controls("property", "outcome")

    property = choice(
        {
            "variance": "variance",
            "onpolicy": "on-policy accuracy",
            "offpolicy": "off-policy accuracy",
            "accuracy": "both accuracies",
            "both": "variance & accuracy",
            "product": "deviation × accuracy",
        },
        group="Property",
        label="Property of a reward model before training",
    )
    outcome = choice(
        {"truth": "ground truth reward", "proxy": "proxy reward"}, group="Increase of the", label="What has increased"
    )
    pair = choice(
        {"all": "all nine"} | {str(i): pair["label"] for i, pair in enumerate(pairs())},
        group="Policy and algorithm",
        label="Policy and algorithm",
    )
    grm_gemma = toggle(True, group="Reward models", label="GRM-Gemma-2-2B")
    grm_llama = toggle(True, group="Reward models", label="GRM-Llama-3.2-3B")
    tulu = toggle(True, group="Reward models", label="RM-Tulu-V2-8B")
    gemma = toggle(True, group="Reward models", label="RM-Gemma-2B")


if __name__ == "__main__":
    (WEB / "papertables.mjs").write_text(module(), encoding="utf-8")
