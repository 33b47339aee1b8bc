"""Attempts to break every bound on random instances, extreme ones included.

Hypothesis chooses a corner (outputs, spread of the logits, scale of the rewards, λ, gain, |S|) and a seed; each example
is a batch of problems in it. The profile sets how many: 2,000 instances of a bound in CI, 100,000 in the nightly run.
Every check takes the bound as an argument, so that the last test can hand it one with a constant changed, and must see
it caught.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rvlib.metrics import reward_covariance, reward_variance
from rvlib.tabular import (
    accurate_but_slow,
    attainable_accuracies,
    autoregressive,
    best_of_n,
    best_of_n_kl_bound,
    best_of_n_loss_bound,
    best_of_n_probs,
    bounds,
    gradient_flow,
    inaccurate_but_fast,
    kl_divergence,
    kl_reward,
    policy_specific_teachers,
    rlhf_gradient,
    softmax,
    time_to_gain,
)

BATCH = 20
instances = settings(max_examples=-(-settings().max_examples // BATCH))  # `BATCH` instances an example
seeds = st.integers(0, 2**32 - 1)

corners = given(
    seed=seeds,
    outputs=st.integers(2, 12),
    spread=st.sampled_from([0.0, 0.5, 2.0, 10.0, 50.0]),
    log_scale=st.sampled_from([-6.0, -3.0, -1.0, 0.0]),
    kl_coef=st.sampled_from([0.0, 1e-3, 0.1, 1.0, 10.0]),
    gain=st.sampled_from([1e-6, 1e-3, 0.05, 0.3, 1.0]),
    prompts=st.sampled_from([1, 3]),
    ties=st.booleans(),
)


@dataclass(frozen=True)
class Problems:
    """A batch: logits, proxy rewards and measured rewards in [-1, 1], all (BATCH, outputs)."""

    logits: NDArray[np.float64]
    proxy: NDArray[np.float64]
    measured: NDArray[np.float64]


def problems(seed, outputs, spread, log_scale, ties):
    """Random `Problems`, whose proxy rewards lie within 10**log_scale."""
    rng = np.random.default_rng(seed)
    logits = rng.uniform(-spread, spread, (BATCH, outputs))
    proxy, measured = rng.uniform(-1, 1, (2, BATCH, outputs))
    if ties:
        proxy, measured = np.round(proxy), np.sign(measured)  # two or three levels: the largest variances, and none
    return Problems(logits, 10**log_scale * proxy, measured)


def never_before(least, logits, proxy, gain, **flow):
    """t_γ is not below `least`; the flow is followed no further than that."""
    end = np.where(np.isfinite(least), np.maximum(least, 1e-300), 1e3)
    assert (time_to_gain(logits, proxy, gain, t_max=end, **flow) >= least * (1 - 1e-9)).all()


def in_time(most, logits, proxy, gain, **flow):
    """t_γ is at most `most`."""
    most = np.maximum(most, 1e-12) * (1 + 1e-9)
    assert (time_to_gain(logits, proxy, gain, t_max=most, **flow) <= most).all()


# ---- tabular policies: lower bounds on times, upper bounds on gradients, growth and mass -----------------------------


def check_slow_time(bound, seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    batch = problems(seed, outputs, spread, log_scale, ties)
    logits, proxy, measured = batch.logits, batch.proxy, batch.measured
    least = bound(reward_variance(proxy, softmax(logits)), gain, prompts)
    for reward in (measured, proxy):
        never_before(least, logits, proxy, gain, measured=reward, kl_coef=kl_coef, n_prompts=prompts)


def check_gradient(bound, seed, outputs, spread, log_scale, kl_coef, ties):
    batch = problems(seed, outputs, spread, log_scale, ties)
    logits, proxy = batch.logits, batch.proxy
    reference = problems(seed + 1, outputs, spread, log_scale, ties).logits
    regularised = kl_reward(logits, proxy, reference, kl_coef)
    size = np.abs(rlhf_gradient(logits, proxy, reference, kl_coef)).sum(-1)
    assert (size <= bound(reward_variance(regularised, softmax(logits))) * (1 + 1e-9) + 1e-13).all()


def check_growth(bound, seed, outputs, spread, log_scale, kl_coef, prompts, ties):
    batch = problems(seed, outputs, spread, log_scale, ties)
    logits, proxy = batch.logits, batch.proxy
    reference = problems(seed + 1, outputs, spread, log_scale, ties).logits
    grows, variance = variance_rate(logits, kl_reward(logits, proxy, reference, kl_coef), kl_coef)
    assert (grows / prompts <= bound(variance, prompts) * (1 + 1e-9) + 1e-12 * (1 + kl_coef) ** 3).all()


def variance_rate(logits, regularised, kl_coef):
    """d/dt Var r^KL along dθ/dt = ∇φ: ⟨E[a² ∇ln π], ∇φ⟩ - 2λ ‖∇φ‖², a = r^KL - φ; and the variance."""
    probs = softmax(logits)
    a = regularised - (probs * regularised).sum(-1, keepdims=True)
    variance = (probs * a**2).sum(-1)
    gradient = probs * a
    return (gradient * probs * (a**2 - variance[:, None])).sum(-1) - 2 * kl_coef * (gradient**2).sum(-1), variance


def check_movement(bound, seed, outputs, spread, log_scale, kl_coef, prompts, ties):
    batch = problems(seed, outputs, spread, log_scale, ties)
    logits, proxy = batch.logits, batch.proxy
    variance = np.maximum(reward_variance(proxy, softmax(logits)), 1e-30)
    for share in (0.1, 0.9, 0.999):  # of the time at which the variance may have blown up
        time = share * 2 * prompts / np.sqrt(variance)
        moved = gradient_flow(logits, proxy, time, kl_coef=kl_coef, n_prompts=prompts).logits[:, -1] - logits
        assert (np.abs(moved).sum(-1) <= bound(variance, time, prompts) + 1e-9).all()


def check_mass(bound, seed, outputs, spread, log_scale, kl_coef, prompts, ties):
    batch = problems(seed, outputs, spread, log_scale, ties)
    logits, proxy = batch.logits, batch.proxy
    group = np.random.default_rng(seed + 2).random((BATCH, outputs)) < 0.4
    start = softmax(logits)
    for time in (0.1, 1.0, 10.0):
        later = gradient_flow(logits, proxy, time, kl_coef=kl_coef, n_prompts=prompts).probs[:, -1]
        most = bound((start * group).sum(-1), time, start.min(-1), kl_coef, prompts)
        assert ((later * group).sum(-1) <= most * (1 + 1e-9)).all()


@corners
@instances
def test_the_papers_proposition_3(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    check_slow_time(bounds.tabular_slow_time_bound, seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties)


@corners
@instances
def test_the_papers_lemma_8(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    check_gradient(bounds.tabular_gradient_bound, seed, outputs, spread, log_scale, kl_coef, ties)


@corners
@instances
def test_the_steps_of_the_papers_proposition_3(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    check_growth(bounds.tabular_variance_growth_bound, seed, outputs, spread, log_scale, kl_coef, prompts, ties)
    check_movement(bounds.tabular_movement_bound, seed, outputs, spread, log_scale, kl_coef, prompts, ties)


@corners
@instances
def test_the_papers_lemma_10(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    check_mass(bounds.tabular_mass_bound, seed, outputs, spread, log_scale, kl_coef, prompts, ties)
    check_mass(bounds.sharper_tabular_mass_bound, seed, outputs, spread, log_scale, kl_coef, prompts, ties)


@corners
@instances
def test_the_papers_theorem_4_holds_for_tabular_policies_too(
    seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties
):
    """A tabular policy is autoregressive with L = 1 and logits for parameters, so J = 1."""

    def slow(variance, gain, prompts):
        return bounds.slow_time_bound(variance, gain, 1, 1, kl_coef)

    check_slow_time(slow, seed, outputs, spread, log_scale, kl_coef, gain, 1, ties)


# ---- autoregressive policies: Lemmas 5 and 6, Theorem 4, on tables of logits, where J = 1 ----------------------------

sizes = st.sampled_from([(2, 1), (5, 1), (2, 2), (3, 2), (2, 3), (3, 3), (2, 5)])


@dataclass(frozen=True)
class TableProblems:
    """A batch: logits (BATCH, prefixes, V), proxy and measured (BATCH, V^L), λ, gains and variances (BATCH,)."""

    logits: NDArray[np.float64]
    proxy: NDArray[np.float64]
    measured: NDArray[np.float64]
    kl_coef: NDArray[np.float64]
    gain: NDArray[np.float64]
    variance: NDArray[np.float64]


def table_problems(seed, size, horizon):
    """Random `TableProblems`.

    λ is anything up to 10, but at most 40 over `horizon`(variances, gains), so that the steps of `follow` are short
    enough.
    """
    rng = np.random.default_rng(seed)
    prefixes, outputs = autoregressive.shape_of(*size)

    def pick(*values):
        return rng.choice(values, (BATCH, 1))

    logits = pick(0.0, 0.5, 2.0, 10.0)[..., None] * rng.uniform(-1, 1, (BATCH, prefixes, size[0]))
    proxy, measured = rng.uniform(-1, 1, (2, BATCH, outputs))
    proxy = np.where(pick(0, 1), np.sign(proxy), proxy) * pick(1e-6, 1e-2, 1.0, 1.0)
    measured, gain = np.where(pick(0, 1), np.sign(proxy), measured), pick(1e-3, 0.05, 0.3, 1.0)[:, 0]
    variance = np.maximum(reward_variance(proxy, np.exp(autoregressive.log_probs(logits))), 1e-24)
    kl_coef = np.minimum(pick(0.0, 0.0, 0.5, 5.0, 40.0)[:, 0] / horizon(variance, gain), 10.0)
    return TableProblems(logits, proxy, measured, kl_coef, gain, variance)


def follow(logits, proxy, kl_coef, times, steps=60):
    """Tables along gradient flow until `times` (BATCH,), yielded after each Runge-Kutta step."""
    now, h = logits, (times / steps)[:, None, None]

    def rate(x):
        return autoregressive.policy_gradient(x, autoregressive.kl_reward(x, proxy, logits, kl_coef))

    for _ in range(steps):
        k1 = rate(now)
        k2 = rate(now + h / 2 * k1)
        k3 = rate(now + h / 2 * k2)
        now = now + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(now + h * k3))
        yield now


def check_autoregressive_time(bound, seed, size):
    batch = table_problems(seed, size, lambda variance, gain: bound(variance, gain, size[1], 0.0))
    least = bound(batch.variance, batch.gain, size[1], batch.kl_coef)

    def value(table):
        return (np.exp(autoregressive.log_probs(table)) * batch.measured).sum(-1)

    for table in follow(batch.logits, batch.proxy, batch.kl_coef, least):
        assert (value(table) - value(batch.logits) < batch.gain + 1e-9).all()


def check_lemmas_5_and_6(growth, movement, seed, size):
    length, steps = size[1], 60
    batch = table_problems(seed, size, lambda variance, gain: bounds.horizon(variance, length, 1.0))
    logits, proxy, kl_coef, variance = batch.logits, batch.proxy, batch.kl_coef, batch.variance
    end = 0.999 * bounds.horizon(variance, length, 1.0, kl_coef)
    for step, table in enumerate(follow(logits, proxy, kl_coef, end, steps), 1):
        regularised = autoregressive.kl_reward(table, proxy, logits, kl_coef)
        assert (np.abs(regularised) <= 8).all()  # Lemma 6
        moved = np.linalg.norm((table - logits).reshape(BATCH, -1), axis=-1)
        assert (moved <= movement(variance, end * step / steps, length, 1.0) + 1e-9).all()
        probs = np.exp(autoregressive.log_probs(table))
        a = regularised - (probs * regularised).sum(-1, keepdims=True)
        gradient = autoregressive.policy_gradient(table, a)
        grows = (autoregressive.policy_gradient(table, a**2) * gradient).sum((-1, -2)) - 2 * kl_coef * (
            gradient**2
        ).sum((-1, -2))
        assert (grows <= growth((probs * a**2).sum(-1), length, 1.0) * (1 + 1e-9) + 1e-12).all()


@given(seed=seeds, size=sizes)
@instances
def test_the_papers_theorem_4(seed, size):
    check_autoregressive_time(
        lambda variance, gain, length, kl: bounds.slow_time_bound(variance, gain, length, 1.0, kl), seed, size
    )


@given(seed=seeds, size=sizes)
@instances
def test_sharper_than_the_papers_theorem_4(seed, size):
    check_autoregressive_time(
        lambda variance, gain, length, kl: bounds.sharper_slow_time_bound(variance, gain, length, 1.0), seed, size
    )


@given(seed=seeds, size=sizes)
@instances
def test_lemmas_5_and_6(seed, size):
    check_lemmas_5_and_6(bounds.variance_growth_bound, bounds.movement_bound, seed, size)


# ---- upper bounds on times, and the constructions --------------------------------------------------------------------


@dataclass(frozen=True)
class GoodTeacher:
    """One prompt's policy, proxy and truth (outputs,), gain and λ, none or the largest that Prop. 4 allows."""

    probs: NDArray[np.float64]
    proxy: NDArray[np.float64]
    truth: NDArray[np.float64]
    gain: float
    kl_coef: float


