"""The audit of what people bring: replies and scores in files, rewards in arrays, two audits beside each other."""

import csv
import gzip
import io
import itertools
import json
import pathlib
import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from conftest import ROOT

from rvlib.audit import (
    audit_files,
    audit_rewards,
    compare,
    exchange,
    exchange_rows,
    export,
    measurements_of,
    probes,
    report,
    report_figures,
    report_rows,
    verdict,
)
from rvlib.audit.audited import Audit
from rvlib.audit.command import main
from rvlib.audit.comparison import Change, Comparison
from rvlib.audit.verdicts import answer, interval

PROMPTS = [f"question {i}" for i in range(12)]
REPLIES = [[f"{'word ' * (1 + (i * 7 + j * 5) % 11)}{i} {j}" for j in range(4)] for i in range(12)]
TRUTH = np.random.default_rng(0).normal(size=(12, 4))
LENGTH = np.array([[float(len(reply)) for reply in row] for row in REPLIES])


def written(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def by_reply(**columns):
    """Rows of a reply each, with columns (prompts, replies)."""
    return [
        {"prompt": prompt, "reply": reply} | {name: values[i][j] for name, values in columns.items()}
        for i, prompt in enumerate(PROMPTS)
        for j, reply in enumerate(REPLIES[i])
    ]


def by_prompt(**columns):
    """Rows of a prompt each."""
    return [
        {"prompt": prompt, "replies": REPLIES[i]} | {name: list(values[i]) for name, values in columns.items()}
        for i, prompt in enumerate(PROMPTS)
    ]


@pytest.fixture
def files(tmp_path):
    """Replies, and scores of two reward models and of a ground truth."""
    scores = by_reply(noisy=TRUTH + LENGTH / 10, truth=TRUTH)
    return written(tmp_path / "replies.jsonl", by_reply()), written(tmp_path / "scores.jsonl", scores)


def test_an_audit_of_files_is_that_of_the_arrays(files, tmp_path):
    audit = audit_files(*files, ground_truth="truth", policy="a policy", group=3, folder=tmp_path / "run")
    assert list(audit.reward_models) == ["noisy"] and audit.policy == {"name": "a policy"}
    expected = measurements_of(TRUTH + LENGTH / 10, TRUTH, group=3)
    for key in ("covariance", "harm_aware", "reward_variance", "signal_to_noise", "flat_groups", "group"):
        assert audit.reward_models["noisy"][key] == pytest.approx(expected[key]), key
    assert audit.reward_models["noisy"]["probes"]["length"][0] > 0.3
    assert Audit.load(tmp_path / "run") == audit
    arrays = audit_rewards({"noisy": TRUTH + LENGTH / 10}, TRUTH, prompts=PROMPTS, replies=REPLIES, group=3)
    assert arrays.reward_models == audit.reward_models and arrays.order == audit.order


@pytest.mark.parametrize("name", ["replies.jsonl", "replies.jsonl.gz", "replies.json", "replies.parquet"])
@pytest.mark.parametrize("layout", [by_reply, by_prompt])
def test_every_layout_and_format_is_the_same_replies_and_scores(tmp_path, name, layout):
    path = tmp_path / name
    rows = layout(log_prob=-LENGTH, score=TRUTH, ended=TRUTH > -1)
    rows = json.loads(json.dumps(rows, default=lambda value: value.item()))
    if path.suffix == ".parquet":
        pandas = pytest.importorskip("pandas", reason="pandas, which reads parquet, is not installed")
        pandas.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        written(path, rows)
    brought = exchange.read_replies(path)
    assert [prompt.text for prompt in brought.prompts] == PROMPTS and brought.replies == REPLIES
    assert np.array(brought.log_probs) == pytest.approx(-LENGTH)
    assert brought.ended == (TRUTH > -1).tolist()
    table = exchange.read_scores(path)
    assert list(table.scores) == ["replies"]  # after the file, since "score" says nothing
    assert table.rewards("replies", PROMPTS, REPLIES) == pytest.approx(TRUTH)


def test_the_figures_stand_beside_those_without_the_replies_that_were_cut_off(tmp_path, monkeypatch, capsys):
    ended = TRUTH > -1
    spoilt = np.where(ended, TRUTH, 9.0)  # a reward that takes what is unfinished for good
    scores = written(tmp_path / "scores.jsonl", by_reply(spoilt=spoilt.tolist(), truth=TRUTH.tolist()))
    replies = written(tmp_path / "replies.jsonl", by_reply(ended=ended.tolist()))
    audit = audit_files(replies, scores, ground_truth="truth", folder=tmp_path / "run")
    spoilt_measurements = audit.reward_models["spoilt"]
    assert audit.replies["cut_off"] == pytest.approx(1 - ended.mean())
    alone = spoilt_measurements["ended_alone"]
    assert alone["accuracy"] == [1, 1, 1] and spoilt_measurements["accuracy"][0] < 0.9
    known = np.where(ended, TRUTH, np.nan)
    assert alone["covariance"] == pytest.approx(measurements_of(known, known)["covariance"])
    assert alone["covariance"][0] > 0.5 > 0 > spoilt_measurements["covariance"][0]
    monkeypatch.setenv("COLUMNS", "80")
    report.show(audit)
    printed = capsys.readouterr().out
    assert f"4 replies of the policy to each ({1 - ended.mean():.0%} were cut off); " in " ".join(printed.split())
    assert "covariance, not cut" in printed and "accuracy, not cut off" in (tmp_path / "run/audit.html").read_text()
    none_ended = written(tmp_path / "none.jsonl", by_reply(ended=np.zeros_like(ended).tolist()))
    audit = audit_files(none_ended, scores, ground_truth="truth")
    assert audit.reward_models["spoilt"]["ended_alone"] == {
        "covariance": None,
        "accuracy": None,
        "reward_variance": None,
    }
    rows = by_prompt(ended=[[True]] * 12)
    with pytest.raises(
        ValueError, match='^[^\n]*, line 1, must have one "ended", true or false, for each of 4 [^\n]*\\.$'
    ):
        exchange.read_replies(written(tmp_path / "few.jsonl", rows))


def test_control_characters_of_a_reply_are_read_as_they_are(tmp_path):
    texts = ["a\x01\x1b[31mb", "c\x7f"]
    table = tmp_path / "r.csv"
    table.write_text("prompt,reply,mine\n" + "".join(f"{p},{r},{len(p + r)}\n" for p in ("q", "p") for r in texts))
    lines = written(tmp_path / "r.jsonl", [{"prompt": p, "reply": r} for p in ("q", "p") for r in texts])
    assert exchange.read_replies(table).replies == exchange.read_replies(lines).replies == [texts, texts]
    audit_files(table, [table], folder=tmp_path / "new" / "folder")
    assert Audit.load(tmp_path / "new" / "folder").reward_models["mine"]["rewards"][0] == [9, 3]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_table_that_is_not_in_utf_8_is_one_sentence(tmp_path, encoding):
    path = tmp_path / "r.csv"
    path.write_text("prompt,reply\nä,b\n", encoding=encoding)
    with pytest.raises(ValueError, match="^[^\n]*r.csv must be JSON lines or CSV in UTF-8, or parquet, [^\n]*\\.$"):
        exchange.read_replies(path)


def test_columns_of_parquet_files_are_read_whatever_their_types(tmp_path):
    pandas = pytest.importorskip(
        "pandas", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
    )
    frame = pandas.DataFrame(by_reply(mine=TRUTH))
    path = tmp_path / "s.parquet"
    expected = exchange.read_scores(written(tmp_path / "s.jsonl", by_reply(mine=TRUTH))).scores
    for changed in (
        frame.assign(prompt=pandas.Categorical(frame["prompt"])),
        frame.set_index("prompt"),
        frame.groupby("prompt", sort=False).agg(list).reset_index().rename(columns={"reply": "replies"}),
    ):
        changed.to_parquet(path)
        assert exchange.read_scores(path).scores == expected
    frame.assign(day=pandas.Timestamp("2026-01-01")).to_parquet(path)
    table = exchange.read_scores(path)
    assert table.scores == expected and table.no_scores == ["day"]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="^[^\n]*s.parquet must be a whole parquet file, [^\n]*; copy it again\\.$"):
        exchange.read_scores(path)


