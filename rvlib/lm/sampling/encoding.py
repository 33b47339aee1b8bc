"""Between text and token ids: a prompt as the policy was taught to see one, a reply as it would write it, and back."""

from typing import Any

import transformers

from rvlib.lm.models.policies import Policy


def decode_replies(policy: Policy, completion_ids: list[list[int]]) -> list[str]:
    """The texts of replies (lists of token ids), without the tokens that only mark their ends."""
    return [text.strip() for text in policy.tokenizer.batch_decode(completion_ids, skip_special_tokens=True)]


def encode_prompt(tokenizer: transformers.PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a prompt, as the model was taught to see one: in its chat template if it has any.

    ValueError for words that the tokenizer lacks.
    """
    try:
        if tokenizer.chat_template:
            conversation = tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
            return tokenizer(conversation, add_special_tokens=False)["input_ids"]
        return tokenizer(text)["input_ids"]
    except Exception as error:
        if type(error) is not Exception:  # what tokenizers raises
            raise
        raise ValueError(
            f"A prompt must be of words that the policy's tokenizer has, got {text[:80]!r} ({error}); "
            "choose other prompts, or another policy."
        ) from error


def encode_reply(policy: Policy, prompt: str, reply: str) -> list[int]:
    """Ids of a reply (a text) after its prompt (a text) as the model would have to write it, its ending token too."""
    tokenizer: Any = policy.tokenizer  # what a template's text is, transformers' own types do not say
    eos_token_ids = end_token_ids(policy)
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt}]
        before = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": reply}], tokenize=False)
        reply = whole[len(before) :] if whole.startswith(before) else reply
    tokens = tokenizer(reply, add_special_tokens=False)["input_ids"]
    last = next((i for i, token in enumerate(tokens) if token in eos_token_ids), None)
    return tokens[: last + 1] if last is not None else [*tokens, eos_token_ids[0]]


def end_token_ids(policy: Policy) -> list[int]:
    """Ids of the tokens that end a reply: the model's own list, the tokenizer's where it has none."""
    eos_token_id = policy.model.generation_config.eos_token_id
    eos_token_id = policy.tokenizer.eos_token_id if eos_token_id is None else eos_token_id
    return eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
