"""Attempts to break every bound on random instances, extreme ones included.

Hypothesis chooses the corner (outputs, spread of the logits, scale of the rewards, λ, gain, |S|) and a seed; each example is
a batch of problems in it. The profile sets how many: 2,000 instances of a bound in CI, 100,000 in the nightly run. Every
check takes the bound as an argument, so that the last test can hand it one with a constant reduced, and must see it caught.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvlib.metrics import reward_covariance, reward_variance
from rvlib.tabular import (
    accurate_but_slow,
    attainable_accuracies,
    bounds,
    gradient_flow,
    inaccurate_but_fast,
    kl_reward,
    policy_specific_teachers,
    rlhf_gradient,
    softmax,
    time_to_gain,
)

BATCH = 20
instances = settings(max_examples=max(settings().max_examples // BATCH, 1))  # `BATCH` instances an example

corners = given(
    seed=st.integers(0, 2**32 - 1),
    outputs=st.integers(2, 12),
    spread=st.sampled_from([0.0, 0.5, 2.0, 10.0, 50.0]),
    log_scale=st.sampled_from([-6.0, -3.0, -1.0, 0.0]),
    kl_coef=st.sampled_from([0.0, 1e-3, 0.1, 1.0, 10.0]),
    gain=st.sampled_from([1e-6, 1e-3, 0.05, 0.3, 1.0]),
    prompts=st.sampled_from([1, 3]),
    ties=st.booleans(),
)


def problems(seed, outputs, spread, log_scale, ties):
    """A batch: logits, proxy rewards of the wanted scale and measured rewards in [-1, 1], all (BATCH, outputs)."""
    rng = np.random.default_rng(seed)
    logits = rng.uniform(-spread, spread, (BATCH, outputs))
    proxy, measured = rng.uniform(-1, 1, (2, BATCH, outputs))
    if ties:
        proxy, measured = np.round(proxy), np.sign(measured)  # two or three levels: the largest variances, and none
    return logits, 10**log_scale * proxy, measured


def check_slow_time(bound, seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    logits, proxy, measured = problems(seed, outputs, spread, log_scale, ties)
    least = bound(reward_variance(proxy, softmax(logits)), gain, prompts)
    for reward in (measured, proxy):
        # Only a crossing before the bound would break it; the flow is followed no further.
        end = np.where(np.isfinite(least), np.maximum(least, 1e-300), 1e3)
        found = time_to_gain(logits, proxy, gain, measured=reward, kl_coef=kl_coef, n_prompts=prompts, t_max=end)
        assert (found >= least * (1 - 1e-9)).all()


def check_gradient(bound, seed, outputs, spread, log_scale, kl_coef, ties):
    logits, proxy, _ = problems(seed, outputs, spread, log_scale, ties)
    reference = problems(seed + 1, outputs, spread, log_scale, ties)[0]
    regularised = kl_reward(logits, proxy, reference, kl_coef)
    size = np.abs(rlhf_gradient(logits, proxy, reference, kl_coef)).sum(-1)
    assert (size <= bound(reward_variance(regularised, softmax(logits))) * (1 + 1e-9) + 1e-13).all()


def check_mass(bound, seed, outputs, spread, log_scale, kl_coef, prompts, ties):
    logits, proxy, _ = problems(seed, outputs, spread, log_scale, ties)
    group = np.random.default_rng(seed + 2).random((BATCH, outputs)) < 0.4
    start = softmax(logits)
    for time in (0.1, 1.0, 10.0):
        later = gradient_flow(logits, proxy, time, kl_coef=kl_coef, n_prompts=prompts).probs[:, -1]
        most = bound((start * group).sum(-1), time, start.min(-1), kl_coef, prompts)
        assert ((later * group).sum(-1) <= most * (1 + 1e-9)).all()


@corners
@instances
def test_proposition_3(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    check_slow_time(bounds.tabular_slow_time_bound, seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties)


@corners
@instances
def test_lemma_8(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    check_gradient(bounds.tabular_gradient_bound, seed, outputs, spread, log_scale, kl_coef, ties)


@corners
@instances
def test_lemma_10(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    check_mass(bounds.tabular_mass_bound, seed, outputs, spread, log_scale, kl_coef, prompts, ties)


@corners
@instances
def test_theorem_4_holds_for_tabular_policies_too(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    """A tabular policy is autoregressive with L = 1 and logits for parameters, so J = 1."""
    slow = lambda variance, gain, prompts: bounds.slow_time_bound(variance, gain, 1, 1, kl_coef)
    check_slow_time(slow, seed, outputs, spread, log_scale, kl_coef, gain, 1, ties)


@given(seed=st.integers(0, 2**32 - 1), outputs=st.integers(2, 12), few=st.booleans(), best=st.floats(0.05, 0.9), kl=st.floats(0, 1))
@settings(max_examples=settings().max_examples)
def test_proposition_4(seed, outputs, few, best, kl):
    """Problems drawn so that the conditions can hold; where they do, with λ up to the largest allowed, t_γ is in time."""
    rng = np.random.default_rng(seed)
    good = int(rng.integers(1, 1 + min(2, outputs - 1)))
    rest = softmax(rng.normal(size=outputs - good) * (5 if few else 0.5))
    probs = np.r_[np.full(good, best / good), (1 - best) * rest]
    truth = np.r_[rng.uniform(0.8, 1, good), rng.uniform(-1, 0.2, outputs - good)]
    reward = np.r_[rng.uniform(0.9999, 1, good), rng.uniform(-1, 0, outputs - good)]
    gain = rng.uniform(0.01, 0.9) * max(truth[:good].min() - probs @ truth, 0.02)
    try:
        bounds.tabular_fast_time_bound(probs, reward, truth, gain, np.arange(good))
        rho = (probs @ truth + gain + 1) / (truth[:good].min() + 1)
        delta = (1 - rho) * (reward[:good].max() - probs @ reward) - np.ptp(reward[:good])
        kl_coef = kl * best * (1 - rho) * delta / (8 * good * (2 * np.log(1 / probs.min()) + 1 / (2 * np.e))) * (1 - 1e-9)
        most = bounds.tabular_fast_time_bound(probs, reward, truth, gain, np.arange(good), kl_coef, n_prompts=2)
    except ValueError:
        return  # a condition of the proposition fails, and it says nothing
    assert time_to_gain(np.log(probs), reward, gain, measured=truth, kl_coef=kl_coef, n_prompts=2) <= max(most, 1e-12) * (1 + 1e-9)


@given(seed=st.integers(0, 2**32 - 1), outputs=st.integers(2, 8), slowness=st.sampled_from([1.0, 10.0, 1e4]))
@settings(max_examples=settings().max_examples // 4)
def test_theorem_5(seed, outputs, slowness):
    rng = np.random.default_rng(seed)
    logits, truth = rng.normal(size=outputs), rng.uniform(-1, 1, outputs)
    probs, best = softmax(logits), int(truth.argmax())
    gain = rng.uniform(0.05, 0.95) * (truth[best] - probs @ truth)
    slow = accurate_but_slow(truth, rng.choice(attainable_accuracies(truth)), slowness, seed)
    least = 2 * -np.expm1(-gain / 2) * slowness
    assert time_to_gain(logits, slow, gain, measured=truth, t_max=least) >= least * (1 - 1e-9)
    fast = inaccurate_but_fast(truth, probs, best, rng.choice(attainable_accuracies(truth, first=best)), seed)
    most = bounds.inaccurate_but_fast_time_bound(probs, truth, gain, best)
    assert time_to_gain(logits, fast, gain, measured=truth) <= max(most, 1e-12) * (1 + 1e-9)
    assert bounds.tabular_fast_time_bound(probs, fast, truth, gain, best) <= max(most, 1e-12) * (1 + 1e-9)


@given(seed=st.integers(0, 2**32 - 1), outputs=st.integers(3, 8), slowness=st.sampled_from([2.0, 30.0, 1e3]))
@settings(max_examples=settings().max_examples // 4)
def test_theorem_6(seed, outputs, slowness):
    rng = np.random.default_rng(seed)
    likely, rare = rng.uniform(0.05, 0.9), rng.uniform(0.1, 1) / slowness**2
    rest = rng.dirichlet(np.ones(outputs - 2)) * (1 - likely - rare) if likely + rare < 1 else None
    if rest is None:
        return
    probs = np.r_[likely, rare, rest]
    truth = np.r_[1.0, 1.0, rng.uniform(-1, 0, outputs - 2)]
    gain = rng.uniform(0.05, 0.9) * (1 - probs @ truth)
    own, others = policy_specific_teachers(outputs, 0, 1)
    most = bounds.matching_teacher_time_bound(probs, truth, gain, 0, likely)
    assert time_to_gain(np.log(probs), own, gain, measured=truth) <= max(most, 1e-12) * (1 + 1e-9)
    least = bounds.mismatched_teacher_time_bound(gain, slowness)
    assert time_to_gain(np.log(probs), others, gain, measured=truth, t_max=least) >= least * (1 - 1e-9)


@pytest.mark.parametrize("kl_coef", [0.0, 0.4])
def test_lemma_9_against_finite_differences(kl_coef):
    """d/dt π(y) = (1/|S|) π(y) [ π(y)(r(y) - V) - Σ π²(r - V) + KL terms ], of a policy that the flow has moved off its start."""
    rng = np.random.default_rng(0)
    logits, reward = rng.normal(size=6), rng.uniform(-1, 1, 6)
    flow = gradient_flow(logits, reward, 10.0, kl_coef=kl_coef, n_prompts=3)
    step = 1e-3
    before, now, after = flow(np.array([4 - step, 4.0, 4 + step])).probs
    start = softmax(logits)
    a = reward - now @ reward - kl_coef * (np.log(now / start) - now @ np.log(now / start))
    closed_form = now * (now * a - now**2 @ a) / 3
    assert np.allclose((after - before) / (2 * step), closed_form, atol=1e-8)


def test_the_ground_truth_moves_at_the_covariance_weighted_by_squared_probabilities():
    """dV_G/dt at the start = (1/|S|) Σ π² (r_RM - V_RM)(r_G - V_G)."""
    rng = np.random.default_rng(1)
    logits, proxy, truth = rng.normal(size=(3, 40, 7))
    probs, step = softmax(logits), 1e-5
    flow = gradient_flow(logits, proxy, step, ground_truth=truth, n_prompts=2)
    rate = (flow(step).ground_truth - flow(0.0).ground_truth) / step
    proxy, truth = (r - (probs * r).sum(-1, keepdims=True) for r in (proxy, truth))
    assert np.allclose(rate, (probs**2 * proxy * truth).sum(-1) / 2, atol=1e-5)
    uniform = np.full(7, 1 / 7)  # for a uniform policy the weights are equal and it is the covariance over n
    assert np.allclose((uniform**2 * (proxy - proxy.mean(-1, keepdims=True)) * (truth - truth.mean(-1, keepdims=True))).sum(-1),
                       reward_covariance(proxy, truth, uniform) / 7)  # fmt: skip


def test_a_broken_bound_is_caught():
    """Each check, given its bound with a constant reduced, fails on some instance: it would notice a wrong theorem."""

    def catches(check, *arguments):
        try:
            check(*arguments)
        except AssertionError:
            return True
        return False

    fewer = lambda variance: 0.9 * bounds.tabular_gradient_bound(variance)
    assert any(catches(check_gradient, fewer, seed, 2, 0.0, 0.0, 0.0, True) for seed in range(3))
    later = lambda *arguments: 4.5 * bounds.tabular_slow_time_bound(*arguments)
    assert any(catches(check_slow_time, later, seed, 2, 0.5, 0.0, 0.0, 1e-3, 1, True) for seed in range(5))
    less = lambda mass, time, *rest: bounds.tabular_mass_bound(mass, time / 8, *rest)
    assert any(catches(check_mass, less, seed, 2, 2.0, 0.0, 0.0, 1, True) for seed in range(5))
