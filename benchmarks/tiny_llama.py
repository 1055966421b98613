"""Llamas of random weights with tokenizers of bytes, for benchmarks that train models from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<s>", "</s>", "<q>", "<a>")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ ('<q>' if message.role == 'user' else '<a>') + message.content + '</s>' }}"
    "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def learned_tokenizer(corpus: Sequence[str], tokens: int) -> PreTrainedTokenizerFast:
    """Returns a tokenizer of so many tokens that is learned from texts."""
    raw = _byte_level(models.BPE())
    learning = trainers.BpeTrainer(
        vocab_size=tokens,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(corpus, learning)
    return _with_template(raw)


def byte_tokenizer(
    whole: Sequence[str] = (), entries: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Returns a tokenizer of single bytes.

    Args:
        whole: Words that are one token wherever they stand.
        entries: Further entries of the vocabulary, which no text is split into.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *alphabet, *entries])}
    tokenizer = _with_template(_byte_level(models.BPE(vocab=vocabulary, merges=[])))
    # Longest first: no word's token may begin another's.
    words = sorted(whole, key=len, reverse=True)
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    return tokenizer


def _byte_level(model: models.BPE) -> Tokenizer:
    raw = Tokenizer(model)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def _with_template(raw: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<q>", "<a>"],
        chat_template=TEMPLATE,
    )


def write_llama(folder: Path, tokenizer: PreTrainedTokenizerFast, width: int, seed: int) -> None:
    """Writes a Llama of two layers and random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
