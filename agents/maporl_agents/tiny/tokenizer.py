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

from maporl_env.prompts import Template
from maporl_env.tasks import routes, sharing, shopping

MAX_NUMBER = 99

FIELDS = (
    "instruction", "opening", "peers", "peer", "verdict", "own_verdict", "again", "cue", "nobody",
    "feedback", "left_out",
)  # fmt: skip
"""Template fields whose words the shipped models know. A new field would renumber every word."""


def words() -> list[str]:
    """Return the vocabulary of `tiny`: numbers, symbols, names, items, template words."""
    return _vocabulary(
        *map(str, range(MAX_NUMBER + 1)),
        "+ - * / = , . ? : ( ) \\boxed{ } ```",
        *shopping.NAMES,
        *shopping.ITEMS,
        "buys and how much",
        *_words_of(shopping.TEMPLATE),
        *string.ascii_lowercase,
    )


def sharing_words() -> list[str]:
    """Return the vocabulary of `tiny-sharing`: that of the tasks `sharing` and `coins`."""
    return _vocabulary(
        *map(str, range(MAX_NUMBER + 1)),
        ", . ? : \\boxed{ } ```",
        *sharing.NAMES,
        "has coins and gets shared by how many are left",
        "pays with two of the bigger coin",
        *_words_of(sharing.TEMPLATE),
        "scores 0.0 0.5 1.0",
        *sharing.MOVES,
    )


def qwen2_words() -> list[str]:
    """Return the vocabulary of `tiny-sharing-qwen2`: the same words under other ids."""
    return sorted(sharing_words(), reverse=True)


def maker_words() -> list[str]:
    """Return the vocabulary of `tiny-maker`: that of the tasks `expressions` and `routes`."""
    return _vocabulary(
        *map(str, range(MAX_NUMBER + 1)),
        "+ - * ( ) = , . ? : x f \\boxed{ } ```",
        "from to not moves",
        *routes.MOVES,
        *_words_of(sharing.TEMPLATE),
        "0.0 0.5 1.0",
    )


WORDS = {
    "tiny": words,
    "tiny-sharing": sharing_words,
    "tiny-sharing-qwen2": qwen2_words,
    "tiny-maker": maker_words,
}


def _vocabulary(*sentences: str) -> list[str]:
    """Return the different words in the order in which they occur."""
    return list(dict.fromkeys(" ".join(sentences).split()))


def _words_of(template: Template) -> list[str]:
    return [" ".join(_plain(getattr(template, name))) for name in FIELDS]


def _plain(field: str) -> list[str]:
    """Return the literal words of a template field."""
    literal = field.replace("{{", "{").replace("}}", "}")
    return [word for word in literal.split() if "{" not in word or word == "\\boxed{"]


def make_tokenizer(model: str = "tiny") -> PreTrainedTokenizerFast:
    """Build the tokenizer of a built-in model; the same every time."""
    vocabulary = {word: index for index, word in enumerate(["<unk>", *WORDS[model]()])}
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
