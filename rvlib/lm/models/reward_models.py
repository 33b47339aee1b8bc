"""Reward models r(x, y) by name: three fixed functions, any sequence classifier with one output, and ArmoRM.

What does not load, or would not give one reward a text, is one sentence before weights are fetched, as far as that is
known then. `reward_functions` has what is loaded.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import transformers
import transformers.models.llama.modeling_llama
from numpy.typing import ArrayLike

from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models import fixed_rewards
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
from rvlib.lm.models.reading import Reader
from rvlib.lm.models.reward_functions import ADAPTERS, ClassifierReward, FixedReward

ARMORM = "RLHFlow/ArmoRM-Llama3-8B-v0.1"
FixedFunction = Callable[[Sequence[Prompt], Sequence[str]], ArrayLike]  # rewards of replies, with the prompt of each
REWARD_MODEL, GROUND_TRUTH = "reward model", "ground truth"  # what a model is for, as errors call it
# The ends of classes' names whose heads are not for one reward a text, though some have one output.
OTHER_HEADS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForNextSentencePrediction")


def load_reward_model(
    name: str | pathlib.Path,
    *,
    dtype: str = "float32",
    device: str | None = None,
    trust_remote_code: bool = False,
    role: str = REWARD_MODEL,
) -> FixedReward | ClassifierReward:
    """The reward model called `name`: one of `FUNCTIONS`, a folder, or a name on the hub; `role`: what errors call it.

    "sentiment" is in [-1, 1], "positivity" the same moved to [0, 1], "similarity" that to the prompt's reference reply.
    Weights are read from safetensors only; code that comes with them is run only with `trust_remote_code`, which ArmoRM
    needs. An adapter (PEFT's) is put on its base. OSError or ValueError, in one sentence, for what did not load, lacks
    a head, has another, or has more than one output.
    """
    if name in FUNCTIONS:
        return FixedReward(str(name), FUNCTIONS[str(name)]())
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
    return ClassifierReward(str(name), model, tokenizer, source | ({} if commit is None else {"revision": commit}))


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
        FUNCTIONS[str(name)]()
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


def check_reference_replies(name: str | pathlib.Path, prompts: Sequence[Prompt]) -> None:
    """ValueError, in one sentence, where the reward model called `name` needs a reference reply that a prompt lacks."""
    if name != "similarity":
        return
    for prompt in prompts:
        if not prompt.reference_reply:
            raise ValueError(
                f"Similarity compares with a reference reply, got prompt {prompt.name!r} without one; add a "
                "`reference` to each prompt."
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


def _similarity() -> FixedFunction:
    """How similar a reply is to the reference reply of its prompt."""
    similarity = fixed_rewards.Similarity()

    def to_reference(prompts: Sequence[Prompt], replies: Sequence[str]) -> list[float]:
        check_reference_replies("similarity", prompts)
        return similarity(replies, [prompt.reference_reply for prompt in prompts])

    return to_reference


# What makes the fixed functions, by name.
FUNCTIONS: dict[str, Callable[[], FixedFunction]] = {
    "sentiment": lambda: lambda prompts, replies: fixed_rewards.sentiment(replies),
    "positivity": lambda: lambda prompts, replies: (1 + np.array(fixed_rewards.sentiment(replies))) / 2,
    "similarity": _similarity,
}


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
