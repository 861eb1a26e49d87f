r"""The rules by which a GGUF file's byte-level tokenizer cuts a text before it applies merges.

A GGUF names these rules by one word, `tokenizer.ggml.pre`. transformers knows some of the words and
takes GPT-2's rules for all others without saying so: SmolLM2's ids of "\n\n1." are then wrong,
because its digits are cut off one by one first.
"""

from __future__ import annotations

import importlib

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

BYTE_LEVEL = "gpt2"
"""`tokenizer.ggml.model` of tokenizers that need such rules."""

DIGIT_BY_DIGIT = ("smollm", "starcoder", "refact")
"""Rules that cut every digit off, then as GPT-2 does."""

AS_GPT2 = ("gpt-2", "gpt2", "mpt", "olmo", "phi-2", "roberta-bpe", "jais")


def cut_as_trained(tokenizer: PreTrainedTokenizerBase, model: str, rules: str) -> str:
    """Give a tokenizer the rules that its file names.

    Args:
        tokenizer: as transformers made it of the file; changed.
        model: the file's `tokenizer.ggml.model`.
        rules: its `tokenizer.ggml.pre`, "" if it names none.

    Returns:
        A warning where the rules are unknown, so that text may be cut otherwise than in the
        model's training; else "".
    """
    if model != BYTE_LEVEL or rules in AS_GPT2 or rules in _known_to_transformers():
        return ""
    if rules in DIGIT_BY_DIGIT:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        return ""
    named = f"the rules {rules!r}" if rules else "no rules"
    return (
        f"the file names {named} to cut text, which are not known here, so text is cut by GPT-2's: "
        "where the model was trained otherwise, it reads some texts in a form that it has never "
        "seen; put the tokenizer.json of the original model in its place"
    )


def _known_to_transformers() -> frozenset[str]:
    try:
        module = importlib.import_module("transformers.integrations.gguf.gguf_tokenizer_mapping")
    except ImportError:  # releases before this table
        return frozenset()
    return frozenset(getattr(module, "GGUF_PRE_TOKENIZER_SPLITS", ()))
