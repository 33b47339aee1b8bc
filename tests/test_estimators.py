"""Estimators against the exact gradient: every group of samples enumerated, so that unbiased means unbiased."""

import itertools
import json

import numpy as np
import pytest

from rvlib.explore import Samples, samples
from rvlib.explore._explorable import WEB
from rvlib.tabular import rlhf_gradient, softmax
from rvlib.tabular.estimators import (
    ADVANTAGES,
    ESTIMATORS,
    advantages,
    estimate_gradient,
    gradient_estimate,
    no_spread_probability,
    sample_outputs,
    signal_to_noise,
)
from rvlib.tabular.policy import kl_reward

LOGITS, REFERENCE, REWARD = np.array([0.3, -1.0, 0.8]), np.array([0.0, 0.2, -0.1]), np.array([0.9, -0.4, 0.1])


def expected(algorithm, num_samples, kl_coef=0.0):
    """E ĝ over every group of `num_samples` outputs."""
    probs, regularised = softmax(LOGITS), kl_reward(LOGITS, REWARD, REFERENCE, kl_coef)
    groups = np.array(list(itertools.product(range(3), repeat=num_samples)))
    estimates = gradient_estimate(LOGITS, groups, advantages(regularised[groups], algorithm))
    return probs[groups].prod(-1) @ estimates


@pytest.mark.parametrize("num_samples", [2, 3, 5])
@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_reinforce_and_rloo_are_unbiased(num_samples, kl_coef):
    """`prop-unbiased`, and GRPO without division is (k - 1)/k of it."""
    exact = rlhf_gradient(LOGITS, REWARD, REFERENCE, kl_coef)
    for algorithm in ("reinforce", "rloo"):
        assert np.allclose(expected(algorithm, num_samples, kl_coef), exact, atol=1e-14)
    assert np.allclose(expected("dr_grpo", num_samples, kl_coef), exact * (num_samples - 1) / num_samples, atol=1e-14)
    assert not np.allclose(expected("grpo", num_samples, kl_coef), exact, atol=1e-2)


def test_dividing_by_the_standard_deviation_removes_the_scale_of_the_reward():
    groups = np.random.default_rng(0).normal(size=(50, 8))
    assert np.allclose(advantages(groups, "grpo"), advantages(1e-1 * groups, "grpo"), rtol=0.01)
    assert np.allclose(advantages(groups, "rloo"), 10 * advantages(1e-1 * groups, "rloo"))


def test_a_group_without_spread_teaches_nothing():
    for algorithm in ("rloo", "grpo", "dr_grpo"):
        assert not advantages(np.full((3, 4), 0.7), algorithm).any()
    probs, reward = np.array([0.5, 0.3, 0.2]), np.array([1.0, 1.0, 0.0])
    same = [
        p
        for drawn in itertools.product(range(3), repeat=3)
        if len({reward[y] for y in drawn}) == 1
        for p in [probs[list(drawn)].prod()]
    ]
    assert no_spread_probability(probs, reward, 3) == pytest.approx(sum(same))


def test_draws_are_seeded_and_follow_the_policy():
    probs = softmax(np.array([[0.0, 1.0, -2.0], [3.0, 0.0, 0.0]]))
    drawn = sample_outputs(probs, 4, rng=1, draws=20_000)
    assert drawn.shape == (2, 20_000, 4) and np.array_equal(drawn, sample_outputs(probs, 4, rng=1, draws=20_000))
    for row, p in zip(drawn, probs, strict=True):
        assert np.abs(np.bincount(row.ravel(), minlength=3) / row.size - p).max() < 0.01


@pytest.mark.parametrize("algorithm", ADVANTAGES)
def test_estimates_have_the_shape_of_the_logits_and_average_out(algorithm):
    reward = np.stack([REWARD, -REWARD])
    estimates = estimate_gradient(LOGITS, reward, 4, rng=2, algorithm=algorithm, draws=50_000)
    assert estimates.shape == (2, 50_000, 3)
    assert estimate_gradient(LOGITS, REWARD, 4, rng=2, algorithm=algorithm).shape == (3,)
    assert np.allclose(estimates.sum(-1), 0, atol=1e-12)
    if algorithm != "grpo":
        exact = rlhf_gradient(LOGITS, reward, LOGITS, 0.0) * (3 / 4 if algorithm == "dr_grpo" else 1)
        error = estimates.std(1) / np.sqrt(50_000)
        assert (np.abs(estimates.mean(1) - exact) < 5 * error).all()


