"""Autoregressive policies: the table against brute force, and attempts to break every bound for them on random
instances.
"""

import itertools
import json
import os
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rvlib.metrics import reward_variance
from rvlib.tabular import autoregressive as ar
from rvlib.tabular import bounds, rlhf_gradient, softmax
from rvlib.tabular import kl_reward as tabular_kl_reward
from rvlib.tabular import time_to_gain as tabular_time_to_gain

BATCH = 20
instances = settings(max_examples=max(settings().max_examples // BATCH, 1))  # `BATCH` instances an example

corners = given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(2, 1), (5, 1), (2, 2), (3, 2), (2, 3), (3, 3), (2, 6), (4, 3)]),
    spread=st.sampled_from([0.0, 0.5, 2.0, 10.0, 50.0]),
    drift=st.sampled_from([0.0, 0.5, 5.0]),
    log_scale=st.sampled_from([-6.0, -3.0, -1.0, 0.0]),
    kl_coef=st.sampled_from([0.0, 1e-3, 0.1, 1.0, 10.0]),
    shared=st.booleans(),
)


def policies(seed, size, spread, drift, log_scale, kl_coef, shared):
    """A batch of logits (BATCH, prefixes, V) and values r^KL (BATCH, V^L); `shared`: the same row for every prefix."""
    rng = np.random.default_rng(seed)
    prefixes, outputs = ar.shape_of(*size)
    rows = 1 if shared else prefixes
    logits, moved = (np.repeat(rng.uniform(-1, 1, (BATCH, rows, size[0])), prefixes // rows, 1) for _ in range(2))
    # Rewards that add up over the tokens come nearest to the bounds.
    steps = rng.uniform(-1, 1, (BATCH, size[1], size[0]))
    sums = np.stack([steps[:, range(size[1]), y].mean(1) for y in itertools.product(range(size[0]), repeat=size[1])], 1)
    reward = np.where(rng.random((BATCH, 1)) < 0.5, sums, rng.uniform(-1, 1, (BATCH, outputs)))
    reference = spread * logits + drift * moved
    return spread * logits, ar.kl_reward(spread * logits, 10**log_scale * reward, reference, kl_coef)


@dataclass(frozen=True)
class Measured:
    """Gradient norm, variance and largest absolute value, each (BATCH,)."""

    gradient_norm: NDArray[np.float64]
    variance: NDArray[np.float64]
    largest: NDArray[np.float64]


def measured(logits, values, shared):
    """`Measured` of a batch. In one row of logits for all prefixes the Jacobian norm is 1 too."""
    gradient = ar.policy_gradient(logits, values)
    size = np.linalg.norm(gradient.sum(1) if shared else gradient.reshape(BATCH, -1), axis=-1)
    return Measured(size, reward_variance(values, np.exp(ar.log_probs(logits))), np.abs(values).max(-1))


def check_gradient(bound, size, shared, **corner):
    logits, values = policies(size=size, shared=shared, **corner)
    batch = measured(logits, values, shared)
    largest_norm = bound(batch.variance, size[1], 1.0, batch.largest)
    assert (batch.gradient_norm <= largest_norm * (1 + 1e-9) + 1e-13).all()


def sharper(variance, length, jacobian_norm, reward_bound):
    return bounds.sharper_gradient_norm_bound(variance, length, jacobian_norm)


@instances
@corners
def test_the_papers_proposition_2(**corner):
    check_gradient(bounds.gradient_norm_bound, **corner)


@instances
@corners
def test_sharper_gradient_bound(**corner):
    check_gradient(sharper, **corner)


@instances
@corners
def test_rows_of_their_own_keep_the_root_of_the_length_from_the_bound(**corner):
    if not corner["shared"]:  # the chapter: gradients of different prefixes are orthogonal, so that ‖∇φ‖ ≤ √(W/2)
        check_gradient(lambda variance, *a: np.sqrt(variance / 2), **corner)


@instances
@corners
def test_every_step_of_both_proofs(**corner):
    logits, values = policies(**corner)
    length, variance = corner["size"][1], measured(logits, values, False).variance
    for steps, last in zip(
        ar.proof_steps(logits, values),
        (
            6 * np.cbrt(np.abs(values).max(-1) * variance) * length,
            bounds.sharper_gradient_norm_bound(variance, length, 1.0),
        ),
    ):
        chain = np.stack(list(steps.values()))
        assert (chain[1:] >= chain[:-1] * (1 - 1e-9) - 1e-12).all()
        np.testing.assert_allclose(chain[-1], last, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_sharper_gradient_bound_is_attained(length):
    """Two tokens at ½ each, one row of logits for all steps, reward the mean token."""
    prefixes, _ = ar.shape_of(2, length)
    logits = np.zeros((prefixes, 2))
    reward = np.array([np.mean(y) for y in itertools.product([-1, 1], repeat=length)])
    gradient = np.linalg.norm(ar.policy_gradient(logits, reward).sum(0))
    np.testing.assert_allclose(gradient, bounds.sharper_gradient_norm_bound(1 / length, length, 1.0), rtol=1e-12)


@pytest.mark.parametrize(
    "broken",
    [
        lambda *a: bounds.gradient_norm_bound(*a) / 20,
        lambda variance, *a: sharper(variance, *a) / 1.1,
        lambda variance, length, *a: np.sqrt(variance / 2),  # without the length
    ],
)
def test_a_broken_bound_is_caught(broken):
    with pytest.raises(AssertionError):
        for seed, size, spread in itertools.product(range(20), [(2, 1), (2, 3), (3, 3)], [0.0, 2.0]):
            check_gradient(
                broken, seed=seed, size=size, shared=True, spread=spread, drift=0.0, log_scale=0.0, kl_coef=0.0
            )


def check_slow_time(bound, count=40):
    rng = np.random.default_rng(3)
    for index in range(count):
        size = [(2, 1), (3, 2), (2, 3), (2, 4)][index % 4]
        prefixes, outputs = ar.shape_of(*size)
        logits = rng.choice([0.3, 1.5]) * rng.normal(size=(prefixes, size[0]))
        truth = np.sign(rng.uniform(-1, 1, outputs))
        scale = 10 ** rng.uniform(-2, 0)
        kl_coef = scale * rng.choice([0.0, 0.1, 1.0])
        gain = rng.choice([1e-4, 0.1])
        variance = reward_variance(scale * truth, np.exp(ar.log_probs(logits)))
        if variance > 1e-9 * scale**2:
            time = ar.time_to_gain(logits, scale * truth, gain, measured=truth, kl_coef=kl_coef, t_max=1e4)
            assert time >= bound(variance, gain, size[1], 1.0, kl_coef)


def sharper_time(variance, gain, length, jacobian_norm, kl_coef):
    return bounds.sharper_slow_time_bound(variance, gain, length, jacobian_norm)


@pytest.mark.parametrize("bound", [bounds.slow_time_bound, sharper_time])
def test_slow_time_bounds(bound):
    check_slow_time(bound)


@pytest.mark.parametrize("broken", [lambda *a: 3000 * bounds.slow_time_bound(*a), lambda *a: 8 * sharper_time(*a)])
def test_a_broken_time_bound_is_caught(broken):
    with pytest.raises(AssertionError):
        check_slow_time(broken)


@given(variance=st.floats(1e-12, 1), gain=st.floats(1e-6, 2), length=st.integers(1, 50), kl_coef=st.floats(0, 10))
def test_sharper_bounds_are_sharper(variance, gain, length, kl_coef):
    paper = bounds.gradient_norm_bound(variance, length, 2.0, 1.0)
    assert paper >= 6 * np.sqrt(2 * length) * bounds.sharper_gradient_norm_bound(variance, length, 2.0) * (1 - 1e-9)
    paper = bounds.slow_time_bound(variance, gain, length, 2.0, kl_coef)
    assert bounds.sharper_slow_time_bound(variance, gain, length, 2.0) >= 16 * paper * (1 - 1e-9)


@pytest.mark.parametrize("size", [(2, 1), (3, 2), (2, 4)])
def test_against_brute_force(size):
    """Probabilities output by output (`def-policy`), the gradient by differences (`lem-log-derivative`), and the split
    of the variance (`lem-tokens`).
    """
    rng = np.random.default_rng(0)
    prefixes, outputs = ar.shape_of(*size)
    logits, reference, reward = (
        rng.normal(size=(prefixes, size[0])),
        rng.normal(size=(prefixes, size[0])),
        rng.uniform(-1, 1, outputs),
    )
    rows = [h for length in range(size[1]) for h in itertools.product(range(size[0]), repeat=length)]
    strings = list(itertools.product(range(size[0]), repeat=size[1]))
    brute = [np.prod([softmax(logits[rows.index(y[:i])])[y[i]] for i in range(size[1])]) for y in strings]
    probs = np.exp(ar.log_probs(logits))
    np.testing.assert_allclose(probs, brute, rtol=1e-12)

    def objective(flat):
        now = flat.reshape(logits.shape)
        return np.exp(ar.log_probs(now)) @ ar.kl_reward(now, reward, reference, 0.3)

    values = ar.kl_reward(logits, reward, reference, 0.3)
    differences = [
        (objective(logits.ravel() + e) - objective(logits.ravel() - e)) / 2e-5 for e in 1e-5 * np.eye(logits.size)
    ]
    np.testing.assert_allclose(ar.policy_gradient(logits, values).ravel(), differences, atol=1e-9)
    p, reach, advantage = ar.tokens(logits, values)
    np.testing.assert_allclose((reach * (p * advantage**2).sum(-1)).sum(), reward_variance(values, probs))


def test_one_token_is_the_tabular_policy():
    """`def-policy`: of one token it is a table, and by `lem-log-derivative` and `lem-tokens` so is its gradient."""
    rng = np.random.default_rng(1)
    logits, reference, reward = rng.normal(size=(3, 5))
    values = ar.kl_reward(logits[None], reward, reference[None], 0.2)
    np.testing.assert_allclose(values, tabular_kl_reward(logits, reward, reference, 0.2))
    np.testing.assert_allclose(
        ar.policy_gradient(logits[None], values)[0], rlhf_gradient(logits, reward, reference, 0.2)
    )
    for kl_coef in (0.0, 0.1):
        exact = tabular_time_to_gain(logits, reward, 0.1, kl_coef=kl_coef)
        np.testing.assert_allclose(ar.time_to_gain(logits[None], reward, 0.1, kl_coef=kl_coef), exact, rtol=1e-6)
    assert ar.time_to_gain(logits[None], reward, 10.0, t_max=10.0) == np.inf


def test_proof_steps_with_a_jacobian():
    """A network whose logits are the table's times 2 has twice the gradient, and J = 2."""
    rng = np.random.default_rng(2)
    logits, values = rng.normal(size=(7, 2)), rng.uniform(-1, 1, 8)
    jacobian = 2 * np.eye(14).reshape(7, 2, 14)
    assert ar.jacobian_norm(jacobian) == pytest.approx(2)
    for plain, network in zip(ar.proof_steps(logits, values), ar.proof_steps(logits, values, jacobian)):
        np.testing.assert_allclose(list(network.values()), 2 * np.array(list(plain.values())))


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"a row for each prefix, got shape \(4, 2\); shape_of"):
        ar.log_probs(np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"reward must have one value for each of the 8 outputs .* got shape \(7,\)"):
        ar.kl_reward(np.zeros((7, 2)), np.zeros(7), np.zeros((7, 2)), 0.0)
    with pytest.raises(ValueError, match="vocabulary must be a whole number of at least 2"):
        ar.shape_of(1, 3)


def test_the_page_computes_the_same(node, tmp_path):
    rng = np.random.default_rng(4)
    cases = []
    for vocabulary, length in [(2, 1), (5, 1), (3, 2), (2, 4), (4, 3)]:
        prefixes, outputs = ar.shape_of(vocabulary, length)
        logits, reference = rng.normal(size=(2, prefixes, vocabulary))
        reward, measured = rng.uniform(-1, 1, (2, outputs))
        kl_coef, gain = rng.choice([0.0, 0.05]), 0.05
        values = ar.kl_reward(logits, reward, reference, kl_coef)
        gradient, variance = ar.policy_gradient(logits, values), reward_variance(values, np.exp(ar.log_probs(logits)))
        time = ar.time_to_gain(logits, reward, gain, measured=measured, kl_coef=kl_coef, t_max=1e4)
        cases.append(
            {
                "vocabulary": vocabulary,
                "length": length,
                "logits": logits.ravel().tolist(),
                "values": values.tolist(),
                "gain": gain,
                "log_probs": ar.log_probs(logits).tolist(),
                "gradient": gradient.ravel().tolist(),
                "shared": gradient.sum(0).tolist(),
                "variance": float(variance),
                "reward": reward.tolist(),
                "measured": measured.tolist(),
                "kl_coef": float(kl_coef),
                "time": time if np.isfinite(time) else None,
                "bounds": [
                    float(bounds.gradient_norm_bound(variance, length, 2, 1.5)),
                    float(bounds.sharper_gradient_norm_bound(variance, length, 2)),
                    float(bounds.slow_time_bound(variance, gain, length, 2, kl_coef)),
                    float(bounds.sharper_slow_time_bound(variance, gain, length, 2)),
                ],
            }
        )
    assert any(case["time"] for case in cases)
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    result = node("--test", "tests/autoregressive.test.mjs", env={**os.environ, "CASES": str(tmp_path / "cases.json")})
    assert result.returncode == 0, result.stdout + result.stderr
