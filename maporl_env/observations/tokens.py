"""Text as token ids: tokenizers, and the numbering of ids in observations and actions.

The ids that cross the border of the environment are the tokenizer's own ids plus one:

    0                      padding, never a token
    1 ... vocab_size       the tokenizer's ids 0 ... vocab_size - 1
    vocab_size + 1         the end of a message

Every array of numbers is a legal message: the first id that is no token (padding, the end, the
tokenizer's `eos_token_id` if it has one, anything out of range) ends it.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

ObsDtype = Literal["int64", "float32"]
Ids = NDArray[np.int64]

PADDING = 0
OBSERVATION_TOKENS = 4_096
MESSAGE_TOKENS = 512


@typing.runtime_checkable
class Tokenizer(typing.Protocol):
    """Anything that turns text into ids in [0, vocab_size) and back."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    def encode(self, text: str) -> Sequence[int]:
        """Return the ids of a text."""

    def decode(self, ids: Any) -> str:
        """Return the text of a list of ids; any integers are accepted."""


@dataclass(frozen=True)
class ByteTokenizer:
    """One id per byte of UTF-8. What is no UTF-8 decodes to U+FFFD."""

    vocab_size: int = 256

    def encode(self, text: str) -> Sequence[int]:
        """Return the bytes of a text."""
        return text.encode()

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that bytes spell."""
        return bytes(ids).decode(errors="replace")


@dataclass(frozen=True)
class TokenCodec:
    """A tokenizer and the sizes of the arrays. Made by `config.DebateConfig`.

    Attributes:
        tokenizer: text to its own ids and back.
        observation_tokens: length of an observation.
        message_tokens: longest message.
        obs_dtype: of observations; float32 suits learners that feed them to a dense layer.

    Raises:
        ValueError: no tokenizer, one with more ids than it counts, or an unknown dtype.
    """

    tokenizer: Tokenizer = ByteTokenizer()
    observation_tokens: int = OBSERVATION_TOKENS
    message_tokens: int = MESSAGE_TOKENS
    obs_dtype: ObsDtype = "int64"

    def __post_init__(self) -> None:
        if not isinstance(self.tokenizer, Tokenizer):
            raise ValueError(
                "a tokenizer must have encode(text), decode(ids) and vocab_size; "
                f"{self.tokenizer!r} has not"
            )
        size = len(self.tokenizer) if isinstance(self.tokenizer, Sized) else 0
        if size > self.tokenizer.vocab_size:  # a message that spells such an id would end the run
            raise ValueError(
                f"the tokenizer has {size} ids, but its vocab_size is "
                f"{self.tokenizer.vocab_size}: wrap it so that vocab_size counts all its ids"
            )
        if self.obs_dtype not in typing.get_args(ObsDtype):
            raise ValueError(f"unknown obs_dtype {self.obs_dtype!r}: choose one of int64, float32")

    @property
    def end(self) -> int:
        """The id that ends a message."""
        return int(self.tokenizer.vocab_size) + 1

    @property
    def num_ids(self) -> int:
        """Number of ids, padding and end included."""
        return self.end + 1

    def observation_space(self) -> Box:
        """Return the space of observations: ids, then padding."""
        return Box(0, self.end, (self.observation_tokens,), np.dtype(self.obs_dtype).type)

    def message_space(self) -> Box:
        """Return the space of whole messages."""
        return Box(0, self.end, (self.message_tokens,), np.int64)

    def token_space(self) -> Discrete:
        """Return the space of single ids."""
        return Discrete(self.num_ids)

    # -- text to ids -------------------------------------------------------------------------

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return len(self.tokenizer.encode(text))

    def ids(self, text: str) -> Ids:
        """Return the ids of a text, all in [1, vocab_size]."""
        encoded = self.tokenizer.encode(text)
        if isinstance(encoded, bytes):
            return np.frombuffer(encoded, np.uint8).astype(np.int64) + 1
        ids = np.asarray(encoded, np.int64) + 1
        if len(ids) and not 1 <= ids.min() <= ids.max() < self.end:
            raise ValueError(
                f"the tokenizer gave ids from {ids.min() - 1} to {ids.max() - 1}, but its "
                f"vocab_size is {self.end - 1}: wrap it so that vocab_size counts all its ids"
            )
        return ids

    def padded(self, ids: Ids) -> NDArray[Any]:
        """Return an observation: the last ids that fit, then padding."""
        kept = ids[-self.observation_tokens :]
        array = np.zeros(self.observation_tokens, self.obs_dtype)
        array[: len(kept)] = kept
        return array

    # -- ids to text -------------------------------------------------------------------------

    def text(self, ids: NDArray[Any]) -> str:
        """Return the text of ids up to the first that is no token."""
        legal = self.legal(ids)
        stop = len(ids) if legal.all() else int(legal.argmin())
        return self.tokenizer.decode((ids[:stop].astype(np.int64) - 1).tolist())

    def legal(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which ids are tokens of a message."""
        legal = (ids >= 1) & (ids < self.end)
        if ids.dtype.kind == "f":
            legal &= ids == np.floor(ids)
        eos = getattr(self.tokenizer, "eos_token_id", None)
        return legal if eos is None else legal & (ids != eos + 1)

    def message(self, action: Any) -> NDArray[Any]:
        """Return an action as an array; ValueError unless it is one row of numbers."""
        ids = np.asarray(action) if action is not None else np.array("None")
        if ids.ndim != 1 or ids.dtype.kind not in "iuf" or len(ids) > self.message_tokens:
            raise ValueError(
                f"must be a row of at most message_tokens={self.message_tokens} token ids, "
                f"not an array of shape {ids.shape} and dtype {ids.dtype}"
            )
        return ids

    def token(self, action: Any) -> Ids:
        """Return an action as an array of one id; ValueError unless it is one integer."""
        id_ = np.asarray(action) if action is not None else np.array("None")
        if id_.ndim != 0 or id_.dtype.kind not in "iu":
            raise ValueError(f"must be one token id, not {action!r}")
        return id_.reshape(1)