def win_rates(probs, reward):
    """P(another sample is worse) - P(it is better), for each output."""
    return (np.sign(reward[:, None] - reward) * probs).sum(1)


@pytest.mark.parametrize("reward", [REWARD, np.array([0.5, 0.5, -1.0]), 1e3 * REWARD])
def test_grpo_of_two_follows_the_win_rate(reward):
    """`thm-grpo-of-two`: E ĝ = ∇E[win rate]/√2, but for the floor under the standard deviation."""
    probs, groups = softmax(LOGITS), np.array(list(itertools.product(range(3), repeat=2)))
    estimates = gradient_estimate(LOGITS, groups, advantages(reward[groups], "grpo"))
    rates = win_rates(probs, reward)
    assert np.allclose(probs[groups].prod(-1) @ estimates, probs * rates / np.sqrt(2), atol=2e-4)
    mass = np.bincount(np.unique(reward, return_inverse=True)[1], probs)
    assert (probs * rates**2).sum() == pytest.approx((1 - (mass**3).sum()) / 3)


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_signal_to_noise_is_that_of_sampled_gradients(noise):
    """`prop-snr`, and one factor on reward and noise cancels."""
    rng, probs, k = np.random.default_rng(0), softmax(LOGITS), 3
    outputs = sample_outputs(probs, k, rng, draws=200_000)
    marks = REWARD[outputs] - probs @ REWARD + noise * rng.normal(size=outputs.shape)
    estimates = gradient_estimate(LOGITS, outputs, marks)
    spread = ((estimates - estimates.mean(0)) ** 2).sum(-1).mean()
    measured = np.linalg.norm(estimates.mean(0)) / np.sqrt(spread)
    assert signal_to_noise(probs, REWARD, k, noise) == pytest.approx(measured, rel=0.02)
    assert signal_to_noise(probs, 50 * REWARD, k, 50 * noise) == pytest.approx(signal_to_noise(probs, REWARD, k, noise))
    assert signal_to_noise(probs, np.ones(3), k, noise) == 0


def test_noise_in_the_marks_caps_the_signal_by_the_variance():
    """`prop-snr`: SNR² ≤ k Var/(2 τ² (1 - ‖π‖²)) on random problems; and not with a smaller constant."""
    rng = np.random.default_rng(1)
    outputs = rng.integers(2, 9, 2000)
    shares = []
    for n in outputs:
        probs = softmax(rng.choice([0.3, 4.0]) * rng.normal(size=n))
        reward, noise = rng.uniform(-1, 1, n), 10 ** rng.uniform(-1, 2)
        variance = probs @ (reward - probs @ reward) ** 2
        shares.append(
            signal_to_noise(probs, reward, 5, noise) ** 2 / (5 * variance / (2 * noise**2 * (1 - probs @ probs)))
        )
    assert 0.9 < max(shares) <= 1 + 1e-9


def test_the_slider_and_the_figures_offer_the_registered_algorithms():
    assert Samples.estimator.values == list(ADVANTAGES) and set(ESTIMATORS) == set(ADVANTAGES)


def test_the_page_has_the_same_labels():
    assert (WEB / "estimators.mjs").read_text(encoding="utf-8") == samples.module(), "run make generated"


@pytest.mark.parametrize("algorithm", ADVANTAGES)
def test_the_page_computes_the_same_advantages(node, algorithm):
    rewards = np.random.default_rng(2).normal(size=(5, 6))
    module = (WEB / "samples.mjs").as_uri()
    program = (
        f"const m = await import({module!r}); console.log(JSON.stringify({rewards.tolist()}.map((r) => "
        f"m.advantages(r, {algorithm!r}))))"
    )
    done = node("--input-type=module", "--eval", program)
    assert np.allclose(json.loads(done.stdout), advantages(rewards, algorithm), atol=1e-12), done.stderr
