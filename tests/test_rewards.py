"""Reward models have exactly the accuracy and the variance asked for; what is called attainable is, and nothing else
is.
"""

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
    rankings,
    softmax,
)
from rvlib.tabular.bounds import inaccurate_but_fast_time_bound, sharper_tabular_fast_time_bound
from rvlib.tabular.rewards import random

PATH = pathlib.Path(__file__).parent / "cases" / "rewards.json"


def cases():
    """Problems for the page and for Python, made anew: the file has what Python gives, so a change of either shows."""
    rng = np.random.default_rng(0)
    for outputs, share, seed in itertools.product([2, 3, 7, 30], [1.0, 0.9, 0.3, 1e-6], [0, 12345, 4294967295]):
        truth = rng.uniform(-1, 1, outputs)
        probs = softmax(2 * rng.normal(size=outputs))
        accuracy = rng.choice(attainable_accuracies(truth))
        largest = attainable_variance(truth, probs, accuracy, seed)[1]
        sorted_truth = np.sort(truth)[::-1]  # the page's outputs come best first
        fast_accuracy = attainable_accuracies(sorted_truth, first=0)[-1 - outputs // 3]
        fast = inaccurate_but_fast(sorted_truth, probs, 0, fast_accuracy, seed)
        gain = 0.4 * (sorted_truth[0] - probs @ sorted_truth)
        yield {
            "ground_truth": truth.tolist(),
            "probs": probs.tolist(),
            "accuracy": float(accuracy),
            "seed": seed,
            "variance": share * largest,
            "largest": largest,
            "random": random(seed, 4).tolist(),
            "reward": make_reward_model(truth, probs, accuracy, share * largest, seed).tolist(),
            "best_of": 3 + seed % 40,
            "best_of_n": best_of_n_probs(probs, np.round(truth, 1), 3 + seed % 40).tolist(),
            "tied": np.round(truth, 1).tolist(),
            "slow": accurate_but_slow(truth, accuracy, 10.0, seed).tolist(),
            "sorted_truth": sorted_truth.tolist(),
            "fast_accuracy": float(fast_accuracy),
            "fast": fast.tolist(),
            "gain": float(gain),
            "fast_time_bound": inaccurate_but_fast_time_bound(probs, sorted_truth, gain, 0),
            "sharper_fast_time_bound": sharper_tabular_fast_time_bound(probs, fast, sorted_truth, gain, 0),
        }


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
    peaked=st.floats(0, 50),
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
    assert reward_variance(reward, probs) == pytest.approx(variance, rel=1e-9, abs=0)
    if first is not None:
        assert (np.delete(reward, first) < reward[first]).all()
    assert np.array_equal(reward, make_reward_model(truth, probs, accuracy, variance, seed, first))


def every_ranking(outputs):
    """Each way to rank outputs, ties allowed, as levels."""
    levels = np.array(list(itertools.product(range(outputs), repeat=outputs)))
    return levels[[set(row) == set(range(row.max() + 1)) for row in levels]].astype(float)


@pytest.mark.parametrize("outputs", [2, 3, 4, 5, 6])
def test_attainable_accuracies_are_those_of_all_rankings(outputs):
    """Definition 3 by brute force, for every pattern of ties in the ground truth; and each is had when asked for."""
    rankings = every_ranking(outputs)
    for steps in itertools.product([0, 1], repeat=outputs - 1):
        truth = np.random.default_rng(sum(steps)).permutation(np.cumsum([0, *steps])).astype(float)
        accuracies = ranking_accuracy(rankings, truth)
        assert np.array_equal(attainable_accuracies(truth), np.unique(accuracies))
        for first in (0, outputs - 1):
            on_top = (np.delete(rankings, first, 1) < rankings[:, [first]]).all(1)
            assert np.array_equal(attainable_accuracies(truth, first), np.unique(accuracies[on_top]))
        for accuracy in attainable_accuracies(truth):
            reward = accurate_but_slow(truth, accuracy, slowness=1)
            assert ranking_accuracy(reward, truth) == accuracy


@given(
    seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.sampled_from([1, 1, 2, 3, 5, 8, 15, 30]), min_size=1, max_size=8)
)
@settings(max_examples=200)
def test_rankings_with_many_ties(seed, sizes):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(rng.normal(size=len(sizes)), sizes))
    free, few = rankings.wrong_counts(truth)
    counts = np.r_[few, free : rankings.pairs(truth.size) + 1]
    for wrong in {*rng.choice(counts, 5), *counts[:3], free}:
        levels = rankings.ranking(truth, int(wrong), seed)
        assert (
            round((1 - ranking_accuracy(levels, truth)) * rankings.pairs(truth.size)) == wrong
            if truth.size > 1
            else wrong == 0
        )


