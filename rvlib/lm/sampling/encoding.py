"""Between text and token ids: a prompt as the policy was taught to see one, a reply as it would write it, and back."""

import itertools

import transformers

from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models import chat
from rvlib.lm.models.loading import known_words
from rvlib.lm.models.policies import Policy


def decode_replies(policy: Policy, completion_ids: list[list[int]], prompt: Prompt | str = "?") -> list[str]:
    """The texts of replies (lists of token ids) to a prompt, without padding, ending tokens, and space around them.

    Special tokens inside are content, `<think>` for one; and so is what the chat template writes for the assistant
    before the policy draws its first token (`chat.generation_prefill`).
    """
    not_content = {*end_token_ids(policy), policy.tokenizer.pad_token_id}
    kept = [
        list(itertools.dropwhile(not_content.__contains__, reversed(token_ids)))[::-1] for token_ids in completion_ids
    ]
    beginning = chat.generation_prefill(policy.tokenizer, chat.messages_of(prompt))
    return [(beginning + text).strip() for text in policy.tokenizer.batch_decode(kept, skip_special_tokens=False)]


def encode_prompt(tokenizer: transformers.PreTrainedTokenizerBase, prompt: Prompt | str) -> list[int]:
    """Ids of a prompt, as the model was taught to see one: in its chat template if it has any.

    Without one, the text alone, with the tokens that its tokenizer puts before it, and none that ends it. ValueError
    for words that the tokenizer lacks, for turns that its template does not take, for several turns without one, and
    where there is no token, since the first token of a reply is predicted from the last one of the prompt.
    """
    token_ids = _prompt_ids(tokenizer, prompt)
    if not token_ids:
        text = prompt.text if isinstance(prompt, Prompt) else prompt
        raise ValueError(
            f"A prompt must have at least one token in the policy's tokenizer, got {text!r}; leave this prompt out, or "
            "choose a policy with a chat template."
        )
    return token_ids


def _prompt_ids(tokenizer: transformers.PreTrainedTokenizerBase, prompt: Prompt | str) -> list[int]:
    with known_words("the policy", prompt.text if isinstance(prompt, Prompt) else prompt):
        if tokenizer.chat_template:
            text = chat.conversation(tokenizer, chat.messages_of(prompt), add_generation_prompt=True)
            return tokenizer(text, add_special_tokens=False)["input_ids"]
        token_ids = tokenizer(chat.single_turn(tokenizer, prompt))["input_ids"]
        return token_ids[:-1] if token_ids[-1:] == [tokenizer.eos_token_id] else token_ids


def encode_reply(policy: Policy, prompt: Prompt | str, reply: str) -> list[int]:
    """Ids of a reply (a text) after its prompt as the model would have to write it, its ending token too."""
    tokenizer = policy.tokenizer
    eos_token_ids = end_token_ids(policy)
    if tokenizer.chat_template:
        turns = chat.messages_of(prompt)
        before = chat.conversation(tokenizer, turns, add_generation_prompt=True)
        whole = chat.conversation(tokenizer, [*turns, {"role": "assistant", "content": reply}])
        # What the template has written of the reply already is not to be written again.
        reply = (
            whole[len(before) :]
            if whole.startswith(before)
            else reply.removeprefix(chat.generation_prefill(tokenizer, turns))
        )
    with known_words("the policy", reply):
        tokens = tokenizer(reply, add_special_tokens=False)["input_ids"]
    last = next((i for i, token in enumerate(tokens) if token in eos_token_ids), None)
    return tokens[: last + 1] if last is not None else [*tokens, eos_token_ids[0]]


def end_token_ids(policy: Policy) -> list[int]:
    """Ids of the tokens that end a reply: the model's own list, the tokenizer's where it has none.

    ValueError, in one sentence, where neither has any.
    """
    eos_token_id = policy.model.generation_config.eos_token_id
    eos_token_id = policy.tokenizer.eos_token_id if eos_token_id is None else eos_token_id
    if eos_token_id is None:
        raise ValueError(
            f"The policy must have a token that ends a reply, got {policy.tokenizer.name_or_path} without one; set "
            "eos_token_id in its generation_config.json."
        )
    return eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
