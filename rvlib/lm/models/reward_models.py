"""Reward models r(x, y) by name: three fixed functions, any sequence classifier with one output, and ArmoRM.

All are called alike, score(prompts, replies) → float64 array (prompts, replies), as a `RewardFunction`: replies are as
many texts for each prompt. A classifier reads the conversation as its own chat template writes it, and its reward of a
text depends neither on the batch nor on the padding: it is what the model gives to that text alone.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
import transformers.models.llama.modeling_llama
from numpy.typing import ArrayLike, NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models import fixed_rewards
from rvlib.lm.models.loading import loading_failure, quiet
from rvlib.lm.models.policies import WholeWeights

ARMORM = "RLHFlow/ArmoRM-Llama3-8B-v0.1"
FUNCTIONS = ("sentiment", "positivity", "similarity")
# Models that come with code of their own, by class: how to read one reward a text from their output.
ADAPTERS: dict[str, Callable[[Any], torch.Tensor]] = {
    "LlamaForRewardModelWithGating": lambda output: output.score,  # ArmoRM, which mixes 19 objectives
}


@dataclass(frozen=True)
class FunctionReward:
    """A fixed function of a prompt and some replies to it, a reward for each."""

    name: str
    function: Callable[[Prompt, Sequence[str]], ArrayLike]

    @property
    def source(self) -> dict[str, Any]:
        """What to record of it."""
        return {"name": self.name}

    def __call__(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Rewards, (prompts, replies)."""
        return np.array([self.function(prompt, texts) for prompt, texts in _pairs(prompts, replies)], dtype=float)


@dataclass(frozen=True)
class SequenceReward:
    """A sequence classifier with one output, or one of `ADAPTERS`, and its tokenizer.

    source: where the weights came from, for records; batch_size: texts that go through the model at once; sharing:
    how a process comes by the weights.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: dict[str, Any]
    batch_size: int = 32
    sharing: WholeWeights = WholeWeights()

    def __call__(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Rewards, (prompts, replies). ValueError, one sentence, for a text longer than the model reads."""
        with self.sharing.whole():
            return self._rewards(prompts, replies)

    def _rewards(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        encoded = [
            _features(self.tokenizer, prompt.text, reply)
            for prompt, texts in _pairs(prompts, replies)
            for reply in texts
        ]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))  # similar lengths together
        longest, max_tokens = len(encoded[order[-1]]["input_ids"]), _max_tokens(self.model, self.tokenizer)
        if longest > max_tokens:
            raise ValueError(
                f"A prompt with its reply must have at most the {max_tokens} tokens that the reward model "
                f"{self.name} reads, got {longest}; draw shorter replies, or leave out long prompts."
            )
        rewards = np.empty(len(encoded))
        for indices in (order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)):
            with torch.inference_mode():
                batch = forward(self.model, self.tokenizer, [encoded[i] for i in indices])
            rewards[indices] = batch.double().cpu().numpy()
        return rewards.reshape(len(prompts), -1)


def load_reward_model(
    name: str | pathlib.Path, *, dtype: str = "float32", device: str | None = None, trust_remote_code: bool = False
) -> FunctionReward | SequenceReward:
    """The reward model called `name`: one of `FUNCTIONS`, a folder, or a name on the hub.

    "sentiment" is in [-1, 1], "positivity" the same moved to [0, 1], "similarity" that to the prompt's reference.
    Weights are read from safetensors only; code that comes with them is run only with `trust_remote_code`, which ArmoRM
    needs. OSError or ValueError, in one sentence, for what did not load, lacks a head, or has more than one output.
    """
    if name in FUNCTIONS:
        return FunctionReward(str(name), _function(str(name)))
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f'dtype must be "float32" or "bfloat16", got {dtype!r}.')
    check_reward_model(name, trust_remote_code=trust_remote_code)
    with _one_sentence(name), quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
        model, loading_info = transformers.AutoModelForSequenceClassification.from_pretrained(
            name,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    if loading_info["missing_keys"]:
        raise ValueError(
            f"A reward model must come with all its weights, got {str(name)!r} without "
            f"{min(loading_info['missing_keys'])}; name a model trained to give a reward."
        )
    model.config.use_cache = False  # every text goes through once
    model = model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return SequenceReward(
        str(name), model, tokenizer, {"name": str(name), "parameters": model.num_parameters(), "dtype": dtype}
    )


def check_reward_model(name: str | pathlib.Path, *, trust_remote_code: bool = False) -> None:
    """Raise what `load_reward_model` would, as far as can be told before weights are fetched and read."""
    if name in FUNCTIONS:
        _function(str(name))
        return
    if name == ARMORM:
        _check_trust(name, trust_remote_code)  # before anything is asked of the hub
    with _one_sentence(name):
        config = transformers.PreTrainedConfig.get_config_dict(name)[0]
    architecture = (config.get("architectures") or [""])[0]
    if architecture in ADAPTERS or (config.get("auto_map") and not hasattr(transformers, architecture)):
        _check_trust(name, trust_remote_code)
    with _one_sentence(name):
        num_labels = transformers.AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code).num_labels
    if architecture not in ADAPTERS and num_labels != 1:
        raise ValueError(
            f"A reward model must have one output, got {num_labels} of {str(name)!r}; name a model trained "
            "to give a reward."
        )


