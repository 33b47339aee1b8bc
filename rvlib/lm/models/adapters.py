"""Low-rank adapters (LoRA) on a policy: W + (alpha/rank) B A, of which only A and B are trained."""

import contextlib

from rvlib.lm.seeding import torch_seed


def add_adapter(policy, lora, seed=0):
    """Give a policy's linear layers adapters of `lora.rank`, W + (alpha/rank) B A with B = 0: the same policy, of which
    only A and B are trained.

    Saved, such a policy is its adapter alone: added to bfloat16 weights it would be rounded away.
    """
    import peft

    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch_seed(seed, 9):
        policy.model.add_adapter(config)


def has_adapter(model):
    """Whether a model has adapters."""
    return getattr(model, "_hf_peft_config_loaded", False)


@contextlib.contextmanager
def without_adapter(model):
    """Inside, the model is the one that its adapter was added to: the reference, with no second copy of the weights."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