def test_a_table_with_spaces_after_its_commas_is_the_same_table(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text('prompt, reply, helpful\np, "a, b", 1\np, c, 2\n')
    spaced = exchange.read_scores(path)
    path.write_text('prompt,reply,helpful\np,"a, b",1\np,c,2\n')
    assert spaced == exchange.read_scores(path)
    assert spaced.scores == {"helpful": {("p", "a, b"): 1.0, ("p", "c"): 2.0}}
    path.write_text("prompt,reply,helpful\np, c,2\n")  # where the first line has none, a space is the reply's
    assert exchange.read_scores(path).scores == {"helpful": {("p", " c"): 2.0}}


def test_a_score_of_a_reply_with_another_end_is_told(files, tmp_path):
    scores = written(tmp_path / "s.jsonl", [row | {"reply": row["reply"] + "\n"} for row in by_reply(mine=TRUTH)])
    with pytest.raises(ValueError, match="^[^\n]* \\(it has one that differs in spaces or line breaks at an end\\); "):
        audit_files(files[0], scores)


def test_files_of_scores_may_be_any_iterable_and_must_be_some(files):
    assert list(audit_files(files[0], iter([files[1]])).reward_models) == ["noisy", "truth"]
    with pytest.raises(ValueError, match="^scores must be at least one file of scores, got none\\.$"):
        audit_files(files[0], [])


def test_a_reply_with_a_line_separator_of_unicode_comes_back(tmp_path):
    rows = [{"prompt": prompt, "replies": [f"a\u2028b {prompt}", "c\x85d"]} for prompt in ("one", "two")]
    brought = exchange.read_replies(written(tmp_path / "replies.jsonl", rows))
    export.write_replies(tmp_path / "export.jsonl", brought.prompts, brought.replies)
    assert exchange.read_replies(tmp_path / "export.jsonl").replies == brought.replies


def test_conversations_are_prompts_and_replies(tmp_path):
    user, system = {"role": "user", "content": "q"}, {"role": "system", "content": "s"}
    rows = [
        {"prompt": [user], "completion": [{"role": "assistant", "content": "a"}]},
        {"prompt": [user], "completion": "b"},
        {"prompt": [system, user], "response": "a"},
        {"prompt": [system, user], "response": "c"},
    ]
    brought = exchange.read_replies(written(tmp_path / "r.jsonl", rows))
    assert [prompt.text for prompt in brought.prompts] == ["q", "system: s\n\nuser: q"]
    assert brought.replies == [["a", "b"], ["a", "c"]] and len(brought.prompts[1].messages) == 2


def test_a_score_of_null_abstains_and_is_counted(files, tmp_path):
    rows = by_reply(judge=TRUTH.tolist(), truth=TRUTH.tolist())
    for place in (0, 5, 8, 9, 10):  # of the third prompt one is left
        rows[place]["judge"] = None
    audit = audit_files(files[0], written(tmp_path / "s.jsonl", rows), ground_truth="truth")
    judge = audit.reward_models["judge"]
    assert judge["unscored"] == 5 and judge["prompts"] == 11 and judge["accuracy"] == [1, 1, 1]
    assert judge["rewards"][0][0] is None and judge["per_prompt"]["covariance"][2] is None
    assert "5 replies have no reward of judge, and are left out of its numbers." in audit.advice
    report.page(audit)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda rows: rows[:-2], "must have a score 'judge' for each reply, got none for 2 of 48, the first of them "),
        (lambda rows: [*rows, rows[0] | {"judge": 9.0}], "got two that differ for 1 replies, the first 'question 0'"),
        (lambda rows: [{**row, "judge": "good"} for row in rows], 'must have a column of numbers beside "prompt" and'),
        (lambda rows: [{"question": "q"}], 'line 1, must have a "prompt", got question'),
        (lambda rows: [{"prompt": "q"}], 'line 1, must have one "reply" or a list of "replies", got prompt'),
        (lambda rows: [rows[0] | {"judge": 1e999}], "line 1, must have finite scores, got 'judge' = inf"),
        (
            lambda rows: [{"prompt": "q", "replies": ["a", "b"], "judge": [1]}],
            "must have one 'judge' for each of its 2",
        ),
        (lambda rows: ["text"], "line 1, must be an object with a prompt and replies, got str"),
        (lambda rows: [rows[0] | {"judge": 10**400}], "line 1, must have finite scores, got 'judge' = 1000"),
        (lambda rows: [rows[0] | {"judge": 2**60 + 1}], "line 1, must have scores that a number of 64 bits tells from"),
        (
            lambda rows: [rows[0] | {"scores": {"judge": 1}}],
            "line 1, must have each score once, got 'judge' beside \"scores\" and in them.",
        ),
    ],
)
def test_scores_that_do_not_fit_are_one_sentence(files, tmp_path, change, expected):
    scores = written(tmp_path / "s.jsonl", change(by_reply(judge=TRUTH.tolist())))
    with pytest.raises(ValueError, match="^[^\n]*\\.$") as error:
        audit_files(files[0], scores)
    assert expected in str(error.value)


def test_scores_of_other_replies_are_left_out_and_told(files, tmp_path):
    rows = [*by_reply(judge=TRUTH.tolist()), {"prompt": "of another file", "reply": "r", "judge": 3}]
    audit = audit_files(files[0], written(tmp_path / "s.jsonl", rows))
    assert audit.prompts["left_out"] == ["1 scores of s.jsonl are of other replies, such as 'of another file' → 'r'"]


def test_a_reply_drawn_twice_is_two_replies_with_one_score(tmp_path):
    rows = [{"prompt": p, "reply": r, "judge": float(len(r))} for p in "ab" for r in ("x", "x", "long")]
    path = written(tmp_path / "both.jsonl", rows)
    audit = audit_files(path, path)
    assert audit.reward_models["both" if "both" in audit.reward_models else "judge"]["rewards"] == [
        [1, 1, 4],
        [1, 1, 4],
    ]
    assert audit.replies["same"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_an_export_is_the_same_replies_again(tmp_path, name):
    rows: list = [
        {"prompt": "a", "replies": ["x", "y", "x"], "log_probs": [-1.0, -2.0, -1.5], "ended": [True, True, False]},
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}], "replies": ["y", "y", "y"]},
    ]
    rows[1] |= {"log_probs": [-3.0] * 3, "ended": [True] * 3, "reference": "good"}
    rows += [{"prompt": "a", "replies": [], "chosen": c, "rejected": "bad"} for c in ("x", "other")]
    rows += [{"prompt": "a", "replies": [], "chosen": "other", "rejected": "x"}]
    rows += [{"prompt": "a", "prompt_copy": 1, "replies": ["x", "z", "z"], "log_probs": [-1] * 3, "ended": [True] * 3}]
    brought = exchange.read_replies(written(tmp_path / "r.jsonl", rows))
    count = export.write_replies(
        tmp_path / name, brought.prompts, brought.replies, brought.pairs, brought.log_probs, brought.ended
    )
    again = exchange.read_replies(tmp_path / name)
    assert count == 7 and [sorted(row) for row in again.replies] == [["x", "x", "y"], ["y"] * 3, ["x", "z", "z"]]
    assert [prompt.messages for prompt in again.prompts] == [prompt.messages for prompt in brought.prompts]
    assert again.prompts[1].reference_reply == "good" and again.log_probs == [[-1.0, -1.5, -2.0], [-3.0] * 3, [-1] * 3]
    assert again.ended == [[True, False, True], [True] * 3, [True] * 3]
    pairs = [["other", "bad"], ["other", "x"], ["x", "bad"]]
    of_file, exported = (sorted([pair.chosen, pair.rejected] for pair in file.pairs) for file in (brought, again))
    assert exported == of_file == pairs


