"""Rewards of replies by a fixed function or by a sequence classifier, called alike: each is a `RewardFunction`.

    score(prompts, replies) → float64 array (prompts, replies), with as many replies (texts) to each prompt

A classifier reads the conversation as its own chat template writes it, and its reward of a text depends neither on the
batch nor on the padding: it is what the model gives to that text alone. `reward_models` loads one by its name.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models.batches import batches_of_tokens, launch_tokens
from rvlib.lm.models.policies import WeightAccess
from rvlib.lm.models.reading import Reader, encode

# Models that come with code of their own, by class: how to read one reward a text from their output.
ADAPTERS: dict[str, Callable[[Any], torch.Tensor]] = {
    "LlamaForRewardModelWithGating": lambda output: output.score,  # ArmoRM, which mixes 19 objectives
}
LAST_TOKEN, UNKNOWN_TOKEN = "the last token", "the token that its own code chooses"


@dataclass(frozen=True)
class FixedReward:
    """A fixed function of replies and the prompt of each, a reward for each."""

    name: str
    function: Callable[[Sequence[Prompt], Sequence[str]], ArrayLike]

    @property
    def source(self) -> dict[str, Any]:
        """What to record of it."""
        return {"name": self.name}

    def __call__(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Rewards, (prompts, replies)."""
        rows = [(prompt, reply) for prompt, texts in _pairs(prompts, replies) for reply in texts]
        rewards = self.function([prompt for prompt, _ in rows], [reply for _, reply in rows])
        return np.array(rewards, dtype=float).reshape(len(prompts), -1)


