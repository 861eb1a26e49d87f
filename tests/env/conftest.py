"""Fixtures of all tests of the environment."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture
def warnings_are_errors() -> Iterator[None]:
    """Fail a test on any warning, whoever gives it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
