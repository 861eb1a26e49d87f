"""``--help`` of every command: fewer than 15 flags, all of which ``--help-all`` has too."""

from __future__ import annotations

import re

import pytest

from maporl_agents.cli import Train, main
from maporl_agents.commands.short_help import (
    BASIC,
    BASIC_OF_COMMAND,
    SHOWN,
    basic_help,
    field_docs,
    short_help,
)
from maporl_agents.config import CONFIGS, PPOConfig, learning_rate_flags
from maporl_agents.training.keywords import places_of

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


@pytest.mark.parametrize("scheme", CONFIGS)
def test_the_help_of_training_begins_with_what_most_runs_need(scheme: str) -> None:
    config = CONFIGS[scheme]()
    text = basic_help(Train(config=config, scheme=scheme), config, "maporl train")
    flags = [line.strip() for line in text.splitlines() if line.startswith("  --")]
    assert len(flags) == len(set(flags)) == len(BASIC) + len(BASIC_OF_COMMAND) + 1
    assert len(flags) < 15
    assert flags[-1] == learning_rate_flags(config)[0].replace("_", "-")
    assert "--warmup.learning-rate" not in flags  # it has a rate too, of what few runs use
    assert {flag[2:].replace("-", "_") for flag in flags} <= {
        *BASIC_OF_COMMAND,
        *places_of(type(config)),
    }
    assert f"(default: {config.name})" in " ".join(text.split())
    assert "--help-all" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "\n\n  --steps\n      Rounds" in text or "Stages" in text


def test_both_kinds_of_help(capsys) -> None:
    short = printed(capsys, "train", "--help")
    assert "--game.verifier" in short
    assert "--ppo.gae-lambda" not in short
    whole = printed(capsys, "train", "--help-all")
    assert "--ppo.gae-lambda" in whole
    assert len(short.splitlines()) < 80 < len(whole.splitlines())


def test_texts_below_fields_are_inherited() -> None:
    docs = field_docs(PPOConfig)
    assert docs["learning_rate"].startswith("Of the policies")
    assert docs["epochs"].startswith("Passes over each batch")
    assert all(docs.values())


def test_help_names_every_scheme(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, "train", "--help")
    assert all(f"{name}," in said for name in CONFIGS)
