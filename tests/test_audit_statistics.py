"""The audit's statistics: cases computed by hand, unbiased estimates, and the coverage of intervals."""

import itertools

import numpy as np
import pytest
from scipy.stats import bootstrap

from rvlib import metrics
from rvlib.audit import audit_rewards, measurements_of, report_rows
from rvlib.audit import statistics as stats


def test_harm_aware_accuracy_of_a_case_by_hand():
    # The mean reward is 2. Of the six pairs (better, worse): the truth orders the replies 3 > 2 > 1 > 0.
    rewards, truth = [[1.0, 4.0, 0.0, 3.0]], [[0.0, 1.0, 2.0, 3.0]]
    # right: (1,0), (3,0), (3,2); wrong but harmless, since the worse has 1 < 2: (2,0); harmful: (2,1), (3,1).
    result = metrics.harm_aware_accuracy(rewards, truth)
    assert result.accuracy == pytest.approx([4 / 6])
    # By chance each pair counts if ranked rightly (½), or both are below the mean: 0 and 1 alone.
    assert result.chance == pytest.approx([(5 * 0.5 + 1) / 6])


def test_harm_aware_accuracy_leaves_out_ties_of_the_truth_and_what_is_missing():
    nan = np.nan
    result = metrics.harm_aware_accuracy(
        [[0.0, 1.0, 5.0], [1.0, 2.0, nan], [1.0, 2.0, 3.0]], [[0.0, 1.0, 1.0], [1.0, 0.0, 7.0], [1.0, 1.0, 1.0]]
    )
    assert result.accuracy[:2] == pytest.approx([1, 0]) and np.isnan(result.accuracy[2])
    twice = np.array([[[0, 0, 1], [0, 0, 1], [1, 1, 0]]], dtype=bool)  # the first two are one text
    assert metrics.harm_aware_accuracy([[0.0, 9.0, 1.0]], [[0.0, 1.0, 2.0]], twice).accuracy == pytest.approx([0.5])


def test_the_chance_of_harm_aware_accuracy_is_its_mean_over_all_deals_of_the_truth():
    rewards = np.array([[0.3, 2.0, 2.0, -1.0, 0.3]])
    deals = np.array(list(itertools.permutations([0.0, 1.0, 1.0, 2.0, 3.0])))
    results = metrics.harm_aware_accuracy(np.repeat(rewards, len(deals), 0), deals)
    assert results.accuracy.mean() == pytest.approx(results.chance[0])


def test_flat_groups_of_a_case_by_hand():
    # 1, 1, 1, 0, 0: of ten pairs three are of ones and one is of zeros; of ten triples one is flat.
    rewards = [[1.0, 0.0, 1.0, 0.0, 1.0]]
    assert stats.flat_groups(rewards, 2) == pytest.approx([0.4])
    assert stats.flat_groups(rewards, 3) == pytest.approx([0.1])
    assert stats.flat_groups(rewards, 5) == [0] and stats.flat_groups([[2.0, 2.0, np.nan]], 2) == [1]
    assert np.isnan(stats.flat_groups(rewards, 6)[0])
    assert stats.flat_groups([[0.0, 0.1, 0.2]], 2, tolerance=0.15) == pytest.approx([2 / 3])
    with pytest.raises(ValueError, match="^group must be a whole number of at least 2, got 1\\.$"):
        stats.flat_groups(rewards, 1)


def test_flat_groups_are_estimated_without_bias():
    passes = np.random.default_rng(0).random((20000, 6)) < 0.8
    assert stats.flat_groups(passes.astype(float), 3).mean() == pytest.approx(0.8**3 + 0.2**3, abs=0.005)


def test_moments_of_a_case_by_hand():
    # Pairs of 0, 1, 3: their sample variances are ½, 4½ and 2.
    moments = stats.group_moments([[0.0, 1.0, 3.0], [1.0, np.nan, 2.0]], group=2)
    assert moments.mean == pytest.approx([7 / 3, 0.5])
    assert moments.mean_square == pytest.approx([(0.25 + 20.25 + 4) / 3, 0.25])
    truth = stats.group_moments([[0.0, 1.0, 3.0]], [[0.0, 1.0, 0.0]], group=2)  # covariances ½, 0 and -1
    assert truth.mean == pytest.approx([-1 / 6]) and truth.mean_square == pytest.approx([1.25 / 3])


