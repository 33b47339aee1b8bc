"""An audit never gives a wrong number silently: what does not fit is reported first, and rounding is not variance."""

import errno
import itertools
import json
import os
import shutil
import types
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from small_models import TEMPLATE, WORDS, make_encoder, make_llama, make_tokenizer

from rvlib.audit import command as audit_command
from rvlib.audit import exchange, model_scores, report, scoring, statistics
from rvlib.audit import run as audit_run
from rvlib.audit.arguments import parser
from rvlib.audit.audited import Audit
from rvlib.audit.reading import reading_notes
from rvlib.audit.run import audit
from rvlib.audit.stamps import stamp
from rvlib.lm.data import hub
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models import reward_models
from rvlib.lm.models.reward_functions import ClassifierReward
from rvlib.lm.models.reward_models import load_reward_model
from rvlib.lm.sampling.replies import read_replies

ASKED = "{% if add_generation_prompt %}<assistant> {% endif %}"
SETTINGS: dict[str, Any] = dict(num_generations=3, max_new_tokens=6, progress=False)


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVLIB_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def models(environment, tmp_path_factory):
    """Folders of a policy and of two reward models, a Llama and a RoBERTa that reads 24 tokens."""
    folder = tmp_path_factory.mktemp("models")
    make_llama(folder / "policy", architecture="LlamaForCausalLM", template=TEMPLATE + ASKED)
    make_llama(folder / "judge", seed=1)
    make_encoder(folder / "encoder", max_tokens=24)
    return folder


@pytest.fixture
def prompts(tmp_path):
    """A file of prompts, one a line."""

    def write(*lines):
        path = tmp_path / "prompts.txt"
        path.write_text("\n".join(lines or ("rain sun", "wind snow a", "b c", "d")) + "\n")
        return path

    return write


def length(prompts, replies):
    return [[float(len(reply)) for reply in row] for row in replies]


def drawn_nothing(folder):
    return not list(folder.rglob("batch-*"))


# Before it draws


def test_an_audit_says_which_lines_it_left_out(models, tmp_path, capsys):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "rain"}\n{"prompt": 3}\n{"prompt": "sun"}\n')
    command = f"--policy {models}/policy --reward-model {models}/judge --prompts {path} --num-generations 2"
    command += f" --max-new-tokens 2 --folder {tmp_path}/run"
    with pytest.raises(SystemExit, match="^Each line of [^\n]* got line 2: a prompt that is no text but int; "):
        audit_command.main(command.split())
    audit_command.main([*command.split(), "--skip-bad-lines"])
    assert "Left out line 2: a prompt that is no text but int" in capsys.readouterr().out
    assert "line 2: a prompt that is no text but int" in (tmp_path / "run/audit.html").read_text()


@pytest.mark.parametrize(
    "judge, words, reason",
    [
        ("judge", 60, "line 2: a prompt of 63 tokens, with a reply of 6 more than the 64 that the policy reads"),
        ("judge", 50_000, "line 2: a prompt of 50003 tokens, with a reply of 6 more than the 64 that the policy reads"),
        ("encoder", 16, "line 2: a prompt of 20 tokens, with a reply of 6 more than the 24 that encoder reads"),
    ],
)
def test_prompts_too_long_are_told_by_line_before_anything_is_drawn(models, prompts, tmp_path, judge, words, reason):
    path, folder = prompts("rain", "a " * words, "sun"), tmp_path / "run"
    with pytest.raises(ValueError, match=f"^Every prompt, [^\n]* got {reason}; lower --max-new-tokens, [^\n]*\\.$"):
        audit(models / "policy", [models / judge], path, folder=folder, **SETTINGS)
    assert drawn_nothing(tmp_path)
    result = audit(models / "policy", [models / judge], path, folder=folder, skip_bad_lines=True, **SETTINGS)
    shown = {key: result.prompts[key] for key in ("source", "names", "left_out")}
    assert shown == {"source": "prompts.txt", "names": ["line 1", "line 3"], "left_out": [reason]}


