"""Reward models r(x, y) by name: two fixed functions, any sequence classifier with one output, and ArmoRM.

All are called alike, score(prompts, replies) → float64 array (prompts, replies): prompts are `data.Prompt`s, replies a list of as
many texts for each. A classifier reads the conversation as its own chat template writes it, and its reward of a text depends
neither on the batch nor on the padding.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rvlib.lm import need, rewards
from rvlib.lm.models import quiet

ARMORM = "RLHFlow/ArmoRM-Llama3-8B-v0.1"  # many objectives in one output; its own code mixes them into `score`


@dataclass(frozen=True)
class SequenceReward:
    """A sequence classifier with one output, or with its own `score`, and its tokenizer; `rows` texts go through at once."""

    model: Any
    tokenizer: Any
    source: dict
    rows: int = 32

    def __call__(self, prompts, replies):
        torch = need("torch")
        rows = [encode(self.tokenizer, prompt.text, reply) for prompt, some in _pairs(prompts, replies) for reply in some]
        scores, order = np.empty(len(rows)), sorted(range(len(rows)), key=lambda i: len(rows[i]))  # similar lengths together
        for some in (order[i : i + self.rows] for i in range(0, len(order), self.rows)):
            with torch.inference_mode():
                scores[some] = forward(self.model, self.tokenizer, [rows[i] for i in some]).double().cpu().numpy()
        return scores.reshape(len(prompts), -1)


def load_reward_model(name, *, dtype="float32", device=None, trust_remote_code=False):
    """The reward model called `name`: "sentiment" (in [-1, 1]), "positivity" (the same, moved to [0, 1]), "similarity" (to the prompt's
    reference), a folder, or a name on the hub.

    Weights are read from safetensors only; code from the hub is run only with `trust_remote_code`, which ArmoRM needs.
    OSError or ValueError, in one sentence, for what did not load or has more than one output.
    """
    if name in ("sentiment", "positivity"):
        low = -1 if name == "sentiment" else 0
        return lambda prompts, replies: low + (1 - low) * (1 + np.array([rewards.sentiment(some) for _, some in _pairs(prompts, replies)])) / 2
    if name == "similarity":
        similarity = rewards.Similarity()
        return lambda prompts, replies: np.array([similarity(some, [prompt.reference] * len(some)) for prompt, some in _pairs(prompts, replies)])
    torch, transformers = need("torch"), need("transformers")
    if name == ARMORM and not trust_remote_code:
        raise ValueError(f"{ARMORM} runs code of its own from the hub, which must be trusted by name; set trust_remote_code to true to run it.")
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                name, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(f"The reward model must be sentiment, positivity, similarity, a folder or a name on the hub with safetensors weights, got {str(name)!r}, which did not load ({reason}).") from error
    if name != ARMORM and model.config.num_labels != 1:
        raise ValueError(f"A reward model must have one output, got {model.config.num_labels} of {str(name)!r}; name a model trained to give a reward.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return SequenceReward(model.eval().to(device), tokenizer, {"name": str(name), "parameters": model.num_parameters(), "dtype": dtype})


def forward(model, tokenizer, rows):
    """Rewards of texts that go through `model` at once, a float32 tensor (texts,) that gradients pass through. rows: lists of ids."""
    inputs = tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt").to(model.device)
    output = model(**inputs)
    return (output.score if hasattr(output, "score") else output.logits[:, 0]).float()


def encode(tokenizer, prompt, reply):
    """Ids of a prompt and a reply to it (texts), as the chat template writes a conversation; as a pair of texts where there is none."""
    if not tokenizer.chat_template:
        return tokenizer(prompt, reply)["input_ids"]
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
    return tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]


def _pairs(prompts, replies):
    """Prompts with their replies; ValueError unless there are as many replies to each."""
    if len(prompts) != len(replies) or len({len(some) for some in replies}) > 1:
        raise ValueError(f"replies must be as many texts for each of {len(prompts)} prompts, got {[len(some) for some in replies][:8]}.")
    return zip(prompts, replies)
