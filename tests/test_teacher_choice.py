"""The teachers of a study on a language model by hand values, and a whole small run from the recipe to its tables."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from rvlib import predictors, teacher_study  # noqa: E402
from rvlib.lm.data.prompts import Preference, Prompt  # noqa: E402
from rvlib.lm.experiments import recipe, report, stages, teacher_choice, teachers  # noqa: E402
from rvlib.lm.experiments import run as runs  # noqa: E402
from rvlib.lm.experiments.planning import plan  # noqa: E402
from rvlib.lm.experiments.report.page import page  # noqa: E402
from rvlib.lm.experiments.report.tables import tables  # noqa: E402
from rvlib.lm.experiments.run_folder import Run  # noqa: E402
from rvlib.lm.experiments.teachers import text_noise  # noqa: E402
from rvlib.lm.training import supervised  # noqa: E402

REPLIES = [["a", "bbb", "a"], ["bbb", "ccccc", "ccccc"]]
TRUTH = np.array([[-1.0, 0.0, -1.0], [0.0, 1.0, 1.0]])  # mean 0, standard deviation √(4/5)
UNIT = np.sqrt(4 / 5)


@pytest.fixture()
def altered(monkeypatch):
    """The rewards (2, 3) of a kind of teacher for `REPLIES`, which are measured too, with the ground truth `TRUTH`."""
    monkeypatch.setattr(stages, "labels", lambda run, policy: {"measure": TRUTH.tolist()})
    measured = [{"replies": texts} for texts in REPLIES]
    monkeypatch.setattr(stages, "initial_replies", lambda run, policy: stages.InitialReplies([], measured))
    run = SimpleNamespace(ground_truth=lambda: lambda prompts, replies: TRUTH)

    def rewards(**settings):
        spec = recipe.RewardModelSettings.model_validate(settings)
        return teachers.rewards_of(spec, run, "altered", "policy")([Prompt("p", "", ""), Prompt("q", "", "")], REPLIES)

    return rewards


def test_levels_are_equally_frequent_among_the_measured_replies_but_for_ties(altered):
    np.testing.assert_array_equal(altered(levels=2), [[0, 1, 0], [1, 1, 1]])  # the median, 0, is in the upper half
    np.testing.assert_array_equal(altered(levels=3), [[0, 1, 0], [1, 2, 2]])


def test_a_saturated_teacher_has_the_hyperbolic_tangent_of_the_ground_truth(altered):
    np.testing.assert_allclose(altered(saturation=2.0), np.tanh(2 * TRUTH / UNIT))


def test_noise_depends_on_the_text_alone_and_is_standard_normal(altered):
    errors = altered(noise=0.5) - TRUTH / UNIT
    assert errors[0, 0] == pytest.approx(errors[0, 2]) and errors[0, 1] == pytest.approx(errors[1, 0])
    assert errors[0, 0] == pytest.approx(0.5 * text_noise("a")) and errors[0, 0] != pytest.approx(errors[0, 1])
    noise = np.array([text_noise(f"reply {i}") for i in range(2000)])
    assert abs(noise.mean()) < 0.1 and noise.std() == pytest.approx(1, abs=0.1) and np.isfinite(text_noise(""))


def test_praise_of_length_is_in_deviations_of_the_measured_lengths(altered):
    lengths = (np.array([[1, 3, 1], [3, 5, 5]]) - 3) / np.sqrt(16 / 5)
    np.testing.assert_allclose(altered(length=3.0), TRUTH / UNIT + 3 * lengths)
    np.testing.assert_allclose(altered(length=-1.0), TRUTH / UNIT - lengths)


def test_pairs_are_fewer_and_labels_wrong_by_the_shares_asked_for(monkeypatch):
    prompts = [Prompt(str(i), str(i), "") for i in range(40)]
    data = stages.Split([Preference(prompt, "good", "bad") for prompt in prompts], [])
    monkeypatch.setattr(stages, "split", lambda run: data)
    monkeypatch.setattr(stages, "initial_replies", lambda run, name: stages.InitialReplies([], []))
    rewards = [[1.0, 0.0]] * 39 + [[0.0, 0.0]]  # the last is a tie, and left out
    monkeypatch.setattr(stages, "labels", lambda run, name: {"pairs": [], "off_policy": rewards})
    run = SimpleNamespace(recipe=recipe.load("tiny-4.1"))

    def wrong(**shares):
        pairs = stages.preferences(run, "tiny", 0.0, **shares)
        return len(pairs), {pair.prompt.name for pair in pairs if pair.chosen == "bad"}

    assert wrong() == (39, set()) and wrong(pairs_share=0.25) == (10, set())
    (pairs, wrong_labels), (_, more_wrong_labels) = wrong(label_noise=0.2), wrong(label_noise=0.4)
    assert pairs == 39 and len(wrong_labels) == 8 and len(more_wrong_labels) == 16 and wrong_labels < more_wrong_labels
    spec = recipe.TrainedRewardModel(on_policy=0.0, pairs_share=0.5)
    with pytest.raises(ValueError, match="at least 32 rows for one batch .pairs for reward models., got 20"):
        teachers.check(spec, run)


def test_another_seed_has_its_pairs_in_another_order():
    settings = recipe.load("tiny-4.1", ["reward_training.epochs=1"]).reward_training
    trainer = SimpleNamespace(steps=lambda total, label: range(total))

    def order(*seed):
        return [row for _, batch in supervised.batches(trainer, range(64), settings, "", *seed) for row in batch]

    assert order() == order(0) and order() != order(1) and sorted(order(1)) == list(range(64))


def test_the_plan_trains_on_as_few_pairs_as_the_recipe_says():
    hours = {stage.name: stage.hours for stage in plan.plan(recipe.load("small-study"))}
    whole, tenth = hours["reward-models/on-policy-100"], hours["reward-models/tenth-of-pairs"]
    assert tenth == pytest.approx(whole / 10, rel=0.01)


def test_predictors_are_those_that_the_measured_replies_allow():
    rng = np.random.default_rng(0)
    proxy, truth = rng.normal(size=(2, 3, 4))
    records = [
        {"replies": ["a", "b", "a", "c"], "log_probs": [-1.0, -2.0, -1.0, -3.0]},
        *[{"replies": ["d"] * 4, "log_probs": [-1.0] * 4}] * 2,  # no two replies differ
    ]
    off_policy = np.array([[1.0, 0.0]] * 3), np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    measured = teacher_choice.predictors_of(records, proxy, truth, *off_policy)
    assert list(measured) == [name for name in predictors.PREDICTORS if name != "best-of-16 gain"]
    assert measured["accuracy, off-policy pairs"] == pytest.approx(2 / 3, abs=1e-5)
    centred = [values - values.mean(-1, keepdims=True) for values in (proxy, truth / truth.std(ddof=1))]
    assert measured["covariance"] == pytest.approx((centred[0] * centred[1]).sum(-1).mean() / 3, rel=1e-4)
    weights = np.exp([record["log_probs"] for record in records])
    assert measured["π²-weighted covariance"] == pytest.approx((weights * centred[0] * centred[1]).mean(), rel=1e-4)
    different = [(0, 1), (0, 3), (1, 2), (1, 3), (2, 3)]  # "a" was drawn twice, so each of its pairs counts half
    right = np.array([(proxy[0, i] - proxy[0, j]) * (truth[0, i] - truth[0, j]) > 0 for i, j in different])
    halves = np.array([0.5, 0.5, 0.5, 1, 0.5])
    assert measured["accuracy, uniform pairs"] == pytest.approx((right * halves).sum() / halves.sum(), abs=1e-5)


@pytest.fixture(scope="module")
def made(one_thread, tmp_path_factory):
    """The folder and the report of `small-study` with the tiny model: eight teachers, one of each kind, one seed."""
    folder = tmp_path_factory.mktemp("study")
    kinds = {
        "on-policy-100",
        "quarter-of-pairs",
        "wrong-labels-40",
        "low-variance",
        "two-levels",
        "saturated",
        "noise-half",
        "longer",
    }
    left_out = dict.fromkeys(recipe.load("small-study").reward_models.keys() - kinds)
    changes = {
        "seeds": [0],
        "data": {"preferences": "reviews-vivid", "prompts": 192, "max_tokens": 48, "others": None},
        "policies": {"smollm2-135m": {"model": "tiny", "demonstrations": "reviews-plain", "count": 64}},
        "ground_truth": {"model": "positivity"},
        "reward_models": left_out,
        "sft": {"epochs": 1, "learning_rate": 3.0e-3},
        "reward_training": {"epochs": 1},
        "measure": {"prompts": 8},
        "policy_gradient": {"epochs": 4, "max_new_tokens": 8},
        "evaluation": {"prompts": 4},
        "runtime": {"compute_dtype": "float32", "frozen_dtype": "float32"},
    }
    (folder / "smoke.yaml").write_text(yaml.safe_dump({"base": "small-study", "title": "a smoke"} | changes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVLIB_DATA", str(folder / "data"))
        return folder / "run", runs.run(recipe.load(folder / "smoke.yaml"), folder / "run")


def test_the_small_study_ends_in_a_table_of_predictors_with_intervals_over_teachers(made):
    _, result = made
    teachers = result["policies"]["smollm2-135m"]
    assert len(teachers) == 8 and all(list(t["predictors"]) == list(predictors.PREDICTORS) for t in teachers.values())
    study = teacher_choice.study(result, "smollm2-135m")
    gains = {key: np.diff(np.array(teacher["ground_truth"])[:, [0, -1]])[:, 0] for key, teacher in teachers.items()}
    outcomes = teacher_choice.outcomes(study)
    assert all(outcomes[key]["gain"] == pytest.approx(gain) for key, gain in gains.items())
    compared = teacher_choice.comparison(study)
    for name, (order, lost, *_) in compared.items():
        values = np.array([teacher["predictors"][name] for teacher in teachers.values()])
        means = np.array([gain.mean() for gain in gains.values()])
        assert order.value == pytest.approx(float(teacher_study.spearman(values, means)))
        assert lost.value == pytest.approx(float(teacher_study.regret(values, means))) and order.low <= order.high
    *_, of_teachers, of_predictors = tables(result, "smollm2-135m")
    assert len(of_teachers.rows) == 8 and [row[0] for row in of_predictors.rows] == list(predictors.PREDICTORS)
    assert "best-of-16 gain" in page(result)


def test_a_run_keeps_the_rewards_from_which_its_predictors_come(made):
    folder, result = made
    measured = json.loads((folder / "measure/smollm2-135m/measure.json").read_text())
    teacher = measured["two-levels"]
    assert np.shape(teacher["rewards"]) == (8, 16) and set(np.ravel(teacher["rewards"])) == {0, 1}
    assert np.shape(teacher["off_policy_rewards"]) == (8, 2)
    run = Run(recipe.load(folder.parent / "smoke.yaml"), folder)
    rewards = np.array(teacher["rewards"])
    truth, off_policy_truth = (stages.labels(run, "smollm2-135m")[f"measure{end}"] for end in ("", "_off_policy"))
    again = teacher_choice.predictors_of(
        stages.initial_replies(run, "smollm2-135m").measured,
        (rewards - rewards.mean()) / rewards.std(ddof=1),
        np.array(truth),
        np.array(teacher["off_policy_rewards"]),
        np.array(off_policy_truth),
    )
    assert again == result["policies"]["smollm2-135m"]["two-levels"]["predictors"]


@pytest.mark.parametrize("name", ["tiny-4.1", "small-4.1-cpu"])
def test_a_report_made_before_there_were_predictors_has_the_tables_that_it_had(name):
    kept = report.load(name)
    (policy,) = kept["policies"]
    assert teacher_choice.study(kept, policy) is None and len(tables(kept, policy)) == 5


def test_a_report_of_an_older_version_has_its_predictors_as_candidates():
    curves = {"steps": [0, 4, 8], "kl": [[0.0, 1.0, 3.0]]}
    now = {
        f"{i}": curves | {"ground_truth": [[0.0, 0.1 * i, 0.2 * i]], "predictors": {"covariance": i / 8}}
        for i in range(teacher_choice.FEWEST_TEACHERS)
    }
    before = {key: dict(teacher) for key, teacher in now.items()}
    for teacher in before.values():
        teacher["candidates"] = teacher.pop("predictors")
    settings = {"policy_gradient": {"algorithm": "rloo"}, "seeds": [0]}
    result = {"made": {}, "recipe": settings, "policies": {"now": now, "before": before}}
    first, second = (teacher_choice.comparison(teacher_choice.study(result, name)) for name in ("now", "before"))
    assert first == second and first["covariance"][0].value == pytest.approx(1)


def test_few_teachers_have_predictors_but_no_comparison(made):
    _, result = made
    few = dict(list(result["policies"]["smollm2-135m"].items())[:7])
    assert teacher_choice.study(result | {"policies": {"few": few}}, "few") is None
