"""Gradient flow against 40-digit references, laws that it must keep, and t_γ against brute force."""

import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvlib.tabular import gradient_flow, integrator, rlhf_gradient, rlhf_objective, softmax, time_to_gain

CASES = json.loads((pathlib.Path(__file__).parent / "cases" / "flow.json").read_text())
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])


def outputs(case, key):
    return np.repeat(case[key], case["counts"])


@by_name
def test_flow_matches_the_reference(case):
    times = case["times"]
    trajectory = gradient_flow(
        outputs(case, "logits"),
        outputs(case, "reward"),
        times[-1],
        ground_truth=outputs(case, "truth"),
        kl_coef=case["kl_coef"],
        n_prompts=case["n_prompts"],
    )
    states = trajectory(np.array(times))
    first = np.cumsum([0, *case["counts"][:-1]])
    assert np.abs(states.probs[:, first] - case["probs"]).max() < 1e-8
    for name in ("proxy", "ground_truth", "variance", "kl", "gradient_norm"):
        assert np.abs(getattr(states, name) - case[name]).max() < 1e-8, name
    assert np.allclose(trajectory.probs[-1], states.probs[-1], atol=1e-12)


@by_name
def test_time_to_gain_matches_the_reference(case):
    """`def-time-to-gain`, for the proxy itself."""
    for gain, time in zip(case["gains"], case["gain_times"]):
        t_gain = time_to_gain(
            outputs(case, "logits"), outputs(case, "reward"), gain, kl_coef=case["kl_coef"], n_prompts=case["n_prompts"]
        )
        assert t_gain == pytest.approx(float(time), rel=1e-8)


def test_the_page_matches_the_reference(node):
    result = node("--test", "tests/flow.test.mjs")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("n, spread, scale", [(5_000, 3, 1), (1_000, 50, 1), (300, 1, 1e-6), (2, 50, 1)])
def test_without_kl_every_flow_is_a_line_in_exp_of_minus_logits(n, spread, scale):
    """`thm-exact-flow`: for λ = 0, d/dt exp(-θ_y) = -(r_y - V)/Z, so what exp(-θ_y) has gained is affine in r_y, the
    same line for all outputs.

    Also Σ θ is constant (`prop-flow-facts`, part 3). Together they check sizes that no reference reaches.
    """
    rng = np.random.default_rng(n)
    logits, reward = rng.uniform(-spread, spread, n), scale * rng.uniform(-1, 1, n)
    end = gradient_flow(logits, reward, 1e5 / scale).logits[-1]
    assert abs((end - logits).sum()) < 1e-8
    gained = np.exp(-end) - np.exp(-logits)
    moved = np.abs(end - logits) > 1e-3  # elsewhere the difference is lost in rounding
    if moved.sum() > 2:
        design = np.stack([np.ones(moved.sum()), reward[moved]], 1)
        weight = np.exp(end[moved])  # errors in θ of the same size count alike
        line, *_ = np.linalg.lstsq(design * weight[:, None], gained[moved] * weight, rcond=None)
        error = (design @ line - gained[moved]) * weight  # in θ; in the probability it is π (1 - π) times that
        probs = softmax(end)[moved]
        assert np.abs(error * probs * (1 - probs)).max() < 1e-8 and np.median(np.abs(error)) < 1e-9


@pytest.mark.parametrize("kl_coef", [1e-3, 0.1, 10])
def test_with_kl_the_flow_ends_at_the_tilted_reference(kl_coef):
    rng = np.random.default_rng(0)
    logits, reward = rng.normal(size=6), rng.uniform(-1, 1, 6) * min(1, 3 * kl_coef)
    end = gradient_flow(logits, reward, 1e8, kl_coef=kl_coef)
    assert np.abs(end.probs[-1] - softmax(logits + reward / kl_coef)).max() < 1e-8


@given(
    seed=st.integers(0, 2**32 - 1),
    outputs=st.integers(1, 60),
    spread=st.floats(0, 50),
    kl_coef=st.sampled_from([0.0, 1e-4, 0.05, 1.0, 10.0]),
    log_scale=st.floats(-6, 0),
    log_horizon=st.floats(-3, 8),
    levels=st.sampled_from([0, 2, 3]),
)
@settings(max_examples=300)
def test_the_flow_never_breaks(seed, outputs, spread, kl_coef, log_scale, log_horizon, levels):
    """Any corner of the promised range, ties included: finite, a distribution, at the horizon, and climbing all the
    way.
    """
    rng = np.random.default_rng(seed)
    logits, reward = rng.uniform(-spread, spread, outputs), rng.uniform(-1, 1, outputs)
    reward = 10**log_scale * (np.round(levels * reward) / levels if levels else reward)
    flow = gradient_flow(logits, reward, 10**log_horizon, kl_coef=kl_coef)
    assert np.isfinite(flow.logits).all() and np.allclose(flow.probs.sum(-1), 1)
    assert flow.t[-1] == 10**log_horizon and (np.diff(flow.t) >= 0).all()
    assert (np.diff(rlhf_objective(flow.logits, reward, logits, kl_coef)) > -1e-11).all()
    later = time_to_gain(logits, reward, 0.3 * 10**log_scale, kl_coef=kl_coef, t_max=10**log_horizon)
    assert later > 0 and (
        later == np.inf or flow(later).proxy - flow(0.0).proxy == pytest.approx(0.3 * 10**log_scale, rel=1e-6)
    )


