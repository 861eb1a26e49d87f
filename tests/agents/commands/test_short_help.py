"""``--help`` of every command: fewer than 15 flags, all of which ``--help-all`` has too."""

from __future__ import annotations

import re

import pytest

from maporl_agents.cli import main
from maporl_agents.commands.short_help import SHOWN, short_help

OTHERS = (
    *(("train",), ("eval",), ("export",), ("fetch",), ("import",), ("compare",), ("report",)),
    *(("verifier", "eval"), ("verifier", "serve"), ("bench", "env"), ("bench", "table")),
)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert not stop.value.code
    return capsys.readouterr().out


def flags_of(text: str) -> set[str]:
    return set(re.findall(r"^(?:│ |\| |  )(--[a-z][\w.-]*)", text, re.M))


@pytest.mark.parametrize("words", [*SHOWN, *OTHERS], ids=" ".join)
def test_the_help_of_every_command_is_short(words: tuple[str, ...], capsys) -> None:
    assert len(flags_of(printed(capsys, *words, "--help"))) < 15


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_flags_of_the_short_help_are_typed_as_shown(words: tuple[str, ...], capsys) -> None:
    short, whole = printed(capsys, *words, "--help"), printed(capsys, *words, "--help-all")
    shown = SHOWN[words]
    assert len(flags_of(short)) == len(shown.flags)
    assert flags_of(short) < flags_of(whole)
    assert "--help-all" in short
    assert max(map(len, short.splitlines())) <= 100
    arguments = "".join(f" {name.upper()}" for name in shown.arguments)
    assert short.splitlines()[0].endswith(f"OPTIONS]{arguments}")
    assert whole.splitlines()[0].endswith(f"OPTIONS]{arguments}")


def test_words_that_ask_for_no_short_help_get_none() -> None:
    assert short_help(["play", "--run", "runs/x"]) is None
    assert short_help(["play", "--help-all"]) is None
    assert short_help(["fetch", "--help"]) is None
    assert short_help(["--help"]) is None
    assert short_help(["play", "--run", "runs/x", "-h"]) == short_help(["play", "--help"])
