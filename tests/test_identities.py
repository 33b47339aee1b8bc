"""Attempts to break the results that no bound of the library states: identities, steps of proofs, small inequalities.

As in `test_bounds`, every check takes what the result says as an argument, so that the last test can hand it the same
with a constant changed, and must see it caught.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from test_bounds import BATCH, instances, problems, seeds, times

from rvlib.metrics import Normalizer, ranking_accuracy, reward_covariance, reward_variance
from rvlib.tabular import best_of_n, expectation, rlhf_gradient, rlhf_objective, softmax
from rvlib.tabular.estimators import advantages, gradient_estimate, no_spread_probability

spreads = st.sampled_from([0.0, 0.5, 2.0, 10.0])


# ---- a policy that moves ---------------------------------------------------------------------------------------------


def softmax_velocity(probs, direction):
    """π_y (θ̇_y - Σ_z π_z θ̇_z); along e_z it is ∂π_y/∂θ_z."""
    return probs * (direction - (probs * direction).sum(-1, keepdims=True))


def check_softmax(velocity, seed, outputs, spread):
    logits, step = problems(seed, outputs, spread, 0.0, False).logits[:, None], 1e-5
    directions = np.concatenate([np.eye(outputs), np.random.default_rng(seed).normal(size=(4, outputs))])
    moved = (softmax(logits + step * directions) - softmax(logits - step * directions)) / (2 * step)
    assert np.allclose(moved, velocity(softmax(logits), directions), rtol=0, atol=1e-8)


@given(seed=seeds, outputs=st.integers(2, 12), spread=spreads)
@instances
def test_the_derivative_of_the_softmax(seed, outputs, spread):
    """`lem-softmax`: both formulas, against finite differences along the axes and along any direction."""
    check_softmax(softmax_velocity, seed, outputs, spread)


def comparison(start, a, q, time):
    """W(0)^q / (1 - q a W(0)^q t)."""
    return start**q / (1 - q * a * start**q * time)


def check_comparison(bound, seed):
    """W grows by a s(t) W^{1+q}: with s = 1 the lemma is an equality, and with s below 1 in places an inequality."""
    rng = np.random.default_rng(seed)
    a, start, q = 10 ** rng.uniform(-3, 3, BATCH), 10 ** rng.uniform(-6, 1, BATCH), rng.uniform(0.1, 2, BATCH)
    pace, phase = rng.uniform(0, 20, (2, BATCH))
    unit = 1 / (q * a * start**q)  # the time at which the lemma ends
    shares = np.linspace(0, rng.choice([0.1, 0.5, 0.9, 0.99]), 10)
    for full in (True, False):

        def growth(share, log_factor, full=full):
            part = 1.0 if full else np.cos(pace * share + phase)
            return unit * a * part * (start * np.exp(log_factor)) ** q

        solution = solve_ivp(growth, (0, shares[-1]), np.zeros(BATCH), "DOP853", shares, rtol=1e-11, atol=1e-13)
        grown, most = (start * np.exp(solution.y.T)) ** q, bound(start, a, q, shares[:, None] * unit)
        assert (grown <= most * (1 + 1e-6)).all()
        assert not full or (grown >= most * (1 - 1e-6)).all()


@given(seed=seeds)
@instances
def test_growth_by_a_power_is_bounded_by_the_solution_at_equality(seed):
    """`lem-comparison`"""
    check_comparison(comparison, seed)


# ---- Best-of-N -------------------------------------------------------------------------------------------------------


def largest_of(probs, truth, n):
    """E max of n samples: v_k - Σ_{j<k} (v_{j+1} - v_j) G_j^n."""
    values, level = np.unique(truth, return_inverse=True)
    return values[-1] - np.diff(values) @ np.cumsum(np.bincount(level, probs))[:-1] ** n


def check_diminishing_returns(formula, seed, outputs, spread, ties):
    batch = problems(seed, outputs, spread, 0.0, ties)
    for probs, truth in zip(softmax(batch.logits), batch.measured):
        counts = range(1, 5)
        gained = np.array([best_of_n(probs, truth, truth, n) for n in counts])
        assert np.allclose(gained, [formula(probs, truth, n) for n in counts], rtol=0, atol=1e-12)
        if np.ptp(truth) == 0:
            continue
        steps = np.diff(gained)
        assert (steps > 0).all() and (np.diff(steps) < 0).all()
        assert formula(probs, truth, 10**6) == pytest.approx(truth.max(), abs=1e-9)


@given(seed=seeds, outputs=st.integers(2, 12), spread=st.sampled_from([0.0, 0.5, 2.0]), ties=st.booleans())
@instances
def test_every_further_sample_helps_less_than_the_one_before(seed, outputs, spread, ties):
    """`cor-diminishing-returns`"""
    check_diminishing_returns(largest_of, seed, outputs, spread, ties)


def best_of_two_gain(probs, proxy, truth):
    """½ E[sign(Δ_RM) Δ_G] over two samples."""
    return 0.5 * probs @ (np.sign(proxy[:, None] - proxy) * (truth[:, None] - truth)) @ probs


def check_best_of_two(formula, seed, outputs, spread, ties):
    batch = problems(seed, outputs, spread, 0.0, ties)
    for probs, proxy, truth in zip(softmax(batch.logits), batch.proxy, batch.measured):
        gain = best_of_n(probs, proxy, truth, 2) - expectation(probs, truth)
        assert gain == pytest.approx(formula(probs, proxy, truth), abs=1e-12)
        stakes = probs[:, None] * probs * np.abs(truth[:, None] - truth)
        if not ties and stakes.sum() > 0:
            accuracy = ranking_accuracy(proxy, truth, stakes)
            assert gain == pytest.approx(stakes.sum() / 2 * (2 * accuracy - 1), abs=1e-12)


@given(seed=seeds, outputs=st.integers(2, 12), spread=spreads, ties=st.booleans())
@instances
def test_what_best_of_two_gains(seed, outputs, spread, ties):
    """`prop-best-of-two`: with ties, and without them by the accuracy on sampled pairs weighted by what they decide."""
    check_best_of_two(best_of_two_gain, seed, outputs, spread, ties)


# ---- samples ---------------------------------------------------------------------------------------------------------


@given(seed=seeds, factor=st.sampled_from([1e-6, 1e-3, 0.3, 7.0, 1e4]))
@instances
def test_adam_takes_the_same_steps_whatever_multiplies_the_gradients(seed, factor):
    """`prop-adam`, part 1, for PyTorch's Adam with ε = 0."""
    check_adam(0.0, seed, factor)