def test_a_batch_is_its_problems():
    rng = np.random.default_rng(1)
    logits, reward, kl_coef = rng.normal(size=(3, 1, 6)), rng.uniform(-1, 1, (4, 6)), rng.uniform(0, 1, (3, 4))
    times = np.array([0.0, 1e-3, 2.5, 40.0])
    together = gradient_flow(logits, reward, 40.0, kl_coef=kl_coef)
    gains = time_to_gain(logits, reward, 0.05, kl_coef=kl_coef)
    assert together(times).probs.shape == (3, 4, 4, 6) and together(1.0).probs.shape == (3, 4, 6)
    for i in range(3):
        for j in range(4):
            alone = gradient_flow(logits[i, 0], reward[j], 40.0, kl_coef=kl_coef[i, j])
            assert np.allclose(alone(times).probs, together(times).probs[i, j], atol=1e-10)
            assert time_to_gain(logits[i, 0], reward[j], 0.05, kl_coef=kl_coef[i, j]) == pytest.approx(
                gains[i, j], rel=1e-9
            )


def test_a_batch_that_is_not_integrated_at_once_is_the_same(monkeypatch):
    """Problems that wait until others have ended, explicit and implicit steps among them."""
    rng = np.random.default_rng(5)
    logits, reward = rng.normal(size=(40, 6)), rng.uniform(-1, 1, (40, 6))
    kl_coef, horizon, times = rng.choice([0.0, 0.1, 5.0], 40), 1e3, np.array([0.0, 1e-3, 2.5, 40.0, 1e3])
    at_once = gradient_flow(logits, reward, horizon, kl_coef=kl_coef)(times)
    gains = time_to_gain(logits, reward, 0.1, kl_coef=kl_coef)
    assert len(logits) * 6 < integrator._WIDTH and 5.0 * horizon > integrator._STIFF
    monkeypatch.setattr(integrator, "_WIDTH", 18)
    flow = gradient_flow(logits, reward, horizon, kl_coef=kl_coef)
    assert (flow.t[:, -1] == horizon).all() and (np.diff(flow.t) >= 0).all()
    assert np.allclose(flow.probs[:, -1], at_once.probs[:, -1], atol=1e-10)
    assert np.allclose(flow(times).probs, at_once.probs, atol=1e-10)
    assert np.allclose(time_to_gain(logits, reward, 0.1, kl_coef=kl_coef), gains, rtol=1e-9)


def test_prompts_slow_time_down():
    """`prop-flow-facts`, part 2: a prompt of seven is seven times as slow."""
    logits, reward = [0.0, 1.0, -1.0], [0.2, -0.4, 0.9]
    assert np.allclose(
        gradient_flow(logits, reward, 70.0, n_prompts=7).probs[-1],
        gradient_flow(logits, reward, 10.0).probs[-1],
        atol=1e-10,
    )
    assert time_to_gain(logits, reward, 0.3, n_prompts=7) == pytest.approx(7 * time_to_gain(logits, reward, 0.3))


def test_the_trajectory_obeys_the_equation_and_climbs():
    rng = np.random.default_rng(2)
    logits, reward = rng.normal(size=8), rng.uniform(-1, 1, 8)
    trajectory = gradient_flow(logits, reward, 100.0, kl_coef=0.1)
    middle, step = 3.7, 1e-4
    before, at, after = trajectory(np.array([middle - step, middle, middle + step])).logits
    assert np.allclose((after - before) / (2 * step), rlhf_gradient(at, reward, logits, 0.1), atol=1e-7)
    assert (np.diff(rlhf_objective(trajectory.logits, reward, logits, 0.1)) > -1e-13).all()
    assert trajectory(0.0).kl == 0 and trajectory.t[0] == 0 and trajectory.t[-1] == 100


