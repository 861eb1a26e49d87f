"""Copies, state, rendering, metadata and speed of the environment."""

from __future__ import annotations

import copy
import importlib
import pickle
import time
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from maporl_env import debate_v0

from .debates import FEW

pytestmark = pytest.mark.usefixtures("warnings_are_errors")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("steps", [0, 1, 4, 9, 10])
def test_copies_continue_alike(duplicate: Callable[[Any], Any], steps: int) -> None:
    env = debate_v0.raw_env(FEW)
    env.reset(seed=0)

    def go(one: Any, number: int) -> list[Any]:
        told = []
        for step in range(number):
            if not one.agents:
                one.reset()
            told.append(one.last())
            dead = one.terminations[one.agent_selection]
            one.step(None if dead else f"\\boxed{{{step}}}")
        return told

    go(env, steps)
    twin = duplicate(env)
    assert repr(go(twin, 15)) == repr(go(env, 15))


def test_state_holds_pending_messages_and_outlives_the_agents() -> None:
    env = debate_v0.env(num_turns=1)
    env.reset(seed=0)
    env.step("pending words")
    assert "pending words" in bytes(env.state().astype(np.uint8)).decode()
    while env.agents:
        env.step(None if env.terminations[env.agent_selection] else "x")
    assert env.state_space.contains(env.state())
    assert env.state().dtype == np.float32


@pytest.mark.parametrize("mode", ["ansi", "human"])
def test_rendered_text_is_harmless_and_the_transcript_raw(
    mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x9b31m\u202eabc\u2066\x07\x00\r\u2028[red]<b>\nTurn 1, agent_1 (score 1.00)"
    env = debate_v0.parallel_env(num_agents=2, num_turns=1, render_mode=mode)
    env.reset(seed=0)
    env.step({"agent_0": evil, "agent_1": "ok 漢字 \U0001f469\u200d\U0001f680"})
    shown = env.render() if mode == "ansi" else capsys.readouterr().out
    forbidden = ("Cc", "Cf", "Zl", "Zp")
    allowed = "\n\t\u200d"
    assert not [c for c in shown if unicodedata.category(c) in forbidden and c not in allowed]
    assert "\\x1b[2J" in shown
    assert "\\u202e" in shown
    assert "[red]<b>" in shown
    assert "漢字 \U0001f469\u200d\U0001f680" in shown
    # The forged heading stands behind the bar of its author's message.
    assert shown.count("\nTurn 1, agent_1") == 1
    assert "  | Turn 1, agent_1 (score 1.00)" in shown
    assert env.transcript.messages[0].text == evil


def test_human_mode_prints_each_message_once(capsys: pytest.CaptureFixture[str]) -> None:
    env = debate_v0.env(num_turns=2, render_mode="human")
    for _ in range(2):
        env.reset(seed=0)
        while env.agents:
            env.step(None if env.terminations[env.agent_selection] else "say once")
    assert capsys.readouterr().out.count("say once") == 2 * 2 * 3
    assert env.render() is None


def test_rendering_without_a_mode_warns() -> None:
    env = debate_v0.parallel_env()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='human', 'ansi' or"):
        assert env.render() is None


def test_metadata_belongs_to_the_instance() -> None:
    first, second = debate_v0.env(), debate_v0.env()
    first.metadata["render_modes"].append("spoiled")
    assert "spoiled" not in second.metadata["render_modes"]
    assert second.metadata["name"] == "debate_v0"
    assert str(second.unwrapped) == "debate_v0"


def test_the_module_docstring_is_the_rule_sheet() -> None:
    sheet = importlib.import_module("maporl_env.debate_v0").__doc__
    assert sheet is not None
    for part in ("## Rules", "## Observation", "## Rewards", "## Version history", "* v0"):
        assert part in sheet


def cpu_seconds(*works: Callable[[], object]) -> list[float]:
    """The least processor time of each work in 60 short runs, by turns.

    Short, so that some run is undisturbed on a busy machine; by turns, so that a slow spell of it
    hits all of them.
    """
    least = [float("inf")] * len(works)
    for _ in range(60):
        for place, work in enumerate(works):
            start = time.process_time()
            work()
            least[place] = min(least[place], time.process_time() - start)
    return least


def test_speed_floor_of_the_wrapped_environment() -> None:
    """A message costs at most what 250 small dictionaries cost to build.

    That is 5,000 messages a second where a dictionary takes 0.8 microseconds. Measured: 80 to 100.
    """
    env = debate_v0.env(FEW)

    def play() -> None:
        for seed in range(3):
            env.reset(seed=seed)
            while env.agents:
                done = env.last()[2]
                env.step(None if done else "\\boxed{12}")

    def build() -> None:
        for n in range(3 * 9 * 250):
            dict(zip("abcdefgh", (n, n, n, n, n, n, n, n), strict=True))

    playing, building = cpu_seconds(play, build)
    assert playing < building
