"""The paper's tables, as data: every number here is the paper's (arXiv 2503.15477), none is this book's.

table("public_reward_models")   →   {"table": [10, 10, …], "algorithm": ["RLOO", …], "reward_variance": [0.405, …], …}
"""

import csv
import pathlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvlib import _checks

FOLDER = pathlib.Path(__file__).parent / "data/paper"
Column = NDArray[np.float64] | NDArray[np.str_]  # numbers, or texts
TABLES = tuple(sorted(path.stem for path in FOLDER.glob("*.csv")))


def table(name: str) -> dict[str, Column]:
    """A table as {column: array (rows,)}, numbers where the column has numbers only; `table` is its number.

    name: one of `TABLES`: correlations_after_one_epoch (Tables 2, 4, 6, 8, 9), public_reward_models (Tables 10 to 12)
    and reward_model_properties (Tables 1, 3, 5, 7). An empty cell among numbers is NaN. ValueError for another name.
    """
    if name not in TABLES:
        raise ValueError(f"name must be one of {', '.join(TABLES)}, got {name!r}.")
    with open(FOLDER / f"{name}.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {column: _column([row[column] for row in rows]) for column in rows[0]}


def _column(cells: list[str]) -> Column:
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return np.array(cells)


def within_groups(values: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """Values (rows,) less their mean within each group, over their standard deviation there.

    groups: (rows,), any labels. ValueError for a group in which all values are equal.
    """
    values, standardised = _checks.array("values", values), np.empty(len(values))
    for group in np.unique(groups):
        inside = groups == group
        deviation = values[inside].std()
        if deviation == 0:
            raise ValueError(f"values must differ within every group, got one value in group {group!r}.")
        standardised[inside] = (values[inside] - values[inside].mean()) / deviation
    return standardised