def good_teacher(rng, good, bad, rest):
    """A random `GoodTeacher` that is likely to meet the conditions of Prop. 4."""
    mass, scale, others = rng.uniform(0.02, 0.95), 10 ** rng.uniform(-6, 0), rng.uniform(-1, 0)
    if bad:  # an output outside Y⁺ that is liked must be hardly ever given, and the time be short
        mass, scale, others = rng.uniform(0.5, 0.95), 1.0, -1.0
    probs = np.r_[
        mass * rng.dirichlet(np.ones(good)),
        np.full(bad, np.exp(-rng.uniform(20, 600))),
        (1 - mass) * softmax(rng.choice([0.5, 3.0]) * rng.normal(size=rest)),
    ]
    spread = 10 ** rng.uniform(-6, -2) * rng.random(good), rng.choice([0.0, 0.0, 0.2]) * rng.random(rest)
    proxy = scale * np.r_[1 - spread[0], np.full(bad, 0.9), np.maximum(others - spread[1], -1)]
    truth = np.r_[rng.uniform(0.6, 1, good), rng.uniform(-1, 1, bad), rng.uniform(-1, rng.uniform(-0.9, 0.5), rest)]
    probs, good = probs / probs.sum(), np.arange(good)
    gain = rng.uniform(0.01, 0.95) * max(truth[good].min() - probs @ truth, 0.01)
    rho = (probs @ truth + gain + 1) / (truth[good].min() + 1)
    delta = (1 - rho) * (proxy[good].max() - probs @ proxy) - np.ptp(proxy[good])
    largest_kl = (
        probs[good].sum() * (1 - rho) * delta / (8 * good.size * (2 * np.log(1 / probs.min()) + 1 / (2 * np.e)))
    )
    return GoodTeacher(probs, proxy, truth, gain, max(largest_kl, 0.0) * (1 - 1e-9) * rng.choice([0.0, 1.0]))