def test_first_crossing_against_brute_force():
    """`def-time-to-gain`, `def-better-teacher`: the measured reward rises and falls; the first crossing, not any other,
    on a fine grid of times.
    """
    rng = np.random.default_rng(3)
    problems, gain, horizon = 120, 0.1, 1e4
    logits, reward, measured = (
        rng.normal(size=(problems, 8)) * 3,
        rng.uniform(-1, 1, (problems, 8)),
        rng.uniform(-1, 1, (problems, 8)),
    )
    kl_coef = rng.choice([0, 0.05, 0.2], problems)
    t_gain = time_to_gain(logits, reward, gain, measured=measured, kl_coef=kl_coef)
    times = np.concatenate([[0], np.geomspace(1e-3, horizon, 2_000)])
    values = gradient_flow(logits, reward, horizon, ground_truth=measured, kl_coef=kl_coef)(times).ground_truth
    above = values >= values[:, :1] + gain
    first = above.argmax(1)
    crosses = above.any(1)
    assert 20 < crosses.sum() < problems and (above[:, -1] < crosses).any()  # the sample has all three sorts
    assert (t_gain[crosses] <= times[first[crosses]] * (1 + 1e-9)).all()
    assert (t_gain[crosses] >= times[first[crosses] - 1] * (1 - 1e-9)).all()
    # Where the grid saw no crossing there is none, but for one that hides between two of its times.
    hidden = ~crosses & (t_gain < horizon)
    for i in np.flatnonzero(hidden):
        at = gradient_flow(logits[i], reward[i], horizon, ground_truth=measured[i], kl_coef=kl_coef[i])
        assert at(t_gain[i]).ground_truth - at(0.0).ground_truth >= gain - 1e-9


@pytest.mark.parametrize(
    "logits, reward, measured, gain, kl_coef",
    [
        ([0.0, 0.0], [0.3, 0.3], None, 0.1, 0.0),  # a constant reward teaches nothing
        ([0.0, 0.0], [0.0, 1.0], None, 0.5, 0.0),  # the supremum itself is not reached in finite time
        ([0.0, 0.0], [0.0, 1.0], None, 0.4, 1.0),  # the KL term stops it short
        ([0.0, 0.0], [0.0, 1.0], [1.0, 0.0], 0.1, 0.0),  # the wrong teacher
        ([2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], 0.3, 0.0),  # of two best outputs the likelier one wins
        ([50.0, -50.0], [0.0, 1.0], [1.0, 0.0], 1e-3, 0.0),
    ],
)
def test_never_is_proved(logits, reward, measured, gain, kl_coef):
    assert time_to_gain(logits, reward, gain, measured=measured, kl_coef=kl_coef) == np.inf


def test_a_plateau_of_astronomical_length_is_crossed():
    """A likely second-best output holds the policy; the best one still wins, after e^40 or so, and t_γ says when."""
    t_gain = time_to_gain([40.0, 0.0, 0.0], [0.7, 1.0, -1.0], 0.2)
    assert 1e16 < t_gain < 1e40
    assert time_to_gain([40.0, 0.0, 0.0], [0.7, 1.0, -1.0], 0.2, t_max=1e10) == np.inf


def test_the_smallest_rewards_keep_their_digits():
    """t scales as one over the reward: a variance of 1e-24 gives the same flow in 1e12 times the time, an offset
    changes nothing.
    """
    rng = np.random.default_rng(4)
    logits, reward = rng.normal(size=5), rng.uniform(-1, 1, 5)
    time = time_to_gain(logits, reward, 0.1)
    assert time_to_gain(logits, 1e-12 * reward, 1e-13) == pytest.approx(1e12 * time, rel=1e-9)
    assert time_to_gain(logits, reward / 4 + 0.7, 0.025) == pytest.approx(4 * time, rel=1e-9)


def test_the_benchmark_says_where_another_integrator_is_faster():
    benchmarks = pathlib.Path(__file__).parents[1] / "benchmarks"
    text = (benchmarks / "flow.py").read_text(encoding="utf-8").split('"""')[1]
    rows = json.loads((benchmarks / "results/flow.json").read_text(encoding="utf-8"))["rows"]
    faster = {
        (row["problem"], method): (row[method], row["rvlib"])
        for row in rows
        for method in row.keys() - {"problem", "rvlib"}
        if row[method] and row[method]["times_rvlib"] < 1
    }
    assert list(faster) == [("500 problems of 20 outputs, λ = 0.05", "diffrax Dopri8")]
    for other, ours in faster.values():
        assert f"{other['times_rvlib']:.2f} times" in text
        assert f"{other['wall_s']:.2f} s against {ours['wall_s']:.2f} s" in text
