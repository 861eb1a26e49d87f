"""Free texts on the command line: escapes, backslashes of LaTeX, and texts of dashes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_agents import cli
from maporl_agents.commands import verifier
from maporl_agents.config.typed_text import read, spell

WORDS = {
    "--": "--",
    r"\n\n": "\n\n",
    "\n\n": "\n\n",
    r"a\tb": "a\tb",
    r"\\n": r"\n",
    r"\x0a\u000A": "\n\n",
    r"\boxed{": r"\boxed{",
    r"\(x\)": r"\(x\)",
    "\\": "\\",
    r"\nUser:": "\nUser:",
    r"\ttl": "\ttl",
    "---": "---",
    "-1": "-1",
    "-": "-",
    "- be brief": "- be brief",
    "-x": "-x",
    "--X": "--X",
    r"\x2d-flag": "--flag",
}
"""What is typed, and what is meant."""


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that a command would have run with."""
    seen: dict[str, Any] = {}

    def note(self: Any, *_: object) -> int:
        seen["config"] = getattr(self, "config", self)
        return 0

    monkeypatch.setattr(cli.Train, "__call__", note)
    monkeypatch.setattr(verifier.Data, "__call__", note)
    return seen


def typed(settings: dict[str, Any], *words: str) -> Any:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 0
    return settings["config"]


def test_a_text_is_what_its_user_means(settings: dict[str, Any]) -> None:
    flags = ["--sampling.stop", "--sampling.agent_stop", "--game.personas"]
    config = typed(settings, "train", *(w for f in flags for w in (f, *WORDS)), "--steps", "3")
    texts = tuple(WORDS.values())
    assert config.sampling.stop == config.sampling.agent_stop == config.game.personas == texts
    assert config.steps == 3


def test_an_equals_sign_and_other_commands_read_alike(settings: dict[str, Any]) -> None:
    config = typed(settings, "train", r"--sampling.stop=\n\n", "--sampling.agent-stop=--")
    assert config.sampling.stop == ("\n\n",)
    assert config.sampling.agent_stop == ("--",)
    data = typed(settings, "verifier", "data", "out", "--stop", r"\n", "--")
    assert data.sampling.stop == ("\n", "--")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (r"in \text{}", r"\text may be a command of LaTeX, which is typed \\text"),
        (r"\neq", r"\n before 'eq', which is typed \x0aeq"),
        (r"\ud800", r"\ud800 is half a character"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], text: str, advice: str
) -> None:
    for words in (["--sampling.stop", text], [f"--game.personas={text}"]):
        with pytest.raises(SystemExit) as end:
            cli.main(["train", *words])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("maporl: ")
        assert advice in error
        assert error.count("\n") == 1


@given(st.text(alphabet="\\nrtxu0a-{\n\r\t é", max_size=20))
def test_every_text_can_be_typed(text: str) -> None:
    spelt = spell(text)
    assert read(spelt) == text
    assert not spelt.startswith("-")
    assert spelt.isprintable()
