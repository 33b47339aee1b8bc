"""Exact predictors of teachers, their correlations with the gains, and the paper's tables."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from rvlib import paper
from rvlib.explore._explorable import WEB
from rvlib.tabular import gradient_flow, softmax
from rvlib.tabular.predictors import PREDICTORS, exact_predictors, mean_with_interval, rank_correlation

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 1, 7))
TRUTH = RNG.uniform(-1, 1, (5, 1, 7))
MODELS = RNG.uniform(-1, 1, (5, 12, 7))


def test_the_weighted_covariance_is_the_rate_of_the_true_reward():
    """`prop-law`, for each teacher."""
    exact = exact_predictors(softmax(LOGITS), MODELS, TRUTH)
    assert tuple(exact) == PREDICTORS and all(value.shape == (5, 12) for value in exact.values())
    step = 1e-5
    flow = gradient_flow(LOGITS, MODELS, step, ground_truth=TRUTH)
    rate = (flow.ground_truth[..., -1] - flow.ground_truth[..., 0]) / step
    assert np.allclose(exact["π²-weighted covariance"], rate, atol=1e-4)


def test_the_rank_correlation_is_scipys():
    exact = exact_predictors(softmax(LOGITS), np.round(MODELS, 1), np.round(TRUTH, 1))
    correlations = rank_correlation(exact["accuracy"], exact["covariance"])
    assert np.allclose(
        correlations, [spearmanr(a, b).statistic for a, b in zip(exact["accuracy"], exact["covariance"])]
    )
    assert rank_correlation([1.0, 2.0, 3.0], [5.0, 7.0, np.inf]) == 1
    assert np.isnan(rank_correlation([1.0, 1.0], [0.0, 2.0]))


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        _, low, high = mean_with_interval(rng.exponential(size=60), seed, resamples=300)
        hits += low <= 1 <= high
    assert 0.87 <= hits / 200 <= 0.99
    with pytest.raises(ValueError, match="^values must hold at least one number, got none\\.$"):
        mean_with_interval([np.nan])


def test_the_papers_tables():
    public = paper.table("public_reward_models")
    assert set(public["table"]) == {10, 11, 12} and len(public["reward_variance"]) == 36
    assert public["algorithm"][0] == "RLOO" and public["reward_variance"].dtype == float
    properties = paper.table("reward_model_properties")
    assert properties["reward_variance"][0] == 0.630
    with pytest.raises(
        ValueError, match="^name must be one of correlations_after_one_epoch, [^\n]* got 'table 10'\\.$"
    ):
        paper.table("table 10")


def test_within_groups():
    out = paper.within_groups([1.0, 3.0, 10.0, 30.0], np.array(["a", "a", "b", "b"]))
    assert out.tolist() == [-1, 1, -1, 1]
    with pytest.raises(ValueError, match="^values must differ within every group"):
        paper.within_groups([1.0, 1.0], np.array(["a", "a"]))


def test_the_page_gives_the_same_predictors(node):
    probs, proxy, truth = (x.reshape(-1, 7) for x in np.broadcast_arrays(softmax(LOGITS), MODELS, TRUTH))
    python_predictors = exact_predictors(probs, proxy, truth)
    module = (WEB / "grades.mjs").as_uri()
    program = (
        f"const m = await import({module!r}); const [p, r, t] = "
        f"{json.dumps([x.tolist() for x in (probs, proxy, truth)])}; "
        "const g = p.map((_, i) => m.exactPredictors(p[i], r[i], t[i])); "
        "console.log(JSON.stringify([g, m.spearman(g.map(x => x.accuracy), g.map(x => x.variance))]))"
    )
    page_predictors, correlation = json.loads(node("--input-type=module", "--eval", program).stdout)
    for name, key in zip(
        PREDICTORS, ["accuracy", "onpolicy", "variance", "both", "product", "covariance", "weighted"], strict=True
    ):
        assert np.allclose(python_predictors[name], [each[key] for each in page_predictors], atol=1e-12), name
    assert correlation == pytest.approx(
        rank_correlation([g["accuracy"] for g in page_predictors], [g["variance"] for g in page_predictors])
    )
