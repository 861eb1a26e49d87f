"""One core for all tests of plans."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bases take turns, as they do where there is one core; a ledger sees its own thread alone."""
    monkeypatch.setenv("MAPORL_CORES", "1")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
