"""Accuracy, reward variance and normalisation against their definitions, pair by pair and sample by sample."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from rvlib.estimates import detectable_difference
from rvlib.metrics import (
    Normalizer,
    chance_accuracy,
    ranking_accuracy,
    reward_covariance,
    reward_variance,
    within_prompt_correlation,
)
from rvlib.tabular import expectation, kl_divergence, rlhf_gradient, rlhf_objective, softmax

few_levels = st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=2, max_size=7)


@given(few_levels)
@settings(max_examples=300)
def test_accuracy_is_definition_1_ties_included(rewards):
    proxy, truth = np.array(rewards, float).T
    pairs = list(itertools.combinations(range(len(proxy)), 2))
    agree = [np.sign(proxy[i] - proxy[j]) == np.sign(truth[i] - truth[j]) for i, j in pairs]
    assert ranking_accuracy(proxy, truth) == pytest.approx(np.mean(agree))
    weights = np.arange(1.0, len(proxy) + 1)
    expected = np.average(agree, weights=[weights[i] * weights[j] for i, j in pairs])
    assert ranking_accuracy(proxy, truth, np.outer(weights, weights)) == pytest.approx(expected)


def test_accuracy_ignores_any_increasing_transformation_variance_does_not():
    rng = np.random.default_rng(0)
    proxy, truth, probs = rng.uniform(-1, 1, (5, 9)), rng.uniform(-1, 1, 9), softmax(rng.normal(size=9))
    assert np.array_equal(ranking_accuracy(np.tanh(3 * proxy), truth), ranking_accuracy(proxy, truth))
    assert np.allclose(reward_variance(0.1 * proxy, probs), 0.01 * reward_variance(proxy, probs), rtol=1e-12)


def test_variance_is_half_the_mean_squared_difference_of_a_pair():
    """`def-variance` by `prop-pairwise`."""
    rng = np.random.default_rng(1)
    reward, probs = rng.uniform(-1, 1, 6), softmax(rng.normal(size=6))
    squared = (reward[:, None] - reward[None, :]) ** 2
    assert reward_variance(reward, probs) == pytest.approx(0.5 * probs @ squared @ probs)
    assert reward_variance(reward) == pytest.approx(np.var(reward, ddof=1))


def test_variance_keeps_its_digits_under_a_large_offset():
    reward, probs = np.array([0.0, 1e-6, 3e-6]), np.array([0.2, 0.5, 0.3])
    exact = reward_variance(reward, probs)
    assert exact < 2e-12
    assert reward_variance(reward + 0.5, probs) == pytest.approx(exact, rel=1e-9)


def test_covariance_of_one_reward_is_its_variance_and_of_samples_is_numpys():
    rng = np.random.default_rng(2)
    a, b, probs = rng.normal(size=(3, 8)), rng.normal(size=(3, 8)), softmax(rng.normal(size=(3, 8)))
    assert np.allclose(reward_covariance(a, a, probs), reward_variance(a, probs))
    assert np.allclose(reward_covariance(a, b), [np.cov(x, y)[0, 1] for x, y in zip(a, b)])


def test_the_within_prompt_correlation_is_that_of_deviations_from_the_prompts_means():
    rng = np.random.default_rng(5)
    proxy, truth = rng.integers(-2, 3, (20, 6)).astype(float), rng.integers(-2, 3, (20, 6)).astype(float)  # with ties
    proxy[3] = 1.0  # without spread
    truth[5] = -2.0
    deviations = [(rewards - rewards.mean(-1, keepdims=True)).ravel() for rewards in (proxy, truth)]
    pooled = within_prompt_correlation(proxy, truth)
    assert pooled == pytest.approx(np.corrcoef(*deviations)[0, 1])
    offsets = rng.normal(size=(20, 1))
    assert within_prompt_correlation(3 * proxy + offsets, -truth) == pytest.approx(-pooled)
    assert within_prompt_correlation(truth, truth) == pytest.approx(1)


def test_the_within_prompt_correlation_is_nan_without_spread_within_prompts():
    proxy, truth = np.repeat([[0.1], [0.7]], 3, axis=-1), np.array([[0.0, 1.0, 2.0], [2.0, 1.0, 1.0]])
    assert np.isnan(within_prompt_correlation(proxy, truth)) and np.isnan(within_prompt_correlation(truth, proxy))


@pytest.mark.parametrize("scheme", ["joint", "variance"])
def test_normalised_reward_models_compare_whatever_their_unit(scheme):
    rewards = np.random.default_rng(3).normal(size=(20, 10))
    once = Normalizer.fit(rewards, scheme).transform(rewards)
    again = Normalizer.fit(40 * rewards - 7, scheme).transform(40 * rewards - 7)
    assert np.allclose(once, again)
    assert once.mean() == pytest.approx(0)
    assert (np.var(once, ddof=1) if scheme == "joint" else reward_variance(once).mean()) == pytest.approx(1)


def test_objective_and_gradient():
    """`def-objective`, and `lem-gradient` by differences."""
    rng = np.random.default_rng(4)
    logits, reference, reward = rng.normal(size=(3, 5))
    probs, reference_probs = softmax(logits), softmax(reference)
    value = expectation(probs, reward) - 0.3 * kl_divergence(probs, reference_probs)
    assert rlhf_objective(logits, reward, reference, 0.3) == pytest.approx(value)
    step = 1e-6 * np.eye(5)
    numeric = (
        rlhf_objective(logits + step, reward, reference, 0.3) - rlhf_objective(logits - step, reward, reference, 0.3)
    ) / 2e-6
    assert np.allclose(rlhf_gradient(logits, reward, reference, 0.3), numeric, atol=1e-9)


def test_the_exact_world_imports_no_torch():
    code = (
        "import sys, rvlib, rvlib.tabular; assert not {'torch', 'transformers', 'anywidget', 'plotly'} & "
        "set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_accuracy_by_chance_is_the_mean_over_all_orders():
    proxy, truth = (
        np.array([[0.0, 0.0, 1.0, 2.0], [3.0, 1.0, 2.0, 0.0]]),
        np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 2.0, 2.0, 5.0]]),
    )
    dealt = [ranking_accuracy(proxy[:, order], truth) for order in itertools.permutations(range(4))]
    assert np.allclose(chance_accuracy(proxy, truth), np.mean(dealt, 0))
    assert chance_accuracy([1.0, 2.0, 3.0], [3.0, 1.0, 2.0]) == 0.5


def test_the_difference_that_a_paired_test_can_detect_is_found_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for pairs in (3, 10):
        difference = detectable_difference(0.2, pairs)
        significant = ttest_1samp(rng.normal(difference, 0.2, (4000, pairs)), 0, axis=1).pvalue < 0.05
        assert significant.mean() == pytest.approx(0.8, abs=0.025)
    assert detectable_difference(0.4, 10) == pytest.approx(2 * detectable_difference(0.2, 10))
    with pytest.raises(ValueError, match="power must be a probability above 0.05"):
        detectable_difference(0.2, 3, power=0.01)
