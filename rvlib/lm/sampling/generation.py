"""Draw replies token by token from the model itself, at a temperature and with nothing cut off.

π_θ(y|x) = ∏_l softmax(f_θ(x, y_<l))_{y_l}
"""

from collections.abc import Sequence
from typing import Any

import torch

from rvlib.lm.models.policies import Policy
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.encoding import end_token_ids


def until_end(tokens: torch.Tensor, eos_token_ids: list[int]) -> torch.Tensor:
    """Which tokens belong to the reply: all up to and including the first that ends it.

    tokens: (replies, length). Returns booleans of the same shape. The padding token often is the ending one, so padding
    cannot be told by its id.
    """
    ended = torch.isin(tokens, tokens.new_tensor(eos_token_ids))
    return (ended.cumsum(-1) - ended.long()) == 0


def generate(
    policy: Policy,
    prompt_ids: Sequence[list[int]],
    num_generations: int,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    engine: str = "generate",
    batch_size: int | None = None,
    server: str | None = None,
) -> list[list[int]]:
    """`num_generations` replies to each prompt, drawn from torch's generator: a flat list of lists of ids.

    top_k and top_p cut nothing off: the replies are from π itself. Each ends with its first ending token, or at
    `max_new_tokens`. engine: "generate", all at once in a padded batch; "static", the same with prompts padded to a
    multiple of 128 and a cache as long as the longest batch so far needs (so a run that is gone on with may round
    otherwise), for which transformers compiles the model on a GPU, kernels launched as one CUDA graph; "continuous", at
    most `batch_size` at once; "vllm", by the server at the address `server` (both in `engines`).
    """
    eos_token_ids = end_token_ids(policy)
    if engine == "continuous":
        return engines.continuous(
            policy.model,
            prompt_ids,
            num_generations,
            eos_token_ids=eos_token_ids,
            batch_size=batch_size or len(prompt_ids) * num_generations,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
        )
    if engine == "vllm":
        return engines.served(
            policy,
            prompt_ids,
            num_generations,
            server=server,
            eos_token_ids=eos_token_ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
        )
    static = engine == "static"
    inputs = policy.tokenizer.pad(
        {"input_ids": list(prompt_ids)},
        padding_side="left",
        pad_to_multiple_of=128 if static else None,
        return_tensors="pt",
    ).to(policy.model.device)
    with torch.inference_mode():
        model: Any = policy.model  # PreTrainedModel has no `generate`: each causal model's own class has
        completion_ids = model.generate(
            **inputs,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            num_return_sequences=num_generations,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_token_ids,
            pad_token_id=policy.tokenizer.pad_token_id,
            synced_gpus=False,
            **({"cache_implementation": "static"} if static else {}),
        )[:, inputs["input_ids"].shape[1] :]
    return [ids[mask].tolist() for ids, mask in zip(completion_ids, until_end(completion_ids, eos_token_ids))]
