"""What is measured of a teacher before training, against its definitions, reply by reply and pair by pair."""

import dataclasses
import itertools

import numpy as np
import pytest

from rvlib import hypotheses, metrics, predictors, teacher_study
from rvlib.audit.verdicts import measured_reliability
from rvlib.predictors import PREDICTORS, MeasuredReplies
from rvlib.tabular.predictors import exact_predictors


def replies(proxy, truth, outputs=None, probs=None):
    proxy, truth = np.array(proxy, float), np.array(truth, float)
    outputs = np.arange(proxy.shape[1])[None].repeat(len(proxy), 0) if outputs is None else np.array(outputs)
    pairs = np.stack([proxy, -proxy], -1), np.stack([truth, -truth], -1)
    return MeasuredReplies(proxy, truth, outputs, np.full(proxy.shape, 0.1) if probs is None else probs, *pairs)


RNG = np.random.default_rng(0)
RANDOM = replies(RNG.integers(0, 4, (2, 8)), RNG.integers(0, 4, (2, 8)))


def test_the_gain_of_best_of_m_is_the_mean_over_all_subsets():
    for m in (1, 2, 4, 8):
        kept = []
        for rewards, truth in zip(RANDOM.proxy, RANDOM.ground_truth):
            subsets = [list(subset) for subset in itertools.combinations(range(8), m)]
            best = [truth[s][rewards[s] == rewards[s].max()].mean() for s in subsets]
            kept.append(np.mean(best) - truth.mean())
        assert predictors.best_of_m_gain(RANDOM, m) == pytest.approx(np.mean(kept))
    with pytest.raises(ValueError, match="m must be at most 8"):
        predictors.best_of_m_gain(RANDOM, 9)


def test_the_collapse_rate_counts_the_groups_whose_rewards_are_all_equal():
    flat = [
        len(set(rewards[list(group)])) == 1 for rewards in RANDOM.proxy for group in itertools.combinations(range(8), 4)
    ]
    assert predictors.spread_probability(RANDOM, 4) == pytest.approx(1 - np.mean(flat))


def test_harm_aware_accuracy_forgives_a_wrong_order_of_replies_with_less_reward_than_the_mean():
    truth = [[0.0, 1.0, 2.0, 10.0]]
    low = replies(
        [[3.0, 2.0, 1.0, 9.0]], truth
    )  # the mean reward is 3.75: a wrong order of the first three is harmless
    assert predictors.harm_aware_accuracy(low) == 1
    assert predictors.on_policy_accuracy(low) == pytest.approx(0.5)
    high = replies([[12.0, 11.0, 10.0, 13.0]], truth)  # the mean is 11.5: the first is praised above it, wrongly
    assert predictors.harm_aware_accuracy(high) == pytest.approx(4 / 6)


def test_harm_aware_accuracy_is_the_audits():
    truth = np.vstack([RANDOM.ground_truth, np.ones(8)])  # which orders no pair of the last prompt: it is left out
    measured = replies(np.vstack([RANDOM.proxy, np.arange(8)]), truth)
    audited = metrics.harm_aware_accuracy(measured.proxy, measured.ground_truth)
    assert predictors.harm_aware_accuracy(measured) == pytest.approx(np.nanmean(audited.accuracy))
    assert np.isnan(audited.accuracy[-1]) and np.isnan(predictors.harm_aware_accuracy(replies([[1.0, 2.0]], [[1, 1]])))


def test_uniform_accuracy_counts_a_reply_once_however_often_it_was_drawn():
    once = replies([[1.0, 2.0, 3.0]], [[1.0, 3.0, 2.0]])
    often = replies([[1.0, 1.0, 1.0, 2.0, 3.0]], [[1.0, 1.0, 1.0, 3.0, 2.0]], outputs=[[0, 0, 0, 1, 2]])
    assert (
        predictors.uniform_accuracy(often) == pytest.approx(predictors.uniform_accuracy(once)) == pytest.approx(2 / 3)
    )


