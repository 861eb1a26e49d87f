"""Loads the tokenizer of a model folder or hub name, as its tokenizer.json defines it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file

GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of tokenizers that are all in their tokenizer.json."""

_PROBE = (
    "In 2024 there were 1234567 pens (12345) for $98,765.40.\n\n\nSo x=(a+b)\n\t  and 3.14, don't "
    "they'LL; HTTPServer camelCase snake_case  Ünïcödé ﬁ naïve Straße  你好世界 こんにちは "
    "مرحبا हिन्दी 🙂👍🏽 \\boxed{12}\r\n  end "
)
"""Digits, white space, contractions, scripts and signs: where rules to cut a text differ."""


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer, which cuts text as its tokenizer.json does, if there is one.

    transformers builds some tokenizers by the rules of the class that tokenizer_config.json or the
    model's family names, with no more than the vocabulary of tokenizer.json.

    Raises:
        ValueError: the checkpoint has no tokenizer, or one that cannot be read.
    """
    folder = Path(name)
    if folder.exists() and not any(
        (folder / file).exists() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")
    ):
        raise ValueError(
            f"{folder} has no tokenizer (tokenizer.json); save one beside the model with "
            "tokenizer.save_pretrained"
        )
    try:
        if get_tokenizer_config(name).get("tokenizer_class") in GENERIC_TOKENIZERS:
            return _load(PreTrainedTokenizerFast, name)
        file = cached_file(name, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
        return _load(AutoTokenizer, name) if file is None else _as_in_file(name, file)
    except Exception as error:  # classes raise what they like for files of another
        raise ValueError(f"cannot load the tokenizer of {name!r}: {first_line(error)}") from error


def _load(kind: Any, name: str, **options: Any) -> Any:
    return kind.from_pretrained(name, trust_remote_code=False, **options)


def _as_in_file(name: str, file: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of its class if that does what the file says, else the generic one."""
    said = Tokenizer.from_file(file)
    named: dict[str, str] = {}
    try:
        by_class = _load(AutoTokenizer, name)
        if by_class.is_fast and _same(by_class.backend_tokenizer, said):
            return by_class
        # A class may know by itself which of the file's tokens ends a text.
        for role, token in by_class.special_tokens_map.items():
            if isinstance(token, str) and said.token_to_id(token) is not None:
                named[role] = token
    except Exception:
        pass
    given = get_tokenizer_config(name)
    return _load(
        PreTrainedTokenizerFast,
        name,
        **{role: token for role, token in named.items() if given.get(role) is None},
    )


def _same(one: Tokenizer, other: Tokenizer) -> bool:
    """Return whether two tokenizers do the same with a text."""
    first, second = (
        (
            *(_state(part) for part in (it.normalizer, it.pre_tokenizer, it.decoder)),
            type(it.model),
            _switches(it.model),
            it.encode(_PROBE, add_special_tokens=False).ids,
            it.decode(it.encode(_PROBE, add_special_tokens=False).ids, skip_special_tokens=False),
        )
        for it in (one, other)
    )
    return first == second


def _state(part: Any) -> Any:
    return None if part is None else part.__getstate__()


def _switches(model: Any) -> dict[str, Any]:
    """Return the plain attributes of a tokenizer's model: its treatment of unknown text."""
    values = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    return {name: value for name, value in values.items() if not callable(value)}


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
