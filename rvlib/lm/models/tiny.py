"""The tiny policy: a Llama of 0.1 million parameters with random weights and a tokenizer of the tiny world's words."""

import pathlib

import tokenizers
import torch
import transformers

from rvlib.files import data_folder, fingerprint, write_folder
from rvlib.lm.data.tiny import TEMPLATE, TINY, WORDS
from rvlib.lm.models.loading import quiet


def make_tiny_model(seed: int = 0) -> pathlib.Path:
    """The folder, made if it is not there, with a Llama of random weights by `seed` and its tokenizer of `WORDS`."""
    folder = data_folder() / "models" / f"{TINY}-{seed}-{fingerprint(WORDS, TEMPLATE)[:12]}"
    if folder.exists():
        return folder
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="[EOS]",
        pad_token="[PAD]",
        additional_special_tokens=["[USER]", "[ASSISTANT]"],
        chat_template=TEMPLATE,
    )
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=WORDS.index("[EOS]"),
        pad_token_id=WORDS.index("[PAD]"),
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)

    def write(partial: pathlib.Path) -> None:
        model.save_pretrained(partial)
        fast.save_pretrained(partial)

    with quiet():
        write_folder(folder, write, replaces=False)
    return folder
