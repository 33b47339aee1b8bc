"""Reward models have exactly the accuracy and the variance asked for; what is called attainable is, and nothing else is."""

import itertools
import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvlib.metrics import ranking_accuracy, reward_variance
from rvlib.tabular import (
    accurate_but_slow,
    attainable_accuracies,
    attainable_accuracy,
    attainable_variance,
    best_of_n,
    best_of_n_probs,
    inaccurate_but_fast,
    make_reward_model,
    policy_specific_teachers,
    softmax,
)
from rvlib.tabular.rewards import random

PATH = pathlib.Path(__file__).parent / "cases" / "rewards.json"


def cases():
    """Problems for the page and for Python, made anew: the file holds what Python gives, so a change of either shows."""
    rng = np.random.default_rng(0)
    for outputs, share, seed in itertools.product([2, 3, 7, 30], [1.0, 0.9, 0.3, 1e-6], [0, 12345, 4294967295]):
        truth = rng.uniform(-1, 1, outputs)
        probs = softmax(2 * rng.normal(size=outputs))
        accuracy = rng.choice(attainable_accuracies(truth))
        largest = attainable_variance(truth, probs, accuracy, seed)[1]
        yield {
            "ground_truth": truth.tolist(), "probs": probs.tolist(), "accuracy": float(accuracy), "seed": seed,
            "variance": share * largest, "largest": largest, "random": random(seed, 4).tolist(),
            "reward": make_reward_model(truth, probs, accuracy, share * largest, seed).tolist(),
        }  # fmt: skip


def test_the_shared_cases_are_what_python_makes():
    stored = json.loads(PATH.read_text())
    for made, case in zip(cases(), stored, strict=True):
        for key in made:
            assert np.allclose(made[key], case[key], rtol=0, atol=1e-8), key


def test_the_page_makes_the_same_reward_models(node):
    result = node("--test", "tests/rewards.test.mjs")
    assert result.returncode == 0, result.stdout + result.stderr


@given(
    seed=st.integers(0, 2**32 - 1),
    outputs=st.integers(2, 8),
    peaked=st.floats(0, 20),
    ties=st.booleans(),
    best_first=st.booleans(),
    share=st.one_of(st.just(1.0), st.floats(1e-12, 1)),
)
@settings(max_examples=1_000)
def test_accuracy_exact_and_variance_hit(seed, outputs, peaked, ties, best_first, share):
    rng = np.random.default_rng(seed)
    truth = rng.integers(-2, 3, outputs) / 2 if ties else rng.uniform(-1, 1, outputs)
    probs, first = softmax(rng.uniform(-peaked, peaked, outputs)), int(rng.integers(outputs)) if best_first else None
    accuracy = rng.choice(attainable_accuracies(truth, first))
    low, high = attainable_variance(truth, probs, accuracy, seed, first)
    if high == 0:  # the ranking ties every output
        assert np.ptp(make_reward_model(truth, probs, accuracy, 0.0, seed, first)) == 0
        return
    variance = share * high
    reward = make_reward_model(truth, probs, accuracy, variance, seed, first)
    assert np.abs(reward).max() <= 1
    assert ranking_accuracy(reward, truth) == accuracy
    assert abs(reward_variance(reward, probs) - variance) <= 1e-9
    if share < 0.999:
        assert reward_variance(reward, probs) == pytest.approx(variance, rel=1e-9)
    if first is not None:
        assert (np.delete(reward, first) < reward[first]).all()
    assert np.array_equal(reward, make_reward_model(truth, probs, accuracy, variance, seed, first))


@pytest.mark.parametrize("outputs", [2, 3, 4, 5])
@pytest.mark.parametrize("first", [None, 0])
def test_attainable_accuracies_against_all_rankings(outputs, first):
    rng = np.random.default_rng(outputs)
    rankings = np.array(list(itertools.product(range(outputs), repeat=outputs)), float)
    if first is not None:
        rankings = rankings[(np.delete(rankings, first, 1) < rankings[:, [first]]).all(1)]
    for levels in (1, 2, 3, 100):
        truth = rng.integers(0, levels, outputs).astype(float)
        assert np.array_equal(attainable_accuracies(truth, first), np.unique(ranking_accuracy(rankings, truth)))


