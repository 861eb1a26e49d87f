"""What a user meets who types something: help, mistakes, and commands that can be pasted."""

from __future__ import annotations

import errno
import importlib.metadata
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from maporl_agents import terminal
from maporl_agents.cli import main
from maporl_agents.commands.command_line import sentence_of
from maporl_agents.models.sources import hub_check


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(words)
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def test_the_version(capsys) -> None:
    code, out, _ = said(capsys, "--version")
    assert (code, out) == (0, f"maporl {importlib.metadata.version('maporl')}\n")


@pytest.mark.parametrize("package", ["tyro", "torch"])
def test_without_the_extra_train_one_sentence_says_what_to_install(package: str) -> None:
    without = f"import sys; sys.modules[{package!r}] = None"
    code = f"{without}; from maporl_agents.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        rf"maporl: (the command line|this command) needs {package}, which is not installed: "
        r"pip install 'maporl\[train\]'\n",
        done.stderr,
    )


def test_python_m_maporl_agents_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maporl_agents", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"maporl {importlib.metadata.version('maporl')}\n"


def test_a_terminal_of_few_signs_gets_the_help_too(monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(page, encoding="ascii"))
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    sys.stdout.flush()
    assert not stop.value.code
    assert b"usage: maporl" in page.getvalue()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["train", "--steps", "x"], "--steps must be a whole number, not 'x'; see maporl train"),
        (["train", "--ppo.kl-coef", "x"], "--ppo.kl-coef must be a number, not 'x'"),
        (
            ["train", "--stps", "3"],
            "unknown option --stps (did you mean --steps?); see maporl train",
        ),
        (["train", "--out", "x"], "unknown option --out; see maporl train --help"),
        (["train", "--verifier", "x"], "--verifier (did you mean --game.verifier?)"),
        (["train", "--kl_coef=3"], "unknown option --kl_coef (did you mean --ppo.kl-coef?)"),
        (["train", "--learning-rate", "3"], "--ppo.learning-rate or --warmup.learning-rate?)"),
        (["train", "--game.history", "al"], "did you mean all?): choose one of all, last, none"),
        (["train", "--eval.questions", "0"], "--eval.questions 1 --eval.no-greedy measures least"),
        (["train", "--scheme", "magrp"], "grpo, sweet_rl; did you mean 'magrpo'?"),
        (["compare", "shoping"], "unknown study 'shoping' (did you mean 'shopping'?): choose one"),
        (["train", "--game.verifier", "keyy"], "'keyy' (did you mean 'key'?): choose one of key,"),
        (["play", "--foo", "3"], "unknown option --foo; see maporl play --help"),
        (["bench", "foo"], "unknown command 'foo': choose one of env, table; see maporl bench"),
        (["verifier", "trian"], "'trian' (did you mean train?); see maporl verifier --help"),
        (["verifier", "train"], "DATA and OUT are missing; see maporl verifier train --help"),
        (["train", "foo"], "unexpected 'foo'; see maporl train --help"),
        (["report", "--x"], "the value of source is missing; see maporl report --help"),
        (["train", "--steps"], "the value of --steps is missing; see"),
        (
            ["train", "--ppo.micro-episodes", "4"],
            "--ppo.micro-episodes is no longer a setting: set --ppo.micro-tokens, the largest",
        ),
        (["train", "--game.history", "some"], "invalid choice 'some' for argument"),
        (["tain"], "unknown command 'tain' (did you mean train?); see maporl --help"),
        (["bench", "table", "none.json"], "there is no file or folder none.json"),
        (["verifier", "serve", "key", "--token-file", "none"], "there is no file or folder none"),
        (["eval", "--model", "./nowhere"], "cannot load the model './nowhere': there is no such"),
    ],
)
def test_mistakes_are_one_line_of_one_kind(words, match: str, capsys) -> None:
    code, out, err = said(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("maporl: ")
    assert err.count("\n") == 1
    assert match in err
    assert "Errno" not in err


def test_what_the_system_says_about_files_is_said_in_our_words(tmp_path: Path) -> None:
    for number in errno.errorcode:
        error = OSError(number, os.strerror(number), str(tmp_path / "x" / ".saving-ab12" / "y"))
        assert "Errno" not in sentence_of(error)
    hidden = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x" / ".saving-ab12"))
    assert sentence_of(hidden) == f"{tmp_path / 'x'} cannot be written: the disk is full"
    assert sentence_of(ValueError("two\n lines")) == "two lines"
    assert sentence_of(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_positional_arguments_have_names(capsys) -> None:
    for words, names in {("verifier", "train"): "DATA OUT", ("export",): "RUN"}.items():
        _, out, _ = said(capsys, *words, "--help")
        assert names in out.splitlines()[0]
        assert "PATH PATH" not in out


def test_output_that_nobody_reads_is_no_mistake() -> None:
    command = f"{sys.executable} -m maporl_agents.cli train --help-all | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_a_hub_that_is_silent_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_check._Reach, "cut_off", False)
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"'nobody/nothing': there is no such folder.*is silent"):
        hub_check.require_found("nobody/nothing")
    assert time.monotonic() - began < 30  # its library would try for more than a minute
    assert constants.HF_HUB_OFFLINE
    monkeypatch.setattr(hub_check, "try_to_load_from_cache", lambda name, file: "there")
    hub_check.require_found("nobody/nothing")  # downloaded before: it is read from there
    monkeypatch.setattr(hub_check, "hub_answers", lambda address: True)
    hub_check.require_found("nobody/nothing")
    assert not constants.HF_HUB_OFFLINE


def test_offline_by_the_users_wish_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_check._Reach, "cut_off", False)
    with pytest.raises(ValueError, match="and HF_HUB_OFFLINE is set"):
        hub_check.require_found("nobody/nothing")


def test_the_command_that_is_shown_works_from_here(tmp_path: Path, monkeypatch) -> None:
    """The bare word where the shell finds it; else a path; relative where it lies below."""
    home = tmp_path / "a project"
    script = home / ".venv" / "bin" / "maporl"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\necho found\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(home)
    assert terminal.command_line("report", Path("runs/x")) == ".venv/bin/maporl report runs/x"
    monkeypatch.chdir(tmp_path)
    for shown in ("'a project/.venv/bin/maporl' report 'my runs'",):
        assert terminal.command_line("report", "my runs") == shown
        told = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
        assert told.stdout == "found\n"
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin")
    assert terminal.command_line("train") == "maporl train"
    script.unlink()
    assert terminal.maporl_command().endswith(" -m maporl_agents.cli")
