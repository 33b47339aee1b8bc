"""Prompts from anywhere: every form that data sets have is read correctly, and other lines are reported one by one."""

import gzip
import json
import re

import pytest

from rvlib.lm.data import files


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
    assert [(e.prompt.text, e.prompt.reference_reply, e.chosen, e.rejected) for e in examples] == [
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
    b'{"text": "q", "n": 1}': (
        "no prompt, but the keys text, n; known are prompt, question, instruction, messages, conversations, chosen "
        "with rejected, and --column names another"
    ),
    b'{"prompt": 3}': "a prompt that is no text but int",
    b'{"prompt": "  "}': "an empty prompt",
    b'{"prompt": "p", "chosen": "c"}': "only one of chosen and rejected",
    b'{"prompt": "p", "chosen": 1, "rejected": "r"}': "a chosen that is no text but int",
    b'{"prompt": [{"content": "a"}, {"content": "b"}]}': "a prompt with a turn without a role",
    b'{"prompt": "p", "reference": []}': "a reference of no turns",
    b'{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}': (
        "a prompt that ends with a turn of the assistant, to which there is nothing to reply"
    ),
    b'{"prompt": [{"role": "oracle", "content": "a"}]}': "a prompt with a turn of role 'oracle'",
    b'{"messages": "a"}': "messages that are a text instead of turns",
    b'{"messages": [{"role": "assistant", "content": "a"}]}': "a prompt of no turns",
    b'{"chosen": "good", "rejected": "bad"}': "no prompt, and chosen and rejected that share no beginning",
    b'{"messages": "[{\'role\': array(1)}]"}': "turns written as a text that is not JSON",
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
    with pytest.raises(ValueError, match="got line 2, line 3, line 4, line 5, line 6 and 3 more: not JSON; "):
        files.read_examples(path)
    reasons = [f"line {i}: a prompt of {i} tokens" for i in range(1, 9)]
    assert files.list_bad_lines(reasons).endswith("; line 5: a prompt of 5 tokens and 3 more")
    assert len(files.read_examples(path, limit=1)[0]) == 1  # those after the last that is wanted are not looked at
    with pytest.raises(ValueError, match="^[^\n]* must hold at least one prompt, got none \\(line 1: not JSON\\)\\.$"):
        files.read_examples(written(tmp_path, "no\n"), skip_bad_lines=True)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def read(folder, rows, **settings):
    """(text, reference, chosen, rejected, turns) of each of the examples of rows, as JSON lines."""
    path = written(folder, "".join(json.dumps(row) + "\n" for row in rows))
    return [
        (e.prompt.text, e.prompt.reference_reply, e.chosen, e.rejected, e.prompt.turns)
        for e in files.read_examples(path, **settings)[0]
    ]


TURNS = (("user", "q"), ("assistant", "a"), ("user", "r"))
SHOWN = "user: q\n\nassistant: a\n\nuser: r"
FORMS = {
    "question": ({"question": "q", "answer": "4"}, ("q", "", None, None, ())),
    "Alpaca's": ({"instruction": "i", "input": "n", "output": "o"}, ("i\n\nn", "o", None, None, ())),
    "Alpaca's, no input": ({"instruction": "i", "input": "", "output": "o"}, ("i", "o", None, None, ())),
    "messages": ({"messages": [user("q"), assistant("a"), user("r")]}, (SHOWN, "", None, None, TURNS)),
    "messages with the reply": ({"messages": [user("q"), assistant("a")]}, ("q", "a", None, None, ())),
    "ShareGPT's": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        ("q", "a", None, None, ()),
    ),
    "a text on turns": ({"prompt": '[{"role": "user"}] is what?'}, ('[{"role": "user"}] is what?', "", None, None, ())),
    "parts": ({"messages": [user([{"type": "text", "text": "q"}])]}, ("q", "", None, None, ())),
    "columns of turns": ({"messages": {"role": ["user"], "content": ["q"]}}, ("q", "", None, None, ())),
    "a system turn": (
        {"messages": [{"role": "system", "content": "s"}, user("q")]},
        ("system: s\n\nuser: q", "", None, None, (("system", "s"), ("user", "q"))),
    ),
    "a column for it": (
        {"system": "s", "question": "q", "chosen": "c", "rejected": "d"},
        ("system: s\n\nuser: q", "c", "c", "d", (("system", "s"), ("user", "q"))),
    ),
    "TRL's explicit": (
        {"prompt": [user("q"), assistant("a"), user("r")], "chosen": [assistant("c")], "rejected": [assistant("d")]},
        (SHOWN, "c", "c", "d", TURNS),
    ),
    "TRL's implicit": (
        {
            "chosen": [user("q"), assistant("a"), user("r"), assistant("c")],
            "rejected": [user("q"), assistant("a"), user("r"), assistant("d")],
        },
        (SHOWN, "c", "c", "d", TURNS),
    ),
    "TRL's implicit texts": (
        {"chosen": "What is 2+2? It is 4.", "rejected": "What is 2+2? I know."},
        ("What is 2+2?", "It is 4.", "It is 4.", "I know.", ()),
    ),
    "Anthropic's": (
        {
            "chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: I c",
            "rejected": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: I d",
        },
        (SHOWN, "I c", "I c", "I d", TURNS),
    ),
    "the prompt's text and whole conversations": (
        {"prompt": "q", "chosen": [user("q "), assistant("c")], "rejected": [user("q"), assistant("d")]},
        ("q", "c", "c", "d", ()),
    ),
    "a reply that begins as the prompt does": (
        {"prompt": "Hi", "chosen": "Hi there", "rejected": "no"},
        ("Hi", "Hi there", "Hi there", "no", ()),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_the_forms_that_data_sets_have(tmp_path, form):
    row, expected = FORMS[form]
    assert read(tmp_path, [row]) == [expected]


def test_a_column_of_another_name(tmp_path):
    rows = [{"prompt": "no", "task": "p"}, {"task": [user("q"), assistant("a"), user("r")]}]
    assert [text for text, *_ in read(tmp_path, rows, column="task")] == ["p", SHOWN]
    with pytest.raises(ValueError, match="got line 1: no key tasks, but the keys prompt, task; "):
        read(tmp_path, rows, column="tasks")


@pytest.mark.parametrize(
    "chosen, reason",
    [
        ([user("Who wrote Faust?"), assistant("Goethe")], "a chosen of 2 turns that do not begin with the prompt"),
        ([user("2+2?"), assistant("4"), user("why?"), assistant("so")], "a chosen of 4 turns that do not begin with"),
        ("\n\nHuman: Faust?\n\nAssistant: Goethe", "a chosen of 2 turns that do not begin with the prompt"),
        ([user("2+2?")], "a chosen that ends with a turn of the user instead of the assistant"),
        ([user("2+2?"), assistant("4"), user("thanks")], "a chosen that ends with a turn of the user instead of the"),
    ],
)
def test_a_reply_to_something_else_is_refused(tmp_path, chosen, reason):
    with pytest.raises(ValueError, match=f"got line 1: {re.escape(reason)}"):
        read(tmp_path, [{"prompt": "2+2?", "chosen": chosen, "rejected": "5"}])


def test_a_pair_for_two_prompts_is_refused(tmp_path):
    pair = {"chosen": [user("q"), assistant("c")], "rejected": [user("r"), assistant("d")]}
    with pytest.raises(ValueError, match="line 1: chosen and rejected that answer different prompts"):
        read(tmp_path, [pair])
    pair["chosen"].append(user("thanks"))
    with pytest.raises(ValueError, match="line 1: a chosen that ends with a turn of the user instead of the assistant"):
        read(tmp_path, [pair])


# Kinds of files


def texts(path, **settings):
    examples, bad = files.read_examples(path, **settings)
    return [(e.prompt.name, e.prompt.text, e.chosen) for e in examples], bad


def test_tables_are_read_by_their_columns(tmp_path):
    content = 'prompt,chosen,rejected\n"how, then",c,d\nNA,"two\nlines",f\n'
    expected = [("row 1", "how, then", "c"), ("row 2", "NA", "two\nlines")]
    assert texts(written(tmp_path, content, "a.csv")) == (expected, [])
    assert texts(written(tmp_path, gzip.compress(content.encode()), "a.csv.gz")) == (expected, [])
    spaced = 'prompt, chosen, rejected\n"how, then", c, d\nNA, "two\nlines", f\n'
    assert texts(written(tmp_path, spaced, "spaced.csv")) == (expected, [])
    assert texts(written(tmp_path, "question\tn\nq, then\t1\n", "a.tsv")) == ([("row 1", "q, then", None)], [])
    assert texts(written(tmp_path, "task\nq\n", "b.csv"), column="task") == ([("row 1", "q", None)], [])
    turns = "\"[{'role': 'user', 'content': 'q'}]\""  # as pandas writes a column of lists
    assert texts(written(tmp_path, f"messages\n{turns}\n", "c.csv")) == ([("row 1", "q", None)], [])


@pytest.mark.parametrize(
    "name, text, reason",
    [
        ("a.csv", "id;Größe der Stadt\n1;a, b\n2;c\n", "commas, got semicolons; save it again"),
        ("a.csv", "prompt\tn\na\t1\n", "commas, got tabs; end its name in .tsv"),
        ("a.tsv", "prompt,n\na,1\n", "tabs, got commas; end its name in .csv"),
    ],
)
def test_a_table_with_another_separator_says_which(tmp_path, name, text, reason):
    with pytest.raises(ValueError, match=f"^[^\n]* must have its cells separated by {reason}\\.$"):
        files.read_examples(written(tmp_path, text, name))
    assert texts(written(tmp_path, "prompt\na; b\n", "b.csv")) == ([("row 1", "a; b", None)], [])


def test_lines_of_a_table_that_are_no_rows_are_told(tmp_path):
    path = written(tmp_path, "prompt,n\na,1\nb, then,2\nc,3\n,4\n", "a.csv")
    with pytest.raises(
        ValueError,
        match="got row 2: 3 cells instead of 2; cells that hold a separator need quotes; row 4: an empty prompt; ",
    ):
        files.read_examples(path)
    assert [text for _, text, _ in texts(path, skip_bad_lines=True)[0]] == ["a", "c"]
    with pytest.raises(ValueError, match="^[^\n]* must have as many cells in each line as in the first, [^\n]*\\.$"):
        files.read_examples(written(tmp_path, "prompt\na,1\nb,2\n", "b.csv"))
    with pytest.raises(ValueError, match="got row 1: no prompt, but the keys hello, n; "):
        files.read_examples(written(tmp_path, "hello,n\na,1\n", "c.csv"))


def test_arrays_objects_and_parquet(tmp_path):
    pandas = pytest.importorskip(
        "pandas", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
    )
    rows = [{"prompt": "p"}, {"prompt": "q", "chosen": "c", "rejected": "d"}]
    expected = [("item 1", "p", None), ("item 2", "q", "c")]
    assert texts(written(tmp_path, json.dumps(rows, indent=1), "a.json")) == (expected, [])
    assert texts(written(tmp_path, json.dumps(rows[1], indent=1), "b.json")) == ([("item 1", "q", "c")], [])
    assert texts(written(tmp_path, "\n".join(map(json.dumps, rows)), "c.json"))[0][1] == ("line 2", "q", "c")
    for name in ("e.json", "e.jsonl"):
        assert texts(written(tmp_path, '["p", "q"]', name)) == ([("item 1", "p", None), ("item 2", "q", None)], [])
    with pytest.raises(ValueError, match="got item 2: not an object with a prompt; item 3: an empty prompt; "):
        files.read_examples(written(tmp_path, '["p", 3, ""]', "f.json"))
    conversations = [[assistant(reply)] for reply in "cd"]
    table = pandas.DataFrame({"prompt": [[user("q")]], "chosen": conversations[:1], "rejected": conversations[1:]})
    table.to_parquet(tmp_path / "d.parquet")
    assert texts(tmp_path / "d.parquet") == ([("row 1", "q", "c")], [])


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("indent", [1, None])
@pytest.mark.parametrize(
    "key, entries, expected",
    [
        ("data", [{"prompt": "p"}] * 12, "data has an array of 12 rows; save that array alone, as `jq '.data'` does."),
        (
            "prompts",
            ["p"] * 12,
            "prompts has an array of 12 texts; save them as rows, as `jq '.prompts | map({prompt: .})'` does.",
        ),
    ],
)
def test_an_array_within_an_object_is_told_by_its_key(tmp_path, name, indent, key, entries, expected):
    path = written(tmp_path, json.dumps({"version": 2, key: entries}, indent=indent), name)
    for settings in ({}, {"column": "prompt"}, {"skip_bad_lines": True}):
        with pytest.raises(
            ValueError, match=re.escape(f"{path} must hold a row a line or an array of rows, but is one ")
        ) as error:
            files.read_examples(path, **settings)
        assert str(error.value).endswith(f"one object whose key {expected}")
    rows = [{"prompt": "p"}, {"prompt": "q"}]
    assert [text for _, text, _ in texts(written(tmp_path, json.dumps(rows, indent=indent), name))[0]] == ["p", "q"]


def test_a_row_with_an_array_is_no_wrapping(tmp_path):
    rows = [{"query": "p", "answers": ["a", "b"], "documents": [{"title": "t"}]}, {"query": "q", "documents": []}]
    assert [text for text, *_ in read(tmp_path, rows[:1], column="query")] == ["p"]
    with pytest.raises(ValueError, match="got line 1: no prompt, but the keys query, answers, documents; known are "):
        read(tmp_path, rows)
    with pytest.raises(
        ValueError, match="line 1: no prompt, but the keys dialogue; known are [^\n]*; correct them\\.$"
    ):
        read(tmp_path, [{"dialogue": [user("q")]}])


NO_PROMPTS = {
    "gzip's": ("prompts.txt", gzip.compress(b"a\nb\n")),
    "not packed by gzip": ("prompts.txt.gz", b"a\nb\n"),
    "UTF-16's": ("prompts.txt", "a\nb\n".encode("utf-16")),
    "NUL bytes": ("prompts.txt", "a\nb\n".encode("utf-16-le")),
    "a zip archive's": ("prompts.csv", b"PK\x03\x04\n\x14"),
    "parquet's": ("prompts.jsonl", b"PAR1\x15\n"),
    "a whole parquet file": ("prompts.parquet", b"PAR1\x15\n"),
    "must end in .jsonl": ("prompts.yaml", b"a: b\n"),
    "JSON, an array": ("prompts.json", b"[{}, "),
}


@pytest.mark.parametrize("kind", NO_PROMPTS)
def test_a_file_that_is_no_text_gives_no_prompts(tmp_path, kind):
    name, content = NO_PROMPTS[kind]
    reason = {"not packed by gzip": "packed by gzip, as its name says, but is not"}.get(kind, kind)
    with pytest.raises(ValueError, match=f"^[^\n]*{re.escape(reason)}[^\n]*\\.$"):
        files.read_examples(written(tmp_path, content, name), skip_bad_lines=True)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("prompt,other\na b,1\n", "that of a table with the columns prompt, other; end its name in .csv"),
        ('"id"\t"question"\n1\ta\n', "that of a table with the columns id, question; end its name in .tsv"),
        ("prompt\na b\n", "that of a table with the column prompt; end its name in .csv"),
        (
            "id;prompt\n1;a b\n",
            "that of a table with the columns id, prompt; save it with commas, and end its name in .csv",
        ),
        ('{"prompt": "a"}\n{"prompt": "b"}\n', "JSON; end its name in .jsonl or .json"),
        ('{\n "data": [\n  {"prompt": "a"}\n ]\n}\n', "that of JSON; end its name in .json"),
        ('[\n {\n  "prompt": "a"\n }\n]\n', "that of JSON; end its name in .json"),
        ('[\n "a",\n "b"\n]\n', "that of JSON; end its name in .json"),
        (
            'id,text,label\n1,"rain, sun",3\n2,wind and snow,4\n',
            "that of a table with the columns id, text, label; end its name in .csv, and name the one with the prompts "
            "by --column",
        ),
        (
            "Category\tUser_Input\na\tWhat, then\n",
            "that of a table with the columns Category, User_Input; end its name in .tsv, and name the one with the "
            "prompts by --column",
        ),
    ],
)
def test_a_table_or_json_in_a_text_file_gives_no_prompts(tmp_path, text, reason):
    with pytest.raises(ValueError, match=f"^[^\n]* must hold a prompt a line, but its first line is {reason}\\.$"):
        files.read_examples(written(tmp_path, text, "prompts.txt"))
    for prompt in (
        "question, or not?",
        "{braces} are prompts too",
        "a\tb",
        "prompt",
        "red,green\nname a colour, any colour, at all",  # not as many cells
        "Well,hello\nrain,sun",  # words alone
        "First, why?\nThen, how?",
        'Say "a, b\nand, c',
        "Add 1,2\nAdd 3,4",
        "First; why?\nThen; how?",
    ):
        first = prompt.splitlines()[0]
        assert files.read_examples(written(tmp_path, prompt, "prompts.txt"))[0][0].prompt.text == first


