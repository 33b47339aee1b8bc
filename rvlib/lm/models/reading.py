"""How a model reads texts: which tokens of a prompt and a reply, how many it can read, and which it embeds."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedTokenizerBase

from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models import chat
from rvlib.lm.models.loading import known_words, quiet


class NoEmbedding(ValueError):
    """A tokenizer with more tokens than its model embeds."""


@dataclass(frozen=True)
class Reader:
    """What a reward model takes of texts, known before its weights are read: its tokens, and how many.

    max_tokens: of a prompt with its reply; infinity if neither it nor its tokenizer says. vocabulary: how many tokens
    it embeds.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    max_tokens: float
    vocabulary: int

    def row(self, prompt: Prompt | str, reply: str) -> dict[str, list[int]]:
        """What it reads of each token: {"input_ids": list, perhaps "token_type_ids": list}.

        ValueError, in one sentence, for a token that it does not embed.
        """
        row = features(self.tokenizer, prompt, reply)
        check_vocabulary(self.name, row["input_ids"], self.tokenizer, self.vocabulary)
        return row

    def rows(self, prompt: Prompt, replies: Sequence[str]) -> list[dict[str, list[int]]]:
        """The row of each reply to a prompt. ValueError, in one sentence, for a text that is too long."""
        rows = [self.row(prompt, reply) for reply in replies]
        longest = max(len(row["input_ids"]) for row in rows)
        if longest > self.max_tokens:
            raise ValueError(
                f"A prompt with its reply must have at most the {self.max_tokens:.0f} tokens that the reward model "
                f"{self.name} reads, got {longest} of {prompt.name}; draw shorter replies, or leave out long prompts."
            )
        return rows

    @classmethod
    def of(cls, name: str, tokenizer: PreTrainedTokenizerBase, config: transformers.PreTrainedConfig) -> "Reader":
        """That of the reward model with this tokenizer and this configuration."""
        most = max_tokens(config, tokenizer, transformers.AutoModelForSequenceClassification)
        return cls(name, tokenizer, most, config.get_text_config().vocab_size)


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt | str, reply: str) -> list[int]:
    """Ids of a prompt and a reply to it, as the chat template writes a conversation.

    A pair of texts where there is no template.
    """
    return features(tokenizer, prompt, reply)["input_ids"]


def features(tokenizer: PreTrainedTokenizerBase, prompt: Prompt | str, reply: str) -> dict[str, list[int]]:
    """What a model reads of each token of a prompt and a reply: {"input_ids": list, perhaps "token_type_ids": list}."""
    if tokenizer.chat_template:
        messages = [*chat.messages_of(prompt), {"role": "assistant", "content": reply}]
        text = chat.conversation(tokenizer, messages)
        with known_words(tokenizer.name_or_path, text):
            encoding = tokenizer(text, add_special_tokens=False)  # the template wrote them
        special = [0] * len(encoding["input_ids"])
    else:
        # A batch of one: alone, transformers takes a pair whose second text is empty for one text, with other marks.
        text = chat.single_turn(tokenizer, prompt)
        with known_words(tokenizer.name_or_path, f"{text} {reply}"):
            batch = tokenizer([text], [reply], return_special_tokens_mask=True)
        encoding = {key: values[0] for key, values in batch.items()}
        special = encoding.pop("special_tokens_mask")
    # A tokenizer that begins each of two texts with BOS would write it into the middle.
    kept = [
        i
        for i, (token, added) in enumerate(zip(encoding["input_ids"], special))
        if i == 0 or not added or token != tokenizer.bos_token_id
    ]
    return {key: [values[i] for i in kept] for key, values in encoding.items() if key != "attention_mask"}


def max_tokens(config: transformers.PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, architecture: Any) -> float:
    """How many tokens of a text a model reads; infinity where neither it nor its tokenizer says.

    RoBERTa and its like number the positions of their tokens from 2, so that of 514 they read 512. architecture: the
    class of transformers' that loads the model.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not positions or positions <= 0:
        return tokenizer.model_max_length
    with torch.device("meta"), quiet():  # no weights: only to see how positions are numbered
        try:
            modules = dict(architecture.from_config(config, trust_remote_code=False).named_modules())
        except Exception:  # code of its own, not to be run for this
            modules = {}
    tables = [module for name, module in modules.items() if name.endswith("position_embeddings")]
    reserved = [table.padding_idx + 1 for table in tables if getattr(table, "padding_idx", None) is not None]
    return min(tokenizer.model_max_length, positions - max(reserved, default=0) or np.inf)


def check_vocabulary(
    name: str | pathlib.Path,
    token_ids: list[int],
    tokenizer: PreTrainedTokenizerBase,
    embeddings: int,
) -> None:
    """NoEmbedding, in one sentence, for a token that the model has no embedding of."""
    largest = max(token_ids, default=0)
    if largest >= embeddings:
        raise NoEmbedding(
            f"{name} must embed every token of its tokenizer, got {tokenizer.convert_ids_to_tokens(largest)!r} with "
            f"number {largest} and {embeddings} embeddings; give it the tokenizer that it was trained with, or enlarge "
            "it with model.resize_token_embeddings(len(tokenizer)) and train that."
        )