def check_fast_time(bound, seed):
    """A batch of problems that meet Prop. 4's conditions: those that do not are drawn again, since it says nothing of
    them.
    """
    rng, met, drawn = np.random.default_rng(seed), [], 0
    kinds = rng.integers(1, 4), rng.integers(0, 2), rng.integers(1, 9)
    while len(met) < BATCH:
        drawn += 1
        case = good_teacher(rng, *kinds)
        try:
            most = bound(case.probs, case.proxy, case.truth, case.gain, np.arange(kinds[0]), case.kl_coef, n_prompts=2)
        except ValueError as error:
            assert str(error).startswith("good_outputs do not meet the paper's Prop. 4")
        else:
            met.append((most, np.log(case.probs), case.proxy, case.gain, case.truth, case.kl_coef))
        assert drawn < 10_000
    most, logits, proxy, gain, truth, kl_coef = map(np.array, zip(*met, strict=True))
    in_time(most, logits, proxy, gain, measured=truth, kl_coef=kl_coef, n_prompts=2)


@given(seed=seeds)
@instances
def test_the_papers_proposition_4(seed):
    check_fast_time(bounds.tabular_fast_time_bound, seed)


@given(seed=seeds)
@instances
def test_sharper_than_the_papers_proposition_4(seed):
    check_fast_time(bounds.sharper_tabular_fast_time_bound, seed)