def test_words_that_a_tokenizer_lacks_are_told_by_line(models, prompts, tmp_path):
    path = prompts("how good", "rain sun")  # of the built-in policy's words the first line alone
    reason = "line 2: A text must be of words that the tokenizer of the policy has, got 'rain sun' "
    with pytest.raises(ValueError, match=f"^Every prompt, [^\n]* got {reason}[^\n]*\\.$"):
        audit("tiny", [models / "judge"], path, folder=tmp_path / "run", **SETTINGS)
    assert drawn_nothing(tmp_path)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "it has no tokenizer; "),
        (
            lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
            "its model.safetensors is a pointer of Git LFS, ",
        ),
        (
            lambda folder: os.truncate(folder / "model.safetensors", 4000),
            "its model.safetensors is cut off, 4000 bytes of at least [0-9]+; copy it again",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_told_before_anything_is_drawn(models, prompts, tmp_path, damage, reason):
    folder = shutil.copytree(models / "judge", tmp_path / "judge")
    damage(folder)
    with pytest.raises(OSError, match=f"^The reward model must be [^\n]*\\({reason}[^\n]*\\.$"):
        audit(models / "policy", [folder], prompts(), folder=tmp_path / "run", **SETTINGS)
    assert drawn_nothing(tmp_path)


def test_as_long_as_every_model_reads_is_not_too_long(models, prompts, tmp_path):
    path = prompts("rain", "a " * 14)  # with the four marks of a pair and a reply of six, 24
    assert audit(models / "policy", [models / "encoder"], path, folder=tmp_path / "run", **SETTINGS).reward_models


def test_a_pair_too_long_is_told_by_line(models, tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": prompt, "chosen": "a " * n, "rejected": "b"} for prompt, n in (("rain", 1), ("sun", 30))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        ValueError, match="line 2: chosen and its prompt of 35 tokens, more than the 24 that encoder reads; "
    ):
        audit(models / "policy", [models / "encoder"], path, folder=tmp_path / "run", **SETTINGS)


def test_what_a_reply_has_of_a_reward_models_own_tokens_is_estimated_before_anything_is_drawn(
    models, prompts, tmp_path
):
    make_llama(tmp_path / "judge", max_tokens=48)
    make_tokenizer(tmp_path / "judge", letters=True)
    path = prompts("rain", "wind " * 4)  # a policy's token is four of the reward model's; six are 24
    with pytest.raises(
        ValueError,
        match=r"got line 2: a prompt of 35 tokens, with a reply of 6 \(about 24 of its own\) more than the 48 that ",
    ):
        audit(models / "policy", [tmp_path / "judge"], path, folder=tmp_path / "run", **SETTINGS)
    assert drawn_nothing(tmp_path)


def test_a_reply_longer_in_a_reward_models_own_tokens_is_told_before_any_is_scored(
    models, prompts, tmp_path, monkeypatch
):
    make_llama(tmp_path / "letters", max_tokens=41)
    make_tokenizer(tmp_path / "letters", letters=True)
    path, folder, scored = prompts("a", "b", "c d", "e f"), tmp_path / "run", []

    def score(prompts, replies):
        scored.append(prompts)
        return length(prompts, replies)

    judges: Any = {"first": score, "letters": tmp_path / "letters"}
    with pytest.raises(ValueError) as told:
        audit(models / "policy", judges, path, folder=folder, **SETTINGS)
    records = read_replies(folder / "samples", [Prompt(f"line {i}", "", "") for i in (1, 2, 3, 4)])
    reader = reward_models.load_reader(tmp_path / "letters")
    counts = [[len(reader.row(r["text"], reply)["input_ids"]) for reply in r["replies"]] for r in records]
    expected = [
        f"line {i}: reply {j} and its prompt of {count} tokens, more than the 41 that letters reads"
        for i, row in enumerate(counts, 1)
        for j, count in [next(((j, n) for j, n in enumerate(row, 1) if n > 41), (0, 0))]
        if j
    ]
    assert 1 <= len(expected) <= 2 and not scored, counts
    assert str(told.value).startswith(
        f"Every reply, with its prompt, must be one that all reward models can read, got {expected[0]}"
    )
    assert "--skip-bad-lines (skip_bad_lines=True), which goes on from what was drawn" in str(told.value)
    monkeypatch.setattr("rvlib.lm.sampling.replies._draw", lambda *_: pytest.fail("drawn again"))
    result = audit(models / "policy", judges, path, folder=folder, skip_bad_lines=True, **SETTINGS)
    assert result.prompts["left_out"] == expected
    assert len(result.prompts["names"]) == 4 - len(expected) and scored


def test_replies_from_a_file_that_are_too_long_are_told_before_any_is_scored(models, tmp_path):
    path = tmp_path / "replies.jsonl"
    rows = [{"prompt": "rain", "replies": ["a", "b"]}, {"prompt": "sun", "replies": ["a", "b " * 30]}]
    rows += [{"prompt": "wind", "replies": ["c", "d"], "chosen": "a " * 40, "rejected": "b"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: Any = {"replies": path, "folder": tmp_path / "run", "progress": False}
    with pytest.raises(
        ValueError,
        match="got line 2: reply 2 and its prompt of 35 tokens, more than the 24 that encoder [^\n]* leave out such "
        "prompts with --skip-bad-lines \\(skip_bad_lines=True\\), or bring shorter replies\\.$",
    ):
        audit(None, [models / "encoder"], **settings)
    result = audit(None, [models / "encoder"], skip_bad_lines=True, **settings)
    assert result.prompts["names"] == ["line 1", "line 3"]
    assert [line.partition(" and")[0] for line in result.prompts["left_out"]] == ["line 2: reply 2", "line 3: chosen"]


@pytest.mark.parametrize(
    "template, expected",
    [
        ("{{ raise_exception('system first') }}", "^The chat template of [^\n]* \\(system first\\); [^\n]*\\.$"),
        ("{{ messages[0]", "^The chat template of [^\n]*\\.$"),
    ],
)
@pytest.mark.parametrize("of", ["policy", "judge"])
def test_a_template_that_takes_no_prompt_is_told_before_anything_is_drawn(
    models, prompts, tmp_path, template, expected, of
):
    architecture = {"policy": "LlamaForCausalLM", "judge": "LlamaForSequenceClassification"}[of]
    broken = make_llama(tmp_path / "broken", architecture=architecture, template=template)
    policy, judge = (broken, models / "judge") if of == "policy" else (models / "policy", broken)
    with pytest.raises(ValueError, match=expected):
        audit(policy, [judge], prompts(), folder=tmp_path / "run", **SETTINGS)
    assert drawn_nothing(tmp_path)


def test_a_tokenizer_larger_than_the_embeddings_is_told_before_anything_is_drawn(models, prompts, tmp_path):
    small = make_llama(tmp_path / "small", vocabulary=8)
    with pytest.raises(
        ValueError, match="^[^\n]*small must embed every token of its tokenizer, got 'a' with number 9 "
    ):
        audit(models / "policy", [small], prompts("rain", "a"), folder=tmp_path / "run", **SETTINGS)
    assert drawn_nothing(tmp_path)


# As each model reads it


def test_the_report_shows_a_reply_as_each_model_reads_it(tmp_path, prompts):
    prefilled = TEMPLATE + "{% if add_generation_prompt %}<assistant> <think> {% endif %}"
    policy = make_llama(tmp_path / "policy", architecture="LlamaForCausalLM", template=prefilled)
    judge, bare = make_llama(tmp_path / "judge"), make_encoder(tmp_path / "bare")
    result: Any = audit(policy, [judge, bare], prompts(), ground_truth=length, folder=tmp_path / "run", **SETTINGS)
    records = [json.loads(line) for path in tmp_path.rglob("batch-*") for line in path.read_text().splitlines()]
    reply = next(record["replies"][0] for record in records if record["prompt"] == "line 1")
    assert reply.startswith("<think>")
    example = result.reward_models["judge"]["example"]
    assert example["text"] == f"<user> rain sun <end> <assistant> {reply} <end>"
    assert example["last_tokens"] == example["text"].split()[-3:] and example["reads"] == "the last token"
    assert result.reward_models["bare"]["example"]["text"] == f"<bos> rain sun <end> <end> {reply} <end>"
    has_template = [result.policy, result.reward_models["judge"], result.reward_models["bare"]]
    assert [each["chat_template"] for each in has_template] == [True, True, False]
    sentences = reading_notes(result)
    assert any(sentence.startswith("bare: It has no chat template: ") for sentence in sentences)
    assert any(f'reads the first reply to line 1 as "{example["text"]}"' in sentence for sentence in sentences)
    assert "&lt;think&gt;" in (tmp_path / "run/audit.html").read_text()


# Rounding


def test_rewards_that_differ_by_rounding_alone_have_no_variance(models, prompts, tmp_path):
    steps = itertools.cycle(np.spacing(np.float32(5)) * np.array([0.0, 1.0, -1.0, 1.0, 0.0]))

    def five(prompts, replies):
        return [[5 + next(steps) for _ in row] for row in replies]

    result: Any = audit(models / "policy", {"five": five, "length": length}, prompts(), folder=tmp_path, **SETTINGS)
    five_measurements = result.reward_models["five"]
    assert five_measurements["reward_variance"] == [0, 0, 0] and five_measurements["scale"] == 0
    assert "five gives every reply the same reward: it cannot teach." in result.advice
    assert result.reward_models["length"]["reward_variance"][0] > 0.1


def test_without_noise_flattens_what_noise_alone_makes():
    rewards = np.array([[1.0, 1.01, 0.99], [1.0, 2.0, 3.0], [7.0, 7.0, 7.0]])
    assert statistics.without_noise(rewards, 0.01).tolist() == [[1.0] * 3, [1.0, 2.0, 3.0], [7.0] * 3]
    assert statistics.without_noise(rewards, 0.009).tolist() == rewards.tolist()
    assert np.ptp(statistics.without_noise(rewards, 4.0)) == 0
    assert statistics.without_noise([]).shape == (0,)
    large = 1e6 + np.array([[0.0, 0.5, 1.0]])  # steps of a 32-bit number are a sixteenth there
    assert statistics.without_noise(large).tolist() == large.tolist()


def test_noise_is_the_difference_between_a_reply_alone_and_in_its_batch():
    class Judge:
        source = {"dtype": "float32"}

        def __init__(self, shift):
            self.shift = shift

        def alone(self, prompts, replies):
            return np.array([len(reply) + self.shift * (prompt.name == "2") for prompt, reply in zip(prompts, replies)])

    texts = scoring.Texts([Prompt(str(i), "x", "") for i in range(3)], [["a", "bb"], ["cc", "d"], ["eee", "f"]])
    rewards: Any = [[1.0, 2.0], [2.0, 1.0], [3.0, 1.0]]
    judges: list[Any] = [Judge(shift) for shift in (0.0, 0.25, -0.5)]
    assert scoring.noise(judges[0], texts, rewards) == np.spacing(np.float32(3))
    assert scoring.noise(judges[1], texts, rewards) == 0.25
    assert scoring.noise(judges[1], texts, rewards, judges[2:]) == 0.5


def test_noise_of_another_precision_counts_where_it_is_asked_for(models, prompts, tmp_path, capsys):
    noise, path = {}, prompts()
    for other in (None, "bfloat16"):
        result = audit(models / "policy", [models / "judge"], path, folder=tmp_path, compare_dtype=other, **SETTINGS)
        noise[other] = result.reward_models["judge"]["noise"]
    assert 0 < noise[None] < 1e-4 < noise["bfloat16"]
    report.show(result)
    assert "noise, in its own unit" in capsys.readouterr().out
    exact, rough = (load_reward_model(models / "judge", dtype=dtype) for dtype in ("float32", "bfloat16"))
    texts = scoring.Texts([Prompt("x", "rain sun", "")], [["a b", "c"]])
    assert scoring.noise(rough, texts, rough(texts.prompts, texts.replies).tolist()) >= 2**-9  # its steps near ±1
    assert scoring.noise(exact, texts, exact(texts.prompts, texts.replies).tolist()) < 1e-4


def test_settings_are_checked_before_anything_is_drawn(models, prompts, tmp_path):
    for settings in ({"compare_dtype": "int4"}, {"min_scored": 2}):
        with pytest.raises(ValueError, match=f"^{next(iter(settings))} must be [^\n]*\\.$"):
            audit(models / "policy", [models / "judge"], prompts(), folder=tmp_path, **settings, **SETTINGS)
    with pytest.raises(ValueError, match="^reward_models must not be called 'the ground truth', "):
        audit(models / "policy", {"the ground truth": length}, prompts(), folder=tmp_path, **SETTINGS)
    assert drawn_nothing(tmp_path)


def test_reward_models_are_names_or_have_labels(models, prompts, tmp_path):
    for odd in (len, {1: len}, [len], {None: "sentiment"}):
        with pytest.raises(
            ValueError, match="^reward_models must be names, or {label: a name or a function} [^\n]*\\.$"
        ):
            audit(models / "policy", odd, prompts(), folder=tmp_path, **SETTINGS)
    result: Any = audit(models / "policy", "positivity", prompts(), folder=tmp_path, **SETTINGS)
    assert list(result.reward_models) == ["positivity"]


def test_a_score_called_like_a_reward_model_takes_not_its_place(models, tmp_path):
    rows = [{"prompt": p, "reply": r, "judge": len(r)} for p in ("rain", "sun") for r in ("a", "b c")]
    for name in ("replies.jsonl", "scores.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    files: Any = {"replies": tmp_path / "replies.jsonl", "scores": [tmp_path / "scores.jsonl"]}
    result = audit(None, [models / "judge"], progress=False, folder=tmp_path / "run", **files)
    rewards = {name: measured["rewards"] for name, measured in result.reward_models.items()}
    assert rewards.pop("scores.jsonl:judge") == [[1, 3], [1, 3]] and list(rewards) == ["judge"]
    assert rewards["judge"] != [[1, 3], [1, 3]]
    with pytest.raises(ValueError, match="^The ground truth must be one of the scores [^\n]*, got 'jugde'\\.$"):
        audit(None, [models / "judge"], ground_truth="jugde", progress=False, folder=tmp_path / "run", **files)


@pytest.mark.parametrize("beside", [[], ["--reward-model", "positivity"]])
def test_a_score_called_like_a_fixed_reward_is_the_ground_truth_only_by_its_file(tmp_path, beside):
    rows = [{"prompt": p, "reply": r, "sentiment": len(r), "judge": 2.0 * len(r)} for p in "ab" for r in ("c", "d e")]
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["--replies", str(path), "--scores", str(path), "--folder", str(tmp_path / "run"), *beside]
    with pytest.raises(
        SystemExit,
        match="^The ground truth must be a name of one thing, got 'sentiment', a reward model and a score of s.jsonl; "
        "name the score by s.jsonl:sentiment, or rename it for the reward model\\.$",
    ):
        audit_command.main([*command, "--ground-truth", "sentiment"])
    audit_command.main([*command, "--ground-truth", "s.jsonl:sentiment"])
    result = Audit.load(tmp_path / "run")
    assert result.ground_truth_measurements is not None and result.ground_truth_measurements["rewards"] == [
        [1, 3],
        [1, 3],
    ]
    assert result.ground_truth == "sentiment" and "sentiment" not in result.reward_models


def test_a_score_may_have_a_name_like_one_on_the_hub(tmp_path, monkeypatch):
    read, rows_of = [], exchange.read_rows
    monkeypatch.setattr(exchange, "read_rows", lambda path: read.append(path) or rows_of(path))
    rows = [{"prompt": p, "reply": r, "judges/a": len(r), "judges/b": -len(r)} for p in "ab" for r in ("c", "d e")]
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for beside in ([], ["--reward-model", "positivity"]):
        command = ["--replies", str(path), "--scores", str(path), *beside]
        audit_command.main([*command, "--ground-truth", "judges/a", "--folder", str(tmp_path / "run")])
        result = Audit.load(tmp_path / "run")
        assert result.ground_truth == "judges/a" and "judges/b" in result.reward_models
    assert read == 4 * [path]  # the replies and the scores, each once in each audit


def test_what_can_be_told_without_a_model_is_told_before_anything_is_drawn(models, prompts, tmp_path):
    torch.save({}, tmp_path / "pytorch_model.bin")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((models / "judge" / name).read_bytes())
    settings: Any = SETTINGS | {"folder": tmp_path / "run"}
    with pytest.raises(
        OSError, match="weights are pytorch_model.bin alone, a pickle, [^\n]* writes safetensors\\)\\.$"
    ):
        audit(models / "policy", [tmp_path], prompts(), **settings)
    with pytest.raises(
        ValueError, match="^Similarity compares with a reference reply, got prompt 'line 1' without one; "
    ):
        audit(models / "policy", ["similarity"], prompts(), **settings)
    with pytest.raises(ValueError, match="^batch_size must be a whole number of at least 1, got 0\\.$"):
        audit(models / "policy", [models / "judge"], prompts(), batch_size=0, **settings)
    assert drawn_nothing(tmp_path)


def numbers(value):
    """The numbers in nested lists and dictionaries."""
    if isinstance(value, (list, dict)):
        return [n for each in (value.values() if isinstance(value, dict) else value) for n in numbers(each)]
    return [] if isinstance(value, (str, type(None))) else [value]


def test_an_export_read_as_replies_is_the_same_audit(models, tmp_path):
    rows = [{"prompt": text, "chosen": "sun a", "rejected": "rain"} for text in WORDS[5:15]]
    rows.append(rows[0] | {"rejected": "snow"})  # a prompt that comes twice
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: Any = {"num_generations": 12, "max_new_tokens": 2, "progress": False, "group": 4}
    drawn: Any = (models / "policy", [models / "judge"], path)
    first = audit(*drawn, ground_truth=models / "encoder", folder=tmp_path / "first", **settings)
    assert audit(*drawn, export=tmp_path / "out.jsonl", folder=tmp_path / "first", **settings) is None
    again = audit(
        None,
        [models / "judge"],
        ground_truth=models / "encoder",
        replies=tmp_path / "out.jsonl",
        folder=tmp_path / "again",
        group=4,
        progress=False,
    )
    assert first.replies["same"] > 0.2 and again.replies == first.replies
    left = {"per_prompt", "rewards", "examples", "example", "notes", "noise"}  # in the order of the replies
    for before, after in (
        (first.reward_models["judge"], again.reward_models["judge"]),
        (first.ground_truth_measurements, again.ground_truth_measurements),
    ):
        assert before.keys() == after.keys() and before["preferences"] == after["preferences"]
        for key in before.keys() - left:
            for value, expected in zip(numbers(after[key]), numbers(before[key]), strict=True):
                assert value == pytest.approx(expected, abs=2e-3), (
                    key
                )  # the order of replies moves the ends of intervals


def test_a_wrong_ground_truth_is_called_so(models, prompts, tmp_path):
    make_llama(tmp_path / "two", labels=2)
    make_llama(tmp_path / "writer", architecture="LlamaForCausalLM")
    make_llama(tmp_path / "tokens", architecture="LlamaForTokenClassification")
    (tmp_path / "empty").mkdir()
    for name in ("two", "writer", "tokens", "empty", "absent/none"):
        for role, settings in (("reward model", {}), ("ground truth", {"ground_truth": tmp_path / name})):
            judge = models / "judge" if settings else tmp_path / name
            with pytest.raises((OSError, ValueError), match=f"^The {role} must [^\n]*\\.$"):
                audit(models / "policy", [judge], prompts(), folder=tmp_path / "run", **SETTINGS, **settings)
    assert drawn_nothing(tmp_path)


# What is no reward


def test_a_reply_without_a_reward_leaves_its_prompt_out_for_all(models, prompts, tmp_path):
    def silent(prompts, replies):
        return [
            [None if prompt.name == "line 2" and i else 1.0 * len(reply) for i, reply in enumerate(row)]
            for prompt, row in zip(prompts, replies)
        ]

    scores, settings = {"silent": silent, "length": length}, SETTINGS | {"folder": tmp_path}
    with pytest.raises(
        ValueError,
        match="^Reward models must score all replies to at least 90% of the prompts, got 3 of 4 "
        "\\(line 2: silent gave no reward to 2 of its 3 replies\\); [^\n]* --min-scored [^\n]*\\.$",
    ):
        audit(models / "policy", scores, prompts(), **settings)
    result = audit(models / "policy", scores, prompts(), min_scored=0.7, **settings)
    assert result.prompts["names"] == ["line 1", "line 3", "line 4"]
    assert result.prompts["left_out"] == ["line 2: silent gave no reward to 2 of its 3 replies"]
    assert {name: len(measured["rewards"]) for name, measured in result.reward_models.items()} == {
        "silent": 3,
        "length": 3,
    }
    assert result.reward_models["silent"]["rewards"] == result.reward_models["length"]["rewards"]


def test_a_pair_without_a_reward_is_counted(models, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "chosen": "a b", "rejected": "c"}) + "\n" for p in "abcde"))

    def silent_on_one(prompts, replies):
        pair = len(replies[0]) == 2
        return [
            [None if pair and prompt.name == "line 2" else 1.0 * len(reply) for reply in row]
            for prompt, row in zip(prompts, replies)
        ]

    result: Any = audit(
        models / "policy", {"mine": silent_on_one}, path, min_scored=0.8, folder=tmp_path / "run", **SETTINGS
    )
    assert result.reward_models["mine"]["pairs"] == 4 and len(result.prompts["names"]) == 5
    assert result.prompts["left_out"] == ["line 2: mine gave no reward to 2 of its 2 preferred and other replies"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_says_whose_and_of_what(models, prompts, tmp_path, value):
    def broken(prompts, replies):
        rewards = np.zeros((len(prompts), len(replies[0])))
        rewards[1, 2] = value
        return rewards

    with pytest.raises(
        ValueError, match=f"^A reward must be a finite number, got {value} of mine for reply 3 to line 2 [^\n]*\\.$"
    ):
        audit(models / "policy", {"mine": broken}, prompts(), folder=tmp_path, **SETTINGS)


# Nothing is lost, nothing is stale


def test_scoring_that_was_stopped_goes_on_from_its_last_chunk(models, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", 1)
    path, calls = prompts(), []
    score = ClassifierReward.__call__

    def until_the_third(self, prompts, replies):
        calls.append(prompts[0].name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, prompts, replies)

    whole = audit(models / "policy", [models / "judge"], path, folder=tmp_path / "whole", **SETTINGS)
    monkeypatch.setattr(ClassifierReward, "__call__", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        audit(models / "policy", [models / "judge"], path, folder=tmp_path / "cut", **SETTINGS)
    (partial,) = (tmp_path / "cut").glob("scores-*.partial.jsonl")
    partial.write_text(partial.read_text() + '["rewards", 2, [[0.')  # what a kill in the midst of writing leaves
    result = audit(models / "policy", [models / "judge"], path, folder=tmp_path / "cut", **SETTINGS)
    assert calls[:5] == ["line 1", "line 2", "line 3", "line 3", "line 4"]
    assert result.reward_models == whole.reward_models and not list(tmp_path.rglob("*.partial.jsonl"))


def test_scores_by_a_function_are_said_not_to_be_kept(models, prompts, tmp_path, capsys):
    path, answers, factor = prompts(), [], 1
    for factor in (1, 2):
        answers.append(
            audit(
                models / "policy",
                {"mine": lambda prompts, replies: [[factor * len(reply) for reply in row] for row in replies]},
                path,
                folder=tmp_path / "run",
                **SETTINGS | {"progress": True},
            )
        )
        said = "Scores by Python functions (mine) are not kept: after a stop they are made anew."
        assert said in capsys.readouterr().out
    first, second = (np.array(result.reward_models["mine"]["rewards"]) for result in answers)
    assert (second == 2 * first).all()  # what a function says now, and not what it said before


def test_a_place_for_the_export_that_is_not_there_is_told_before_anything_is_drawn(models, prompts, tmp_path):
    settings: Any = SETTINGS | {"folder": tmp_path / "run", "export": tmp_path / "none/out.jsonl"}
    with pytest.raises(OSError, match="No such file or directory: [^\n]*none"):
        audit(models / "policy", [], prompts(), **settings)
    assert drawn_nothing(tmp_path)


def test_another_engine_has_another_folder(models, prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("RVLIB_DATA", str(tmp_path))
    for engine in ("generate", "continuous", "generate"):
        audit(models / "policy", [models / "judge"], prompts(), engine=engine, **SETTINGS)
    assert len(list(tmp_path.glob("audits/*/audit.json"))) == 2


def test_the_precision_is_that_of_the_device_and_a_folder_is_known_by_it(models, prompts, tmp_path, monkeypatch):
    asked, resolved_dtype = [], audit_run.resolved_dtype
    monkeypatch.setattr(audit_run, "resolved_dtype", lambda dtype: asked.append(dtype) or resolved_dtype(dtype))
    monkeypatch.setenv("RVLIB_DATA", str(tmp_path))
    for settings in (SETTINGS, SETTINGS | {"dtype": resolved_dtype("auto")}):
        audit(models / "policy", [models / "judge"], prompts(), **settings)
    assert len(list(tmp_path.glob("audits/*/scores-*.json"))) == 1  # in one folder, and scored once
    assert asked[0] == "auto" == parser().parse_args([]).dtype


def test_scores_of_texts_that_were_read_otherwise_are_made_again(models, prompts, tmp_path, monkeypatch):
    path = prompts()
    before = audit(models / "policy", [models / "judge"], path, folder=tmp_path, **SETTINGS)
    score = ClassifierReward.__call__
    monkeypatch.setattr(ClassifierReward, "__call__", lambda self, prompts, replies: score(self, prompts, replies) + 1)
    for number, rise in ((model_scores.FORMAT, 0), (model_scores.FORMAT + 1, 1)):
        monkeypatch.setattr(model_scores, "FORMAT", number)
        after = audit(models / "policy", [models / "judge"], path, folder=tmp_path, **SETTINGS)
        rewards = [np.array(result.reward_models["judge"]["rewards"]) for result in (before, after)]
        assert np.allclose(rewards[1], rewards[0] + rise)


def test_the_bars_move_within_a_batch(models, prompts, tmp_path, monkeypatch):
    moves: dict[str, list[int]] = {}

    class Bar:
        def __init__(self, total, desc, **_):
            self.n, self.total, self.moves = 0, total, moves.setdefault(desc, [])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            assert self.n == self.total

        def update(self, count):
            self.n += count
            self.moves.append(self.n)

    monkeypatch.setattr("rvlib.lm.sampling.replies.tqdm", Bar)
    monkeypatch.setattr(scoring, "tqdm", Bar)
    settings: Any = SETTINGS | {"batch_size": 2}
    audit(models / "policy", [models / "judge"], prompts(), folder=tmp_path / "run", **settings)
    assert moves["Sampling"][:3] == [1, 2, 3] and len(moves["Sampling"]) > 4  # one batch of at most 6 tokens
    assert moves["Scoring by judge"][:3] == [2, 4, 6] and moves["Scoring by judge"][-1] == 12


def test_a_full_disk_is_one_sentence(models, prompts, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scoring.ChunkFile, "add", full)
    command = f"--policy {models}/policy --reward-model {models}/judge --prompts {prompts()} --num-generations 2"
    with pytest.raises(SystemExit, match="^The disk is full; [^\n]* the same command goes on from what is on it\\.$"):
        audit_command.main([*command.split(), "--max-new-tokens", "2", "--folder", str(tmp_path / "run")])


@pytest.mark.parametrize(
    "error, expected",
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore."),
            r"Memory ran out \(CUDA out of memory. Tried to allocate 2.00 GiB\); give a lower --batch-size than 3, "
            r"and the same command goes on from what was drawn and scored\.",
        ),
        (MemoryError(), r"Memory ran out \(MemoryError\); give a lower --batch-size than 3, [^\n]*\."),
        (
            RuntimeError("CUDA error: misaligned address\nMore."),
            r"All replies must be drawn and scored, but that stopped \(CUDA error: misaligned address\); try "
            r"--engine generate or --dtype float32, [^\n]*\.",
        ),
        (RuntimeError("One thing must hold, but does not; do another."), "One thing must hold, but does not; [^\n]*"),
    ],
    ids=["memory of a GPU", "memory of the host", "torch's", "a sentence"],
)
@pytest.mark.parametrize("place", ["rvlib.lm.sampling.replies._draw", "rvlib.audit.scoring.score_all"])
def test_what_stops_sampling_or_scoring_is_one_sentence(models, prompts, tmp_path, monkeypatch, place, error, expected):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr(place, stop)
    command = f"--policy {models}/policy --reward-model {models}/judge --prompts {prompts()} --num-generations 2"
    with pytest.raises(SystemExit, match=f"^{expected}$"):
        audit_command.main(
            [*command.split(), "--max-new-tokens", "2", "--batch-size", "3", "--folder", str(tmp_path / "run")]
        )


def repository_info(commit, files=None):
    """What the hub says of a repository."""
    return types.SimpleNamespace(sha=commit, siblings=files and [types.SimpleNamespace(rfilename=f) for f in files])


@pytest.mark.parametrize("role", ["policy", "reward model", "ground truth"])
def test_pickles_on_the_hub_are_told_before_anything_is_fetched(models, prompts, tmp_path, monkeypatch, role):
    files = ["config.json", "tokenizer.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: repository_info("0123", files))
    monkeypatch.setattr("transformers.utils.find_adapter_config_file", lambda *_, **__: None)
    named = {"policy": models / "policy", "reward model": models / "judge", "ground truth": models / "judge"}
    named[role] = f"somebody/pickles-for-{role.partition(' ')[2] or role}"
    expected = (
        f"^The {role} must be [^\n]*, got '{named[role]}', [^\n]* pytorch_model-00001-of-00002.bin alone, a pickle, "
    )
    with pytest.raises(OSError, match=expected):
        audit(
            named["policy"],
            [named["reward model"]],
            prompts(),
            ground_truth=named["ground truth"],
            folder=tmp_path / "run",
            **SETTINGS,
        )
    assert drawn_nothing(tmp_path)


def test_a_name_on_the_hub_is_stamped_with_its_commit(monkeypatch):
    commits = iter(["0123", "4567"])
    monkeypatch.setattr("transformers.utils.find_adapter_config_file", lambda *_, **__: None)  # asks the hub five times
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: repository_info(next(commits)))
    assert stamp("somebody/judge-a") == stamp("somebody/judge-a") == {"revision": "0123"}
    assert stamp("somebody/judge-b") == {"revision": "4567"}
    assert stamp("sentiment") == stamp("tiny") == {}


def test_an_adapter_on_the_hub_is_stamped_with_the_commit_of_its_base(tmp_path, monkeypatch):
    commits = {"somebody/adapter-c": "89ab", "somebody/base-c": "cdef"}
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda _, name, **__: repository_info(commits[name]))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--somebody--adapter-c"
    (repository / "snapshots/89ab").mkdir(parents=True)
    (repository / "snapshots/89ab/adapter_config.json").write_text('{"base_model_name_or_path": "somebody/base-c"}')
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("89ab")
    before = {"revision": "89ab", "base": ["somebody/base-c", {"revision": "cdef"}]}
    assert stamp("somebody/adapter-c") == before
    hub.repository.cache_clear()
    commits["somebody/base-c"] = "0246"
    assert stamp("somebody/adapter-c") == before | {"base": ["somebody/base-c", {"revision": "0246"}]}
