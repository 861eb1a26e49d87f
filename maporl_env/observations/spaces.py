"""The text space, and the string that lives in it.

`gymnasium.spaces.Text` allows letters and digits only, no empty text, and needs its whole character
set spelled out. Agents write Unicode, so the space here contains every text up to a length, and
draws its samples from printable ASCII.
"""

from __future__ import annotations

import string
import sys
from typing import Any

import numpy as np
from gymnasium.error import CustomSpaceError
from gymnasium.spaces import Text
from gymnasium.vector.utils import create_shared_memory
from numpy.typing import NDArray

SAMPLE_LENGTH = 64


class DebateText(str):
    """An observation: a plain string that also says its dtype, which PettingZoo's tests ask for.

    Everything a `str` does gives a `str`; JSON, pickle and copies work.
    """

    __slots__ = ()
    dtype = np.dtype(str)


class DebateSpace(Text):
    """All texts of at most `max_length` characters, the empty one included.

    Args:
        max_length: longest text in characters (code points); None for no bound.
        seed: of the samples, which are printable ASCII of at most `SAMPLE_LENGTH` characters.
    """

    def __init__(
        self, max_length: int | None = None, seed: int | np.random.Generator | None = None
    ) -> None:
        super().__init__(
            min_length=0,
            max_length=sys.maxsize if max_length is None else max_length,
            charset=string.printable,
            seed=seed,
        )

    def sample(
        self,
        mask: tuple[int | None, NDArray[np.int8] | None] | None = None,
        probability: tuple[int | None, NDArray[np.float64] | None] | None = None,
    ) -> str:
        """Return a random printable text; see `gymnasium.spaces.Text.sample` for the arguments."""
        given = mask if mask is not None else probability
        length, weights = given if given is not None else (None, None)
        if length is None:
            length = int(self.np_random.integers(min(self.max_length, SAMPLE_LENGTH) + 1))
        if given is None:
            places = self.np_random.integers(len(string.printable), size=length)
            return "".join([string.printable[place] for place in places])
        if mask is not None:
            return super().sample(mask=(length, weights))  # type: ignore[arg-type]
        return super().sample(probability=(length, weights))  # type: ignore[arg-type]

    def contains(self, x: Any) -> bool:
        """Return whether `x` is a string that is not too long, whatever its characters."""
        return isinstance(x, str) and len(x) <= self.max_length

    @property
    def is_np_flattenable(self) -> bool:
        """Never: there is no finite character set to number."""
        return False

    def __repr__(self) -> str:
        """Return the length only; the characters are all of Unicode."""
        return f"DebateSpace({'' if self.max_length == sys.maxsize else self.max_length})"

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is such a space of the same length."""
        return isinstance(other, DebateSpace) and self.max_length == other.max_length

    __hash__ = None  # type: ignore[assignment]


@create_shared_memory.register(DebateSpace)
def _refuse_shared_memory(space: DebateSpace, n: int = 1, ctx: Any = None) -> Any:
    """Stop `AsyncVectorEnv`, which would show the observations of its construction for ever."""
    raise CustomSpaceError(
        "text cannot be shared between processes: use AsyncVectorEnv(..., shared_memory=False), "
        "SyncVectorEnv, or maporl_env.batched.BatchedDebate"
    )
