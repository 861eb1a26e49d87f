"""A language model of two layers with random weights, which knows the words of given texts.

For experiments in which everything is learnt from the reward: no word means anything before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORD = r"[\w.]+|[^\w\s]"
"""A word, a number, or a sign on its own."""


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each word of some texts; other words are unknown."""
    words = list(dict.fromkeys(re.findall(WORD, " ".join(texts))))
    vocabulary = {word: place for place, word in enumerate(["<unk>", *words])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Sequence([WhitespaceSplit(), Split(Regex(WORD), "isolated")])
    backend.add_special_tokens([AddedToken("<pad>"), AddedToken("<eos>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>"
    )


def random_llama(
    vocabulary: int, seed: int, *, width: int = 64, heads: int = 4, **settings: Any
) -> LlamaForCausalLM:
    """Return a Llama of two layers with random weights.

    Args:
        vocabulary: number of ids.
        seed: of the weights; the global random state is put back.
        width: of the hidden states; a multiple of `heads`.
        heads: of attention.
        settings: more of `LlamaConfig`.
    """
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_random_model(
    folder: Path, texts: Iterable[str], seed: int, *, spread: float = 0.08
) -> None:
    """Save a Llama of two layers with random weights and a `word_tokenizer`.

    Args:
        folder: is made; read by `loading.load_model` as any model.
        texts: whose words it knows.
        seed: of the weights; the global random state is put back.
        spread: standard deviation of the weights. At .02 what is read hardly changes what is said.
    """
    tokenizer = word_tokenizer(texts)
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = random_llama(
        *(len(tokenizer), seed),
        initializer_range=spread,
        max_position_embeddings=512,
        bos_token_id=None,
        **ends,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
