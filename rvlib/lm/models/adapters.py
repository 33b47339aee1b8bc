"""Low-rank adapters (LoRA) on a policy: W + (alpha/rank) B A, where only A and B are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import transformers

from rvlib.lm.models.policies import Policy
from rvlib.lm.seeding import torch_seed
from rvlib.lm.settings import LoRA


def add_adapter(policy: Policy, lora: LoRA, seed: int = 0) -> None:
    """Give a policy's linear layers adapters of `lora.rank`, W + (alpha/rank) B A with B = 0.

    The policy stays the same, and only A and B are trained. Only the adapter is saved, since adding it to bfloat16
    weights would round it away.
    """
    import peft  # slow to import, and only policies with adapters need it

    alpha: Any = lora.alpha  # peft declares an int, but only divides it by the rank
    config = peft.LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch_seed(seed, 9):
        policy.model.add_adapter(config)


def has_adapter(model: transformers.PreTrainedModel) -> bool:
    """Whether a model has adapters."""
    return getattr(model, "_hf_peft_config_loaded", False)


@contextlib.contextmanager
def without_adapter(model: transformers.PreTrainedModel) -> Iterator[None]:
    """Inside, the model is the one that its adapter was added to: the ref_policy, without a copy of the weights."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
