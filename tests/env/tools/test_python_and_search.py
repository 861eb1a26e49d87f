"""The two built-in tools: programs in the sandbox, and passages of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maporl_env.sandbox import SandboxUnavailable, unavailable
from maporl_env.tools import FolderSearch, Python
from maporl_env.tools import python as python_tool

needs_sandbox = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


@needs_sandbox
def test_programs_return_what_they_print_and_how_they_end() -> None:
    """All of them in one call, as the messages of a turn are."""
    cases = {
        "print(6 * 7)": "42",
        "6 * 7": "42",
        "\n  x = 5\n": "",
        "x = 5\nx + 1": "6",
        "None": "",
        "print('a', end='')\n1 / 0": "a\nerror: ZeroDivisionError: division by zero",
        "def (": "error: SyntaxError",
        "import os\nos._exit(1)": "error: the program was ended",
        "raise SystemExit": "error: ",
        "open('/etc/passwd').read()": "error: FileNotFoundError",
        "import socket\nsocket.socket()": "error: PermissionError",
        "(" * 5000: "error: ",
        "\U0001f600" * 10_000: "error: ",
        "x" * 30_000: "error: ValueError: a program may have 10000 characters",
        "'\ud800'": "error: ",
    }
    for program, result in zip(cases, Python().run(list(cases)), strict=True):
        wanted = cases[program]
        assert result.startswith(wanted) if wanted.startswith("error") else result.strip() == wanted


@needs_sandbox
def test_nothing_is_kept_from_call_to_call() -> None:
    first, second = Python().run(["x = 1", "x"])
    assert (first, second.split(":")[1].strip()) == ("", "NameError")


@needs_sandbox
def test_printed_text_is_cut_and_a_slow_program_is_ended() -> None:
    tool = Python(seconds=1.0, output_chars=50)
    long, slow = tool.run(["print('ab' * 100_000)", "print('begun', flush=True)\nwhile True: pass"])
    assert long == "ab" * 25
    assert "error: the program took longer than 1 s" in slow


class Gone:
    """A sandbox that has broken."""

    def run_many(self, jobs: object) -> list[object]:
        raise SandboxUnavailable("no more namespaces")


def test_a_sandbox_that_breaks_gives_results() -> None:
    tool = Python(sandbox=Gone())  # type: ignore[arg-type]
    assert tool.run(["1", "2"]) == ["error: no program can run now (no more namespaces)"] * 2


def test_without_a_sandbox_python_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise SandboxUnavailable("no sandbox here")

    monkeypatch.setattr(python_tool, "Sandbox", refuse)
    with pytest.raises(SandboxUnavailable):
        Python()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside, outside = tmp_path / "texts", tmp_path / "secret"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    (inside / "bridges.txt").write_text("Ada built the bridge.\n\nBo painted it red.\n")
    (inside / "deep" / "rows.jsonl").write_text('{"title": "Cy", "text": "Cy sailed the lake."}\n')
    (outside / "key.txt").write_text("The key lies under the bridge.\n")
    (inside / "link.txt").symlink_to(outside / "key.txt")
    (inside / "up").symlink_to(outside, target_is_directory=True)
    (inside / "here.txt").symlink_to(inside / "bridges.txt")
    return inside


def test_a_search_returns_the_best_passages(folder: Path) -> None:
    tool = FolderSearch(folder, count=2)
    assert tool.run(["Who built the bridge?", "lake", "nothing", ""]) == [
        "bridges: Ada built the bridge.\nCy: Cy sailed the lake.",
        "Cy: Cy sailed the lake.",
        "no passage has any of these words",
        "no passage has any of these words",
    ]


@pytest.mark.parametrize(
    "query", ["key under the bridge", "../secret/key.txt", "/etc/passwd", "\x00", "a" * 10**6]
)
def test_a_search_never_leaves_its_folder(folder: Path, query: str) -> None:
    """Neither by links in it, to files and folders, nor by what a query says."""
    [found] = FolderSearch(folder, count=99).run([query])
    assert "lies under" not in found
    assert "root:" not in found
    assert len(found.splitlines()) <= 3  # and what a link shows twice is there once


def test_a_folder_of_links_has_no_passage(folder: Path) -> None:
    for name in ("bridges.txt", "deep/rows.jsonl"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match="no passage in folder"):
        FolderSearch(folder).load()


def test_what_is_no_plain_file_is_left_out(folder: Path) -> None:
    """A pipe would be waited for."""
    os.mkfifo(folder / "pipe.txt")
    assert FolderSearch(folder).load().run(["bridge"])


def test_long_passages_are_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("bridge " + "x" * 500)
    [found] = FolderSearch(tmp_path, passage_chars=20).run(["bridge"])
    assert found == "a: bridge xxxxxxxxxx [...]"


def test_a_folder_given_by_a_link_is_read(folder: Path, tmp_path: Path) -> None:
    """The link is the user's own choice; only those inside are left out."""
    (tmp_path / "chosen").symlink_to(folder, target_is_directory=True)
    [found] = FolderSearch(tmp_path / "chosen").run(["lake"])
    assert found == "Cy: Cy sailed the lake."