def test_moments_of_a_small_group_are_those_of_groups_drawn_anew():
    rng = np.random.default_rng(0)
    replies = rng.normal(size=(20000, 7))
    from_many = stats.group_moments(replies, replies + 1, group=3).mean_square.mean()
    # ĉ of three normal replies is σ² χ²₂ / 2, whose mean square is 2.
    assert from_many == pytest.approx(2, abs=0.06)
    sampled = stats.group_moments(rng.normal(size=(300, 14)), group=7)  # 3,432 groups, of which 1,000 are drawn
    assert sampled.mean_square.mean() == pytest.approx(1 + 2 / 6, abs=0.1)


def test_signal_to_noise_of_a_case_by_hand():
    # Five prompts with covariances 1, 1, 1, 3 and 3, of one group each: E = 1.8; E[ĉ²] = 4.2 less the mean product of
    # two different prompts, 3, leaves 1.2.
    covariances = np.array([1.0, 1.0, 1.0, 3.0, 3.0])
    assert stats.signal_to_noise(stats.Moments(covariances, covariances**2))[0] == pytest.approx(1.8 / np.sqrt(1.2))
    assert stats.signal_to_noise(stats.Moments(covariances[1:], covariances[1:] ** 2)) is None  # too few prompts
    half_flat = np.array([[0.0, 1.0]] * 50 + [[1.0, 1.0]] * 50)
    value, low, high = stats.signal_to_noise(stats.group_moments(half_flat, group=2))
    assert value == pytest.approx(np.sqrt(0.99)) and low < value < high  # √(p/(1-p)) with p = ½, less 1 % for n - 1
    assert stats.signal_to_noise(stats.Moments(np.full(5, 2.0), np.full(5, 4.0))) is None  # no noise


def test_relative_speed_and_correlations_of_cases_by_hand():
    assert stats.relative_speed([1.0, 2.0], [2.0, 4.0]) == pytest.approx([0.5, 0.5, 0.5])
    rewards, length = [[0.0, 1.0], [5.0, 5.0], [3.0, 2.0]], [[10.0, 20.0], [1.0, 2.0], [7.0, 6.0]]
    # Covariances 5, 0, ½; variances of the reward ½, 0, ½; of the length 50, ½, ½.
    value, *_ = stats.within_correlation(rewards, length)
    assert value == pytest.approx(5.5 / np.sqrt(1 * 51))
    assert stats.within_correlation(rewards, np.ones((3, 2))) is None


def test_the_partial_covariance_of_a_case_by_hand():
    length = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0]])
    rest = np.array([[1.0, -2.0, 1.0], [0.0, 0.0, 0.0]])  # uncorrelated with the length
    truth = np.array([[1.0, -2.0, 1.0], [1.0, -2.0, 1.0]])
    value, *_ = stats.partial_covariance(5 * length + rest, 3 * length + truth, length)
    assert value == pytest.approx((3 + 0) / 2)  # of `rest` with `truth`, and nothing of the length
    plain, *_ = stats.partial_covariance(rest, truth, np.ones((2, 3)))
    assert plain == pytest.approx(1.5)


def test_replies_to_halve_knows_what_only_prompts_help():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4000, 8))
    # All prompts alike: the variance is that of drawing replies, and falls as 1/(k - 1): 1 + 7 · 4 = 29.
    assert stats.replies_to_halve(noise) == pytest.approx(29, abs=5)
    loud = np.where(np.arange(4000)[:, None] % 2, 0.001, 1) * noise
    assert stats.replies_to_halve(10 * loud + 0.01 * rng.normal(size=(4000, 8)) ** 3) is None
    assert stats.replies_to_halve(noise[:, :2]) is None


