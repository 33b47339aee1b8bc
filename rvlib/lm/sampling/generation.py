"""Draw replies token by token from the model itself, at a temperature and with nothing cut off.

π_θ(y|x) = ∏_l softmax(f_θ(x, y_<l))_{y_l}
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from rvlib.lm.models.policies import Policy
from rvlib.lm.sampling import cuda_graph, engines
from rvlib.lm.sampling.encoding import end_token_ids


def until_end(tokens: torch.Tensor, eos_token_ids: list[int]) -> torch.Tensor:
    """Which tokens belong to the reply: all up to and including the first that ends it.

    tokens: (replies, length). Returns booleans of the same shape. The padding token is often the ending one, so its id
    does not identify padding.
    """
    ended = torch.isin(tokens, tokens.new_tensor(eos_token_ids))
    return (ended.cumsum(-1) - ended.long()) == 0


@dataclass(frozen=True)
class Completions:
    """Replies as lists of token ids, and ln π of each in nats if the engine that drew them says it, else None."""

    completion_ids: list[list[int]]
    logprobs: list[float] | None = None


def generate(
    policy: Policy,
    prompt_ids: Sequence[list[int]],
    num_generations: int,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    engine: str = "auto",
    batch_size: int | None = None,
    server: str | None = None,
) -> list[list[int]]:
    """`num_generations` replies to each prompt, drawn from torch's generator: a flat list of lists of ids.

    top_k and top_p cut nothing off: the replies are from π itself. Each ends with its first ending token, or at
    `max_new_tokens`. engine: "graph", a padded batch drawn by one token step that is replayed (`sampling.cuda_graph`);
    "generate", the same by transformers' own loop; "auto", "graph" on a GPU and "generate" elsewhere; "continuous", at
    most `batch_size` at a time; "vllm", by the server at the address `server`; "vllm-colocate", by vLLM on the same GPU
    (all three in `sampling.engines`).
    """
    return complete(
        policy,
        prompt_ids,
        num_generations,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        engine=engine,
        batch_size=batch_size,
        server=server,
    ).completion_ids


def complete(
    policy: Policy,
    prompt_ids: Sequence[list[int]],
    num_generations: int,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    engine: str = "auto",
    batch_size: int | None = None,
    server: str | None = None,
    on_tokens: Callable[[int], object] = lambda count: None,
) -> Completions:
    """What `generate` returns, with the log-probabilities that the engine "graph" takes while it draws.

    on_tokens: called now and then, by the engines "graph" and "generate", with how many tokens the longest reply has
    grown by.
    """
    eos_token_ids = end_token_ids(policy)
    engine = engines.resolved(engine, policy.model)
    settings: dict[str, Any] = {
        "eos_token_ids": eos_token_ids,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
    }
    limit = batch_size or len(prompt_ids) * num_generations
    if engine == "continuous":
        return Completions(engines.continuous(policy.model, prompt_ids, num_generations, batch_size=limit, **settings))
    if engine == "vllm-colocate":
        return Completions(engines.colocated(policy, prompt_ids, num_generations, batch_size=limit, **settings))
    if engine == "vllm":
        return Completions(engines.served(policy, prompt_ids, num_generations, server=server, **settings))
    padded = policy.tokenizer.pad({"input_ids": list(prompt_ids)}, padding_side="left", return_tensors="pt")
    inputs = padded.to(policy.model.device)
    logprobs = None
    if engine == "graph" and (
        sampled := cuda_graph.sample(policy.model, inputs, num_generations, **settings, on_tokens=on_tokens)
    ):
        completion_ids, logprobs = sampled[0], sampled[1].tolist()
    else:
        completion_ids = _by_transformers(policy, inputs, num_generations, **settings, on_tokens=on_tokens)
    masks = until_end(completion_ids, eos_token_ids)
    return Completions([ids[mask].tolist() for ids, mask in zip(completion_ids, masks)], logprobs)


@torch.inference_mode()
def _by_transformers(
    policy: Policy,
    inputs: transformers.BatchEncoding,
    num_generations: int,
    *,
    eos_token_ids: list[int],
    max_new_tokens: int,
    temperature: float,
    on_tokens: Callable[[int], object],
) -> torch.Tensor:
    """Replies by the model's own `generate`, (replies, length)."""

    def count_token(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """A stopping criterion that stops no reply, since transformers calls it after each token."""
        on_tokens(1)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    model: Any = policy.model  # PreTrainedModel has no `generate`: each causal model's own class has
    sequences = model.generate(
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
        stopping_criteria=[count_token],
    )
    return sequences[:, inputs["input_ids"].shape[1] :]
