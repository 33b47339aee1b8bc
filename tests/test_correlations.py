"""The correlation tables: by hand, by the paper's numbers, and where there is nothing to correlate."""

import numpy as np
import pytest

from rvlib import paper
from rvlib.correlations import PROPERTIES, correlations, properties


def test_properties_are_the_papers_five():
    columns = properties([0.2, 0.4], [0.6, 0.8], [0.5, 0.7])
    assert tuple(columns) == PROPERTIES
    assert np.allclose(columns["on- & off-policy accuracy"], [0.55, 0.75])
    assert np.allclose(columns["reward variance & accuracy"], [(0.2 + 0.55) / 2, (0.4 + 0.75) / 2])


def test_correlations_by_hand():
    table = correlations({"up": [1.0, 2, 3, 4], "down": [4.0, 3, 2, 1], "bent": [1.0, 2, 4, 3]}, [1.0, 2, 3, 4])
    assert table["up"]["pearson"] == pytest.approx(1) and table["down"]["spearman"] == pytest.approx(-1)
    assert table["bent"]["pearson"] == pytest.approx(0.8) and table["bent"]["spearman"] == pytest.approx(0.8)
    z, half = np.arctanh(0.8), 1.959964 / np.sqrt(4 - 3)  # Fisher
    assert (table["bent"]["low"], table["bent"]["high"]) == pytest.approx(
        (np.tanh(z - half), np.tanh(z + half)), rel=1e-5
    )


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, true, inside = np.random.default_rng(0), 0.6, 0
    for _ in range(2000):
        x = rng.normal(size=6)
        interval = correlations({"x": x}, true * x + np.sqrt(1 - true**2) * rng.normal(size=6))["x"]
        inside += interval["low"] <= true <= interval["high"]
    assert 0.93 < inside / 2000 < 0.97


def test_the_papers_within_pair_correlations():
    public = paper.table("public_reward_models")
    pair = np.char.add(public["initial_policy"], public["algorithm"])
    columns = properties(*(public[name] for name in ("reward_variance", "on_policy_accuracy", "off_policy_accuracy")))
    outcome = paper.within_groups(public["ground_truth_increase"], pair)
    table = correlations({name: paper.within_groups(values, pair) for name, values in columns.items()}, outcome)
    expected = {
        "reward variance": -0.28,
        "on-policy accuracy": 0.49,
        "off-policy accuracy": 0.10,
        "reward variance & accuracy": -0.07,
    }
    assert {name: round(table[name]["pearson"], 2) for name in expected} == expected


def test_nothing_to_correlate():
    assert np.isnan(correlations({"flat": [1.0, 1, 1, 1]}, [1.0, 2, 3, 4])["flat"]["pearson"])
    assert np.isnan(correlations({"x": [1.0, 2, 4]}, [1.0, 2, 3])["x"]["low"])
    with pytest.raises(ValueError, match="outcome must have at least three rows"):
        correlations({"x": [1.0, 2]}, [1.0, 2])
    with pytest.raises(ValueError, match="x must have one value for each of the 3 outcomes, got 4"):
        correlations({"x": [1.0, 2, 3, 4]}, [1.0, 2, 3])