def check_adam(epsilon, seed, factor):
    torch = pytest.importorskip("torch", reason="takes PyTorch's Adam")
    gradients = torch.tensor(np.random.default_rng(seed).normal(size=(8, BATCH)))
    places = []
    for by in (1.0, factor):
        weights = torch.zeros(BATCH, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([weights], lr=0.1, eps=epsilon)
        for gradient in gradients:
            weights.grad = by * gradient
            adam.step()
        places.append(weights.detach().numpy())
    assert np.allclose(*places, rtol=1e-9, atol=1e-12)


def check_multiplied_reward(coefficient, seed, outputs, spread, factor, kl_coef):
    batch = problems(seed, outputs, spread, 0.0, False)
    start = problems(seed + 1, outputs, spread, 0.0, False).logits
    for objective in (rlhf_objective, rlhf_gradient):
        multiplied = objective(batch.logits, factor * batch.proxy, start, kl_coef)
        other = factor * objective(batch.logits, batch.proxy, start, coefficient(kl_coef, factor))
        assert np.allclose(multiplied, other, rtol=1e-9, atol=1e-12 * (factor + kl_coef))


def weakened(kl_coef, factor):
    """λ/c, the KL coefficient that a reward multiplied by c amounts to."""
    return kl_coef / factor


@given(
    seed=seeds,
    outputs=st.integers(2, 12),
    spread=spreads,
    factor=st.sampled_from([1e-3, 0.5, 10.0]),
    kl_coef=st.sampled_from([0.0, 0.05, 1.0]),
)
@instances
def test_a_multiplied_reward_is_a_weaker_penalty(seed, outputs, spread, factor, kl_coef):
    """`prop-adam`, part 2, for the objective and for its gradient."""
    check_multiplied_reward(weakened, seed, outputs, spread, factor, kl_coef)


def mean_wait(p, k):
    """1/(1 - p^k - (1-p)^k), steps up to the first group with a spread."""
    return 1 / (1 - p**k - (1 - p) ** k)


def shortest_wait(p, k):
    """1/(kp)."""
    return 1 / (k * p)


def check_first_spread(wait, least, seed, outputs, spread, k):
    """The chance that an update is not zero, summed over all groups."""
    rng = np.random.default_rng(seed)
    groups = np.array(list(itertools.product(range(outputs), repeat=k)))
    for logits in rng.uniform(-spread, spread, (4, outputs)):
        probs, low, high = softmax(logits), *np.sort(rng.uniform(-1, 1, 2)) + [0, 0.1]
        praised = rng.permutation(outputs) < rng.integers(1, outputs)
        reward, p = np.where(praised, high, low), probs[praised].sum()
        for algorithm in ("rloo", "grpo", "dr_grpo"):
            updates = gradient_estimate(logits, groups, advantages(reward[groups], algorithm))
            chance = probs[groups].prod(-1)[np.abs(updates).max(-1) > 1e-9].sum()
            assert chance == pytest.approx(1 - no_spread_probability(probs, reward, k), abs=1e-12)
            assert 1 / chance == pytest.approx(wait(p, k), rel=1e-6)
            assert 1 / chance >= least(p, k) * (1 - 1e-12)


@given(seed=seeds, outputs=st.integers(2, 4), spread=spreads, k=st.integers(2, 4))
@instances
def test_a_rare_reward_is_waited_for(seed, outputs, spread, k):
    """`prop-first-spread`"""
    check_first_spread(mean_wait, shortest_wait, seed, outputs, spread, k)


# ---- several prompts, policies and reward models ---------------------------------------------------------------------


def largest_covariance(variance, truth_variance):
    """√(E σ² · E σ'²) over prompts, the last axis."""
    return np.sqrt(variance.mean(-1) * truth_variance.mean(-1))


def check_covariance_cap(cap, seed, prompts, outputs):
    rng = np.random.default_rng(seed)
    probs = softmax(rng.normal(scale=2, size=(BATCH, prompts, outputs)))
    truth = rng.normal(size=probs.shape) * rng.uniform(0.2, 2, (BATCH, prompts, 1))
    truth[:, 0] *= rng.random((BATCH, 1)) < 0.8  # a constant reward too

    def covariance_and_cap(proxy):
        variances = reward_variance(proxy, probs), reward_variance(truth, probs)
        covariance = reward_covariance(proxy, truth, probs)
        centred = [r - expectation(probs, r)[..., None] for r in (proxy, truth)]
        sizes = [np.sqrt(probs) * a / np.sqrt(np.maximum(v, 1e-300))[..., None] for a, v in zip(centred, variances)]
        correlation = (sizes[0] * sizes[1]).sum(-1)
        assert np.allclose(covariance, correlation * np.sqrt(variances[0] * variances[1]), rtol=1e-9, atol=1e-12)
        return covariance.mean(-1), cap(*variances)

    size = rng.exponential(size=(BATCH, 1, 1)) * rng.choice([-1, 1], (BATCH, 1, 1))
    parallel = size * truth + rng.normal(size=(BATCH, prompts, 1))
    uneven = parallel * (1 + np.arange(prompts))[:, None]
    against = parallel * np.where(np.arange(prompts) == prompts - 1, -1, 1)[:, None]
    for proxy in (rng.normal(size=probs.shape), parallel, uneven, against):
        covariance, most = covariance_and_cap(proxy)
        assert (np.abs(covariance) <= most * (1 + 1e-9)).all()
        if proxy is parallel:
            assert np.allclose(np.abs(covariance), most, rtol=1e-9)
        else:
            assert (np.abs(covariance) < most * (1 - 1e-12)).all()


@given(seed=seeds, prompts=st.integers(3, 6), outputs=st.integers(3, 8))
@instances
def test_the_size_of_the_mean_covariance(seed, prompts, outputs):
    """`prop-covariance-cap`: the bound, its equality for proportional rewards, and none for other ones."""
    check_covariance_cap(largest_covariance, seed, prompts, outputs)


def scaled_variance(within, between, mean, share):
    """W/(W + B + s m²)."""
    return within / (within + between + share * mean**2)


def check_scaling(formula, seed, prompts, outputs, parts, scaled):
    rng = np.random.default_rng(seed)
    offset = rng.choice([0.0, 1.0, -20.0])
    block = rng.normal(size=(prompts, outputs)) + rng.exponential() * rng.normal(size=(prompts, 1)) + offset
    even = np.full(outputs, 1 / outputs)
    between = reward_variance(block.mean(-1), np.full(prompts, 1 / prompts))
    expected = formula(reward_variance(block, even).mean(), between, block.mean(), scaled / parts)
    rewards = np.concatenate([block * (part >= scaled) for part in range(parts)])
    normalised = Normalizer.fit(rewards).transform(rewards)
    # Its standard deviation has the divisor of a sample.
    measured = reward_variance(normalised, even).mean() * rewards.size / (rewards.size - 1)
    assert measured == pytest.approx(expected, rel=1e-9)


@given(
    seed=seeds,
    prompts=st.integers(1, 6),
    outputs=st.integers(2, 8),
    share=st.sampled_from([(1, 0), (2, 1), (3, 1), (3, 2), (10, 9)]),
)
@instances
def test_scaling_a_share_of_the_prompts_lowers_the_variance_by_their_mean(seed, prompts, outputs, share):
    """`prop-scaling-half`"""
    check_scaling(scaled_variance, seed, prompts, outputs, *share)


def best_each(gains, weights):
    """Σ_p w_p max_m g(p, m)."""
    return (weights * gains.max(-1)).sum(-1)


def check_one_teacher(most, seed, policies, teachers):
    rng = np.random.default_rng(seed)
    gains = np.round(rng.uniform(-1, 1, (BATCH, policies, teachers)), 1)  # with ties
    weights = rng.choice([0.0, 0.5, 1.0, 2.0], (BATCH, policies))
    alone = (weights[..., None] * gains).sum(1).max(-1)
    assert (alone <= most(gains, weights) + 1e-9).all()
    best = (gains == gains.max(-1, keepdims=True)) | (weights == 0)[..., None]
    assert (np.isclose(alone, most(gains, weights)) == best.all(1).any(-1)).all()


@given(seed=seeds, policies=st.integers(1, 4), teachers=st.integers(1, 4))
@instances
def test_one_teacher_for_all_is_no_better_than_one_for_each(seed, policies, teachers):
    """`prop-one-teacher`: the inequality, and that it is an equality exactly where one teacher is best for all."""
    check_one_teacher(best_each, seed, policies, teachers)


PREDICTORS = [
    lambda proxy, truth: proxy.mean(-1),
    lambda proxy, truth: reward_variance(proxy),
    reward_covariance,
    ranking_accuracy,
]


def unseen(p, n):
    """(1-p)^n, the chance that a reply of probability p is not drawn."""
    return (1 - p) ** n


def check_unseen(chance, seed, outputs, n):
    """The chance that a number made from n draws is the same for two reward models, summed over all draws."""
    rng = np.random.default_rng(seed)
    draws = np.array(list(itertools.product(range(outputs), repeat=n)))
    for logits in rng.normal(scale=2, size=(4, outputs)):
        probs, truth, first = softmax(logits), *rng.uniform(-1, 1, (2, outputs))
        differs = np.arange(outputs) == rng.integers(outputs)
        second, p = np.where(differs, rng.uniform(-1, 1), first), probs[differs].item()
        for i, predictor in enumerate(PREDICTORS):
            numbers = [predictor(model[draws], truth[draws]) for model in (first, second)]
            same = probs[draws].prod(-1)[numbers[0] == numbers[1]].sum()
            assert same >= chance(p, n) - 1e-12 >= 1 - n * p - 2e-12  # rounded
            # The mean misses no reply that was drawn.
            assert i > 0 or same == pytest.approx(chance(p, n), rel=1e-9, abs=1e-12)


@given(seed=seeds, outputs=st.integers(2, 4), n=st.integers(2, 5))
@instances
def test_no_number_made_from_drawn_replies_sees_the_others(seed, outputs, n):
    """`prop-unseen`"""
    check_unseen(unseen, seed, outputs, n)


# ---- would a wrong theorem be noticed? -------------------------------------------------------------------------------

BROKEN = {
    "derivative of the softmax": lambda seed: check_softmax(times(1.01, softmax_velocity), seed, 3, 0.5),
    "comparison": lambda seed: check_comparison(lambda start, a, q, time: comparison(start, 0.9 * a, q, time), seed),
    "comparison, exponent": lambda seed: check_comparison(
        lambda start, a, q, time: comparison(start, a, 0.9 * q, time) ** (1 / 0.9), seed
    ),
    "diminishing returns": lambda seed: check_diminishing_returns(
        lambda probs, truth, n: largest_of(probs, truth, n + 1), seed, 4, 0.5, False
    ),
    "best of two": lambda seed: check_best_of_two(times(1.01, best_of_two_gain), seed, 4, 0.5, False),
    "Adam": lambda seed: check_adam(1e-8, seed, 1e-6),
    "multiplied reward": lambda seed: check_multiplied_reward(times(1.01, weakened), seed, 4, 0.5, 10.0, 0.05),
    "mean wait": lambda seed: check_first_spread(times(1.01, mean_wait), shortest_wait, seed, 3, 0.5, 2),
    "shortest wait": lambda seed: check_first_spread(mean_wait, times(1.01, shortest_wait), seed, 2, 10.0, 2),
    "largest covariance": lambda seed: check_covariance_cap(times(0.99, largest_covariance), seed, 3, 4),
    "largest covariance, of means": lambda seed: check_covariance_cap(
        lambda variance, truth: np.sqrt(variance).mean(-1) * np.sqrt(truth).mean(-1), seed, 3, 4
    ),
    "scaling": lambda seed: check_scaling(lambda w, b, m, s: scaled_variance(w, b, m, s / 2), seed, 4, 4, 2, 1),
    "one teacher": lambda seed: check_one_teacher(times(0.99, best_each), seed, 2, 2),
    "unseen": lambda seed: check_unseen(lambda p, n: unseen(p, n - 1), seed, 3, 3),
    "unseen, Bernoulli": lambda seed: check_unseen(lambda p, n: 1 - n * p, seed, 3, 3),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_identity_is_caught(name):
    """Each check, given what it checks with a constant changed, fails on some instance."""
    with pytest.raises(AssertionError):
        for seed in itertools.islice(itertools.count(), 20):
            BROKEN[name](seed)
