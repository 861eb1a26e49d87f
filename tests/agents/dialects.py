"""How the families of models write a conversation: markers, templates and tokenizers in miniature.

Each dialect keeps what sets its family apart: what closes a message, whether there is a system
role, whether texts are trimmed, which markers are "special" and which are only added.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from miniatures import CHAT_TEMPLATE, SENTENCES
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Dialect:
    """How one family writes.

    Attributes:
        template: the chat template; None for a base model.
        eos: the tokenizer's end token.
        special: further control tokens that the tokenizer calls special.
        added: further markers that it does not.
        bos: opens every text; empty for none.
        system: whether there is a system role.
        ends: what closes an agent's message.
        swallows: markers that eat the white space behind them.
        pieces: empty for bytes; else pieces of words as SentencePiece cuts them, with a space put
            before every stretch of text ("prepend") or before what stands "first".
    """

    template: str | None
    eos: str
    special: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    bos: str = ""
    system: bool = True
    ends: str = ""
    swallows: bool = False
    pieces: Literal["", "prepend", "first"] = ""


LLAMA3 = """{{ bos_token }}\
{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}\
{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}\
{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}\
<|start_header_id|>system<|end_header_id|>

Today: {{ date_string }}

{{ system }}<|eot_id|>\
{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>

{{ m['content'] | trim }}<|eot_id|>{% endfor %}\
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

PHI3 = """{% for m in messages %}<|{{ m['role'] }}|>
{{ m['content'] }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% else %}{{ eos_token }}{% endif %}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}\
{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles must alternate') }}{% endif %}\
<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}
{{ m['content'] | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

MISTRAL = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}{% endif %}\
{% for m in messages %}{% if m['role'] == 'user' %}\
[INST] {% if loop.last and system is defined %}{{ system }}

{% endif %}{{ m['content'] }}[/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}\
{% endfor %}"""
"""Its system text moves to the newest question, so that prompts would not only grow."""

DIALECTS = {
    "chatml": Dialect(
        CHAT_TEMPLATE,
        "<|im_end|>",
        ("<|im_start|>", "<|endoftext|>"),
        ("<think>", "</think>", "<tool_call>"),
        ends="<|im_end|>",
    ),
    "llama3": Dialect(
        LLAMA3,
        "<|end_of_text|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"),
        bos="<|begin_of_text|>",
        ends="<|eot_id|>",
    ),
    "phi3": Dialect(
        PHI3,
        "<|endoftext|>",
        ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        ("<|placeholder1|>",),
        ends="<|end|>",
        swallows=True,
    ),
    "gemma": Dialect(
        GEMMA,
        "<eos>",
        ("<start_of_turn>", "<end_of_turn>"),
        ("[multimodal]", "<unused0>"),
        bos="<bos>",
        system=False,
        ends="<end_of_turn>",
    ),
    "mistral": Dialect(
        MISTRAL,
        "</s>",
        ("[INST]", "[/INST]"),
        ("[TOOL_CALLS]",),
        bos="<s>",
        system=False,
        ends="</s>",
    ),
    "none": Dialect(None, "<|endoftext|>"),
}
DIALECTS |= {
    "phi3 in pieces": replace(DIALECTS["phi3"], bos="<s>", pieces="first"),
    "mistral in pieces": replace(DIALECTS["mistral"], pieces="prepend"),
    "none in pieces": Dialect(None, "</s>", bos="<s>", pieces="first"),
}

NATIVE = {
    "llama": "llama3",
    "qwen2": "chatml",
    "qwen3": "chatml",
    "grouped": "chatml",
    "phi3": "phi3",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "mistral": "mistral",
    "gpt2": "none",
}
"""The dialect of each family of models."""


@lru_cache
def dialect_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return the byte-level BPE of a dialect, trained once; not to be changed."""
    return make_dialect(name)


def make_dialect(
    name: str, change: Callable[[Tokenizer], None] | None = None
) -> PreTrainedTokenizerFast:
    """Return a BPE that writes in a dialect; `change` has its way with it first."""
    dialect = DIALECTS[name]
    backend = _in_pieces(dialect) if dialect.pieces else _in_bytes(dialect)
    backend.add_special_tokens(
        [AddedToken(text, rstrip=dialect.swallows, special=True) for text in dialect.special]
    )
    backend.add_tokens([AddedToken(text, normalized=True) for text in dialect.added])
    if dialect.bos:
        backend.post_processor = TemplateProcessing(
            single=f"{dialect.bos} $A", special_tokens=[(dialect.bos, 1)]
        )
    if change:
        change(backend)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=dialect.eos,
        bos_token=dialect.bos or None,
        pad_token=dialect.eos,
        unk_token="<unk>" if dialect.pieces else None,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = dialect.template
    return tokenizer


def _in_pieces(dialect: Dialect) -> Tokenizer:
    """Pieces of words that begin with a blank as \u2581, and bytes for what is in no piece."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    known = [dialect.eos, dialect.bos, "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=known, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    learned = json.loads(backend.to_str())["model"]
    vocabulary = learned["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    backend.model = models.BPE(
        vocabulary, [tuple(pair) for pair in learned["merges"]], byte_fallback=True,
        unk_token="<unk>", fuse_unk=True,
    )  # fmt: skip
    if dialect.pieces == "prepend":
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend


def _in_bytes(dialect: Dialect) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(filter(None, [dialect.eos, dialect.bos])),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend
