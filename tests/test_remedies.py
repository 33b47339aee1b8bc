"""The remedies: what each leaves alone, what it changes, and that their update estimates the exact gradient."""

import itertools

import numpy as np
import pytest

from rvlib.metrics import ranking_accuracy, reward_variance
from rvlib.tabular import remedies, rlhf_gradient, softmax
from rvlib.tabular.remedies import REMEDIES, TabularPolicies, make_worlds, train, updates

WORLD = make_worlds(3, prompts=4, outputs=6, seed=1)


def run(name, **options):
    return train(WORLD, REMEDIES[name], steps=20, **options)


@pytest.mark.parametrize("name", ["scale by 10", "centre"])
def test_what_a_group_and_a_fixed_step_divide_away_changes_nothing(name):
    assert np.allclose(run(name).truth, run("nothing").truth, atol=1e-9)


@pytest.mark.parametrize("name", REMEDIES)
def test_every_remedy_trains_and_can_be_repeated(name):
    outcome = run(name)
    assert outcome.truth.shape == (3, 21) and np.isfinite(outcome.truth).all()
    assert np.array_equal(run(name).truth, outcome.truth)
    assert ((outcome.accuracy >= 0) & (outcome.accuracy <= 1)).all()
    assert ((outcome.variance >= 0) & (outcome.variance <= 1 + 1e-12)).all()


def test_every_second_prompt_is_quiet():
    variance = reward_variance(WORLD.reward, softmax(WORLD.logits))
    assert variance[:, 1::2].max() < 0.05 * variance[:, ::2].min()


def test_a_spread_ranking_is_the_same_ranking():
    spread = REMEDIES["spread the ranking"].reward(WORLD)
    assert (ranking_accuracy(spread, WORLD.reward) == 1).all()
    assert spread.min() == -1 and spread.max() == 1


def test_discretised_rewards_have_few_levels_and_never_swap_two_outputs():
    rough = remedies.discretised(WORLD.reward, 4)
    assert max(len(np.unique(row)) for row in rough.reshape(-1, 6)) <= 4
    order = np.argsort(WORLD.reward, -1)
    assert (np.diff(np.take_along_axis(rough, order, -1), axis=-1) >= 0).all()


def test_bradley_terry_gives_the_rewards_back_and_smoothing_and_margins_change_their_spread():
    reward = np.array([[0.5, -0.5, 0.1], [2.0, 0.0, -1.0]])
    fitted = remedies.fit_bradley_terry(reward, steps=3000)
    assert np.allclose(fitted - fitted.mean(-1, keepdims=True), reward - reward.mean(-1, keepdims=True), atol=0.05)
    spread = [
        np.ptp(remedies.fit_bradley_terry(reward, **options)[1])
        for options in ({"smoothing": 0.1}, {}, {"margin": 1.0})
    ]
    assert spread[0] < spread[1] < spread[2]


def test_the_subset_has_the_largest_variance_of_all():
    rewards = np.random.default_rng(0).normal(size=(5, 4, 7))
    kept = np.take_along_axis(rewards, updates.largest_variance(rewards, 3), -1)
    every = np.stack([rewards[..., list(subset)].var(-1) for subset in itertools.combinations(range(7), 3)], -1)
    assert np.allclose(kept.var(-1), every.max(-1))


def test_the_update_estimates_half_of_the_exact_gradient():
    logits, reward = np.array([[0.3, -0.2, 0.5], [1.0, 0.0, -1.0]]), np.array([[1.0, 0.2, -0.5], [0.1, 0.4, 0.0]])
    worlds = 40_000
    probs = np.broadcast_to(softmax(logits), (worlds, 2, 3))
    update = updates.sampled_update(
        probs, np.broadcast_to(reward, probs.shape), REMEDIES["nothing"], 4, np.random.default_rng(0)
    )
    gradient = (update - probs * update.sum(-1, keepdims=True)).mean(0)
    exact = np.stack([rlhf_gradient(x, r, x, 0.0) for x, r in zip(logits, reward)])
    assert np.allclose(gradient, 0.5 * 0.75 * exact, atol=4e-3)  # half of the prompts, and (k - 1)/k


@pytest.mark.parametrize(
    "remedy",
    [
        remedies.Remedy("undivided"),
        remedies.Remedy("divided", algorithm="grpo"),
        remedies.Remedy("of the largest variance", algorithm="grpo", oversample=2),
        remedies.Remedy("with noise", dither=0.2),
    ],
    ids=lambda remedy: remedy.text,
)
def test_the_expected_update_is_the_mean_of_sampled_ones(remedy):
    worlds = 60_000
    probs = np.array([[0.5, 0.2, 0.1, 0.2], [0.1, 0.1, 0.2, 0.6]])
    reward = np.array([[1.0, 0.2, 0.2, -0.5], [0.0, 0.4, 0.4, 0.4]])  # ties among them
    wide = np.broadcast_to(probs, (worlds, 2, 4))
    sampled = updates.sampled_update(wide, np.broadcast_to(reward, wide.shape), remedy, 3, np.random.default_rng(0))
    assert np.allclose(2 * sampled.mean(0), remedies.expected_update(reward, remedy, 3)(probs), atol=0.012)


