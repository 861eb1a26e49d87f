"""A run folder for tests of the HTML report."""

from pathlib import Path

import pytest
from page_cases import HOSTILE, debate, make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a finished run whose agents say every hostile text."""
    return make_run(tmp_path / "toy", [debate(i, text) for i, text in enumerate(HOSTILE)])
