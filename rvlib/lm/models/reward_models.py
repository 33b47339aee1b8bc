"""Reward models r(x, y) by name: three fixed functions, any sequence classifier with one output, and ArmoRM.

All are called alike, score(prompts, replies) → float64 array (prompts, replies), as a `RewardFunction`: replies are as
many texts for each prompt. A classifier reads the conversation as its own chat template writes it, and its reward of a
text depends neither on the batch nor on the padding: it is what the model gives to that text alone.
"""

import contextlib
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers
import transformers.models.llama.modeling_llama
from numpy.typing import ArrayLike, NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models import fixed_rewards
from rvlib.lm.models.batches import batches_of_tokens, launch_tokens
from rvlib.lm.models.loading import (
    AdapterBase,
    adapter_base,
    check_safetensors,
    loading_failure,
    locate,
    quiet,
    read_tokenizer,
    with_adapter,
)
from rvlib.lm.models.policies import WholeWeights
from rvlib.lm.models.reading import Reader, encode

ARMORM = "RLHFlow/ArmoRM-Llama3-8B-v0.1"
FUNCTIONS = ("sentiment", "positivity", "similarity")
REWARD_MODEL, GROUND_TRUTH = "reward model", "ground truth"  # what a model is for, as errors call it
# Models that come with code of their own, by class: how to read one reward a text from their output.
ADAPTERS: dict[str, Callable[[Any], torch.Tensor]] = {
    "LlamaForRewardModelWithGating": lambda output: output.score,  # ArmoRM, which mixes 19 objectives
}

# The ends of classes' names whose heads are not for one reward a text, though some have one output.
OTHER_HEADS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForNextSentencePrediction")

LAST_TOKEN, UNKNOWN_TOKEN = "the last token", "the token that its own code chooses"


