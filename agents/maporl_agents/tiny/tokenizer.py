"""A word-level tokenizer over the words of the built-in tasks, as a real `PreTrainedTokenizerFast`.

A word is whatever stands between white space; decoding joins words with one space. `<pad>` and
`<eos>` are added tokens outside the word list, so no text can produce them.
"""

from __future__ import annotations

import string

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from maporl_env.tasks import shopping

MAX_NUMBER = 99


def words() -> list[str]:
    """Return the vocabulary in a fixed order: numbers, symbols, names, items, template words."""
    template = shopping.TEMPLATE
    fields = [getattr(template, name) for name in template.__dataclass_fields__]
    sentences = [
        *map(str, range(MAX_NUMBER + 1)),
        "+ - * / = , . ? : ( ) \\boxed{ } ```",
        *shopping.NAMES,
        *shopping.ITEMS,
        "buys and how much",
        *(" ".join(_plain(field)) for field in fields),
        *string.ascii_lowercase,
    ]
    return list(dict.fromkeys(" ".join(sentences).split()))


def _plain(field: str) -> list[str]:
    """Return the literal words of a template field."""
    literal = field.replace("{{", "{").replace("}}", "}")
    return [word for word in literal.split() if "{" not in word or word == "\\boxed{"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer; the same every time."""
    vocabulary = {word: index for index, word in enumerate(["<unk>", *words()])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens([AddedToken("<pad>"), AddedToken("<eos>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<eos>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
