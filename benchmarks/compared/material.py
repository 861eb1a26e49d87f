"""The input of every side: prompts of an exact length, a reward, a random model without an end.

Runs in the peers' environments too: it imports what they have, and only where it is needed.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from pathlib import Path

SPECIAL = ("<eos>", "<pad>", "<unk>")


@dataclass(frozen=True)
class Shape:
    """The size of a random Llama; words of the vocabulary are a multiple of 64."""

    hidden: int
    inside: int
    layers: int
    heads: int
    kv_heads: int
    words: int


SHAPES = {
    "tiny": Shape(128, 352, 4, 4, 2, 1024),
    "small": Shape(256, 704, 4, 4, 2, 8192),
    "smol": Shape(576, 1536, 12, 9, 3, 32_768),
    "smol-135m": Shape(576, 1536, 30, 9, 3, 49_152),
}
"""tiny 0.9 M, small 5.0 M, smol 61 M parameters; the last is of the size of SmolLM2-135M."""


def save_model(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Write a random model whose messages never end, and a tokenizer of made-up words.

    One number of the state stays what the embedding makes it, 1, through all layers, and special
    words have a large negative weight there: no sampler ever draws one, whatever its settings, so
    that all sides write equally many tokens.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.words,
        hidden_size=shape.hidden,
        intermediate_size=shape.inside,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        model.model.embed_tokens.weight[:, 0] = 1
        model.model.embed_tokens.weight[: len(SPECIAL), 0] = -8
    model.save_pretrained(folder)
    save_tokenizer(folder, shape.words)
    return folder


def save_tokenizer(folder: Path, count: int) -> None:
    """Write a tokenizer of `count` made-up words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *(f"w{i}" for i in range(count - len(SPECIAL)))]
    ids = {word: i for i, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)


def prompts(count: int, tokens: int, *, seed: int = 0, vocabulary: int = 1000) -> list[str]:
    """Return texts of `tokens` words, each one id."""
    draw = random.Random(seed)
    return [" ".join(f"w{draw.randrange(vocabulary)}" for _ in range(tokens)) for _ in range(count)]


def reward_of(text: str, tokens: int = 0) -> float:
    """Return a number in [0, 1] that depends on a text and on nothing else.

    Raises:
        ValueError: the text has another length than `tokens`, if that is not 0.
    """
    if tokens and len(text.split()) != tokens:
        raise ValueError(f"a message of {len(text.split())} tokens where {tokens} were asked for")
    return zlib.crc32(text.encode()) % 1000 / 999
