"""Fixtures that fail a test whose program leaves a process, a file or a change behind."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .sandbox_runs import children

SUBREAPER = 36


@pytest.fixture
def no_orphans() -> Iterator[None]:
    """Adopt what a sandbox leaves behind, and find nothing."""
    libc = ctypes.CDLL(None)
    libc.prctl(SUBREAPER, 1, 0, 0, 0)
    before = children()
    try:
        yield
        deadline = time.monotonic() + 20  # on a busy machine
        while children() - before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert children() <= before
    finally:
        libc.prctl(SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "secret"
    path.write_text("canary-of-the-file")
    path.chmod(0o644)
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def library() -> Iterator[None]:
    """The standard library is as it was: nothing changed, nothing planted."""
    folder = Path(os.__file__).parent
    before = Path(os.__file__).read_bytes(), sorted(os.listdir(folder))
    yield
    assert (Path(os.__file__).read_bytes(), sorted(os.listdir(folder))) == before
