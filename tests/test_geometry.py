"""The natural gradient in closed form, against integrators; its bounds, against attempts to break them; and the page's
port of it.
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from rvlib.explore._explorable import WEB
from rvlib.metrics import reward_variance
from rvlib.tabular import geometry, kl_divergence, kl_reward, rlhf_objective, softmax, time_to_gain

RNG = np.random.default_rng(0)
LOGITS, REWARD, TRUTH = RNG.normal(size=(4, 6)), RNG.uniform(-1, 1, (4, 6)), RNG.uniform(-1, 1, (4, 6))


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_the_closed_form_solves_the_flow(kl_coef):
    """`prop-natural`, part 2: the tilted reference, against an integrator."""
    times = np.linspace(0, 5, 6)

    def field(_, theta):
        regularised = kl_reward(theta, REWARD[0], LOGITS[0], kl_coef)
        return regularised - (softmax(theta) * regularised).sum()

    solution = solve_ivp(field, (0, 5), LOGITS[0], t_eval=times, rtol=1e-10, atol=1e-12).y.T
    probs = geometry.natural_gradient_flow(LOGITS, REWARD, times, kl_coef=kl_coef)
    assert probs.shape == (4, 6, 6)
    assert np.allclose(probs[0], softmax(solution), atol=1e-8)


def test_the_objective_rises_at_the_rate_of_the_variance():
    """`prop-natural`, part 1: dφ/dt is the variance of r^KL."""
    for kl_coef in (0.0, 0.3):
        t, step = 0.7, 1e-4
        before, now, after = np.moveaxis(
            geometry.natural_gradient_flow(LOGITS, REWARD, [t - step, t, t + step], kl_coef=kl_coef), 1, 0
        )
        objective = [rlhf_objective(np.log(probs), REWARD, LOGITS, kl_coef) for probs in (before, after)]
        variance = reward_variance(kl_reward(np.log(now), REWARD, LOGITS, kl_coef), now)
        assert np.allclose((objective[1] - objective[0]) / (2 * step), variance, rtol=1e-6)


def test_the_natural_direction_is_the_gradient_in_the_fisher_metric():
    """`def-metric`: for a table F (r - V) = ∇V."""
    probs = softmax(LOGITS[0])
    fisher = np.diag(probs) - np.outer(probs, probs)
    value = probs @ REWARD[0]
    assert np.allclose(fisher @ (REWARD[0] - value), probs * (REWARD[0] - value))


def test_the_time_to_gain_is_when_the_flow_has_gained():
    gain = 0.5 * (REWARD.max(-1) - (softmax(LOGITS) * REWARD).sum(-1))
    for kl_coef in (0.0, 0.05):
        time = geometry.natural_time_to_gain(LOGITS, REWARD, gain, kl_coef=kl_coef)
        for i in range(4):
            start, end = geometry.natural_gradient_flow(LOGITS[i], REWARD[i], [0, time[i]], kl_coef=kl_coef) @ REWARD[i]
            assert end - start == pytest.approx(gain[i], abs=1e-12)


def test_what_is_out_of_reach_takes_for_ever():
    above = REWARD.max(-1) - (softmax(LOGITS) * REWARD).sum(-1) + 1e-9
    assert np.isinf(geometry.natural_time_to_gain(LOGITS, REWARD, above)).all()
    assert np.isinf(geometry.natural_time_to_gain(LOGITS, REWARD, above / 2, kl_coef=100.0)).all()
    assert np.isinf(geometry.natural_time_to_gain(np.zeros(3), np.ones(3), 0.1))


def test_another_rewards_gain_is_found_where_it_is_first_reached():
    """A measured reward may rise and fall again: beside 4,000 tilts, no crossing is passed over and none made up."""
    rng = np.random.default_rng(1)
    tilt = np.concatenate([[0.0], np.geomspace(1e-3, 1e4, 4000)])
    crossings = 0
    for _ in range(60):
        n, kl_coef, gain = rng.integers(2, 12), float(rng.choice([0, 0.01, 1])), rng.uniform(0.01, 0.6)
        logits, measured = rng.choice([0.5, 2, 6]) * rng.normal(size=(20, n)), rng.uniform(-1, 1, (20, n))
        reward = rng.choice([-1, 0.3, 1], (20, n)) if rng.random() < 0.3 else rng.uniform(-1, 1, (20, n))
        time = geometry.natural_time_to_gain(logits, reward, gain, measured=measured, kl_coef=kl_coef)
        probs = softmax(logits[:, None] + tilt[:, None] * reward[:, None])
        value = (probs * measured[:, None]).sum(-1)
        reached = (value - value[:, :1] >= gain) & (kl_coef * tilt < 1)
        after = np.where(reached.any(-1), tilt[reached.argmax(-1)], np.inf)
        before = np.where(reached.any(-1), tilt[reached.argmax(-1) - 1], 0.0)
        crossing = np.where(np.isfinite(time), -np.expm1(-kl_coef * time) / kl_coef if kl_coef else time, np.inf)
        assert (crossing <= after * (1 + 1e-9)).all() and (crossing >= before * (1 - 1e-9)).all()
        for i in np.flatnonzero(np.isfinite(crossing)):
            at = softmax(logits[i] + crossing[i] * reward[i])
            assert at @ measured[i] - value[i, 0] == pytest.approx(gain, abs=1e-10)
        crossings += np.isfinite(crossing).sum()
    assert crossings > 200


_PAGE = """
const { readFileSync } = await import("node:fs");
const { module, cases } = JSON.parse(readFileSync(0, "utf-8"));
const page = await import(module);
const plain = (x) => (ArrayBuffer.isView(x) ? [...x] : x);
console.log(JSON.stringify(cases.map(({ logits, reward, measured, gain, kl_coef: klCoef, times }) => {
  const flow = page.naturalGradientFlow(logits, reward, 1e4, { groundTruth: measured, klCoef });
  const { probs, proxy, groundTruth, variance, kl, gradientNorm } = flow.at(times);
  const own = page.naturalTimeToGain(logits, reward, gain, { klCoef });
  const other = page.naturalTimeToGain(logits, reward, gain, { measured, klCoef });
  const bound = page.naturalSlowTimeBound(variance[0], gain, Math.max(...reward) - Math.min(...reward));
  const knots = plain(flow.t);
  return { probs: probs.map(plain), proxy, groundTruth, variance, kl, gradientNorm, own, other, bound, knots };
}), (key, x) => (x === Infinity ? "Infinity" : x)));
"""


def test_the_pages_natural_gradient_is_the_librarys(node):
    """web/geometry.mjs and this module agree to 1e-8, in the times to gain too."""
    rng, cases = np.random.default_rng(2), []
    times = [0.0, 0.1, 3.0, 200.0, 1e4]
    for scale in (1.0, 1e-3):
        for kl_coef in (0.0, 0.02, 1.0):
            for n in (2, 7, 40):
                logits, reward, measured = 3 * rng.normal(size=n), scale * rng.uniform(-1, 1, n), rng.uniform(-1, 1, n)
                cases.append(
                    {"logits": logits.tolist(), "reward": reward.tolist(), "measured": measured.tolist()}
                    | {"gain": 0.1 * scale if n == 7 else 0.1, "kl_coef": kl_coef * scale, "times": times}
                )
    done = node(
        "--input-type=module",
        "--eval",
        _PAGE,
        input=json.dumps({"module": (WEB / "geometry.mjs").as_uri(), "cases": cases}),
    )
    assert done.returncode == 0, done.stderr
    reachable = 0
    for case, page in zip(cases, json.loads(done.stdout)):
        logits, reward, measured = (np.array(case[name]) for name in ("logits", "reward", "measured"))
        kl_coef, gain = case["kl_coef"], case["gain"]
        probs = geometry.natural_gradient_flow(logits, reward, times, kl_coef=kl_coef)
        variance = reward_variance(reward, probs)
        exact = {
            "probs": probs,
            "proxy": probs @ reward,
            "groundTruth": probs @ measured,
            "variance": variance,
            "kl": kl_divergence(probs, probs[0]),
            "gradientNorm": np.exp(-kl_coef * np.array(times)) * np.sqrt(variance),
        }
        for name, values in exact.items():
            np.testing.assert_allclose(page[name], values, atol=1e-8, err_msg=name)
        for name, options in {"own": {}, "other": {"measured": measured}}.items():
            time = geometry.natural_time_to_gain(logits, reward, gain, kl_coef=kl_coef, **options)
            assert float(page[name]) == pytest.approx(time, rel=1e-8), name
            reachable += np.isfinite(time)
        assert page["bound"] == pytest.approx(
            geometry.natural_slow_time_bound(variance[0], gain, np.ptp(reward)), rel=1e-9
        )
        # Its own times lie where it moves: between two of them no probability changes by more than a fifth.
        knots = geometry.natural_gradient_flow(logits, reward, page["knots"], kl_coef=kl_coef)
        assert np.abs(np.diff(knots, axis=0)).sum(-1).max() <= 2 * 0.2 + 1e-9 and len(knots) < 500
    assert reachable > 15


problems = given(
    seed=st.integers(0, 2**32 - 1),
    outputs=st.integers(2, 12),
    spread=st.sampled_from([0.5, 2.0, 10.0]),
    scale=st.sampled_from([1e-4, 0.1, 1.0, 30.0]),
    kl_coef=st.sampled_from([0.0, 0.01, 1.0]),
)


def slow_enough(outputs, spread, scale, kl_coef, seed, bound):
    """Whether no measured reward gains more than the bound allows, at any of 200 times, in 20 random problems."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(20, outputs))
    reward = scale * rng.choice([-1, 1, 0.3], (20, outputs)) * rng.choice([1, rng.uniform()], (20, outputs))
    measured = np.where(rng.random((20, outputs)) < 0.5, np.sign(reward), rng.uniform(-1, 1, (20, outputs)))
    times = np.geomspace(1e-4, 1e4, 200) / scale
    probs = geometry.natural_gradient_flow(logits, reward, times, kl_coef=kl_coef)
    value = (probs * measured[:, None]).sum(-1) - (softmax(logits) * measured).sum(-1)[:, None]
    variance, width = reward_variance(reward, softmax(logits)), np.ptp(reward, axis=-1)
    gained = value > 1e-9
    least = bound(variance[:, None], np.where(gained, value, 1.0), width[:, None])
    return bool((times >= least * (1 - 1e-9))[gained].all())


