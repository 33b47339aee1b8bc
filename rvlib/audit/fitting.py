"""Whether texts fit the models of an audit: prompts before anything is drawn, replies before any is scored.

What does not fit is reported by line: lengths, templates, tokens. How many tokens a reply has for a reward model is
known only when the reply has been drawn; before that it is estimated from the prompts and the texts that come with
them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import transformers
from transformers import PreTrainedTokenizerBase

from rvlib.audit.scoring import Texts
from rvlib.lm.data.files import list_bad_lines
from rvlib.lm.data.prompts import Example, Prompt
from rvlib.lm.models.loading import known_words, quiet
from rvlib.lm.models.policies import Policy
from rvlib.lm.models.reading import NoEmbedding, Reader, check_vocabulary, max_tokens
from rvlib.lm.sampling.encoding import encode_prompt

_Item = TypeVar("_Item")


def readable_examples(
    examples: Sequence[Example],
    policy: Policy,
    readers: Mapping[str, Reader],
    *,
    max_new_tokens: int,
    skip_bad_lines: bool = False,
) -> tuple[list[Example], list[str]]:
    """(readable, bad): the examples whose prompt, with a reply of `max_new_tokens` tokens, every model can read.

    readers: how each reward model reads texts, by label. bad: texts, "line 3: a prompt of 70 tokens, …". ValueError,
    in one sentence, that lists them unless `skip_bad_lines`, and if none fits.
    """
    most = max_tokens(policy.model.config, policy.tokenizer, transformers.AutoModelForCausalLM)
    with quiet():
        growth = {label: _growth(examples, policy.tokenizer, reader.tokenizer) for label, reader in readers.items()}

    def reason_of(example: Example) -> str | None:
        reasons = (_too_long(example, label, readers[label], max_new_tokens, growth[label]) for label in readers)
        return _too_long_for_policy(example, policy, most, max_new_tokens) or next(filter(None, reasons), None)

    reasons = _reasons(examples, reason_of)
    readable = [example for example, reason in zip(examples, reasons) if reason is None]
    bad = [f"{example.prompt.name}: {reason}" for example, reason in zip(examples, reasons) if reason]
    if bad and not (skip_bad_lines and readable):
        raise ValueError(
            f"Every prompt, with a reply of {max_new_tokens} tokens, must be one that all models can read, got "
            f"{list_bad_lines(bad)}; lower --max-new-tokens, or leave them out with --skip-bad-lines "
            "(skip_bad_lines=True)."
        )
    return readable, bad


def readable_replies(
    texts: Texts,
    readers: Mapping[str, Reader],
    kinds: Sequence[str] | None = None,
    *,
    skip_bad_lines: bool = False,
    drawn_here: bool = True,
) -> tuple[list[bool], list[str]]:
    """(mask, bad): which prompts have replies that every reward model can read, and a sentence of each other prompt.

    kinds: what to call a prompt's replies, "reply 1", "reply 2", … by default. drawn_here: whether the way out is to
    draw again. ValueError, in one sentence, that lists them unless `skip_bad_lines`.
    """

    def reason_of(row: tuple[Prompt, Sequence[str]]) -> str | None:
        prompt, replies = row
        names = kinds or [f"reply {i}" for i in range(1, len(replies) + 1)]
        for label, reader in readers.items():
            for name, reply in zip(names, replies):
                count = len(reader.row(prompt, reply)["input_ids"])
                if count > reader.max_tokens:
                    return _longer_pair(name, count, label, reader.max_tokens)
        return None

    reasons = _reasons(list(zip(texts.prompts, texts.replies)), reason_of)
    bad = [f"{prompt.name}: {reason}" for prompt, reason in zip(texts.prompts, reasons) if reason]
    if bad and not skip_bad_lines:
        goes_on, shorter = "", "bring shorter replies"
        if drawn_here:
            goes_on, shorter = ", which goes on from what was drawn", "draw shorter replies by a lower --max-new-tokens"
        raise ValueError(
            f"Every reply, with its prompt, must be one that all reward models can read, got {list_bad_lines(bad)}; "
            f"leave out such prompts with --skip-bad-lines (skip_bad_lines=True){goes_on}, or {shorter}."
        )
    return [reason is None for reason in reasons], bad


def _reasons(items: Sequence[_Item], reason_of: Callable[[_Item], str | None]) -> list[str | None]:
    """Why each item does not fit, None where it does. A ValueError that all items meet is raised as it is."""
    reasons: list[str | None] = []
    refused = []
    with quiet():  # transformers would warn of long texts, which are reported here
        for item in items:
            try:
                reasons.append(reason_of(item))
            except NoEmbedding:
                raise
            except ValueError as error:
                refused.append(error)
                reasons.append(str(error).rstrip("."))
    if refused and len(refused) == len(reasons):
        raise refused[0]
    return reasons


def _growth(examples: Sequence[Example], policy: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase) -> float:
    """How many tokens of a reward model's `own` tokenizer a token of the policy's makes of these texts; at least 1."""
    texts = [
        text
        for example in examples
        for text in (example.prompt.text, example.prompt.reference_reply, example.chosen, example.rejected)
        if text
    ]
    try:
        with known_words("a model", ""):
            counts = [
                sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])) if texts else 0
                for tokenizer in (own, policy)
            ]
    except ValueError:  # `reason_of` says which text it is
        return 1.0
    return max(1.0, counts[0] / counts[1]) if counts[1] else 1.0


def _too_long_for_policy(example: Example, policy: Policy, most: float, max_new_tokens: int) -> str | None:
    """What is wrong with a prompt for the policy; None where it fits."""
    token_ids = encode_prompt(policy.tokenizer, example.prompt)
    if not token_ids:
        return "a prompt without a token for the policy"
    vocabulary = policy.model.get_input_embeddings().weight.shape[0]
    check_vocabulary(policy.source["name"], token_ids, policy.tokenizer, vocabulary)
    if len(token_ids) + max_new_tokens > most:
        return _longer(len(token_ids), max_new_tokens, most, "the policy")
    return None


def _too_long(example: Example, label: str, reader: Reader, max_new_tokens: int, growth: float) -> str | None:
    """What is wrong with a prompt or its pair of replies for a reward model; None where they fit.

    growth: tokens of the reward model's for each of the policy's.
    """
    count, own_tokens = len(reader.row(example.prompt, "")["input_ids"]), math.ceil(max_new_tokens * growth)
    if count + own_tokens > reader.max_tokens:
        return _longer(count, max_new_tokens, reader.max_tokens, label, own_tokens)
    for kind, reply in (("chosen", example.chosen), ("rejected", example.rejected)):
        count = 0 if reply is None else len(reader.row(example.prompt, reply)["input_ids"])
        if count > reader.max_tokens:
            return _longer_pair(kind, count, label, reader.max_tokens)
    return None


def _longer(count: int, max_new_tokens: int, most: float, label: str, own_tokens: int | None = None) -> str:
    own = "" if own_tokens in (None, max_new_tokens) else f" (about {own_tokens} of its own)"
    return (
        f"a prompt of {count} tokens, with a reply of {max_new_tokens}{own} more than the {most:.0f} that {label} reads"
    )


def _longer_pair(name: str, count: int, label: str, most: float) -> str:
    return f"{name} and its prompt of {count} tokens, more than the {most:.0f} that {label} reads"
