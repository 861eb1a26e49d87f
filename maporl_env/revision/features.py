"""Vectors of states and actions for critics that are networks."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

_WORD = re.compile(r"\w+|[^\w\s]")
TEXT_LIMIT = 20_000
"""Characters of a text that are read."""


def one_hot(count: int) -> Callable[[int], Vector]:
    """Return a function from 0 .. count - 1 to unit vectors, (count,).

    The function raises ValueError for any other number.
    """

    def vector(index: int) -> Vector:
        if not 0 <= index < count:
            raise ValueError(f"{index} is not one of the {count} actions, 0 to {count - 1}")
        found = np.zeros(count, dtype=np.float32)
        found[index] = 1.0
        return found

    return vector


def hashed_words(size: int = 256) -> Callable[[str], Vector]:
    """Return a function from texts to signed, hashed counts of words and pairs of words, (size,).

    Feature hashing (Weinberger et al. 2009, arXiv 0902.2206), of Euclidean length 1; all zeros for
    a text without words. A stand-in for the frozen encoder of the paper that needs no model.

    Raises:
        ValueError: `size` below 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")

    def vector(text: str) -> Vector:
        words = _WORD.findall(text[:TEXT_LIMIT].lower())
        found = np.zeros(size, dtype=np.float32)
        for piece in (*words, *(f"{a} {b}" for a, b in pairwise(words))):
            code = crc32(piece.encode("utf-8", "replace"))
            found[code // 2 % size] += 1.0 if code % 2 else -1.0
        length = float(np.linalg.norm(found))
        return found / length if length else found

    return vector
