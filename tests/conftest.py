"""What every test shares: thread counts, the folder with real data, and the accelerator check."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))  # all tests import `refusals` and `http_servers`

# Workers share the cores. Set before anybody imports torch, which reads it once.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A slow machine is no failure; the time-out of a whole test still holds.
settings.register_profile("maporl", deadline=None)
settings.load_profile("maporl")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real model as thorough, so that the quick tests download nothing."""
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker("thorough")


def pytest_collection_finish() -> None:
    """Keep libraries and test items out of garbage collections: they live until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Give libraries and subprocesses a folder of temporary files that goes with the session.

    Its path is short, for sockets in it, and it is open to other users, as /tmp is.
    """
    folder = Path(tempfile.mkdtemp(prefix="maporl-tests-"))
    folder.chmod(0o1777)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield
    shutil.rmtree(folder, ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `gpu` where there is none; only such a test imports torch here."""
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs an accelerator")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real data sets: $MAPORL_DATA, or shared/data beside the repository."""
    named = os.environ.get("MAPORL_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set MAPORL_DATA to one that is)")
    return folder