@pytest.mark.parametrize("values", [None, 1, 5])
def test_thousands_of_outputs(values):
    """5,000 outputs: distinct, all equal, five grades; near perfect, in the middle, and all wrong."""
    rng = np.random.default_rng(3)
    truth = rng.uniform(-1, 1, 5_000) if values is None else rng.integers(0, values, 5_000).astype(float)
    free, few = rankings.wrong_counts(truth)
    total = rankings.pairs(truth.size)
    for wrong in [0, (few + [free, free])[1], free, (free + total) // 3, total]:
        levels = rankings.ranking(truth, wrong, 1)
        assert round((1 - ranking_accuracy(levels, truth)) * total) == wrong


def test_slopes_that_coincide():
    """Noise on a grid turns many pairs over at once; the number of misordered pairs is exact all the same."""
    rank = np.arange(12)[::-1]
    for wrong in range(67):
        order = rankings._strict(rank, np.round(random(wrong, 12), 1), wrong)
        assert sum(rank[a] < rank[b] for a, b in itertools.combinations(order, 2)) == wrong


def test_a_lower_accuracy_misorders_more_of_the_same_and_none_is_favoured():
    truth, probs = np.linspace(1, -1, 12), np.full(12, 1 / 12)
    before = np.zeros((12, 12), dtype=bool)
    for accuracy in attainable_accuracies(truth)[::-1]:
        reward = make_reward_model(truth, probs, accuracy, 1e-3, 8)
        misordered = np.triu(reward[:, None] < reward)
        assert (misordered >= before).all() and (misordered ^ before).sum() <= 1
        before = misordered
    # At half of the pairs the ranking is noise: whatever an output is worth, its place is the middle on average.
    ranks = np.mean(
        [np.argsort(np.argsort(make_reward_model(truth, probs, 0.5, 1e-3, seed))) for seed in range(2_000)], 0
    )
    assert np.abs(ranks - 5.5).max() < 0.5


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
    with pytest.raises(ValueError, match=r"variance must be in \(0, 0.1164\] for this policy"):
        attainable_accuracy(truth, probs, 0.5, 5)


@pytest.mark.parametrize(
    "probs", [np.full(12, 1 / 12), np.r_[0.5, 0.125, np.full(9, 1e-6), 0.375 - 9e-6]], ids=["even", "lopsided"]
)
def test_rewards_move_continuously_with_the_variance(probs):
    """What a slider needs.

    Under the lopsided policy the variance falls at first on the way from the even spread to the step.
    """
    truth = np.linspace(1, -1, 12)
    high = attainable_variance(truth, probs, 1.0, 8)[1]

    def largest_step(count):
        made = [make_reward_model(truth, probs, 1.0, v, 8) for v in np.linspace(1e-4, 1, count) * high]
        return np.abs(np.diff(made, axis=0)).max()

    assert largest_step(1_600) < 0.6 * largest_step(200)  # a jump would stay as it is


def test_constructions_are_what_the_theorems_say():
    truth, probs = np.array([0.9, 0.4, 0.0, -0.5]), np.array([0.1, 0.2, 0.3, 0.4])
    slow = accurate_but_slow(truth, 1.0, slowness=50)
    assert ranking_accuracy(slow, truth) == 1 and slow.min() > 0 and slow.max() < 1 / 50
    fast = inaccurate_but_fast(truth, probs, best=0)
    assert ranking_accuracy(fast, truth) == pytest.approx(2 / 4)  # Theorem 2: every pair wrong but those with y^γ
    assert fast[0] == 1 and (0 < fast[1:]).all() and (fast[1:] < probs[0]).all()
    assert ranking_accuracy(inaccurate_but_fast(truth, probs, 0, accuracy=5 / 6), truth) == pytest.approx(5 / 6)
    own, others = policy_specific_teachers(4, good=0, other_good=2)
    assert own.tolist() == [1, -1, -1, -1] and others.tolist() == [-1, -1, 1, -1]


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
    """Prop. 1: no reward model gets more from n samples than one that ranks as the ground truth does.

    What such a one keeps does not depend on its values: `cor-ranking-only`.
    """
    rng = np.random.default_rng(3)
    for _ in range(300):
        outputs, n = rng.integers(2, 9), int(rng.integers(1, 40))
        truth, probs = rng.integers(-3, 4, outputs) / 3, softmax(rng.normal(size=outputs))
        most = best_of_n(probs, truth**3 * 1e-3, truth, n)  # the same ranking, hardly any variance
        assert best_of_n(probs, rng.integers(-3, 4, outputs), truth, n) <= most + 1e-12
        assert best_of_n_probs(probs, truth, n).sum() == pytest.approx(1)
        assert np.array_equal(best_of_n_probs(probs, truth**3 * 1e-3, n), best_of_n_probs(probs, truth, n))
    assert best_of_n(probs, truth, truth, 10**9) == pytest.approx(truth.max())


if __name__ == "__main__":  # after a wanted change: PYTHONPATH=. python tests/test_rewards.py
    PATH.write_text(json.dumps(list(cases()), indent=1) + "\n")
