"""How well properties of reward models go with what they teach: Tables 2, 4, 6, 8, 9 of arXiv 2503.15477.

    property of a reward model at the start   ↔   reward increase of the policy that it taught

One function serves the paper's numbers and a run's. A row is a reward model, and all rows are of one experiment: one
policy, one algorithm, one ground truth.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import pearsonr, spearmanr

from rvlib import _checks

PROPERTIES = (
    "reward variance",
    "on-policy accuracy",
    "off-policy accuracy",
    "on- & off-policy accuracy",
    "reward variance & accuracy",
)


def properties(
    reward_variance: ArrayLike, on_policy_accuracy: ArrayLike, off_policy_accuracy: ArrayLike
) -> dict[str, NDArray[np.float64]]:
    """The paper's five `PROPERTIES`, {name: (rows,)}: the three given, the accuracies' mean, and variance & accuracy.

    The last is as the paper has it, the mean of the reward variance and of the accuracies' mean, two things of
    different units; `rvlib.tabular.predictors` has better ones.
    """
    variance, on, off = (
        _checks.array(name, values)
        for name, values in dict(
            reward_variance=reward_variance,
            on_policy_accuracy=on_policy_accuracy,
            off_policy_accuracy=off_policy_accuracy,
        ).items()
    )
    both = (on + off) / 2
    return dict(zip(PROPERTIES, (variance, on, off, both, (variance + both) / 2)))


def correlations(
    columns: Mapping[str, ArrayLike], outcome: ArrayLike, *, level: float = 0.95
) -> dict[str, dict[str, float]]:
    """{property: {"pearson", "spearman", "low", "high"}}: its correlations with the outcome, and Fisher's interval.

    columns: {property: (rows,)}; outcome: (rows,), at least three rows. A property without spread has NaN everywhere,
    and an interval needs a fourth row. Fisher's takes the rows for draws from a normal distribution: with six of them
    ±0.8 or so, it says how little six points can show.
    """
    outcome, table = _checks.array("outcome", outcome), {}
    if len(outcome) < 3:
        raise ValueError(
            f"outcome must have at least three rows, since two always lie on a line, got {len(outcome)}; add reward "
            "models."
        )
    for name, values in columns.items():
        values = _checks.array(name, values)
        if len(values) != len(outcome):
            raise ValueError(f"{name} must have one value for each of the {len(outcome)} outcomes, got {len(values)}.")
        if np.ptp(values) == 0 or np.ptp(outcome) == 0:
            table[name] = dict.fromkeys(("pearson", "spearman", "low", "high"), float("nan"))
            continue
        pearson = pearsonr(values, outcome)
        low, high = pearson.confidence_interval(level) if len(outcome) > 3 else (float("nan"),) * 2
        table[name] = {
            "pearson": float(pearson[0]),
            "spearman": float(spearmanr(values, outcome)[0]),
            "low": float(low),
            "high": float(high),
        }
    return table