def check_theorem_5(slow_bound, fast_bound, seed, outputs, spread, slowness, kl_coef, prompts):
    rng = np.random.default_rng(seed)
    logits, truth = rng.uniform(-spread, spread, (BATCH, outputs)), rng.uniform(-1, 1, (BATCH, outputs))
    if seed % 2:
        truth = np.round(truth, 1)  # ties
    logits[:, 0], truth[:, 0] = logits.max(-1), np.where(rng.random(BATCH) < 0.5, 1.0, truth.max(-1) + 1e-3).clip(-1, 1)
    probs, best = softmax(logits), truth.argmax(-1)
    gain = rng.uniform(0.05, 0.95, BATCH) * (truth.max(-1) - (probs * truth).sum(-1))
    to_gain = gain > 0
    probs, logits, truth, best, gain = (x[to_gain] for x in (probs, logits, truth, best, gain))
    slow = [accurate_but_slow(g, rng.choice(attainable_accuracies(g)), slowness, seed) for g in truth]
    never_before(
        slow_bound(gain, slowness, prompts), logits, slow, gain, measured=truth, kl_coef=kl_coef, n_prompts=prompts
    )
    fast, most = [], []
    for p, g, y, more in zip(probs, truth, best, gain, strict=True):
        fast.append(inaccurate_but_fast(g, p, y, rng.choice(attainable_accuracies(g, first=y)), seed))
        most.append(fast_bound(p, g, more, y, n_prompts=prompts))
    in_time(np.array(most), logits, fast, gain, measured=truth, n_prompts=prompts)


@given(
    seed=seeds,
    outputs=st.integers(2, 8),
    spread=st.sampled_from([0.0, 1.0, 5.0, 20.0]),
    slowness=st.sampled_from([1.0, 10.0, 1e4]),
    kl_coef=st.sampled_from([0.0, 0.1, 10.0]),
    prompts=st.sampled_from([1, 3]),
)
@instances
def test_the_papers_theorem_5(seed, outputs, spread, slowness, kl_coef, prompts):
    check_theorem_5(
        bounds.accurate_but_slow_time_bound,
        bounds.inaccurate_but_fast_time_bound,
        seed,
        outputs,
        spread,
        slowness,
        kl_coef,
        prompts,
    )


def test_a_gain_that_double_precision_hardly_knows_has_no_bound():
    """ρ rounds to 1, by which the bounds of Theorems 5 and 6 divide."""
    probs, truth, gain = np.array([1 - 4e-14, 4e-14]), np.array([-0.011, -0.012]), 1e-17
    assert bounds.inaccurate_but_fast_time_bound(probs, truth, gain, 0) == np.inf
    assert bounds.matching_teacher_time_bound(probs, truth, gain, 0, 0.5) == np.inf


