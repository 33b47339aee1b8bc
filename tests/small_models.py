"""Folders of models small enough for a test: random weights, one token a word."""

import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

WORDS = "<end> <pad> <unk> <user> <assistant> rain sun wind snow a b c d e f <bos> <think> </think>".split()
TEMPLATE = "{% for turn in messages %}<{{ turn.role }}> {{ turn.content }} <end> {% endfor %}"
# How a second text is joined to a first: as BERT does, as RoBERTa does, as a Llama does that begins each with BOS.
PAIRS = {
    "bert": processors.TemplateProcessing(
        single="$A <end>", pair="$A <end> $B:1 <end>:1", special_tokens=[("<end>", WORDS.index("<end>"))]
    ),
    "roberta": processors.TemplateProcessing(
        single="<bos> $A <end>",
        pair="<bos> $A <end> <end> $B <end>",
        special_tokens=[(word, WORDS.index(word)) for word in ("<bos>", "<end>")],
    ),
    "llama": processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", WORDS.index("<bos>"))]
    ),
}


def make_tokenizer(folder, *, pad="<pad>", template=TEMPLATE, pairs=None, letters=False, **settings):
    """A tokenizer of WORDS; pairs: one of PAIRS, or none, where texts follow each other.

    letters: of each letter instead, so that a word is as many tokens as it has letters.
    """
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    split = [pre_tokenizers.WhitespaceSplit(), *[pre_tokenizers.Split(Regex("."), "isolated")] * letters]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    if pairs:
        tokenizer.post_processor = PAIRS[pairs]
        settings |= {"bos_token": "<bos>"} if pairs != "bert" else {}
    names = ["input_ids", "token_type_ids", "attention_mask"] if pairs == "bert" else ["input_ids", "attention_mask"]
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token=pad,
        unk_token="<unk>",
        additional_special_tokens=["<think>", "</think>"],
        model_input_names=names,
        **settings,
    )
    fast.chat_template = template
    fast.save_pretrained(folder)


def make_llama(
    folder,
    *,
    labels=1,
    pad="<pad>",
    seed=0,
    template=TEMPLATE,
    architecture="LlamaForSequenceClassification",
    max_tokens=64,
    vocabulary=None,
    pairs=None,
):
    """A folder with a Llama of two layers and a chat template."""
    make_tokenizer(folder, pad=pad, template=template, pairs=pairs)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary or len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=pad and WORDS.index(pad),
        max_position_embeddings=max_tokens,
    )
    return _save(folder, architecture, config, labels, seed)


def make_encoder(folder, kind="roberta", *, architecture="RobertaForSequenceClassification", labels=1, max_tokens=32):
    """A folder with a RoBERTa or a BERT of two layers, without a chat template; it reads `max_tokens` tokens."""
    make_tokenizer(folder, template=None, pairs=kind)
    config = getattr(transformers, f"{architecture.partition('For')[0]}Config")(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=max_tokens + 2 * (kind == "roberta"),  # RoBERTa numbers positions from 2
        initializer_range=0.5,
        pad_token_id=1,
    )
    return _save(folder, architecture, config, labels)


def _save(folder, architecture, config, labels, seed=0):
    import torch

    torch.manual_seed(seed)
    if architecture.endswith("Classification"):
        config.num_labels = labels
    getattr(transformers, architecture)(config).save_pretrained(folder)
    return folder
