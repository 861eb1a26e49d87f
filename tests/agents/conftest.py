"""Fixtures of the agents' tests: miniature checkpoints on disk, made once per session."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import their factories from `miniatures`
sys.path.insert(0, str(Path(__file__).parent / "watch"))  # and from `watch_cases`

from dialects import NATIVE, dialect_tokenizer
from miniatures import Checkpoint, Native, save_miniature, shared_tokenizer

from maporl_agents.commands import chosen_team
from maporl_agents.models.sources.model_download import DownloadError, fetch
from maporl_agents.training import experiment


@pytest.fixture
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, empty; commands that run in it leave the threads to the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chosen_team, "share_cores", lambda num_bases: None)
    monkeypatch.setattr(experiment, "share_cores", lambda num_bases: None)
    return tmp_path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return `checkpoint(family, templated=False, seed=0, padded=0)`: the folder of a miniature."""
    made: dict[tuple[str, bool, int, int], Path] = {}

    def make(family: str, templated: bool = False, seed: int = 0, padded: int = 0) -> Path:
        key = (family, templated, seed, padded)
        if key not in made:
            made[key] = save_miniature(
                tmp_path_factory.mktemp("checkpoint") / family,
                family,
                shared_tokenizer(templated),
                seed=seed,
                padded_vocabulary=padded,
            )
        return made[key]

    return make


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """Return `native(family, width=32)`: a miniature that writes in its family's dialect."""
    made: dict[tuple[str, int], Path] = {}

    def make(family: str, width: int = 32) -> Path:
        if (family, width) not in made:
            folder = tmp_path_factory.mktemp("native") / family
            tokenizer = dialect_tokenizer(NATIVE[family])
            made[family, width] = save_miniature(folder, family, tokenizer, width=width)
        return made[family, width]

    return make


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Return the folder of SmolLM2-135M-Instruct; fetch it if it is not in the cache.

    For tests marked `real`; they are skipped where it cannot be had within four minutes.
    """
    pytest.importorskip("gguf")
    try:
        return fetch("smollm2-135m", print, limit_seconds=240)
    except DownloadError as error:
        pytest.skip(f"no real model: {error}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; `apt-get install chromium chromium-driver` where it is missing."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    opened.set_page_load_timeout(100)
    yield opened
    opened.quit()
