"""The tokenizer of the library `tokenizers` inside one of transformers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def bare(tokenizer: PreTrainedTokenizerBase) -> Tokenizer | None:
    """Return the bare tokenizer, which takes half the time; None if its class adds to it."""
    encode = getattr(type(tokenizer), "_encode_plus", None)
    if encode is None or encode is not getattr(PreTrainedTokenizerFast, "_encode_plus", None):
        return None
    return tokenizer.backend_tokenizer


def without_prefix(tokenizer: PreTrainedTokenizerBase) -> Tokenizer | None:
    """Return the tokenizer for text behind other tokens; None if it is the same.

    Metaspace with the scheme "first" puts a space before what stands first in a text, and a piece
    that is encoded by itself always does.
    """
    if not tokenizer.is_fast or tokenizer.backend_tokenizer.pre_tokenizer is None:
        return None
    cutter = tokenizer.backend_tokenizer.pre_tokenizer
    state = cutter.__getstate__()
    if (
        without := state.replace(b'"prepend_scheme":"first"', b'"prepend_scheme":"never"')
    ) == state:
        return None
    inner = copy.deepcopy(tokenizer.backend_tokenizer)
    cutter.__setstate__(without)  # of a copy: it is the tokenizer's own only once it is assigned
    inner.pre_tokenizer = cutter
    return inner