def test_the_expected_update_of_all_samples_is_the_exact_gradient_and_of_all_ranks_that_of_all_samples():
    logits, reward = np.array([[0.3, -0.2, 0.5], [1.0, 0.0, -1.0]]), np.array([[1.0, 0.2, -0.5], [0.1, 0.4, 0.0]])
    plain, exact = remedies.Remedy(""), np.stack([rlhf_gradient(x, r, x, 0.0) for x, r in zip(logits, reward)])
    for ranks in (None, range(4)):
        assert np.allclose(remedies.expected_update(reward, plain, 4, ranks)(softmax(logits)), 0.75 * exact, atol=1e-12)


def test_the_extremes_of_a_group_are_the_two_of_largest_variance():
    probs, reward = softmax(WORLD.logits), WORLD.reward
    largest = remedies.expected_update(reward, remedies.Remedy("", oversample=2), 2)(probs)
    assert np.allclose(remedies.expected_update(reward, remedies.Remedy(""), 4, [3, 0])(probs), largest, atol=1e-12)


def test_the_expected_variance_of_all_samples_is_that_of_the_policy_less_that_of_their_mean():
    probs, reward = softmax(WORLD.logits), WORLD.reward
    variance = reward_variance(reward, probs)
    plain, oversampled = remedies.Remedy(""), remedies.Remedy("", oversample=2)
    assert np.allclose(remedies.expected_variance(probs, reward, plain, 4), 0.75 * variance)
    assert np.allclose(
        remedies.expected_variance(probs, reward, plain, 4, [0, 3]),
        remedies.expected_variance(probs, reward, oversampled, 2),
    )
    assert not remedies.expected_variance(probs, reward, plain, 4, []).any()


def test_what_a_fixed_step_divides_away_changes_nothing_in_expectation_and_something_under_plain_steps():
    def truth(name, plain):
        policies = TabularPolicies(WORLD.logits, plain=plain)
        return remedies.train_in_expectation(
            WORLD, REMEDIES[name], policies=policies, steps=10, num_generations=3, learning_rate=1.0
        ).truth

    for name in ("scale by 10", "centre"):
        assert np.allclose(truth(name, False), truth("nothing", False), atol=1e-9)
    assert np.allclose(truth("centre", True), truth("nothing", True), atol=1e-9)
    assert (truth("scale by 10", True)[:, -1] > truth("nothing", True)[:, -1] + 0.01).all()


@pytest.mark.parametrize("ranks", [[], [2]])
def test_fewer_than_two_samples_teach_nothing(ranks):
    outcome = remedies.train_in_expectation(WORLD, REMEDIES["nothing"], steps=2, num_generations=3, ranks=ranks)
    assert (outcome.truth == outcome.truth[:, :1]).all()


def test_replaced_prompts_have_a_spread_where_there_are_enough():
    probs = np.broadcast_to(np.array([0.5, 0.5]), (50, 6, 2))
    reward = np.zeros((50, 6, 2))
    reward[:, :3, 0] = 1.0  # three prompts of six can have a spread
    update = updates.sampled_update(probs, reward, remedies.Remedy("", prompts="spread"), 64, np.random.default_rng(0))
    assert (np.abs(update).sum(-1)[:, :3] > 0).all() and not update[:, 3:].any()


def test_a_silent_group_is_raised_where_it_is_above_the_batch():
    probs = np.broadcast_to(np.array([0.5, 0.5]), (1, 2, 2))
    reward = np.broadcast_to(np.array([[1.0, 1.0], [-1.0, -1.0]]), (1, 2, 2))
    totals = np.zeros(2)
    for seed in range(20):
        totals += updates.sampled_update(
            probs, reward, remedies.Remedy("", silent=0.1), 4, np.random.default_rng(seed)
        ).sum((0, 2))
    assert totals[0] > 0 > totals[1]


def test_a_tabular_step_has_the_length_that_was_asked_for():
    policies = TabularPolicies(WORLD.logits)
    policies.step(np.random.default_rng(0).normal(size=WORLD.logits.shape), 0.3)
    assert np.sqrt(((policies.logits - WORLD.logits) ** 2).sum((1, 2))) == pytest.approx(0.3)
    policies.step(np.zeros(WORLD.logits.shape), 0.3)
    assert np.isfinite(policies.logits).all()


def test_steps_to_gain_and_what_was_lost():
    outcome = remedies.TrainingResult(np.zeros(2), np.zeros(2), np.array([[0.0, 0.4, 0.2], [0.0, 0.1, 0.2]]))
    assert outcome.steps_to_gain(0.3).tolist() == [1, np.inf]
    assert outcome.gained == pytest.approx([0.2, 0.2]) and outcome.lost_again == pytest.approx([0.2, 0.0])


def test_bad_arguments_are_told_in_a_sentence():
    with pytest.raises(ValueError, match="quiet must be"):
        make_worlds(quiet=0.0)
    with pytest.raises(ValueError, match="learning_rate must be"):
        run("nothing", learning_rate=0.0)
    with pytest.raises(ValueError, match="got one that compares prompts; use train"):
        remedies.train_in_expectation(WORLD, REMEDIES["curriculum"])
    with pytest.raises(ValueError, match="ranks must be whole numbers from 0 to 2, got \\[0, 3\\]"):
        remedies.train_in_expectation(WORLD, REMEDIES["nothing"], num_generations=3, ranks=[0, 3])