def test_an_accuracy_by_chance_is_the_mean_over_all_orders_of_the_rewards():
    truth = np.array([[1.0, 3.0, 3.0, 2.0]])
    orders = [replies([order], truth) for order in itertools.permutations([1.0, 2.0, 3.0, 4.0])]
    once = predictors.chance_levels(orders[0])
    for name in once.keys() - {"accuracy, off-policy pairs"}:
        assert once[name] == pytest.approx(np.mean([PREDICTORS[name](order) for order in orders])), name
    # The first reply was drawn twice: this pair is ordered right whichever rewards the replies get.
    outputs = [[0, 0, 1, 2]]
    drawn = [
        replies([[a, a, b, c]], [[1.0, 1.0, 3.0, 2.0]], outputs) for a, b, c in itertools.permutations([1.0, 2.0, 3.0])
    ]
    levels = predictors.chance_levels(drawn[0])
    assert levels["accuracy, uniform pairs"] == 0.5
    assert levels["accuracy, on-policy pairs"] == pytest.approx(
        np.mean([PREDICTORS["accuracy, on-policy pairs"](d) for d in drawn])
    )
    alone = predictors.chance_levels(replies([[1.0, 1.0]], [[2.0, 2.0]], [[0, 0]]))
    assert np.isnan(alone["accuracy, uniform pairs"]) and alone["accuracy, on-policy pairs"] == 1


def test_a_reward_model_of_two_levels_has_a_lower_accuracy_by_chance():
    rng = np.random.default_rng(0)
    fine, truth = rng.normal(size=(2, 3, 40))
    levels = [predictors.chance_levels(replies(r, truth)) for r in (fine, (fine > 0).astype(float))]
    assert levels[0]["accuracy, on-policy pairs"] == 0.5 > 0.3 > levels[1]["accuracy, on-policy pairs"]


def test_many_draws_estimate_the_exact_predictors_of_a_tabular_policy():
    rng = np.random.default_rng(1)
    probs, proxy, truth = rng.dirichlet(np.ones(6)), rng.normal(size=6), rng.normal(size=6)
    drawn = rng.choice(6, (4, 250), p=probs)
    measured = replies(proxy[drawn], truth[drawn], drawn, probs[drawn])
    exact = exact_predictors(probs, proxy, truth)
    assert predictors.reward_variance(measured) == pytest.approx(exact["reward variance"], rel=0.1)
    assert predictors.covariance(measured) == pytest.approx(exact["covariance"], rel=0.15, abs=0.03)
    assert predictors.weighted_covariance(measured) == pytest.approx(
        exact["π²-weighted covariance"], rel=0.15, abs=0.01
    )
    assert predictors.uniform_accuracy(measured) == pytest.approx(exact["accuracy"])


def test_no_predictor_but_those_of_size_changes_when_the_reward_is_multiplied():
    rng = np.random.default_rng(3)
    proxy, truth = rng.integers(0, 4, (2, 2, 16))
    quiet, loud = replies(proxy, truth), replies(3 * proxy, truth)
    changed = {name for name, predictor in PREDICTORS.items() if not np.isclose(predictor(loud), predictor(quiet))}
    assert changed == {
        "reward variance",
        "variance and accuracy",
        "deviation × (2 accuracy − 1)",
        "covariance",
        "π²-weighted covariance",
    }


@pytest.fixture(scope="module")
def study():
    """20 teachers whose gain is the covariance's, and a variance that has nothing to do with it."""
    rng = np.random.default_rng(2)
    gain = rng.normal(size=(3, 2, 1, 20)) * 0.1 + np.linspace(0.5, 2, 20)
    curves = gain[..., None] * np.array([0.0, 0.5, 1.0, 0.9])
    noise = {name: rng.normal(size=(3, 20)) for name in PREDICTORS}
    kl = np.broadcast_to([0.0, 0.25, 0.75, 1.5], curves.shape)
    return teacher_study.Study(
        made={},
        settings={},
        missing=[],
        policies=["a", "b", "c"],
        algorithms=["rloo", "grpo"],
        seeds=[0],
        teachers=[str(i) for i in range(20)],
        predictors=noise | {"covariance": gain[:, :, 0].mean(1), "correlation": -gain[:, :, 0].mean(1)},
        steps=np.array([0.0, 1, 2, 3]),
        truth=curves,
        kl=kl,
    )


def test_outcomes_are_read_off_the_curves(study):
    gain = study.truth[..., 2]
    assert np.allclose(study.outcome("gain"), 0.9 * gain)
    assert np.allclose(study.outcome("early gain"), 0.5 * gain)
    assert np.allclose(study.outcome("loss to hacking"), -0.1 * gain)
    assert np.allclose(study.outcome("gain at equal KL"), 0.75 * gain)  # half way from 0.25 to 0.75 nats
    with pytest.raises(ValueError, match="outcome must be one of"):
        study.outcome("luck")