@pytest.mark.parametrize("character", ["\x01", "\x07", "\x0c", "\x1b", "\x7f"], ids=ascii)
def test_a_line_with_control_characters_is_no_text(tmp_path, character):
    reason = f"not text, with the control character U\\+{ord(character):04X}; correct them, "
    path = written(tmp_path, f"a\tb\r\nc{character}d\ne\n", "prompts.txt")
    with pytest.raises(ValueError, match=f"got line 2: {reason}"):
        files.read_examples(path)
    assert [text for _, text, _ in texts(path, skip_bad_lines=True)[0]] == ["a\tb", "e"]
    table = written(tmp_path, f"prompt,n\r\na\tb,1\r\nc{character}d,2\r\ne,3\r\n", "prompts.csv")
    with pytest.raises(ValueError, match=f"got row 2: {reason}"):
        files.read_examples(table)
    assert [text for _, text, _ in texts(table, skip_bad_lines=True)[0]] == ["a\tb", "e"]


def test_a_misspelt_file_is_told_at_once_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: pytest.fail("the hub was asked"))
    (tmp_path / "data").mkdir()
    written(tmp_path / "data", "a\n", "prompts.txt")
    monkeypatch.chdir(tmp_path)
    for name in ("data/promts.txt", "./data/prompts"):
        with pytest.raises(OSError, match="which did not load \\(it is not there; data/prompts.txt is here\\)\\.$"):
            files.read_examples(name)


# Data sets


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