@dataclass(frozen=True)
class FunctionReward:
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
class SequenceReward:
    """A sequence classifier with one output, or one of `ADAPTERS`, and its tokenizer.

    source: where the weights came from, for records; batch_size: how many of the longest texts are a
    batch (`batches_of_tokens`); sharing: how a process gets at the weights; scored: called with the number of texts of
    each batch that has been scored.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: dict[str, Any]
    batch_size: int = 32
    sharing: WholeWeights = WholeWeights()
    scored: Callable[[int], object] = lambda count: None

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
            self.scored(len(indices))
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


def load_reward_model(
    name: str | pathlib.Path,
    *,
    dtype: str = "float32",
    device: str | None = None,
    trust_remote_code: bool = False,
    role: str = REWARD_MODEL,
) -> FunctionReward | SequenceReward:
    """The reward model called `name`: one of `FUNCTIONS`, a folder, or a name on the hub; `role`: what errors call it.

    "sentiment" is in [-1, 1], "positivity" the same moved to [0, 1], "similarity" that to the prompt's reference.
    Weights are read from safetensors only; code that comes with them is run only with `trust_remote_code`, which ArmoRM
    needs. An adapter (PEFT's) is put on its base. OSError or ValueError, in one sentence, for what did not load, lacks
    a head, has another, or has more than one output.
    """
    if name in FUNCTIONS:
        return FunctionReward(str(name), _function(str(name)))
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f'dtype must be "float32" or "bfloat16", got {dtype!r}.')
    check_reward_model(name, trust_remote_code=trust_remote_code, role=role)
    base = adapter_base(name)
    with _one_sentence(name, role), quiet():
        tokenizer = read_tokenizer(name, trust_remote_code=trust_remote_code)
        model, loading_info = transformers.AutoModelForSequenceClassification.from_pretrained(
            name if base is None else base.name,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **({} if base is None else {"num_labels": 1, "revision": base.revision}),
        )
        missing = loading_info["missing_keys"]
        if base is not None:
            model, missing = with_adapter(model, name, missing)
    if missing:
        raise ValueError(
            f"The {role} must come with all its weights, got {str(name)!r} without {min(missing)}; name a model "
            "trained to give a reward."
        )
    modules = {key.partition(".")[0] for key in model.state_dict()} - {model.base_model_prefix}
    if unused := [key for key in loading_info["unexpected_keys"] if key.partition(".")[0] in modules]:
        raise ValueError(
            f"The {role} must have the head of a sequence classifier, got {str(name)!r} with {min(unused)}, which "
            "that head does not have; name a model trained to give one reward for a text."
        )
    model.config.use_cache = False  # every text goes through once
    model = model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    commit = locate(name)
    source = {"name": str(name), "parameters": model.num_parameters(), "dtype": dtype}
    return SequenceReward(str(name), model, tokenizer, source | ({} if commit is None else {"revision": commit}))


def load_reader(
    name: str | pathlib.Path, *, trust_remote_code: bool = False, role: str = REWARD_MODEL
) -> Reader | None:
    """How the reward model called `name` reads texts, without its weights; None of a fixed function.

    Raises what `load_reward_model` would raise, as far as that is known without the weights.
    """
    check_reward_model(name, trust_remote_code=trust_remote_code, role=role)
    if name in FUNCTIONS:
        return None
    with _one_sentence(name, role):
        tokenizer = read_tokenizer(name, trust_remote_code=trust_remote_code)
        base = adapter_base(name) or AdapterBase(str(name))
        config = transformers.AutoConfig.from_pretrained(
            base.name, revision=base.revision, trust_remote_code=trust_remote_code
        )
    return Reader.of(str(name), tokenizer, config)


def check_reward_model(name: str | pathlib.Path, *, trust_remote_code: bool = False, role: str = REWARD_MODEL) -> None:
    """Raise what `load_reward_model` would raise, as far as that is known before weights are fetched and read."""
    if name in FUNCTIONS:
        _function(str(name))
        return
    if name == ARMORM:
        _check_trust(name, trust_remote_code)  # before anything is asked of the hub
    with _one_sentence(name, role):
        locate(name)
        base = adapter_base(name)
        whole = base or AdapterBase(str(name))
        check_safetensors(whole.name)
        config = transformers.PreTrainedConfig.get_config_dict(whole.name, revision=whole.revision)[0]
    if base is not None:
        _check_adapter(name, role)
        return
    architecture = (config.get("architectures") or [""])[0]
    if architecture in ADAPTERS or (config.get("auto_map") and not hasattr(transformers, architecture)):
        _check_trust(name, trust_remote_code)
    if architecture.endswith(OTHER_HEADS):
        raise ValueError(
            f"The {role} must give one reward for a text, got {str(name)!r}, a {architecture}, whose head does "
            "not; name a sequence classifier with one output."
        )
    with _one_sentence(name, role):
        num_labels = transformers.AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code).num_labels
    if architecture not in ADAPTERS and num_labels != 1:
        raise ValueError(
            f"The {role} must have one output, got {num_labels} of {str(name)!r}; name a model trained "
            "to give a reward."
        )


def check_references(name: str | pathlib.Path, prompts: Sequence[Prompt]) -> None:
    """ValueError, in one sentence, where the reward model called `name` needs a reference that a prompt lacks."""
    if name != "similarity":
        return
    for prompt in prompts:
        if not prompt.reference:
            raise ValueError(
                f"Similarity compares with a reference reply, got prompt {prompt.name!r} without one; add a "
                "reference to each prompt."
            )


def _check_adapter(name: str | pathlib.Path, role: str) -> None:
    """ValueError, in one sentence, for an adapter of another head than a sequence classifier's, or of pickles."""
    import peft  # slow to import, and only adapters need it

    with _one_sentence(name, role):
        config = peft.PeftConfig.from_pretrained(str(name))
        weights = transformers.utils.cached_file(
            str(name), "adapter_model.safetensors", _raise_exceptions_for_missing_entries=False
        )
    if config.task_type != peft.TaskType.SEQ_CLS or config.is_prompt_learning or weights is None:
        lacks = (
            "without safetensors weights" if weights is None else f"of {config.peft_type.value} for {config.task_type}"
        )
        raise ValueError(
            f"An adapter that is the {role} must be of safetensors weights in a classifier's layers (SEQ_CLS), got "
            f"{str(name)!r} {lacks}; merge it with peft's merge_and_unload(), save_pretrained(FOLDER) that with its "
            "tokenizer, and name FOLDER."
        )


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


def _function(name: str) -> Callable[[Sequence[Prompt], Sequence[str]], ArrayLike]:
    """The rewards of replies, with the prompt of each, by one of `FUNCTIONS`."""
    if name == "sentiment":
        return lambda prompts, replies: fixed_rewards.sentiment(replies)
    if name == "positivity":
        return lambda prompts, replies: (1 + np.array(fixed_rewards.sentiment(replies))) / 2
    similarity = fixed_rewards.Similarity()

    def to_reference(prompts: Sequence[Prompt], replies: Sequence[str]) -> list[float]:
        check_references("similarity", prompts)
        return similarity(replies, [str(prompt.reference) for prompt in prompts])

    return to_reference


def _check_trust(name: str | pathlib.Path, trusted: bool) -> None:
    """ValueError unless code from the hub is trusted; adds a text that ArmoRM's code needs and transformers dropped."""
    if not trusted:
        raise ValueError(
            f"{name} runs code of its own, which must be trusted by name; set trust_remote_code to true "
            "(--trust-remote-code of an audit) to run it."
        )
    vars(transformers.models.llama.modeling_llama).setdefault("LLAMA_INPUTS_DOCSTRING", "")


@contextlib.contextmanager
def _one_sentence(name: str | pathlib.Path, role: str) -> Iterator[None]:
    """Turn whatever loading raises into an OSError that says what was expected."""
    try:
        yield
    except Exception as error:
        expected = f"The {role} must be {', '.join(FUNCTIONS)}, a folder or a name on the hub with safetensors weights"
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
