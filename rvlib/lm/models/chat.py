"""Chat templates: a conversation as a model was taught to read it, and what the template writes into a reply itself."""

from collections.abc import Mapping, Sequence

import transformers

from rvlib._terminal import first_line
from rvlib.lm.data.prompts import Prompt

_PROBE = "xyzzy"  # a word that no template writes itself


def messages_of(prompt: Prompt | str) -> list[dict[str, str]]:
    """The messages of a prompt, as chat templates take them: [{"role": …, "content": …}, …]; a text is the user's."""
    return prompt.messages if isinstance(prompt, Prompt) else [{"role": "user", "content": prompt}]


def conversation(
    tokenizer: transformers.PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = False,
) -> str:
    """`messages` as the tokenizer's chat template writes them. ValueError, in one sentence, where the template cannot.

    A template may want a system turn, take no system turn, or be broken.
    """
    try:
        turns = [dict(message) for message in messages]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    except Exception as error:  # a template is a program of its own
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(
            f"The chat template of {tokenizer.name_or_path} must take turns of {roles}, but it does not "
            f"({first_line(error)}); "
            'give prompts as "messages" with the turns that it takes, such as a system turn, or correct '
            "chat_template.jinja in a copy of its folder."
        ) from error
    return str(text)


def single_turn(tokenizer: transformers.PreTrainedTokenizerBase, prompt: Prompt | str) -> str:
    """The text of a prompt for a model without a chat template; ValueError, in one sentence, for several turns."""
    messages = messages_of(prompt)
    if len(messages) > 1:
        raise ValueError(
            f"A prompt of {len(messages)} turns needs a chat template, got {tokenizer.name_or_path} without one; put "
            "a chat_template.jinja into its folder, or leave such prompts out with --skip-bad-lines."
        )
    return messages[0]["content"]


def generation_prefill(tokenizer: transformers.PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    """What the template writes for the assistant after the mark of its turn, `<think>` of a reasoning model; mostly "".

    It is the beginning of the reply, though the policy does not draw it.
    """
    if not tokenizer.chat_template:
        return ""
    for turns in (list(messages), [{"role": "system", "content": "?"}, *messages]):  # which some templates want first
        replied = [*turns, {"role": "assistant", "content": _PROBE}]
        try:
            before = conversation(tokenizer, turns)
            asked = conversation(tokenizer, turns, add_generation_prompt=True)
            # A template may write marks of reasoning into the last turn only: the mark of a turn alone is the shortest.
            answers = [
                conversation(tokenizer, replied),
                conversation(tokenizer, [*replied, {"role": "user", "content": "?"}]),
            ]
        except ValueError:  # the error is raised where a prompt is encoded
            continue
        marks = [text.removeprefix(before).partition(_PROBE)[0] for text in answers if _PROBE in text]
        generation_prompt = asked.removeprefix(before)
        fitting = [mark for mark in marks if mark and generation_prompt.startswith(mark)]
        return generation_prompt[len(min(fitting, key=len)) :] if fitting else ""
    return ""
