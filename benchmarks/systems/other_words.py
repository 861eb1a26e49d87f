"""A tiny model of another vocabulary: knows what agent 0 of `tiny` knows, in pieces of words.

Its tokens are pieces of bytes (BPE) that hold the space before a word; those of `tiny` are words.
Pre-trained once, on the data of agent 0, in a processor minute.
"""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from maporl_agents.tiny.pretrain import PretrainConfig, pretrain
from maporl_agents.tiny.shopping_data import attempt
from maporl_env.tasks import shopping

VOCABULARY = 360
"""256 bytes and an end, and about a hundred pieces: common words are one token, others several."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of training questions and worked answers; the same every time."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng, known = random.Random(0), set(shopping.known_items(0))
    questions = shopping.load().split("train")
    texts = [f"{one.prompt} {attempt(one, known, rng)}" for one in questions]
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|end|>",
        pad_token="<|end|>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def model_in(folder: Path) -> Path:
    """Return the folder of the model, which is made if it is not there."""
    if not (folder / "config.json").exists():
        tokenizer = make_tokenizer()
        model = pretrain(PretrainConfig(), 0, tokenizer)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return folder
