"""Tests that wrong input is refused, one case a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def refused(*cases: tuple[Any, str]) -> Callable[[Callable[[Any], object]], Callable[..., None]]:
    """Return a decorator that makes a test of a call: it raises ValueError for each input.

    Args:
        cases: the input, and a pattern that the message matches.
    """

    def decorated(call: Callable[[Any], object]) -> Callable[..., None]:
        @pytest.mark.parametrize(("given", "words"), cases)
        def test(given: Any, words: str) -> None:
            with pytest.raises(ValueError, match=words):
                call(given)

        test.__doc__ = call.__doc__
        return test

    return decorated