@pytest.mark.parametrize("statistic", ["signal to noise", "correlation", "partial", "speed"])
def test_intervals_cover(statistic):
    rng, hits, trials = np.random.default_rng(1), 0, 150
    for _ in range(trials):
        length = rng.normal(size=(40, 4))
        truth = rng.normal(size=(40, 4))
        rewards = truth + length
        if statistic == "signal to noise":  # ĉ = s² of four normal replies: 1 / √(2/3)
            interval, true = stats.signal_to_noise(stats.group_moments(truth, group=4)), np.sqrt(3 / 2)
        elif statistic == "correlation":
            interval, true = stats.within_correlation(rewards, length), np.sqrt(0.5)
        elif statistic == "partial":
            interval, true = stats.partial_covariance(rewards, truth, length), 1.0
        else:
            variances = stats.covariances(truth, truth)
            interval, true = stats.relative_speed(stats.covariances(rewards, truth), variances), 1.0
        hits += interval[1] <= true <= interval[2]
    assert hits / trials > 0.85  # 95 % in the limit; forty prompts and a ratio fall short of it


def test_the_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(3).exponential(size=60)
    value, low, high = stats.of_means(lambda mean: mean, values, resamples=9999)
    scipys = bootstrap((values,), np.mean, n_resamples=9999, rng=np.random.default_rng(4)).confidence_interval
    assert value == pytest.approx(values.mean()) and [low, high] == pytest.approx(list(scipys), abs=0.02)


def test_a_prompt_that_comes_twice_counts_once():
    rewards, length = np.random.default_rng(0).normal(size=(2, 10, 4))
    once = stats.within_correlation(rewards, length)
    twice = stats.within_correlation(np.tile(rewards, (2, 1)), np.tile(length, (2, 1)), np.tile(np.arange(10), 2))
    assert twice == pytest.approx(once)


def test_missing_rewards_leave_a_correlation_with_itself_1():
    rng = np.random.default_rng(0)
    feature, truth = rng.normal(size=(2, 10, 4)) * np.arange(1, 11)[:, None]
    rewards = np.where(rng.random((10, 4)) < 0.4, np.nan, feature)
    assert stats.within_correlation(rewards, feature) == pytest.approx([1, 1, 1], abs=1e-12)
    without = stats.partial_covariance(rewards, truth, feature)  # nothing is left of what the feature explains
    assert without == pytest.approx([0, 0, 0], abs=1e-9)


def test_a_truth_with_missing_rewards_has_its_own_speed():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(10, 4)) * np.arange(1, 11)[:, None]
    rewards = np.where(rng.random((10, 4)) < 0.4, np.nan, truth)
    teacher = audit_rewards(3 * rewards, truth).reward_models["the reward model"]
    assert teacher["relative_speed"] == pytest.approx([1, 1, 1], abs=1e-12)
    partly = np.where(rng.random((10, 4)) < 0.3, np.nan, truth)
    teacher = audit_rewards(rewards, partly).reward_models["the reward model"]
    assert teacher["relative_speed"] == pytest.approx([1, 1, 1], abs=1e-12)