@pytest.mark.parametrize("column", ["times_drawn", "prompt_copy"])
@pytest.mark.parametrize("value", [1.5, -1, "2", True, [1]])
def test_a_count_that_is_no_whole_number_is_refused(tmp_path, column, value):
    path = written(tmp_path / "r.jsonl", [{"prompt": "a", "reply": "x", column: value}])
    with pytest.raises(ValueError, match=f'^[^\n]*, line 1, must have a whole number [^\n]*"{column}"[^\n]*\\.$'):
        exchange.read_replies(path)


def test_a_count_of_null_is_one_that_is_absent(tmp_path):
    rows = [{"prompt": prompt, "reply": reply} for prompt in "ab" for reply in "xy"]
    with_null = [row | {"times_drawn": None, "prompt_copy": None} for row in rows]
    first, second = (exchange.read_replies(written(tmp_path / "r.jsonl", each)) for each in (rows, with_null))
    assert first == second and first.replies == [["x", "y"], ["x", "y"]]


def test_prompts_must_have_as_many_replies_or_be_cut(tmp_path):
    rows = by_reply()
    path = written(tmp_path / "r.jsonl", rows[:-1] + [{"prompt": "alone", "reply": "r"}])
    with pytest.raises(ValueError, match="^Each prompt must have as many replies, got 1 to line 48 [^\n]*\\.$"):
        exchange.read_replies(path)
    brought = exchange.read_replies(path, num_generations=3)
    assert len(brought.prompts) == 12 and {len(row) for row in brought.replies} == {3}
    assert brought.left_out == ["line 48: 1 replies, fewer than 3"]
    expected = "^An audit needs at least two prompts and two replies to each, got "
    with pytest.raises(ValueError, match=f"{expected}1 and 4 "):
        exchange.read_replies(path, limit=1, num_generations=4)
    with pytest.raises(ValueError, match=f"{expected}0 and 9 [^\n]* \\(13 prompts have fewer than 9 replies\\); "):
        exchange.read_replies(path, num_generations=9)
    copies = [{"prompt": "p", "prompt_copy": i // 4, "reply": row["reply"]} for i, row in enumerate(rows)]
    with pytest.raises(ValueError, match=f"{expected}1 different and 4 in "):
        exchange.read_replies(written(tmp_path / "copies.jsonl", copies))


@pytest.mark.parametrize(
    "cut", [lambda packed: packed[:-20], lambda packed: packed[:2], lambda packed: packed[:-8] * 2]
)
def test_a_gzipped_file_that_is_not_whole_is_one_sentence(tmp_path, cut):
    path = written(tmp_path / "r.jsonl.gz", by_reply())
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(ValueError, match="^[^\n]*r.jsonl.gz must be a whole file [^\n]*; copy it again\\.$"):
        exchange.read_replies(path)


def test_a_log_probability_of_nan_is_one_that_is_not_known(files, tmp_path):
    rows = by_reply(log_prob=[[float("nan"), -1.0, -1.0, -1.0]] * len(PROMPTS))
    path = written(tmp_path / "r.jsonl", rows)
    assert "NaN" in path.read_text() and exchange.read_replies(path).log_probs is None
    audit_files(path, files[1], folder=tmp_path / "run")


def test_two_scores_that_know_no_pair_in_common_are_ordered(tmp_path):
    rows = [row | {"chosen": "good", "rejected": "bad"} for row in by_prompt()]
    scores = by_reply(first=TRUTH.tolist(), second=(-TRUTH).tolist())
    for i, prompt in enumerate(PROMPTS):
        for reply, score in (("good", 1.0), ("bad", 0.0)):
            known = {"first": score if i < 6 else None, "second": None if i < 6 else score}
            scores.append({"prompt": prompt, "reply": reply} | known)
    replies = written(tmp_path / "r.jsonl", rows)
    audit = audit_files(replies, written(tmp_path / "s.jsonl", scores), folder=tmp_path / "run")
    assert audit.order["by"] == "preference_covariance"
    assert audit.order["gaps"] == [{"difference": None, "prompts": None, "apart": False}]
    assert "It cannot be compared with second, the next" in answer(audit)
    assert audit.reward_models["first"]["pairs"] == 6 and audit.reward_models["first"]["preferences"][6] == [None, None]
    assert Audit.load(tmp_path / "run") == audit


def test_a_ground_truth_of_none_of_the_replies_is_one_sentence(files, tmp_path):
    scores = by_reply(judge=TRUTH.tolist(), truth=[[None] * 4] * len(PROMPTS))
    scores.append({"prompt": "of another file", "reply": "r", "truth": 1.0})
    expected = "^A score, and with it the ground truth, must be there [^\n]*, got 0 of 12 by judge; [^\n]*\\.$"
    with pytest.raises(ValueError, match=expected):
        audit_files(files[0], written(tmp_path / "s.jsonl", scores), ground_truth="truth")


def test_a_ground_truth_of_few_prompts_is_used_where_that_is_asked_for(files, tmp_path):
    truth = [[None] * 4 if i > 2 else row for i, row in enumerate(TRUTH.tolist())]
    scores = written(tmp_path / "s.jsonl", by_reply(judge=TRUTH.tolist(), truth=truth))
    with pytest.raises(ValueError, match="^A score, and with it the ground truth, [^\n]* got 3 of 12 by judge; "):
        audit_files(files[0], scores, ground_truth="truth")
    audit = audit_files(files[0], scores, ground_truth="truth", min_scored=0.2)
    assert "9 of 12 prompts: fewer than two replies known to judge and the ground truth" in audit.prompts["left_out"]


def test_columns_that_hold_no_scores_are_named(files, tmp_path):
    rows = by_reply(judge=TRUTH.tolist(), why=[["clear"] * 4] * 12)
    audit = audit_files(files[0], written(tmp_path / "s.jsonl", rows))
    assert list(audit.reward_models) == ["judge"]
    assert "columns of s.jsonl that hold no scores: why" in audit.prompts["left_out"]


@pytest.mark.parametrize("text", ["0.7", "0,7", "12 %", "N/A"])
def test_a_score_that_is_written_as_text_is_told_by_line(files, tmp_path, text):
    rows = by_reply(judge=TRUTH.tolist(), truth=TRUTH.tolist())
    for row in rows[1:] if text != "N/A" else rows[1:2]:
        row["judge"] = text
    expected = f"s.jsonl, line 2, must have a number or null as 'judge', got '{text}'; write it as a number.$"
    with pytest.raises(ValueError, match=expected):
        audit_files(files[0], written(tmp_path / "s.jsonl", rows), ground_truth="truth")


def test_a_ground_truth_alone_is_no_audit(files, tmp_path):
    scores = written(tmp_path / "s.jsonl", by_reply(truth=TRUTH.tolist()))
    with pytest.raises(
        ValueError, match="^There must be a score beside the ground truth, got 'truth' alone; [^\n]*\\.$"
    ):
        audit_files(files[0], scores, ground_truth="truth")
    written(scores, by_reply(truth=TRUTH.tolist(), judge=[["good"] * 4] * 12))
    with pytest.raises(ValueError, match="^There must be a score [^\n]*, got 'truth' beside judge, without numbers; "):
        audit_files(files[0], scores, ground_truth="truth")


def test_pairs_without_scores_are_left_out_alone(tmp_path):
    rows = [row | {"chosen": "good", "rejected": "bad"} for row in by_prompt()]
    scores = by_reply(judge=TRUTH.tolist())
    scores += [{"prompt": p, "reply": r, "judge": v} for p in PROMPTS[1:] for r, v in (("good", 1.0), ("bad", 0.0))]
    audit = audit_files(written(tmp_path / "r.jsonl", rows), written(tmp_path / "s.jsonl", scores))
    assert audit.reward_models["judge"]["pairs"] == 11 and audit.reward_models["judge"]["preference_accuracy"][0] == 1
    assert "1 of 12 pairs: no scores of both replies by judge" in audit.prompts["left_out"]


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"log_prob": 2.5}, "must have one log-probability, of the whole reply, for each of 1 replies, got .2.5"),
        ({"log_prob": -(10**400)}, "must have one log-probability, [^\n]*, got .-1000"),
        ({"times_drawn": 10**400}, 'must have a whole number of "times_drawn" of one reply, got 1000'),
        (
            {"reply": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "thanks"}]},
            "must have a reply whose last turn is the assistant's, got one of 'user'",
        ),
        ({"reply": None}, 'must have one "reply" or a list of "replies", got prompt; rename, add or leave out one\\.$'),
        ({"reply": "\ud83d"}, "must have a reply of whole characters, got half a one, which UTF-8 cannot write"),
        ({"prompt": []}, "must have a prompt that is a text, got list"),
        (
            {"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            "must have a prompt whose last turn is not the assistant's, which is the reply",
        ),
    ],
)
def test_a_row_that_is_wrong_is_told_by_line(tmp_path, row, expected):
    path = written(tmp_path / "r.jsonl", [{"prompt": "q", "reply": "a"}, {"prompt": "q", "reply": "b"} | row])
    with pytest.raises(ValueError, match=f"r.jsonl, line 2, {expected}"):
        exchange.read_replies(path)