def test_a_predictor_that_knows_wins_and_one_that_is_the_opposite_is_contradicted(study):
    for measure in teacher_study.MEASURES:
        comparison = teacher_study.compare(study, "rloo", "gain", measure, resamples=200)
        assert comparison.best == "covariance" and comparison.against_best["reward variance"].low > 0
    assert {row.predictor for row in teacher_study.leave_one_policy_out(study, "grpo", "gain")} == {"covariance"}
    verdicts = hypotheses.verdicts(study, resamples=200)
    assert all(row.evidence for row in verdicts)  # a reader sees what decided, failures included
    judged = {row.name: row.verdict for row in verdicts}
    assert judged["H1"] == "confirmed" and judged["H3"] == "contradicted"
    assert list(judged) == [f"H{i}" for i in range(1, 9)]
    assert teacher_study.how_often_right(study, "covariance", "rloo") > 0.9


def test_regret_is_0_for_the_best_pick_1_for_one_by_lot_and_a_constant_predictor_picks_by_lot():
    outcome = np.array([1.0, 2.0, 6.0])
    assert teacher_study.regret(np.array([0.0, 1.0, 2.0]), outcome) == 0
    assert teacher_study.regret(np.array([1.0, 1.0, 1.0]), outcome) == pytest.approx(1)
    assert teacher_study.regret(np.array([2.0, 1.0, 0.0]), outcome) == pytest.approx(5 / 3)
    assert teacher_study.spearman(np.ones(3), outcome) == 0


def test_a_part_of_the_study_has_the_predictors_and_curves_of_its_reward_models(study):
    subset = study.among(["7", "3"])
    assert subset.teachers == ["7", "3"] and subset.policies == study.policies
    assert np.array_equal(subset.predictors["covariance"], study.predictors["covariance"][:, [7, 3]])
    known = dataclasses.replace(study, chance={"harm-aware accuracy": np.arange(60.0).reshape(3, 20)})
    assert known.under("b").among(["7", "3"]).chance["harm-aware accuracy"].tolist() == [[27, 23]]
    for outcome in teacher_study.OUTCOMES:
        assert np.array_equal(subset.outcome(outcome), study.outcome(outcome)[..., [7, 3]])
    for names, got in ((["7", "luck"], "'luck'"), ([], "none")):
        message = f"^The reward models must be one or more of the study's 20, got {got}\\.$"
        with pytest.raises(ValueError, match=message):
            study.among(names)


def test_the_ground_truth_is_no_reward_model_where_it_is_left_out(study):
    owned = dataclasses.replace(study, teachers=[*study.teachers[:19], "the ground truth"])
    assert owned.without_ground_truth().teachers == study.teachers[:19]
    assert study.without_ground_truth().teachers == study.teachers


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_no_predictor_loses_less_beyond_doubt_than_the_covariance_by_which_an_audit_orders(algorithm):
    part = teacher_study.load().without_ground_truth()
    ahead = {
        name: teacher_study.lead(part, algorithm, "gain", name, "covariance", "regret")
        for name in part.predictors
        if name != "covariance"
    }
    assert [name for name, lead in ahead.items() if lead.low > 0] == []
    assert any(lead.high < 0 for lead in ahead.values())  # and it loses less than some


def test_an_audit_says_what_its_order_lost_without_the_ground_truth_and_whether_it_beats_accuracy(study, monkeypatch):
    part = teacher_study.load().without_ground_truth()
    sentence = measured_reliability.__wrapped__()
    assert f"{len(part.teachers)} reward models (without the ground truth itself)" in sentence
    doubtful = []
    for algorithm in part.algorithms:
        regret = teacher_study.compare(part, algorithm, "gain", "regret").values["covariance"]
        lead = teacher_study.lead(part, algorithm, "gain", "covariance", "accuracy, on-policy pairs", "regret")
        assert f"{regret:.0%} under {algorithm.upper()}" in sentence and f"{100 * lead.value:.0f} [" in sentence
        doubtful.append(lead.low <= 0)
    assert ("not better beyond doubt" in sentence) == any(doubtful)
    clear = study.predictors | {"accuracy, on-policy pairs": -study.predictors["covariance"]}
    monkeypatch.setattr(teacher_study, "load", lambda: dataclasses.replace(study, predictors=clear))
    assert "beyond doubt" not in measured_reliability.__wrapped__()
