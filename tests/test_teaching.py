"""The world of the study: what its words mean, what its teachers are, and how policies are trained."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from rvlib import teacher_study
from rvlib.files import ROOT
from rvlib.lm.enumerable import teachers, teaching, words
from rvlib.lm.enumerable.enumeration import Enumeration
from rvlib.metrics import ranking_accuracy
from rvlib.tabular import autoregressive

SMALL = teaching.StudySettings(
    prompts=2,
    hidden=4,
    fine_tuning_steps=3,
    measured_replies=16,
    off_policy_pairs=4,
    learning_rate=0.03,
    steps=6,
    evaluate_every=3,
    seeds=1,
)


def reply(text):
    return tuple(words.WORDS.index(word) for word in text.split())


@pytest.fixture(scope="module")
def world():
    """A world of three teachers: what the study has, but for their number and the training of policies."""
    enumeration = Enumeration(5, 4, 2, hidden=4)
    vectors = enumeration.start([[0], [1], [2]], 0.3)
    probs = np.exp(autoregressive.log_probs(enumeration.logits(vectors)))
    truth = words.ground_truth(2)
    names = list(words.WRITERS)
    made = {"the truth": truth, "its opposite": -truth, "the truth again": 2 * truth + 1}
    return teaching.StudyWorld(SMALL, enumeration, truth, dict(zip(names, vectors)), dict(zip(names, probs)), made)


def test_what_replies_mean_and_how_good_they_are():
    assert words.read(reply("very good and good")) == (2.5, 0, 2)
    assert words.read(reply("not very bad and")).sentiment == pytest.approx(1.2)
    assert words.read(reply("and very and not")) == (0, 2, 0)
    bad, good = words.ground_truth(2)  # experiences of -1.5 and 1.5
    best = words.REPLIES.index(reply("very good and and"))
    assert good[best] == good.max() == pytest.approx(np.tanh(1)) and bad[best] < good[best]
    assert np.allclose(words.writer("plain", 2).sum(1), 1)


def test_replies_drawn_and_named_have_the_probabilities_of_the_table(world):
    vectors = np.array(list(world.policies.values()))
    logprobs = autoregressive.log_probs(world.enumeration.logits(vectors))
    prompts, outputs = np.array([[0, 1, 1]] * 3), np.array([[0, 17, 624]] * 3)
    logprobs_of_outputs = world.enumeration.output_log_probs(torch.tensor(vectors), prompts, outputs).numpy()
    assert np.allclose(logprobs_of_outputs, logprobs[np.arange(3)[:, None], prompts, outputs])
    summed = world.enumeration.summed_logits(vectors)[np.arange(3)[:, None], prompts, outputs]
    assert np.allclose(world.enumeration.token_logits(torch.tensor(vectors), prompts, outputs).sum(-1), summed)
    uniform = np.random.default_rng(0).random((4000, 4))
    drawn = world.enumeration.draw(torch.tensor(vectors), np.ones((3, 4000), int), uniform)
    first = drawn // 125  # the first word of each reply
    shares = np.stack([np.bincount(row, minlength=5) for row in first]) / 4000
    assert np.allclose(shares, np.exp(logprobs[:, 1]).reshape(3, 5, 125).sum(-1), atol=0.03)


def test_policy_gradient_goes_where_the_teacher_points_and_no_normalisation_changes_it(world):
    longer = replace(SMALL, steps=40, evaluate_every=20, num_generations=8, learning_rate=0.02)
    curves = teaching.teach(replace(world, settings=longer), "plain", "rloo", 0)
    truth = curves["truth"]
    assert truth[0, -1] > truth[0, 0] > truth[1, -1]
    assert np.allclose(truth[0], truth[2])  # 2 r + 1 is r after normalisation
    assert np.allclose(curves["kl"][:, 0], 0, atol=1e-12) and (curves["kl"][:, -1] > 0).all()
    assert np.allclose(curves["proxy"][1], -truth[1])


def test_what_is_made_of_the_truth_ranks_as_it_says():
    truth = words.ground_truth(4)
    trained = teachers.trained()
    models = {name: np.random.default_rng(i).normal(size=truth.shape) for i, name in enumerate(trained)}
    made = teachers.made_of(truth, models)
    assert len(trained) + len(made) == 56 and not trained.keys() & made.keys()
    exact = [name for name in made if name.startswith(("scaled", "saturated", "cubed", "ranks", "offsets"))]
    assert len(exact) == 9 and all(np.allclose(ranking_accuracy(made[name], truth), 1, atol=0.02) for name in exact)
    shares = {name: ranking_accuracy(made[name], truth).mean() for name in made}
    assert shares["noise of 2 deviations"] < shares["noise of 0.5 deviations"] < 1
    assert shares["emphasis × 3"] < shares["emphasis × 1"] < 1


def test_reward_models_learn_from_their_pairs_and_wrong_labels_cost_accuracy(world):
    probs = {name: np.full(world.truth.shape, 1 / 625) for name in words.WRITERS}
    trainings = {
        "right": teachers.RewardTraining(("plain",), steps=40),
        "half wrong": teachers.RewardTraining(("plain",), steps=40, label_noise=0.5),
    }
    models = teachers.train(world.enumeration, trainings, probs, world.truth)
    right, half = (ranking_accuracy(models[name], world.truth).mean() for name in trainings)
    assert right > 0.55 and right > half + 0.05


def test_a_study_goes_on_with_the_parts_that_are_missing(world, tmp_path, monkeypatch):
    monkeypatch.setattr(teaching.StudyWorld, "make", classmethod(lambda cls, settings: world))
    paths = teaching.run(SMALL, tmp_path)
    made = {path: path.read_bytes() for path in paths}
    paths[1].unlink()
    teaching.collect(SMALL, tmp_path, tmp_path / "partial.json")
    partial = json.loads((tmp_path / "partial.json").read_text())
    assert partial["missing"] == [paths[1].stem] and len(partial["parts"]) == 5
    assert teacher_study.load(tmp_path / "partial.json").algorithms == ["grpo"]
    teaching.run(SMALL, tmp_path)
    seconds = {path: json.loads(content).pop("seconds") for path, content in made.items()}
    again = {path: json.loads(path.read_bytes()) | {"seconds": seconds[path]} for path in paths}
    assert again == {path: json.loads(content) for path, content in made.items()}
    teaching.collect(SMALL, tmp_path, tmp_path / "whole.json")
    study = teacher_study.load(tmp_path / "whole.json")
    assert study.missing == [] and study.truth.shape == (3, 2, 1, 3, 3)
    assert study.chance["accuracy, on-policy pairs"].shape == (3, 3)
    older = json.loads((tmp_path / "whole.json").read_text())
    for row in older["measured"].values():  # as an older version wrote it
        row["scores"] = row.pop("predictors")
        del row["chance"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    before = teacher_study.load(tmp_path / "older.json")
    assert before.chance == {} and before.predictors.keys() == study.predictors.keys()
    assert all(np.array_equal(before.predictors[name], values) for name, values in study.predictors.items())
    with pytest.raises(ValueError, match="got none; run `rvlib study`"):
        (tmp_path / "none.json").write_text(json.dumps(partial | {"parts": {}}))
        teacher_study.load(tmp_path / "none.json")


def test_the_policies_of_the_study_are_as_small_as_the_chapter_says():
    settings = teaching.StudySettings()
    enumeration = Enumeration(len(words.WORDS), words.LENGTH, settings.prompts, hidden=settings.hidden)
    page = (ROOT / "book/which-number-picks-the-teacher.md").read_text(encoding="utf-8")
    assert f"transformers of about {round(enumeration.num_parameters, -2):,} parameters" in page


def test_the_command_writes_its_numbers_beside_its_parts_and_not_over_those_of_the_book(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(teaching, "run", lambda settings, folder: [])
    monkeypatch.setattr(teaching, "collect", lambda settings, folder, out: out.parent.mkdir() or out.write_text("{}"))
    teaching.main(["--seeds", "1", "--folder", str(tmp_path)])
    (written,) = tmp_path.glob("*/teaching.json")
    assert f"Numbers: {written}" in capsys.readouterr().out


def test_settings_that_do_not_fit_are_one_sentence(capsys):
    with pytest.raises(SystemExit, match="steps must be a multiple of evaluate_every = 10, got 7."):
        teaching.main(["--steps", "7"])
    with pytest.raises(ValueError, match="seeds must be a whole number of at least 1, got 0"):
        teaching.StudySettings(seeds=0)