def test_no_values_of_the_ranking_beat_the_largest_variance():
    rng = np.random.default_rng(1)
    truth, probs = rng.uniform(-1, 1, 6), softmax(rng.normal(size=6))
    accuracy = attainable_accuracies(truth)[9]
    high = attainable_variance(truth, probs, accuracy, 3)[1]
    order = np.argsort(make_reward_model(truth, probs, accuracy, high / 2, 3))
    values = np.sort(rng.choice([-1.0, 1.0, 0.3, -0.7], (5_000, 6)) * rng.uniform(0.9, 1, (5_000, 6)), -1)
    rewards = np.empty_like(values)
    rewards[:, order] = values
    assert reward_variance(rewards, probs).max() <= high


def test_the_range_of_accuracy_given_a_variance():
    truth, probs = np.array([0.9, 0.2, -0.3, -0.8]), np.array([0.97, 0.01, 0.01, 0.01])
    least, greatest = attainable_accuracy(truth, probs, 0.1, 5)
    assert 0 <= least <= greatest <= 1
    make_reward_model(truth, probs, greatest, 0.1, 5)
    with pytest.raises(ValueError, match="variance must be reached at some accuracy"):
        attainable_accuracy(truth, probs, 0.5, 5)


def test_accuracy_and_variance_move_smoothly():
    """What a slider needs: a lower accuracy only adds passes, and values change continuously with the variance."""
    rng = np.random.default_rng(2)
    truth, probs = rng.uniform(-1, 1, 12), softmax(rng.normal(size=12))
    high = attainable_variance(truth, probs, 0.5, 8)[1]
    made = np.array([make_reward_model(truth, probs, 0.5, v, 8) for v in np.linspace(1e-4, high, 400)])
    assert np.abs(np.diff(made, axis=0)).max() < 0.1
    ranks = [np.argsort(np.argsort(make_reward_model(truth, probs, a, 1e-3, 8))) for a in attainable_accuracies(truth)]
    assert np.median([np.abs(a - b).max() for a, b in itertools.pairwise(ranks)]) <= 2


def test_constructions_are_what_the_theorems_say():
    truth, probs = np.array([0.9, 0.4, 0.0, -0.5]), np.array([0.1, 0.2, 0.3, 0.4])
    slow = accurate_but_slow(truth, 1.0, slowness=50)
    assert ranking_accuracy(slow, truth) == 1 and slow.min() > 0 and slow.max() < 1 / 50
    fast = inaccurate_but_fast(truth, probs, best=0)
    assert ranking_accuracy(fast, truth) == pytest.approx(2 / 4)  # Theorem 2: every pair wrong but those with y^γ
    assert fast[0] == 1 and (0 < fast[1:]).all() and (fast[1:] < probs[0]).all()
    assert ranking_accuracy(inaccurate_but_fast(truth, probs, 0, accuracy=5 / 6), truth) == pytest.approx(5 / 6)
    one, other = policy_specific_teachers(4, good=0, other_good=2)
    assert one.tolist() == [1, -1, -1, -1] and other.tolist() == [-1, -1, 1, -1]


def test_best_of_n_against_every_draw():
    """Enumerate all draws of n outputs, ties in the proxy split evenly among the samples."""
    probs, proxy = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 0.0, 1.0, -1.0])
    truth = np.array([0.3, 0.9, -0.5, 0.1])
    for n in (1, 2, 3, 5):
        expected = 0.0
        for drawn in itertools.product(range(4), repeat=n):
            kept = [y for y in drawn if proxy[y] == proxy[list(drawn)].max()]
            expected += probs[list(drawn)].prod() * truth[kept].mean()
        assert best_of_n(probs, proxy, truth, n) == pytest.approx(expected, abs=1e-14)


def test_best_of_n_perfect_accuracy_is_optimal():
    """Prop. 1: no reward model gets more from n samples than one that ranks as the ground truth does."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        outputs, n = rng.integers(2, 9), int(rng.integers(1, 40))
        truth, probs = rng.integers(-3, 4, outputs) / 3, softmax(rng.normal(size=outputs))
        most = best_of_n(probs, truth**3 * 1e-3, truth, n)  # the same ranking, hardly any variance
        assert best_of_n(probs, rng.integers(-3, 4, outputs), truth, n) <= most + 1e-12
        assert best_of_n_probs(probs, truth, n).sum() == pytest.approx(1)
    assert best_of_n(probs, truth, truth, 10**9) == pytest.approx(truth.max())


if __name__ == "__main__":  # after a wanted change: PYTHONPATH=. python tests/test_rewards.py
    PATH.write_text(json.dumps(list(cases()), indent=1) + "\n")
