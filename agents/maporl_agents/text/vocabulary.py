"""The vocabulary: ids that a model's tokenizer knows and that it has an embedding for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_BRACKETS = set("<>[]{}|")
"""An added token with one of these is a marker (<think>, <|fim_prefix|>); others are words."""

_BYTE = re.compile("<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a tokenizer, held against the embeddings of a model.

    Attributes:
        size: V, one more than the largest id that can be sampled.
        gaps: ids below V that no token has; they are never sampled.
        unread: id -> text of the markers without an embedding. They stand in no prompt, and are
            never sampled.
    """

    size: int
    gaps: tuple[int, ...] = ()
    unread: Mapping[int, str] = field(default_factory=dict)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, embeddings: int | None) -> Vocabulary:
    """Return the ids that can be read and written.

    Args:
        tokenizer: ids may have gaps, as where tokens were removed.
        embeddings: rows of the model's embedding matrix; None for as many as the tokenizer needs.

    Raises:
        ValueError: a token that text can contain, or the EOS or BOS token, has no embedding.
    """
    known = {index: text for text, index in tokenizer.get_vocab().items()}
    unread = {i: text for i, text in known.items() if embeddings is not None and i >= embeddings}
    found = markers(tokenizer) if unread else {}
    words = [text for index, text in unread.items() if index not in found]
    if words:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path!r} knows {len(known)} tokens, and its model "
            f"has {embeddings} embeddings, none for {words[0]!r}: save the model after "
            f"model.resize_token_embeddings({max(known) + 1})"
        )
    for name in ("eos", "bos"):
        if getattr(tokenizer, f"{name}_token_id") in unread:
            raise ValueError(
                f"the model of {tokenizer.name_or_path!r} has no embedding for the {name.upper()} "
                f"token of its tokenizer: name another `{name}_token` in tokenizer_config.json, or "
                f"save the model after model.resize_token_embeddings({max(known) + 1})"
            )
    read = known.keys() - unread.keys()
    size = max(read, default=-1) + 1
    gaps = () if len(read) == size else tuple(sorted(set(range(size)) - read))
    return Vocabulary(size, gaps, unread)


def rows_of(architecture: PreTrainedConfig) -> int:
    """Return the number of a model's embeddings."""
    rows: int = architecture.get_text_config().vocab_size
    return rows


def markers(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return id and text of every control token: special ones, and added ones in brackets.

    Not `<0x41>` and its like, which some files list among the added ones: they are single bytes.
    """
    special = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    added = {
        index: token.content
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special or _BRACKETS & set(token.content)
    }
    every = dict(special) | added
    return {index: text for index, text in every.items() if not _BYTE.fullmatch(text)}