@dataclass(frozen=True)
class ClassifierReward:
    """A sequence classifier with one output, or one of `ADAPTERS`, and its tokenizer.

    source: where the weights came from, for records. batch_size: how many of the longest texts are a batch
    (`batches_of_tokens`). sharing: how a process gets at the weights. on_batch: called after each batch with the number
    of its texts.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: dict[str, Any]
    batch_size: int = 32
    sharing: WeightAccess = WeightAccess()
    on_batch: Callable[[int], object] = lambda count: None

    @functools.cached_property
    def reader(self) -> Reader:
        """How it reads texts."""
        return Reader.of(self.name, self.tokenizer, self.model.config)

    @property
    def reads(self) -> str:
        """The token off which its head reads the reward: in a decoder the last, in an encoder the first."""
        if hasattr(self.model, "score") or type(self.model).__name__ in ADAPTERS:
            return LAST_TOKEN
        if hasattr(self.model, "classification_head"):
            return "the last ending token"
        if getattr(self.model.config, "classifier_pooling", None) == "mean":
            return "the mean over all tokens"
        return "the first token" if hasattr(self.model, "classifier") else UNKNOWN_TOKEN

    def __call__(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Rewards, (prompts, replies).

        ValueError, one sentence, for a text longer than the model reads, and for a reward that is no finite number.
        """
        with self.sharing.whole():
            return self._rewards(prompts, replies)

    def _rewards(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        encoded = [row for prompt, texts in _pairs(prompts, replies) for row in self.reader.rows(prompt, texts)]
        lengths = [len(row["input_ids"]) for row in encoded]
        rewards = np.empty(len(encoded))
        for indices in self._batches(lengths):
            with torch.inference_mode():
                batch = forward(self.model, self.tokenizer, [encoded[i] for i in indices])
            rewards[indices] = batch.double().cpu().numpy()
            self.on_batch(len(indices))
        return check_finite(self.name, prompts, replies, rewards.reshape(len(prompts), -1))

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices of the texts of each batch: of similar lengths, or of equal lengths if the model may read padding."""
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        launch = launch_tokens(self.model)
        groups = itertools.groupby(order, key=lengths.__getitem__) if self.reads == UNKNOWN_TOKEN else [(0, order)]
        for group in (list(indices) for _, indices in groups):
            for batch in batches_of_tokens([lengths[i] for i in group], self.batch_size, launch):
                yield [group[i] for i in batch]

    def alone(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> NDArray[np.float64]:
        """The rewards of a reply to each prompt, (prompts,), each in a batch of its own."""
        return replace(self, batch_size=1)(prompts, [[reply] for reply in replies])[:, 0]

    def example(self, prompt: Prompt, reply: str) -> dict[str, Any]:
        """One reply as the model reads it: {"text", "last_tokens": its last three, "reads": `reads`}."""
        token_ids = encode(self.tokenizer, prompt, reply)
        return {
            "text": self.tokenizer.decode(token_ids, skip_special_tokens=False),
            "last_tokens": self.tokenizer.convert_ids_to_tokens(token_ids[-3:]),
            "reads": self.reads,
        }

    def notes(self, prompt: Prompt, reply: str) -> list[str]:
        """Sentences on how it reads a reply, where a reader of its rewards should know."""
        notes = []
        if not self.tokenizer.chat_template:
            notes.append("It has no chat template: it reads the prompt and then the reply, with no marks of turns.")
        pad_token_id = self.model.config.get_text_config().pad_token_id
        if self.reads == LAST_TOKEN and encode(self.tokenizer, prompt, reply)[-1] == pad_token_id:
            padding = self.tokenizer.convert_ids_to_tokens(pad_token_id)
            notes.append(
                f"Its configuration pads with {padding}, with which its texts "
                "end: transformers would read the reward off the token before the last, and here it is read off the "
                "last that the attention mask has."
            )
        return notes


def check_finite(
    name: str, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]], rewards: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`rewards`, (prompts, replies); ValueError, in one sentence that names the first reply, unless all are finite."""
    bad = np.argwhere(~np.isfinite(rewards))
    if len(bad):
        i, j = bad[0]
        more = f", and {len(bad) - 1} more like that" if len(bad) > 1 else ""
        raise ValueError(
            f"A reward must be a finite number, got {rewards[i, j]} of {name} for reply {j + 1} to {prompts[i].name} "
            f"({replies[i][j][:60]!r}){more}; load it in float32, or correct the reward model."
        )
    return rewards


def forward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[int] | Mapping[str, Sequence[int]]],
) -> torch.Tensor:
    """Rewards of one batch of texts, a float32 tensor (texts,) that gradients pass through.

    rows: a text each, lists of ids, or dictionaries of such lists ("input_ids" and what else the model reads of each
    token). Padding is on the right and masked. Decoders of transformers read the reward off the last token that is not
    their padding token. If a text ends with that token, as it does where the ending token also pads, this is not its
    last token. So the batch is padded with an id that no row has, and the reward is read off each text's last token.
    """
    features = [row if isinstance(row, Mapping) else {"input_ids": row} for row in rows]
    config = model.config.get_text_config()
    configured_pad_id = config.pad_token_id
    used_ids = {token for row in features for token in row["input_ids"]}
    candidates = (
        range(config.vocab_size) if configured_pad_id is None else (configured_pad_id, *range(config.vocab_size))
    )
    pad_token_id = next((token for token in candidates if token not in used_ids), None)
    if pad_token_id is None and len(rows) > 1:  # texts that have every token there is
        return torch.cat([forward(model, tokenizer, [row]) for row in rows])
    padding_values = {"input_ids": pad_token_id or 0}  # of all else, 0
    inputs = {
        key: torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row[key]) for row in features], batch_first=True, padding_value=padding_values.get(key, 0)
        )
        for key in features[0]
    }
    lengths = torch.tensor([[len(row["input_ids"])] for row in features])
    inputs["attention_mask"] = (torch.arange(int(lengths.max())) < lengths).long()
    config.pad_token_id = pad_token_id
    try:
        output = model(**{key: value.to(model.device) for key, value in inputs.items()})
    finally:
        config.pad_token_id = configured_pad_id
    read = ADAPTERS.get(type(model).__name__, lambda output: output.logits[:, 0])
    return read(output).float()


def _pairs(prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> Iterator[tuple[Prompt, Sequence[str]]]:
    """Prompts with their replies; ValueError unless there are as many replies to each, and some."""
    counts = {len(texts) for texts in replies}
    if not prompts or len(prompts) != len(replies) or len(counts) > 1 or 0 in counts:
        raise ValueError(
            f"replies must be as many texts for each of {len(prompts)} prompts, got "
            f"{[len(texts) for texts in replies][:8]}."
        )
    return zip(prompts, replies)