def test_covariances_of_reward_models_that_abstain_from_different_replies_are_in_one_unit():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(12, 4)) * np.repeat([1.0, 9.0], 6)[:, None]
    quiet, loud = (np.where(np.arange(12)[:, None] // 6 == half, truth, np.nan) for half in (0, 1))
    replies = [["a" * int(rng.integers(1, 99)) for _ in range(4)] for _ in range(12)]
    audit = audit_rewards({"all": truth, "quiet": quiet, "loud": loud}, truth, replies=replies)
    unit = truth.std(ddof=1)
    for name, rewards in (("all", truth), ("quiet", quiet), ("loud", loud)):
        expected = np.nanmean(stats.covariances(rewards, truth)) / (np.nanstd(rewards, ddof=1) * unit)
        assert audit.reward_models[name]["covariance"][0] == pytest.approx(expected)
        value, *_ = stats.partial_covariance(rewards, truth, [[len(reply) for reply in row] for row in replies])
        in_units = value / (np.nanstd(rewards, ddof=1) * unit)
        assert audit.reward_models[name]["covariance_without_length"][0] == pytest.approx(in_units)
    assert audit.reward_models["loud"]["covariance"][0] > 5 * audit.reward_models["quiet"]["covariance"][0]


def test_flat_groups_are_unknown_where_no_prompt_has_a_whole_group():
    rewards = np.ones((6, 4))
    rewards[:, 1] = np.nan
    audit = audit_rewards(rewards, group=4)
    assert audit.reward_models["the reward model"]["flat_groups"] is None
    assert {row.measure: row.cells for row in report_rows.rows(audit)}["flat groups of 4"] == ["unknown"]
    assert audit_rewards(rewards, group=3).reward_models["the reward model"]["flat_groups"][0] == 1


@pytest.mark.parametrize(
    "offset, step",
    [(1e8, 1.0), (2.0**60, 2.0**8), (1e8 + 0.1, 1e-6)],  # whole numbers, and such as have 64 bits
)
def test_exact_scores_are_not_flattened(offset, step):
    rewards = offset + step * (np.arange(32).reshape(8, 4) % 5)
    audit = audit_rewards(rewards, rewards)
    assert audit.reward_models["the reward model"]["accuracy"] == [1, 1, 1]
    assert np.array_equal(audit.reward_models["the reward model"]["rewards"], rewards)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [2.0**160, 2.0**-160])
def test_the_unit_of_a_reward_changes_nothing_but_what_is_in_it(factor):
    rewards, truth = np.random.default_rng(0).normal(size=(2, 12, 4))
    rewards[0, 0] = np.nan
    replies = [[f"{'word ' * (1 + (5 * i + 3 * j) % 7)}" for j in range(4)] for i in range(12)]
    of_one, of_another = (
        audit_rewards({"r": by * rewards}, truth * other, replies=replies).reward_models["r"]
        for by, other in ((1.0, 1.0), (factor, 1 / factor))
    )
    for key in of_one.keys() - {"mean", "scale", "reward_variance_own_unit", "rewards", "examples"}:
        assert of_another[key] == of_one[key], key
    in_its_unit = [end * factor**2 for end in of_one["reward_variance_own_unit"]]
    assert of_another["reward_variance_own_unit"] == pytest.approx(in_its_unit)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor, got", [(1e300, "one of"), (1e60, "one of"), (1e-300, "a difference of at most")])
def test_rewards_whose_powers_are_no_numbers_are_one_sentence(factor, got):
    rewards, truth = np.random.default_rng(0).normal(size=(2, 12, 4))
    sentence = f"must be at most 1e\\+50 in size and differ by 1e-50 or more, got {got} [^\n]*; multiply all [^\n]*\\.$"
    with pytest.raises(ValueError, match=f"^Rewards of mine {sentence}"):
        audit_rewards({"mine": factor * rewards}, truth)
    with pytest.raises(ValueError, match=f"^Rewards of the ground truth {sentence}"):
        audit_rewards({"mine": rewards}, factor * truth)
    with pytest.raises(ValueError, match=f"^rewards {sentence}"):
        measurements_of(factor * rewards)


def test_rounding_in_64_bits_is_no_difference():
    rewards = 1e8 + 0.1 + np.spacing(1e8) * (np.arange(32).reshape(8, 4) % 3)
    assert audit_rewards(rewards).reward_models["the reward model"]["scale"] == 0
    assert np.ptp(stats.without_noise(1e8 + np.arange(4.0)[None], noise=1.0)) == 0  # a model's are of 32 bits


def test_signal_to_noise_is_unknown_where_rounding_alone_is_the_noise():
    for scale in (0.1, 0.3, 1 / 3, 1e5 / 7):
        alike = np.tile([[0.0, scale, 3 * scale]], (7, 1)) + np.arange(7)[:, None] / 7
        assert stats.signal_to_noise(stats.group_moments(alike, group=3)) is None


def test_too_few_prompts_make_no_advice_on_what_a_reward_goes_by():
    for prompts, expected in ((2, False), (4, False), (5, True)):
        replies = [["a", "b" * (20 + i), "c" * (40 + 2 * i)] for i in range(prompts)]
        audit = audit_rewards([[float(len(reply)) for reply in row] for row in replies], replies=replies)
        assert audit.reward_models["the reward model"]["probes"]["length"][0] > 0.9
        assert any("rewards length" in sentence for sentence in audit.advice) == expected