def test_a_row_without_a_prompt_is_told_by_its_keys(tmp_path):
    turns = [{"role": "user", "content": "q"}]
    for row, expected in (
        ({"messages": turns, "reply": "a"}, "messages, reply"),
        ({"text": "q", "documents": [{"title": "t"}], "reply": "a"}, "text, documents, reply"),
        (
            {f"column {i}": i for i in range(100)},
            ", ".join(f"column {i}" for i in range(12)) + " and 88 more",
        ),
    ):
        with pytest.raises(ValueError, match=f'line 1, must have a "prompt", got {expected}; rename one of them\\.$'):
            exchange.read_replies(written(tmp_path / "r.jsonl", [row]))


def test_columns_of_the_rows_numbers_are_no_scores(files, tmp_path):
    """They are what pandas writes beside the columns of a table, and how it reads them again."""
    for name in ("", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__"):
        rows = [{name: i} | row for i, row in enumerate(by_reply(judge=TRUTH.tolist()))]
        assert list(exchange.read_scores(written(tmp_path / "s.jsonl", rows)).scores) == ["judge"]


def test_what_a_file_names_twice_is_refused(files, tmp_path):
    table = tmp_path / "s.csv"
    table.write_text("prompt,reply,judge,judge\nq,a,1,2\n")
    with pytest.raises(ValueError, match="s.csv must have each column once, got two of the name 'judge'; "):
        exchange.read_scores(table)
    table.write_text("prompt;reply;judge\nq;a;1\n")
    with pytest.raises(ValueError, match="s.csv must have its cells separated by commas, got semicolons; "):
        exchange.read_scores(table)
    table.write_text("prompt\treply\tjudge\nq\ta\t1\n")
    with pytest.raises(ValueError, match="s.csv must have its cells separated by commas, got tabs; [^\n]* .tsv\\.$"):
        exchange.read_scores(table)
    text = tmp_path / "s.txt"
    text.write_text("prompt,reply,judge\nq,a,1\n")
    with pytest.raises(ValueError, match="line 1 is none; end the name of a table in .csv or .tsv\\.$"):
        exchange.read_scores(text)
    lines = tmp_path / "s.jsonl"
    lines.write_text('{"prompt": "q", "reply": "a", "judge": 1, "judge": 2}\n')
    with pytest.raises(ValueError, match="s.jsonl, line 1, must have each key once, got 'judge' twice; "):
        exchange.read_scores(lines)
    with pytest.raises(ValueError, match="^Files of scores must differ in their names, "):
        audit_files(files[0], [files[1], files[1]])
    with pytest.raises(ValueError, match="^limit must be a whole number of at least 1, got -1"):
        exchange.read_replies(files[0], limit=-1)


def test_preferences_of_the_replies_file_are_audited_where_they_are_scored(tmp_path):
    rows = [row | {"chosen": "good", "rejected": "bad"} for row in by_prompt()]
    scores = by_reply(judge=TRUTH.tolist())
    pairs = [{"prompt": p, "reply": r, "judge": v} for p in PROMPTS for r, v in (("good", 1.0), ("bad", 0.0))]
    replies = written(tmp_path / "r.jsonl", rows)
    audit = audit_files(replies, written(tmp_path / "s.jsonl", scores + pairs))
    assert audit.reward_models["judge"]["preference_accuracy"][0] == 1 and audit.order["by"] == "preference_covariance"
    assert audit_files(replies, written(tmp_path / "t.jsonl", scores)).order["by"] == "reward_variance"
    rows[1] |= {"chosen": "bad"}
    audit = audit_files(written(replies, rows), written(tmp_path / "s.jsonl", scores + pairs))
    assert audit.reward_models["judge"]["pairs"] == 11 and audit.reward_models["judge"]["preference_accuracy"][0] == 1
    assert "line 2: chosen and rejected replies that are the same" in audit.prompts["left_out"]


def test_a_report_may_keep_no_texts(files, tmp_path):
    rows = by_reply(against=(-TRUTH).tolist(), truth=TRUTH.tolist())
    rows.append({"prompt": "of another file", "reply": "and its reply", "truth": 1.0})
    scores = written(tmp_path / "s.jsonl", rows)
    for texts in (True, False):
        folder = tmp_path / str(texts)
        audit = audit_files(files[0], scores, ground_truth="truth", texts=texts, folder=folder)
        assert any(json.dumps(reply) in json.dumps(audit.reward_models) for row in REPLIES for reply in row) == texts
        assert "1 scores of s.jsonl are of other replies" in audit.prompts["left_out"][0]
        for file in folder.iterdir():
            assert ("of another file" in file.read_text(encoding="utf-8")) == texts


def test_a_report_without_texts_numbers_the_openings(tmp_path):
    rows = [
        {"prompt": prompt, "reply": f"{opening} {i} {j}", "judge": float((opening == "Dear Alice") + j * 0.1)}
        for i, prompt in enumerate(PROMPTS)
        for j, opening in enumerate(("Dear Alice", "Dear Alice", "Hello Bob", "Hello Bob"))
    ]
    path = written(tmp_path / "r.jsonl", rows)
    for texts, expected in ((True, "begins “dear alice …”"), (False, "opening 1")):
        audit = audit_files(path, path, texts=texts, folder=tmp_path / str(texts))
        assert audit.reward_models["judge"]["probes"][expected][0] > 0.9
        for file in (tmp_path / str(texts)).iterdir():
            assert ("dear alice" in file.read_text(encoding="utf-8").lower()) == texts


def test_replies_and_scores_may_be_tables(files, tmp_path):
    """CSV with a row for each reply; an empty cell is a score that is not known, an empty reply is a reply."""
    rows = by_reply(judge=TRUTH.tolist(), truth=TRUTH.tolist())
    rows[0]["judge"] = rows[5]["reply"] = ""
    rows[7]["reply"] = 'with a comma, "quotes"\nand a second line'
    for name, separator in (("s.csv", ","), ("s.tsv.gz", "\t")):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
        path, content = tmp_path / name, text.getvalue().encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        replies = exchange.read_replies(path)
        assert replies.replies[1][1] == "" and replies.replies[1][3] == rows[7]["reply"]
        judge = audit_files(path, path, ground_truth="truth").reward_models["judge"]
        assert judge["unscored"] == 1 and judge["rewards"][0][1] == TRUTH[0, 1] and judge["accuracy"][0] == 1
    (tmp_path / "s.csv").write_text(f"prompt,reply,judge\nq,{'long ' * 50_000},{2**60 + 1}\n")
    with pytest.raises(ValueError, match=f"s.csv, row 1, must have scores [^\n]* got 'judge' = {2**60 + 1}; "):
        exchange.read_scores(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text("prompt,reply,judge\nq,one, two,3\n")
    with pytest.raises(ValueError, match="s.csv, row 1, must have as many cells as the first line names; [^\n]*\\.$"):
        exchange.read_scores(tmp_path / "s.csv")


def test_a_score_of_too_few_prompts_is_one_sentence(files, tmp_path):
    scores = written(tmp_path / "s.jsonl", by_reply(judge=TRUTH[:10].tolist() + [[None] * 4] * 2))
    expected = "^A score must be there for [^\n]* at least 90% of the prompts, got 10 of 12 by judge; [^\n]*\\.$"
    with pytest.raises(ValueError, match=expected):
        audit_files(files[0], scores)
    assert audit_files(files[0], scores, min_scored=0.8).reward_models["judge"]["prompts"] == 10


@pytest.mark.parametrize("layout", [{"indent": 1}, {}])
@pytest.mark.parametrize("key, path", [("data", ".data"), ("my rows", '.["my rows"]')])
def test_an_array_within_an_object_is_told_by_its_key(files, tmp_path, layout, key, path):
    wrapped = tmp_path / "wrapped.json"
    wrapped.write_text(json.dumps({"version": 2, key: by_reply(judge=TRUTH.tolist())}, **layout))
    for read in (exchange.read_replies, exchange.read_scores):
        with pytest.raises(ValueError) as error:
            read(wrapped)
        assert str(error.value) == (
            f"{wrapped} must hold a row a line or an array of rows, but is one object whose key {key} has an array of "
            f"48 rows; save that array alone, as `jq '{path}'` does."
        )


# The command


def test_the_command_needs_no_torch_for_files(files, tmp_path):
    code = """if True:
        import sys

        class NoTorch:
            def find_spec(name, *_):
                if name.split(".")[0] in ("torch", "transformers", "datasets", "accelerate"):
                    raise ModuleNotFoundError(f"No module named '{name}'", name=name)

        sys.meta_path.insert(0, NoTorch)
        from rvlib.cli import main

        main(sys.argv[1:])
    """
    arguments = ["audit", "--replies", files[0], "--scores", files[1], "--ground-truth", "truth"]
    command = [sys.executable, "-c", code, *map(str, arguments), "--folder", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "training on noisy begins to raise truth" in done.stdout.replace("\n", "")
    assert Audit.load(tmp_path / "run").made["command"].startswith("rvlib audit --replies")


def test_the_command_exports_and_compares(files, tmp_path, capsys):
    exported = tmp_path / "to-score.jsonl"
    main(["--replies", str(files[0]), "--export", str(exported)])
    assert capsys.readouterr().out == f"48 replies to be scored: {exported}\n"
    assert json.loads(exported.read_text().splitlines()[0]) == {
        "prompt": PROMPTS[0],
        "reply": REPLIES[0][0],
        "times_drawn": 1,
    }
    main(["--replies", str(files[0]), "--scores", str(files[1]), "--dry-run", "--folder", str(tmp_path / "dry")])
    assert "Nothing is to be drawn or scored" in capsys.readouterr().out and not (tmp_path / "dry").exists()
    audit_files(*files, folder=tmp_path / "run")
    main(["--compare", str(tmp_path / "run"), str(tmp_path / "run"), "--folder", str(tmp_path / "both")])
    out = capsys.readouterr().out
    assert "paired over 12 prompts" in out and max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 80
    change = Change("judge", "harm-aware acc.", *[[-0.62, -0.75, -0.5]] * 3)
    assert max(map(len, Comparison(("a", "b"), 12, [change]).text().splitlines())) <= 80
    assert json.loads((tmp_path / "both/comparison.json").read_text())["prompts"] == 12
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0 and "--scores" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (
            ["--replies", "none.jsonl", "--scores", "s.jsonl"],
            "^none.jsonl must be where this command can read [^\n]* is not \\(it is not there\\); [^\n]*\\.$",
        ),
        (
            ["--replies", "R1", "--scores", "S"],
            "^[^\n]*/replise.jsonl must be [^\n]*there; [^\n]*/replies.jsonl is here",
        ),
        (["--replies", "R", "--scores", "S1"], "^[^\n]*/score.jsonl must be [^\n]*there; [^\n]*/scores.jsonl is here"),
        (["--replies", "R1", "--export", "e.jsonl"], "^[^\n]*there; [^\n]*/replies.jsonl is here"),
        (
            ["--replies", "R1", "--scores", "S", "--reward-model", "sentiment"],
            "^[^\n]*there; [^\n]*/replies.jsonl is here",
        ),
        (
            ["--compare", "none", "none"],
            "^An audit to compare must be a folder with audit.json, got none, but it is not there\\.$",
        ),
        (
            ["--compare", "C1", "C"],
            "^An audit to compare must be [^\n]*, but it is not there; [^\n]*/run-a is here\\.$",
        ),
        (
            ["--replies", "R", "--scores", "S", "--ground-truth", "x"],
            "^The ground truth must be one of the scores noisy",
        ),
        (["--replies", "R", "--scores", "S", "--group", "9"], "^group must be from 2 to the 4 replies [^\n]*\\.$"),
        (
            ["--replies", "R", "--scores", "S", "--prompts", "p.txt", "--max-new-tokens", "9"],
            "^Replies that were drawn elsewhere [^\n]*, got --max-new-tokens, --prompts beside it; leave these out\\.$",
        ),
        (
            ["--replies", "R", "--scores", "S", "--export", "e.jsonl"],
            "^--export writes [^\n]*, got --scores beside it; ",
        ),
        (["--replies", "R", "--export", "e.jsonl", "--dry-run"], "^--export writes [^\n]*, got --dry-run beside it; "),
        (
            ["--replies", "R", "--export", "R"],
            "^Replies must be exported to another file than [^\n]*, which has them\\.$",
        ),
        (
            ["--replies", "R", "--scores", "S", "--dtype", "bfloat16"],
            "^Scores of files need no model, [^\n]*, got --dtype ",
        ),
        (
            ["--compare", "A", "B", "--no-texts"],
            "^--compare takes two finished audits, [^\n]*, got --no-texts beside it; ",
        ),
        (["--replies", "none.jsonl", "--scores", "S", "--dry-run"], "^none.jsonl must be where this command can read "),
        (["--replies", "R", "--export", "e.csv"], "^A file of replies to be scored must end in .jsonl, [^\n]*\\.$"),
        (
            ["--replies", "R", "--export", "E"],
            "^[^\n]*/e.jsonl must be where [^\n]*, but is not \\(Is a directory\\); ",
        ),
        (["--compare", "R", "R"], "^An audit must be JSON, got [^\n]*; name an audit.json\\.$"),
    ],
)
def test_what_is_wrong_with_files_is_one_sentence(files, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.setenv("RVLIB_DATA", str(tmp_path))
    places = {"R": str(files[0]), "S": str(files[1]), "R1": str(tmp_path / "replise.jsonl")}
    places |= {"S1": str(tmp_path / "score.jsonl"), "C": str(tmp_path / "run-a"), "C1": str(tmp_path / "run-b")}
    places |= {"E": str(tmp_path / "e.jsonl")}
    (tmp_path / "run-a").mkdir()
    (tmp_path / "e.jsonl").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main([places.get(argument, argument) for argument in arguments])
    assert re.search(expected, str(stopped.value.code))


def test_exported_replies_come_back_as_scores(files, tmp_path):
    brought = exchange.read_replies(files[0])
    for name in ("out.jsonl", "out.parquet"):
        path = tmp_path / name
        assert export.write_replies(path, brought.prompts, brought.replies) == 48
        rows = [row.columns for row in exchange_rows.read_rows(path)]
        scored = written(tmp_path / "back.jsonl", [row | {"judge": len(row["reply"])} for row in rows])
        assert audit_files(files[0], scored).reward_models["judge"]["rewards"] == LENGTH.tolist()


# Arrays


def test_an_audit_of_arrays_in_three_lines():
    audit = audit_rewards(TRUTH)
    assert list(audit.reward_models) == ["the reward model"] and audit.order["by"] == "reward_variance"
    assert verdict(audit, "the reward model").startswith("Without a ground truth only its speed is known: ")
    for rewards, truth, options, expected in (
        ({}, None, {}, "rewards must hold at least one reward model"),
        (TRUTH[0], None, {}, r"rewards of the reward model must be finite numbers of shape \(prompts, replies\)"),
        (TRUTH, TRUTH[:, :2], {}, r"All rewards must be of the same replies, shape \(12, 4\), got \(12, 2\)"),
        (TRUTH, None, {"group": 5}, "group must be at most the 4 replies to each prompt, got 5"),
        (TRUTH, None, {"prompts": PROMPTS[:3]}, r"prompts must be texts of shape \(12,\), as [^\n]* got 3 where 12"),
        (TRUTH, None, {"prompts": list(range(12))}, r"prompts must be texts of shape \(12,\), [^\n]* got a int"),
        (TRUTH, None, {"prompts": "a" * 12}, r"prompts must be texts of shape \(12,\), [^\n]* got a str"),
        (TRUTH, None, {"replies": ["abcd"] * 12}, r"replies must be texts of shape \(12, 4\), [^\n]* got a str"),
        (TRUTH, None, {"replies": [[1, 2, 3, 4]] * 12}, r"replies must be texts of shape \(12, 4\), [^\n]* got a int"),
        (TRUTH, None, {"replies": 5}, r"replies must be texts of shape \(12, 4\), [^\n]* got a int"),
        (TRUTH + 1j, None, {}, "rewards of the reward model must be numbers of shape"),
        ([[1j, 2.0], [0.0, 1.0]], None, {}, "rewards of the reward model must be numbers of shape"),
        ([[10**400, 2], [0, 1]], None, {}, "rewards of the reward model must be numbers of shape"),
        ([["a", "b"]], None, {}, "rewards of the reward model must be numbers of shape"),
        (
            [[0.0, 1.0], [2.0, np.inf]],
            None,
            {},
            "rewards of the reward model must be finite numbers, or NaN for [^\n]*, got inf for reply 2 of prompt 2",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{expected}[^\n]*\\.$"):
            audit_rewards(rewards, truth, **options)


def test_texts_may_be_numpy_arrays_and_what_is_masked_is_missing():
    expected = audit_rewards(np.where(TRUTH > 1, np.nan, TRUTH), LENGTH, prompts=PROMPTS, replies=REPLIES)
    rewards = np.ma.masked_array(TRUTH, mask=TRUTH > 1)
    audit = audit_rewards(rewards, LENGTH, prompts=np.array(PROMPTS), replies=np.array(REPLIES))
    assert audit.reward_models == expected.reward_models and audit.prompts == expected.prompts
    assert audit.reward_models["the reward model"]["unscored"] == (TRUTH > 1).sum() > 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda audit: audit["reward_models"]["judge"].pop("rewards"),
        lambda audit: audit["reward_models"]["judge"].pop("covariance"),
        lambda audit: audit["reward_models"]["judge"].update(per_prompt=None),
        lambda audit: audit["prompts"].pop("names"),
        lambda audit: audit["prompts"].update(fingerprints=None),
        lambda audit: audit["prompts"].update(first_same=[1]),
        lambda audit: audit["policy"].pop("name"),
        lambda audit: audit["made"].pop("versions"),
        lambda audit: audit["sampling"].pop("num_generations"),
        lambda audit: audit.update(ground_truth=["the ground truth"]),
        lambda audit: audit.update(reward_models=None),
        lambda audit: audit.update(reward_models={"judge": None}),
        lambda audit: audit.update(reward_models={}),
        lambda audit: audit.update(ground_truth_measurements=None),
        lambda audit: audit.update(order={"by": "covariance", "names": ["other"], "gaps": []}),
        lambda audit: audit["reward_models"]["judge"]["rewards"][0].pop(),
        lambda audit: audit["reward_models"]["judge"]["rewards"].pop(),
        lambda audit: audit["reward_models"]["judge"]["rewards"][0].__setitem__(0, "good"),
        lambda audit: audit["ground_truth_measurements"].update(rewards=[[1.0, 2.0]]),
        lambda audit: audit["ground_truth_measurements"].pop("reward_variance"),
        lambda audit: audit["reward_models"]["judge"].update(rewards=5),
        lambda audit: audit["reward_models"]["judge"]["rewards"][0].__setitem__(0, 10**400),
    ],
)
def test_a_damaged_audit_is_one_sentence(tmp_path, damage):
    whole = audit_rewards({"judge": TRUTH + LENGTH}, TRUTH)
    contents = json.loads(json.dumps(asdict(whole)))
    damage(contents)
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(contents))
    for attempt in (lambda: Audit.load(tmp_path), lambda: compare(whole, Audit(**contents))):
        with pytest.raises(ValueError, match="^An audit must have [^\n]*; audit anew\\.$"):
            attempt()


def test_what_is_no_audit_is_one_sentence(tmp_path):
    audit = audit_rewards({"judge": TRUTH + LENGTH}, TRUTH)
    for text in ("[1]", "{}", '{"made": {}}', "not JSON"):
        (tmp_path / "audit.json").write_text(text)
        with pytest.raises(ValueError, match="^An audit must [^\n]*\\.$"):
            Audit.load(tmp_path)
    for other in (str(tmp_path / "absent"), 5, None):
        with pytest.raises(ValueError, match="^An audit to compare must be [^\n]*\\.$"):
            compare(audit, other)
    audit.write(tmp_path)
    assert compare(str(tmp_path), tmp_path).changes == compare(audit, audit).changes
    with pytest.raises(ValueError, match="^A verdict must be on a reward model of the audit, judge, got 'zz'\\.$"):
        verdict(audit, "zz")


@pytest.mark.parametrize(
    "rewards, expected",
    [
        (TRUTH, "Yes: judge gives the very rewards of the ground truth."),
        (np.ones((12, 4)), "No: judge gives every reply the same reward"),
        (np.arange(12)[:, None] * np.ones((12, 4)), "No: judge gives all replies to a prompt the same reward"),
        (-TRUTH, "No: judge pulls against the ground truth and would lower it (covariance -"),
        (np.random.default_rng(5).normal(size=(12, 4)), "It cannot be told: judge may have nothing to do with"),
        (2 * TRUTH + 1e-3 * LENGTH, "Yes: training on judge begins to raise the ground truth "),
        (TRUTH + 0.6 * LENGTH / LENGTH.std() + 3 * np.arange(12)[:, None], "Hardly: training on judge begins to raise"),
    ],
)
def test_the_titles_question_is_answered_in_a_sentence(rewards, expected):
    audit = audit_rewards({"judge": rewards}, TRUTH)
    answer = verdict(audit, "judge")
    assert answer.startswith(expected) and answer.count(". ") == 0
    page = report.page(audit)
    heading = page.index("</h1>")
    assert "<title>Audit of judge</title>" in page
    assert page[heading:].startswith(f'</h1><div><p class="answer"><strong>{answer.split("(")[0][:40]}')


def test_the_answer_of_several_has_the_gap_to_the_next_with_its_interval():
    noise = np.random.default_rng(3).normal(size=(2, 12, 4))
    for second, expected in (
        (noise[0], "It is ahead of b, the next, by 0.[0-9]{3} \\[0.[0-9]{3}, [0-9.]+\\] in covariance\\."),
        (
            TRUTH + 0.1 * noise[1],
            "It cannot be told apart from [^\n]*: they differ by 0.[0-9]{3} \\[-0.[0-9]{3}, [0-9.]+\\] ",
        ),
    ):
        audit = audit_rewards({"a": TRUTH + 0.1 * noise[0], "b": second}, TRUTH)
        first = verdict(audit, audit.order["names"][0])
        assert re.match(re.escape(first) + " " + expected, answer(audit))
        assert f"<strong>{answer(audit)}</strong>" in report.tables(audit)


def test_prompts_that_one_reward_model_has_not_scored_are_different_prompts_all_the_same():
    half = np.where(np.arange(12)[:, None] < 6, np.nan, TRUTH)
    audit = audit_rewards({"half": half, "whole": TRUTH + LENGTH}, TRUTH)
    assert audit.reward_models["half"]["prompts"] == 6 and audit.order["names"][0] == "half"
    assert report.sizes(audit).startswith("12 prompts, ")
    twice = audit_rewards({"half": half, "whole": TRUTH + LENGTH}, TRUTH, prompts=[f"p{i // 2}" for i in range(12)])
    assert report.sizes(twice).startswith("12 prompts (6 different), ")


@pytest.mark.parametrize("of_truth", ["reference", "ground_truth_grade"])
def test_an_audit_of_an_older_version_is_read(tmp_path, of_truth):
    audit = audit_rewards({"mine": TRUTH + LENGTH}, TRUTH)
    audit.write(tmp_path)
    path = tmp_path / "audit.json"
    older = json.loads(path.read_text())
    older |= {"teachers": older.pop("reward_models"), of_truth: older.pop("ground_truth_measurements")}
    path.write_text(json.dumps(older))
    assert Audit.load(path) == audit


def test_an_audit_prints_as_its_answer_and_main_numbers():
    for rewards in ({"mine": TRUTH + LENGTH}, {"mine": TRUTH + LENGTH, "yours": TRUTH}):
        audit = audit_rewards(rewards, TRUTH)
        first, *others = str(audit).splitlines()
        assert first == answer(audit) and others[-1] == report.sizes(audit)
        assert any("accuracy" in line for line in others)


@pytest.mark.parametrize(
    "rewards, expected",
    [
        ({1: TRUTH}, "as the label of each reward model, got 1"),
        ({None: TRUTH}, "as the label of each reward model, got None"),
        ({" ": TRUTH}, "as the label of each reward model, got ' '"),
        ({"two\nlines": TRUTH}, "as the label of each reward model, got 'two\\\\nlines'"),
        ({"the ground truth": TRUTH + LENGTH}, "as the label of each reward model, got 'the ground truth'"),
        (np.zeros((0, 3)), "at least two replies to each, got shape \\(0, 3\\)"),
    ],
)
def test_arrays_that_are_no_audit_are_one_sentence(rewards, expected):
    with pytest.raises(ValueError, match=f"^rewards [^\n]*{expected}[^\n]*\\.$"):
        audit_rewards(rewards, TRUTH)
    if "the ground truth" in rewards:  # without a ground truth the name is free
        assert list(audit_rewards(rewards).reward_models) == ["the ground truth"]


def test_a_ground_truth_that_tells_no_replies_apart_says_nothing_of_a_reward_model():
    audit = audit_rewards({"judge": TRUTH}, np.arange(12)[:, None] * np.ones((12, 4)))
    expected = (
        "It cannot be told: the ground truth tells no two replies to one prompt apart, and says nothing of judge."
    )
    assert verdict(audit, "judge") == expected
    assert audit.advice[-1] == "the ground truth gives all replies to a prompt the same reward: take another."
    assert not any("Go by the covariance" in sentence for sentence in audit.advice)


def test_a_report_in_a_terminal_is_one_screen_of_80_columns(monkeypatch):
    from rich.console import Console

    lines = []
    monkeypatch.setattr(
        "rich.console.Console", lambda: Console(width=80, height=24, force_terminal=True, color_system=None)
    )
    monkeypatch.setattr("builtins.print", lambda text="", end="\n": lines.extend(str(text).splitlines()))
    noise = np.random.default_rng(2).normal(size=(9, 12, 4))
    several = {f"a-judge-with-a-long-name-{i}-{'x' * 30 * (i % 2)}": TRUTH + i * each for i, each in enumerate(noise)}
    flat = {"judge": TRUTH + noise[0], "a judge that says nothing": np.ones_like(TRUTH)}
    for rewards, truth in itertools.product(({"judge": TRUTH}, flat, several), (np.round(TRUTH), None)):
        lines.clear()
        audit = audit_rewards(rewards, truth, replies=REPLIES)
        audit.prompts["left_out"] += [f"line {i}: an empty prompt" for i in range(200)]
        report.show(audit)
        assert len(lines) <= 23 and max(map(len, lines)) <= 80  # and the line that says where the report is
        assert len(rewards) == 1 or sum(line.startswith(("  ", "≈ ")) for line in lines) == 1 + len(rewards)
        assert "and 198 more, listed in the report" in lines


# What else it rewards


def test_long_names_leave_the_figures_room_on_a_phone():
    names = [f"my-organisation-reward-model-of-version-{size}" for size in ("3-small", "4-large")]
    audit = audit_rewards({name: TRUTH + i * LENGTH / 50 for i, name in enumerate(names)}, TRUTH)
    order = report_figures.order_figure(audit)
    assert not order.layout.yaxis.showticklabels  # names stand above the lines, not beside them
    texts = [annotation.text for annotation in order.layout.annotations]
    assert len(set(texts)) == 3 and max(map(len, texts)) <= 30
    assert {len(trace.name) for trace in report_figures.spread_figure(audit).data} == {30}
    for name in names:
        assert report.tables(audit).count(f'data-of="{name}"') == len(report_rows.rows(audit))
    names = [f"{'of-one-beginning-' * 2}{i}{'-and-one-end' * 2}" for i in (1, 2)]  # or two lines would be one
    audit = audit_rewards({name: TRUTH + i * LENGTH / 50 for i, name in enumerate(names)}, TRUTH)
    short = [f"…{i}-and-one-end-and-one-end" for i in (1, 2)]
    assert sorted(trace.name for trace in report_figures.spread_figure(audit).data) == short
    width = len(short[0])
    assert list(report_figures.short_names(names, width).values()) == short
    assert list(report_figures.short_names(names, width - 1).values()) == [f"{name[: width - 2]}…" for name in short]


def test_scores_that_differ_by_rounding_alone_have_no_variance(files, tmp_path):
    steps = np.spacing(np.float32(5)) * np.random.default_rng(0).integers(-1, 2, size=TRUTH.shape)
    five: list = (5 + steps).tolist()
    five[3][2] = None  # that one abstains changes nothing
    scores = written(tmp_path / "five.jsonl", by_reply(five=five, truth=TRUTH.tolist()))
    audits = audit_files(files[0], scores, ground_truth="truth"), audit_rewards({"five": np.array(five, float)}, TRUTH)
    for audit in audits:
        assert audit.reward_models["five"]["scale"] == 0 and audit.reward_models["five"]["reward_variance"] == [0, 0, 0]
        assert audit.reward_models["five"]["unscored"] == 1 and audit.advice[0].startswith(
            "five gives every reply the same"
        )


def test_no_interval_shows_a_negative_zero():
    assert interval([-0.001, -0.5, 0.001]) == "0.00 [-0.50, 0.00]"
    assert interval([-0.001, -0.5, 0.001], "+.0%") == "+0% [-50%, +0%]" and interval(None) == "unknown"


def test_features_of_replies_by_hand():
    assert probes.repetition("a b a b a b") == pytest.approx(3 / 5) and probes.repetition("once only") == 0
    assert probes.opening("**Sure,** I can") == "sure i"
    texts = ["# Title\n- one\n- two **bold**", "plain", "Thank you!", "1. first\n`code`"]
    features = probes.features([texts, texts[::-1]])
    assert features["markdown"][0].tolist() == [4, 0, 0, 2] and features["thanks or sorry"][0].tolist() == [0, 0, 1, 0]
    assert features["length"][1].tolist() == [len(text) for text in texts[::-1]]
    assert "log-probability" in probes.features([texts], [[-1.0, -2.0, -3.0, -4.0]])
    assert probes.features([["same", "same"]]) == {}
    thanks = [["Thanks a lot", "Great house"]] * 4 + [["Yellow boat", "Purple tree"]] * 6
    assert "thanks or sorry" not in probes.features(thanks)  # four prompts make no interval
    assert "thanks or sorry" in probes.features(thanks[:1] + thanks)


def test_openings_are_those_that_divide_the_replies_to_enough_prompts():
    sure = (
        [["Sure, here is", "No way, this"]] * 5
        + [["All alike here", "All alike there"]] * 9
        + [["Rare one", "b c"]] * 4
    )
    assert sorted(probes.openings(sure)) == ["no way", "sure here"]


def test_a_reward_model_that_likes_long_replies_is_told():
    liking = audit_rewards({"judge": LENGTH + TRUTH}, TRUTH, replies=REPLIES)
    value, low, high = liking.reward_models["judge"]["probes"]["length"]
    assert value > 0.9 and low > 0.3
    assert any(sentence.startswith("judge rewards length (") for sentence in liking.advice)
    assert "What else does it reward?" in report.page(liking)
    length_truth = audit_rewards({"judge": LENGTH + TRUTH}, LENGTH, replies=REPLIES)
    assert not any("judge rewards length" in sentence for sentence in length_truth.advice)
    without = length_truth.reward_models["judge"]["covariance_without_length"]
    assert without == pytest.approx([0, 0, 0], abs=1e-9)


def test_the_replies_to_look_at_are_of_the_prompts_where_reward_and_truth_disagree():
    rewards = np.array(TRUTH)
    rewards[7] *= -5
    rewards[3] *= -1
    examples = probes.examples(PROMPTS, REPLIES, rewards, TRUTH)
    assert {"question 7", "question 3"} == {example["prompt"] for example in examples}
    row = 7
    best, worst = REPLIES[row][int(rewards[row].argmax())], REPLIES[row][int(rewards[row].argmin())]
    shown = next(example for example in examples if example["prompt"] == "question 7")
    assert (shown["best"], shown["worst"]) == (best, worst) and shown["best_truth"] == TRUTH[row].min()
    page = report.page(audit_rewards({"<judge>": rewards}, TRUTH, prompts=PROMPTS, replies=REPLIES))
    assert best in page and "&lt;judge&gt;: question 7" in page
    assert len(probes.examples(PROMPTS, REPLIES, TRUTH)) == 3  # without a ground truth those of largest variance


# Two audits


def test_a_comparison_is_paired_over_prompts():
    rng = np.random.default_rng(1)
    names = [f"p{i}" for i in range(40)]
    base = rng.normal(size=(40, 1)) * 5 + rng.normal(size=(40, 6))  # prompts differ much
    truth = base + rng.normal(size=(40, 6))
    first = audit_rewards({"judge": base, "gone": base}, truth, prompts=names, policy="before")
    order = rng.permutation(40)[:30]
    later = audit_rewards({"judge": base[order] + 0.5}, truth[order], prompts=[names[i] for i in order], policy="after")
    comparison = compare(first, later)
    assert comparison.names == ("before", "after") and comparison.prompts == 30
    changes = {change.measure: change for change in comparison.changes}
    assert {change.reward_model for change in comparison.changes} == {"judge"}
    value, low, high = changes["mean reward"].difference
    assert value == pytest.approx(0.5 / base.std(ddof=1)) and high - low < 1e-9 and changes["mean reward"].apart
    for measure in ("mean truth", "covariance", "accuracy", "reward variance"):
        assert changes[measure].difference == pytest.approx([0, 0, 0], abs=1e-12) and not changes[measure].apart
    assert changes["mean reward"].first[2] - changes["mean reward"].first[1] > 0.3  # unpaired it would not be seen
    assert comparison.page().count('<td data-of="difference">') == len(changes)  # on a phone a cell says which it is
    assert "after" in comparison.text() and "<strong>" not in comparison.text()
    with pytest.raises(ValueError, match="^[^\n]* at least two prompts in common, got 0 [^\n]*\\.$"):
        compare(first, audit_rewards({"judge": base}, truth, prompts=[f"q{i}" for i in range(40)]))
    with pytest.raises(ValueError, match="^[^\n]* one ground truth, got the ground truth and None; [^\n]*\\.$"):
        compare(first, audit_rewards({"judge": base}))
    with pytest.raises(ValueError, match="^[^\n]* a reward model in common, got judge, gone and other\\.$"):
        compare(first, audit_rewards({"other": base}, truth))


def test_a_comparison_names_audits_of_files_by_their_folders(files, tmp_path):
    names = [("before", None), ("after", None), ("named", "judge's pupil"), ("deeper/after", None)]
    for folder, policy in names:
        audit_files(*files, policy=policy, folder=tmp_path / folder)
    before, after, named, other = (tmp_path / folder for folder, _ in names)
    assert compare(before, after / "audit.json").names == ("before", "after")
    assert compare(named, str(after)).names == ("judge's pupil", "after")
    assert compare(after, other).names == ("after (first)", "after (second)")
    assert compare(*map(Audit.load, (before, after))).names == ("the policy (first)", "the policy (second)")


def test_a_comparison_leaves_out_pairs_of_one_text():
    replies = [[row[0], row[0], *row[2:]] for row in REPLIES]
    rewards, truth = (np.concatenate([values[:, :1], values[:, :1], values[:, 2:]], 1) for values in (LENGTH, TRUTH))
    audit = audit_rewards({"judge": rewards}, truth, replies=replies)
    measures = {change.measure: change.first[0] for change in compare(audit, audit).changes}
    for measure, key in (("accuracy", "accuracy"), ("harm-aware acc.", "harm_aware")):
        assert measures[measure] == pytest.approx(audit.reward_models["judge"][key][0])
    assert audit.reward_models["judge"]["accuracy"][0] < measurements_of(rewards, truth)["accuracy"][0] - 0.05
    assert compare(Audit.load(), Audit.load()).changes


def test_the_interval_of_a_change_covers_it():
    rng, hits = np.random.default_rng(7), 0
    names = [f"p{i}" for i in range(30)]
    for _ in range(25):
        prompts = rng.normal(size=(30, 1))
        before, after = (prompts + shift + rng.normal(size=(30, 4)) for shift in (0.0, 0.4))
        first = audit_rewards({"judge": before}, prompts=names)
        change = compare(first, audit_rewards({"judge": after}, prompts=names)).changes[0]
        unit = np.std(before, ddof=1)
        hits += change.difference[1] <= 0.4 / unit <= change.difference[2]
    assert hits >= 20


def test_the_pages_example_with_a_reward_server_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "book/bring-your-own-replies-and-scores.md").read_text()
    cells = re.findall(r"```\{code-cell\} ipython3\n(?::tags:[^\n]*\n)?(.*?)```", page, re.DOTALL)
    scope = {}
    for cell in cells:
        exec(cell, scope)
    rows = [json.loads(line) for line in pathlib.Path("variety.jsonl").read_text().splitlines()]
    assert len(rows) > 50 and all(
        row["variety"] == pytest.approx(len(set(row["reply"].split())) / max(len(row["reply"].split()), 1))
        for row in rows
    )
    assert list(scope["audit"].reward_models) == ["variety", "cheerful"] and scope["audit"].ground_truth == "quality"