def forward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[int] | Mapping[str, Sequence[int]]],
) -> torch.Tensor:
    """Rewards of texts that go through `model` at once, a float32 tensor (texts,) that gradients pass through.

    rows: a text each, lists of ids, or dictionaries of such lists ("input_ids" and what else the model reads of each
    token). Padding is on the right and masked. The models read the reward off the last token that is not their padding
    token; one that has none is padded with an id that no row has, so that it reads the last of all, as it does of one
    text alone.
    """
    features = [row if isinstance(row, Mapping) else {"input_ids": row} for row in rows]
    config = model.config.get_text_config()
    configured_pad_id = pad_token_id = config.pad_token_id
    if configured_pad_id is None:
        used_ids = {token for row in features for token in row["input_ids"]}
        pad_token_id = next(token for token in range(config.vocab_size) if token not in used_ids)
    padding_values = {"input_ids": pad_token_id}  # of all else, 0
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


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, reply: str) -> list[int]:
    """Ids of a prompt and a reply to it (texts), as the chat template writes a conversation.

    A pair of texts where there is no template.
    """
    return _features(tokenizer, prompt, reply)["input_ids"]


def _features(tokenizer: PreTrainedTokenizerBase, prompt: str, reply: str) -> dict[str, list[int]]:
    """What a model reads of each token of a prompt and a reply: {"input_ids": list, perhaps "token_type_ids": list}."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        encoding = tokenizer(text, add_special_tokens=False)  # the template wrote them
    else:
        encoding = tokenizer(prompt, reply)
    return {key: value for key, value in encoding.items() if key != "attention_mask"}


def _function(name: str) -> Callable[[Prompt, Sequence[str]], ArrayLike]:
    """The rewards of one prompt's replies by one of `FUNCTIONS`."""
    if name == "sentiment":
        return lambda prompt, replies: fixed_rewards.sentiment(replies)
    if name == "positivity":
        return lambda prompt, replies: (1 + np.array(fixed_rewards.sentiment(replies))) / 2
    similarity = fixed_rewards.Similarity()

    def to_reference(prompt: Prompt, replies: Sequence[str]) -> list[float]:
        if not prompt.reference:
            raise ValueError(
                f"Similarity compares with a reference reply, got prompt {prompt.name!r} without one; add a "
                "reference to each prompt."
            )
        return similarity(replies, [prompt.reference] * len(replies))

    return to_reference


def _check_trust(name: str | pathlib.Path, trusted: bool) -> None:
    """Let code from the hub run only if somebody said so; ArmoRM's asks for a text that transformers no longer has."""
    if not trusted:
        raise ValueError(
            f"{name} runs code of its own, which must be trusted by name; set trust_remote_code to true to run it."
        )
    vars(transformers.models.llama.modeling_llama).setdefault("LLAMA_INPUTS_DOCSTRING", "")


def _max_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """How many tokens of a text the model reads; infinity where neither it nor its tokenizer says."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(tokenizer.model_max_length, positions or np.inf)


@contextlib.contextmanager
def _one_sentence(name: str | pathlib.Path) -> Iterator[None]:
    """What loading may raise, as an OSError that says what was expected."""
    try:
        yield
    except Exception as error:
        expected = (
            f"The reward model must be {', '.join(FUNCTIONS)}, a folder or a name on the hub with safetensors weights"
        )
        raise OSError(f"{expected}, got {str(name)!r}, which did not load ({loading_failure(error)}).") from error


def _pairs(prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> Iterator[tuple[Prompt, Sequence[str]]]:
    """Prompts with their replies; ValueError unless there are as many replies to each, and some."""
    counts = {len(texts) for texts in replies}
    if not prompts or len(prompts) != len(replies) or len(counts) > 1 or 0 in counts:
        raise ValueError(
            f"replies must be as many texts for each of {len(prompts)} prompts, got "
            f"{[len(texts) for texts in replies][:8]}."
        )
    return zip(prompts, replies)