@problems
@settings(max_examples=-(-settings().max_examples // 20))
def test_low_variance_is_slow_under_the_natural_gradient_too(seed, outputs, spread, scale, kl_coef):
    """`thm-natural-slow`, for any measured reward and λ."""
    assert slow_enough(outputs, spread, scale, kl_coef, seed, geometry.natural_slow_time_bound)


def test_a_bound_with_another_constant_would_be_caught():
    """`thm-natural-slow`: the check fails for 1.6 times the bound."""

    def wrong(*arguments):
        return 1.6 * geometry.natural_slow_time_bound(*arguments)

    assert not all(slow_enough(2, spread, 1.0, 0.0, seed, wrong) for spread in (0.5, 2.0, 10.0) for seed in range(20))


@problems
@settings(max_examples=-(-settings().max_examples // 20))
def test_rarity_costs_at_most_its_logarithm(seed, outputs, spread, scale, kl_coef):
    """`thm-natural-rare`: r_max - V ≤ ln(1/P₀)/t."""
    rng = np.random.default_rng(seed)
    logits, reward = spread * rng.normal(size=(20, outputs)), scale * rng.choice([-1, 0.5, 1], (20, outputs))
    times = np.geomspace(1e-3, 1e5, 100) / scale
    value = (geometry.natural_gradient_flow(logits, reward, times) * reward[:, None]).sum(-1)
    best = (softmax(logits) * (reward == reward.max(-1, keepdims=True))).sum(-1)
    short = reward.max(-1)[:, None] - value
    assert (short <= geometry.natural_shortfall_bound(np.minimum(best, 1.0)[:, None], times) + 1e-12 * scale).all()


def test_between_the_two_metrics_rarity_has_every_exponent():
    """`prop-power`: the time grows like p^-α, up to α = 1."""
    rare = np.array([1e-6, 1e-8])
    for power in (0.5, 1.0, 2.0):
        time = geometry.two_output_time(rare, 0.5, power=power)
        assert np.log10(time[1] / time[0]) / 2 == pytest.approx(min(power, 1.0), abs=0.02)
    assert geometry.two_output_time(rare, 0.5, power=0) == pytest.approx(np.log((1 - rare) / rare) / 2)
    flow = time_to_gain(np.log([1e-3, 1 - 1e-3]), [1.0, -1.0], 2 * (0.5 - 1e-3))
    assert geometry.two_output_time(1e-3, 0.5) == pytest.approx(flow, rel=1e-7)


def test_small_steps_follow_the_flows():
    logits, reward = np.log([[0.05, 0.95], [0.2, 0.8]]), np.array([1.0, -1.0])
    for optimizer, power in (("sgd", 1.0), ("natural", 0.0)):
        steps = geometry.steps_to_gain(logits, reward, 0.5, optimizer=optimizer, learning_rate=1e-3)
        time = geometry.two_output_time([0.05, 0.2], 0.5, power=power)
        ends = [geometry.two_output_time(p, p + 0.25, power=power) for p in (0.05, 0.2)]
        assert np.allclose(1e-3 * steps, ends, rtol=0.01) and (time > 0).all()
    assert geometry.steps_to_gain(logits[0], reward, 0.5, optimizer="sgd", learning_rate=1e-3, max_steps=5) == -1


def test_adam_takes_torchs_steps():
    torch = pytest.importorskip("torch", reason="compares with PyTorch's Adam")
    reward = np.array([1.0, -1.0, 0.2])
    theta = torch.tensor([-3.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    adam, start, steps = torch.optim.Adam([theta], lr=0.05, maximize=True), None, 0
    while True:
        value = (torch.softmax(theta, 0) * torch.tensor(reward)).sum()
        start = value.item() if start is None else start
        if value.item() >= start + 0.4:
            break
        adam.zero_grad()
        value.backward()
        adam.step()
        steps += 1
    assert geometry.steps_to_gain([-3.0, 1.0, 0.0], reward, 0.4, learning_rate=0.05) == steps


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: geometry.two_output_time(0.6, 0.5), "start must be below end"),
        (lambda: geometry.steps_to_gain([0.0, 1.0], [1.0, 0.0], 0.1, optimizer="lion"), "optimizer must be"),
        (lambda: geometry.natural_gradient_flow([0.0], [1.0], [-1.0]), "times must be"),
        (lambda: geometry.natural_shortfall_bound(0.0, 1.0), "probability must be"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
