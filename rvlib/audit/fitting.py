"""Whether prompts fit the models of an audit, told by line before anything is drawn: lengths, templates, tokens."""

from collections.abc import Mapping, Sequence

import transformers

from rvlib.lm.data.files import list_bad_lines
from rvlib.lm.data.sources import Example
from rvlib.lm.models.loading import quiet
from rvlib.lm.models.policies import Policy
from rvlib.lm.models.reading import NoEmbedding, Reader, check_vocabulary, max_tokens
from rvlib.lm.sampling.encoding import encode_prompt


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
    readable, bad, refused = [], [], []
    most = max_tokens(policy.model.config, policy.tokenizer, transformers.AutoModelForCausalLM)
    with quiet():  # or transformers would warn of long texts, which are told here
        for example in examples:
            try:
                reason = _too_long_for_policy(example, policy, most, max_new_tokens) or next(
                    filter(None, (_too_long(example, label, readers[label], max_new_tokens) for label in readers)), None
                )
            except NoEmbedding:
                raise
            except ValueError as error:
                refused.append(error)
                reason = str(error).rstrip(".")
            if reason is None:
                readable.append(example)
            else:
                bad.append(f"{example.prompt.name}: {reason}")
    if refused and len(refused) == len(examples):
        raise refused[0]
    if bad and not (skip_bad_lines and readable):
        raise ValueError(
            f"Every prompt, with a reply of {max_new_tokens} tokens, must be one that all models can read, got "
            f"{list_bad_lines(bad)}; lower --max-new-tokens, or leave them out with --skip-bad-lines "
            "(skip_bad_lines=True)."
        )
    return readable, bad


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


def _too_long(example: Example, label: str, reader: Reader, max_new_tokens: int) -> str | None:
    """What is wrong with a prompt or its pair of replies for a reward model; None where they fit."""
    count = len(reader.row(example.prompt, "")["input_ids"])
    if count + max_new_tokens > reader.max_tokens:
        return _longer(count, max_new_tokens, reader.max_tokens, label)
    for kind, reply in (("chosen", example.chosen), ("rejected", example.rejected)):
        count = 0 if reply is None else len(reader.row(example.prompt, reply)["input_ids"])
        if count > reader.max_tokens:
            return f"{kind} and its prompt of {count} tokens, more than the {reader.max_tokens:.0f} that {label} reads"
    return None


def _longer(count: int, max_new_tokens: int, most: float, label: str) -> str:
    return f"a prompt of {count} tokens, with a reply of {max_new_tokens} more than the {most:.0f} that {label} reads"
