"""The `cost.Size` of a model: by its name, or of one that is there.

torch and transformers are imported only where the hub is asked.
"""

import functools
from typing import TYPE_CHECKING, Any

from rvlib.lm.experiments.cost import MODELS, Size

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@functools.lru_cache
def size(name: str) -> Size:
    """The `Size` of a model, by its name. OSError, one sentence, for one that neither `MODELS` nor the hub knows."""
    if name in MODELS:
        return MODELS[name]
    import torch  # only for a model that is not in the shipped recipes
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise OSError(
            f"The size of {name!r} must be known to plan, but its configuration did not load "
            f"({str(error).splitlines()[0]})."
        ) from error
    return shape(model)


def shape(model: "PreTrainedModel") -> Size:
    """The `Size` of a causal language model that is there."""
    config: Any = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    gated = any("gate" in module for module, _ in model.named_modules())
    return Size(
        model.num_parameters(),
        config.num_hidden_layers,
        config.hidden_size,
        heads * head_dim,
        config.vocab_size,
        config.intermediate_size,
        3 if gated else 2,
    )