def check_theorem_6(matching, mismatched, seed, outputs, slowness, kl_coef, swap):
    """From a policy of Π, or of Π' if `swap`, the teacher of its likely good output is fast and the other's slow."""
    rng = np.random.default_rng(seed)
    likely, rare = rng.uniform(0.05, 0.7, BATCH), rng.uniform(0.01, 1, BATCH) / slowness**2
    rest = rng.dirichlet(np.ones(outputs - 2), BATCH) * (1 - likely - rare)[:, None]
    probs, truth = np.c_[likely, rare, rest], np.c_[np.ones((BATCH, 2)), rng.uniform(-1, 0, (BATCH, outputs - 2))]
    gain = rng.uniform(0.05, 0.9, BATCH) * (1 - (probs * truth).sum(-1))
    own, others = policy_specific_teachers(outputs, 0, 1)
    if swap:
        probs[:, :2] = probs[:, 1::-1]
        own, others = others, own
    share = likely * rng.uniform(0.5, 1, BATCH)
    largest = []
    for p, g, more, c in zip(probs, truth, gain, share, strict=True):
        rho = (p @ g + more + 1) / 2
        largest.append(c * (1 - rho) ** 3 / (16 * (1 / (2 * np.e) - 2 * np.log(p.min()))) * (1 - 1e-9))
    most = [matching(*case[:3], int(swap), *case[3:]) for case in zip(probs, truth, gain, share, largest, strict=True)]
    in_time(np.array(most), np.log(probs), own, gain, measured=truth, kl_coef=np.array(largest))
    never_before(mismatched(gain, slowness), np.log(probs), others, gain, measured=truth, kl_coef=kl_coef)


@given(
    seed=seeds,
    outputs=st.integers(3, 8),
    slowness=st.sampled_from([2.0, 30.0, 1e3]),
    kl_coef=st.sampled_from([0.0, 0.1, 10.0]),
    swap=st.booleans(),
)
@instances
def test_the_papers_theorem_6(seed, outputs, slowness, kl_coef, swap):
    check_theorem_6(
        bounds.matching_teacher_time_bound, bounds.mismatched_teacher_time_bound, seed, outputs, slowness, kl_coef, swap
    )


def check_two_marks(bound, seed, outputs, spread, gain, prompts):
    batch = problems(seed, outputs, spread, 0.0, False)
    logits, measured = batch.logits, batch.measured
    marks = np.where(np.random.default_rng(seed + 3).random((BATCH, outputs)) < 0.3, 1.0, -1.0)
    liked = (softmax(logits) * (marks > 0)).sum(-1)
    for reward in (measured, marks):
        never_before(bound(liked, gain, prompts), logits, marks, gain, measured=reward, n_prompts=prompts)


@given(
    seed=seeds,
    outputs=st.integers(2, 12),
    spread=st.sampled_from([0.0, 0.5, 2.0, 10.0]),
    gain=st.sampled_from([1e-3, 0.05, 0.3, 1.0, 1.9]),
    prompts=st.sampled_from([1, 3]),
)
@instances
def test_teachers_of_two_marks(seed, outputs, spread, gain, prompts):
    check_two_marks(bounds.two_marks_time_bound, seed, outputs, spread, gain, prompts)


def check_gradient_time(any_reward, seed, outputs, spread, log_scale, gain, prompts, ties):
    batch = problems(seed, outputs, spread, log_scale, ties)
    logits, proxy, measured = batch.logits, batch.proxy, batch.measured
    gradient, rows = rlhf_gradient(logits, proxy, logits, 0.0), np.arange(BATCH)
    # The entry of a nearly certain output cancels to nothing in floating point; the entries sum to zero.
    gradient[rows, logits.argmax(-1)] -= gradient.sum(-1)
    norm = np.linalg.norm(gradient, axis=-1)
    never_before(any_reward(norm, gain, prompts), logits, proxy, gain, measured=measured, n_prompts=prompts)


def check_both_gradients(bound, seed, outputs, spread, log_scale, gain, prompts, ties):
    """Any pair of rewards, and a measured reward that the proxy follows to some degree, down to the proxy itself."""
    batch = problems(seed, outputs, spread, log_scale, ties)
    logits, proxy, measured = batch.logits, batch.proxy, batch.measured
    share = np.random.default_rng(seed + 1).choice([0.0, 0.1, 0.9, 1.0], (BATCH, 1))
    for reward in (measured, (1 - share) * 10**-log_scale * proxy + share * measured):
        least, greatest = bound(softmax(logits), proxy, reward, gain, prompts)
        assert (least <= greatest).all()
        never_before(least, logits, proxy, gain, measured=reward, n_prompts=prompts)
        sure = np.isfinite(greatest)
        if sure.any():
            in_time(greatest[sure], logits[sure], proxy[sure], gain, measured=reward[sure], n_prompts=prompts)


