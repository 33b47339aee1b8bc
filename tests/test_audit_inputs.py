"""What an audit reads, and what it refuses before anything is drawn: prompts of every form, models that fit."""

import json
import re

import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from rvlib.audit import run as auditing  # noqa: E402
from rvlib.lm.data import files  # noqa: E402

# Prompts


def written(folder, text, name="prompts.jsonl"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_prompts_of_every_form(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}]
    lines = [
        {"prompt": "p"},
        {"prompt": "p", "reference": "r", "other": 1},
        {"prompt": "p", "chosen": "good", "rejected": "bad"},
        {"prompt": turns[:1], "chosen": turns, "rejected": "bad"},
        {"chosen": turns, "rejected": [turns[0], {"role": "assistant", "content": "bad"}]},
    ]
    examples, bad = files.read_examples(written(tmp_path, "\n\n".join(map(json.dumps, lines)) + "\n"))
    assert not bad and [e.prompt.name for e in examples] == [f"line {n}" for n in (1, 3, 5, 7, 9)]
    assert [(e.prompt.text, e.prompt.reference, e.chosen, e.rejected) for e in examples] == [
        ("p", "", None, None),
        ("p", "r", None, None),
        ("p", "good", "good", "bad"),
        ("q", "good", "good", "bad"),
        ("q", "good", "good", "bad"),
    ]
    examples, bad = files.read_examples(written(tmp_path, '\ufefffirst \r\n\r\n{"not": "json"}\n', "prompts.txt"))
    assert not bad and [(e.prompt.name, e.prompt.text) for e in examples] == [
        ("line 1", "first"),
        ("line 3", '{"not": "json"}'),
    ]


BAD = {
    b"{": "not JSON",
    b"\xff\xfe": "not UTF-8",
    b"[1]": "not an object with a prompt",
    b'{"question": "q"}': "no prompt",
    b'{"prompt": 3}': "a prompt that is no text but int",
    b'{"prompt": "  "}': "an empty prompt",
    b'{"prompt": "p", "chosen": "c"}': "only one of chosen and rejected",
    b'{"prompt": "p", "chosen": 1, "rejected": "r"}': "a reply that is no text but int",
    b'{"prompt": [{"content": "a"}, {"content": "b"}]}': "a prompt of 2 turns instead of one",
    b'{"prompt": "p", "reference": []}': "a reference of 0 turns instead of one",
    b'{"prompt": "\\ud83d"}': "a prompt with half a character, which UTF-8 cannot write",
    b"[" * 100_000: "not JSON",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: line[:40].decode(errors="replace"))
def test_bad_lines_are_told_by_number_and_left_out_only_on_demand(tmp_path, line):
    path = written(tmp_path, b'{"prompt": "a"}\n' + line + b'\n{"prompt": "b"}\n')
    with pytest.raises(
        ValueError,
        match=f"^Each line of [^\n]*, got line 2: {re.escape(BAD[line])}; [^\n]* --skip-bad-lines [^\n]*\\.$",
    ):
        files.read_examples(path)
    examples, bad = files.read_examples(path, skip_bad_lines=True)
    assert [e.prompt.text for e in examples] == ["a", "b"] and bad == [f"line 2: {BAD[line]}"]


def test_many_bad_lines_are_counted(tmp_path):
    path = written(tmp_path, '{"prompt": "a"}\n' + "no\n" * 8)
    with pytest.raises(ValueError, match="line 6: not JSON and 3 more; "):
        files.read_examples(path)
    assert len(files.read_examples(path, limit=1)[0]) == 1  # those after the last that is wanted are not looked at
    with pytest.raises(ValueError, match="^[^\n]* must hold at least one prompt, got none\\.$"):
        files.read_examples(written(tmp_path, "no\n"), skip_bad_lines=True)


def test_an_audit_says_which_lines_it_left_out(judges, tmp_path, capsys):
    path = written(tmp_path, '{"prompt": "how was the food ?"}\n{"prompt": 3}\n{"prompt": "how was the room ?"}\n')
    command = [
        "--policy",
        "tiny",
        "--reward-model",
        judges[0],
        "--prompts",
        str(path),
        "--num-generations",
        "2",
        "--max-new-tokens",
        "2",
        "--folder",
        str(tmp_path / "run"),
    ]
    with pytest.raises(SystemExit, match="^Each line of [^\n]* got line 2: a prompt that is no text but int; "):
        auditing.main(command)
    auditing.main([*command, "--skip-bad-lines"])
    assert "Left out line 2: a prompt that is no text but int" in capsys.readouterr().out
    assert "line 2: a prompt that is no text but int" in (tmp_path / "run/audit.html").read_text()


def test_prompts_of_a_data_set(tmp_path, monkeypatch):
    datasets = pytest.importorskip(
        "datasets", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
    )
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    for split in ("train", "test"):
        written(
            folder,
            "".join(json.dumps({"prompt": f"{split} {i}", "chosen": "a", "rejected": "b"}) + "\n" for i in range(4)),
            f"{split}.jsonl",
        )
    assert [e.prompt.text for e in files.read_examples(folder)[0]] == [f"train {i}" for i in range(4)]
    assert [e.prompt.text for e in files.read_examples(f"{folder}:test[1:3]", limit=5)[0]] == ["test 1", "test 2"]
    with pytest.raises(OSError, match="^The prompts must be [^\n]* which did not load [^\n]*\\.$"):
        files.read_examples(f"{folder}:validation")


def test_prompts_of_the_books_sources():
    examples, bad = files.read_examples("reviews-plain", limit=3)
    assert len(examples) == 3 and not bad and examples[0].rejected
