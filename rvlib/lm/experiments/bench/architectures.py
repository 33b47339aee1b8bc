"""The shapes of the paper's models, a tokenizer of numbered words, and prompts of random ones: what `bench` needs.

Nothing is downloaded: weights are random, and a token's text is its number.
"""

from typing import Any

import numpy as np
import tokenizers
import transformers

from rvlib.lm.data.prompts import Prompt

PROMPT_TOKENS = 128  # of every prompt
PAD, EOS = "[PAD]", "[EOS]"  # tokens 0 and 1; no beginnings of other words, which would be read as them and a rest
_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "head_dim": 64,
    "num_key_value_heads": 8,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "max_position_embeddings": 8192,
}
# By name, the fields of a configuration of transformers in which a model differs from its type's defaults.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": _LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "head_dim": 128,
    },
    "llama-3.2-3b": _LLAMA
    | {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "llama-3.2-1b": _LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "tie_word_embeddings": True,
    },
    "smollm2-135m": _LLAMA
    | {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "pythia-2.8b": {
        "model_type": "gpt_neox",
        "vocab_size": 50304,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "pythia-1b": {
        "model_type": "gpt_neox",
        "vocab_size": 50304,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
    },
    "tiny": _LLAMA
    | {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 16,
        "num_key_value_heads": 2,
    },
}


def make_tokenizer(vocab_size: int) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of `vocab_size` tokens that writes ids as words (`PAD`, `EOS`, w2, w3, …) and reads them back."""
    vocabulary = {PAD: 0, EOS: 1} | {f"w{token}": token for token in range(2, vocab_size)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=PAD))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, eos_token=EOS, padding_side="left"
    )


def random_prompts(count: int, vocab_size: int) -> list[Prompt]:
    """`count` prompts of `PROMPT_TOKENS` words each, of the upper half of the vocabulary, the same at every call."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(vocab_size // 2, vocab_size, (count, PROMPT_TOKENS))
    return [Prompt(f"random/{i}", " ".join(f"w{token}" for token in row), "") for i, row in enumerate(tokens)]