@corners
@instances
def test_times_from_the_initial_gradient(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    check_gradient_time(bounds.gradient_slow_time_bound, seed, outputs, spread, log_scale, gain, prompts, ties)
    check_both_gradients(bounds.gradient_time_bounds, seed, outputs, spread, log_scale, gain, prompts, ties)


def test_both_gradients_give_the_time_of_a_small_gain():
    rng = np.random.default_rng(0)
    logits, proxy, measured = rng.normal(size=(3, 200, 6))
    slope = (rlhf_gradient(logits, proxy, logits, 0.0) * rlhf_gradient(logits, measured, logits, 0.0)).sum(-1)
    least, greatest = bounds.gradient_time_bounds(softmax(logits), proxy, measured, 1e-9, 3)
    assert np.allclose(least[slope > 1e-3], 3e-9 / slope[slope > 1e-3], rtol=1e-3) and np.allclose(
        least[slope > 1e-3], greatest[slope > 1e-3], rtol=1e-3
    )
    assert np.isinf(greatest[slope < 0]).all() and np.isfinite(least).all()
    # Against itself the square is complete: |S| γ/(‖g‖ (‖g‖ + κγ)). Nothing to gain, or nothing that moves: never.
    norm = np.linalg.norm(rlhf_gradient(logits, proxy, logits, 0.0), axis=-1)
    assert np.allclose(
        bounds.gradient_time_bounds(softmax(logits), proxy, proxy, 0.2)[0], 0.2 / (norm * (norm + 1.6 * 0.2))
    )
    assert bounds.gradient_time_bounds([0.5, 0.5], [1.0, 1.0], [0.0, 1.0], 0.1) == (np.inf, np.inf)
    assert bounds.gradient_time_bounds([0.5, 0.5], [0.0, 1.0], [1.0, 1.0], 0.1)[1] == np.inf


def test_the_constant_of_the_gradients_growth():
    """`lem-gradients-grow`: no directions grow faster than its bounds, which lie under 8/5 and twice 8/5."""
    first, second = 7 / 4 + 1 / np.sqrt(2), 11 / 2 + 1 / 16 + 9 * np.sqrt(3) / 4
    s = np.linspace(0, 1, 20001)
    assert (2 - s**2 + 2 * s * (1 - s**2) ** 1.5).max() <= first + 1e-12 < 1.6**2
    assert (5 + 3 * s**2 - 4 * s**4 + 12 * s * (1 - s**2) ** 1.5).max() <= second < 3.2**2
    rng = np.random.default_rng(0)
    for outputs in (2, 3, 8, 30):
        u, g = rng.normal(size=(2, 4000, outputs)) * rng.exponential(size=(2, 4000, outputs)) ** 2
        u, g = (x - x.mean(-1, keepdims=True) for x in (u, g))
        u, g = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (u, g))
        along, probs = (u * g).sum(-1), softmax(rng.normal(scale=4, size=(4000, outputs)))
        pi_u, pi_g = (probs * u).sum(-1), (probs * g).sum(-1)
        assert np.abs((u**2 * g).sum(-1) - pi_g - pi_u * along).max() <= np.sqrt(first)
        assert np.abs(2 * (u * g**2).sum(-1) - 3 * along * pi_g - pi_u).max() <= np.sqrt(second)


# ---- Best-of-N -------------------------------------------------------------------------------------------------------


def check_best_of_n(kl_bound, loss_bound, seed, outputs, spread, n, ties):
    batch = problems(seed, outputs, spread, 0.0, ties)
    for logits, proxy, truth in zip(batch.logits, batch.proxy, batch.measured):
        probs = softmax(logits)
        assert kl_divergence(best_of_n_probs(probs, proxy, n), probs) <= kl_bound(n) * (1 + 1e-9) + 1e-12
        loss, most = (
            best_of_n(probs, truth, truth, n) - best_of_n(probs, proxy, truth, n),
            loss_bound(probs, proxy, truth, n),
        )
        assert -1e-12 <= loss <= most * (1 + 1e-9) + 1e-12
        assert n > 2 or loss == pytest.approx(most, abs=1e-12)


@given(
    seed=seeds,
    outputs=st.integers(2, 12),
    spread=st.sampled_from([0.0, 0.5, 2.0, 10.0]),
    n=st.sampled_from([1, 2, 3, 4, 10, 100, 10_000]),
    ties=st.booleans(),
)
@instances
def test_best_of_n(seed, outputs, spread, n, ties):
    check_best_of_n(best_of_n_kl_bound, best_of_n_loss_bound, seed, outputs, spread, n, ties)


# ---- equations -------------------------------------------------------------------------------------------------------


@corners
@instances
def test_a_narrow_teacher_is_slow(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    """`prop-narrow-teacher`: t_γ ≥ 2 |S| γ/ε for rewards within ε of one number, whatever their order."""
    check_narrow_teacher(1.0, seed, outputs, spread, log_scale, gain, prompts, ties)


def check_narrow_teacher(factor, seed, outputs, spread, log_scale, gain, prompts, ties):
    batch = problems(seed, outputs, spread, log_scale, ties)
    epsilon = np.ptp(batch.proxy, axis=-1) / 2
    with np.errstate(divide="ignore"):
        least = factor * 2 * prompts * gain / epsilon
    for reward in (batch.measured, batch.proxy):
        never_before(least, batch.logits, batch.proxy, gain, measured=reward, n_prompts=prompts)


@corners
@instances
def test_the_gradient_is_bounded_so_the_flow_never_ends(seed, outputs, spread, log_scale, kl_coef, gain, prompts, ties):
    """`prop-flow-facts`, part 4: no entry of the gradient exceeds R/2 + λ(Λ + 1/e), wherever the logits are."""
    check_gradient_entries(1.0, seed, outputs, spread, log_scale, kl_coef, ties)


def check_gradient_entries(factor, seed, outputs, spread, log_scale, kl_coef, ties):
    batch = problems(seed, outputs, spread, log_scale, ties)
    rng = np.random.default_rng(seed)
    logits = batch.logits + rng.choice([0.1, 3.0, 50.0], (BATCH, 1)) * rng.normal(size=batch.logits.shape)
    gradient = np.abs(rlhf_gradient(logits, batch.proxy, batch.logits, kl_coef)).max(-1)
    rarest = -np.log(softmax(batch.logits).min(-1))
    most = np.abs(batch.proxy).max(-1) / 2 + kl_coef * (rarest + 1 / np.e)
    assert (gradient <= factor * most * (1 + 1e-9)).all()


def test_every_flow_ends_by_the_same_law():
    """`cor-late-law`: t (r_max - V) tends to (1 - 1/n) |S|, whatever the other rewards and the initial policy."""
    rng = np.random.default_rng(5)
    for outputs in (2, 3, 5):
        reward = np.column_stack([np.ones((20, 1)), rng.uniform(-1, 0.5, (20, outputs - 1))])
        flow = gradient_flow(rng.normal(size=(20, outputs)), reward, 1e7, n_prompts=3)
        assert np.allclose(1e7 * (1 - flow(1e7).proxy), 3 * (1 - 1 / outputs), rtol=0.01)


@pytest.mark.parametrize("kl_coef", [0.0, 0.4])
def test_the_papers_lemma_9_against_finite_differences(kl_coef):
    """`lem-motion`, for a policy that the flow has moved away from its start.

    d/dt π(y) = (1/|S|) π(y) [ π(y)(r(y) - V) - Σ π²(r - V) + KL terms ]
    """
    rng = np.random.default_rng(0)
    logits, reward = rng.normal(size=6), rng.uniform(-1, 1, 6)
    flow = gradient_flow(logits, reward, 10.0, kl_coef=kl_coef, n_prompts=3)
    step = 1e-3
    before, now, after = flow(np.array([4 - step, 4.0, 4 + step])).probs
    start = softmax(logits)
    a = reward - now @ reward - kl_coef * (np.log(now / start) - now @ np.log(now / start))
    closed_form = now * (now * a - now**2 @ a) / 3
    assert np.allclose((after - before) / (2 * step), closed_form, atol=1e-8)


def test_the_variance_moves_as_the_check_of_its_growth_says():
    rng = np.random.default_rng(2)
    logits, reward = rng.normal(size=(1, 6)), rng.uniform(-1, 1, (1, 6))
    flow, step = gradient_flow(logits, reward, 10.0, kl_coef=0.3), 1e-3
    at = flow(np.array([4 - step, 4.0, 4 + step])).logits[0]
    before, _, after = reward_variance(kl_reward(at, reward, logits, 0.3), softmax(at))
    rate, _ = variance_rate(at[1:2], kl_reward(at[1:2], reward, logits, 0.3), 0.3)
    assert rate == pytest.approx((after - before) / (2 * step), abs=1e-8)


def test_the_ground_truth_moves_at_the_covariance_weighted_by_squared_probabilities():
    """`prop-law`: dV_G/dt at the start = (1/|S|) Σ π² (r_RM - V_RM)(r_G - V_G).

    For a uniform policy that is `prop-audit-rate`.
    """
    rng = np.random.default_rng(1)
    logits, proxy, truth = rng.normal(size=(3, 40, 7))
    probs, step = softmax(logits), 1e-5
    flow = gradient_flow(logits, proxy, step, ground_truth=truth, n_prompts=2)
    rate = (flow(step).ground_truth - flow(0.0).ground_truth) / step
    proxy, truth = (r - (probs * r).sum(-1, keepdims=True) for r in (proxy, truth))
    assert np.allclose(rate, (probs**2 * proxy * truth).sum(-1) / 2, atol=1e-5)
    uniform = np.full(7, 1 / 7)  # for a uniform policy the weights are equal and it is the covariance over n
    assert np.allclose(
        (uniform**2 * (proxy - proxy.mean(-1, keepdims=True)) * (truth - truth.mean(-1, keepdims=True))).sum(-1),
        reward_covariance(proxy, truth, uniform) / 7,
    )
    assert np.allclose(reward_covariance(proxy, truth, uniform) / 7, 6 / 7**2 * reward_covariance(proxy, truth))


# ---- would a wrong theorem be noticed? -------------------------------------------------------------------------------


def times(factor, bound):
    """The bound, multiplied."""
    return lambda *arguments, **named: factor * bound(*arguments, **named)


BROKEN = {
    "Lemma 8": lambda seed: check_gradient(times(0.9, bounds.tabular_gradient_bound), seed, 2, 0.0, 0.0, 0.0, True),
    "Prop. 3": lambda seed: check_slow_time(
        times(4.5, bounds.tabular_slow_time_bound), seed, 2, 0.5, 0.0, 0.0, 1e-3, 1, True
    ),
    "narrow teacher": lambda seed: check_narrow_teacher(3.0, seed, 2, 0.0, 0.0, 0.05, 1, False),
    "entries of the gradient": lambda seed: check_gradient_entries(0.3, seed, 3, 0.0, 0.0, 1.0, True),
    "growth of the variance": lambda seed: check_growth(
        times(0.2, bounds.tabular_variance_growth_bound), seed, 2, 2.0, 0.0, 0.0, 1, True
    ),
    "movement": lambda seed: check_movement(times(0.3, bounds.tabular_movement_bound), seed, 2, 0.0, 0.0, 0.0, 1, True),
    "Lemma 10": lambda seed: check_mass(
        lambda mass, time, *rest: bounds.tabular_mass_bound(mass, time / 8, *rest), seed, 2, 2.0, 0.0, 0.0, 1, True
    ),
    "Lemma 5": lambda seed: check_lemmas_5_and_6(
        times(1 / 500, bounds.variance_growth_bound), bounds.movement_bound, seed, (2, 1)
    ),
    "Lemma 5, movement": lambda seed: check_lemmas_5_and_6(
        bounds.variance_growth_bound, times(1 / 50, bounds.movement_bound), seed, (2, 1)
    ),
    "Theorem 4": lambda seed: check_autoregressive_time(
        lambda v, gain, length, kl: 1_000 * bounds.slow_time_bound(v, gain, length, 1.0, kl), seed, (2, 1)
    ),
    "Theorem 4, sharper": lambda seed: check_autoregressive_time(
        lambda v, gain, length, kl: 8 * bounds.sharper_slow_time_bound(v, gain, length, 1.0), seed, (2, 1)
    ),
    "Prop. 4": lambda seed: check_fast_time(times(0.02, bounds.tabular_fast_time_bound), seed),
    "Prop. 4, sharper": lambda seed: check_fast_time(times(0.1, bounds.sharper_tabular_fast_time_bound), seed),
    "Lemma 10, sharper": lambda seed: check_mass(
        lambda mass, time, *rest: bounds.sharper_tabular_mass_bound(mass, time / 8, *rest),
        seed,
        3,
        1.0,
        0.0,
        0.0,
        1,
        False,
    ),
    "Theorem 5, slow": lambda seed: check_theorem_5(
        times(30, bounds.accurate_but_slow_time_bound),
        bounds.inaccurate_but_fast_time_bound,
        seed,
        2,
        1.0,
        10.0,
        0.0,
        1,
    ),
    "Theorem 5, fast": lambda seed: check_theorem_5(
        bounds.accurate_but_slow_time_bound,
        times(0.01, bounds.inaccurate_but_fast_time_bound),
        seed,
        2,
        1.0,
        1.0,
        0.0,
        1,
    ),
    "Theorem 6, fast": lambda seed: check_theorem_6(
        times(0.02, bounds.matching_teacher_time_bound), bounds.mismatched_teacher_time_bound, seed, 3, 2.0, 0.0, False
    ),
    "two marks": lambda seed: check_two_marks(times(4, bounds.two_marks_time_bound), seed, 3, 2.0, 0.3, 1),
    "gradient, any reward": lambda seed: check_gradient_time(
        times(20, bounds.gradient_slow_time_bound), seed, 2, 0.5, 0.0, 0.3, 1, False
    ),
    "both gradients, least": lambda seed: check_both_gradients(
        lambda *a: (1.2 * bounds.gradient_time_bounds(*a)[0], np.full(BATCH, np.inf)), seed, 3, 2.0, 0.0, 0.05, 1, False
    ),
    "both gradients, greatest": lambda seed: check_both_gradients(
        lambda *a: (np.zeros(BATCH), 0.8 * bounds.gradient_time_bounds(*a)[1]), seed, 3, 0.5, 0.0, 1e-3, 1, False
    ),
    "Best-of-N, KL": lambda seed: check_best_of_n(
        times(0.9, best_of_n_kl_bound), best_of_n_loss_bound, seed, 12, 0.5, 4, False
    ),
    "Best-of-N, loss": lambda seed: check_best_of_n(
        best_of_n_kl_bound, times(0.8, best_of_n_loss_bound), seed, 12, 0.5, 3, False
    ),
    "Best-of-N, exponent": lambda seed: check_best_of_n(
        best_of_n_kl_bound,
        lambda *a: best_of_n_loss_bound(*a[:3], a[3] + 1) * (a[3] - 1) / (a[3] + 1),
        seed,
        12,
        0.5,
        4,
        False,
    ),
    "Theorem 6, slow": lambda seed: check_theorem_6(
        bounds.matching_teacher_time_bound, times(30, bounds.mismatched_teacher_time_bound), seed, 3, 2.0, 0.0, False
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_bound_is_caught(name):
    """Each check, given its bound with a constant changed, fails on some instance."""
    with pytest.raises(AssertionError):
        for seed in itertools.islice(itertools.count(), 20):
            BROKEN[name](seed)
