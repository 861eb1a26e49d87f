"""`maporl train --game.env`: a run in an environment that others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra train")

from small_runs import maporl

from maporl_agents.training import loop
from maporl_env.bridges.textarena import env_maker

ENV = '''
import numpy as np
from gymnasium.spaces import Text
from pettingzoo import ParallelEnv


class Numbers(ParallelEnv):
    """Two players say words for two turns; each is paid the share of its words that are numbers."""

    metadata = {"name": "numbers_v0"}

    def __init__(self):
        self.possible_agents = ["left", "right"]
        self.render_mode = None

    def observation_space(self, agent):
        return Text(100)

    def action_space(self, agent):
        return Text(1000)

    def reset(self, seed=None, options=None):
        self.agents, self.left = self.possible_agents[:], 2
        return dict.fromkeys(self.agents, "how much ?"), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.left -= 1
        words = {agent: text.split() for agent, text in actions.items()}
        pay = {a: sum(w.isdigit() for w in said) / max(len(said), 1) for a, said in words.items()}
        over = dict.fromkeys(self.agents, self.left == 0)
        seen = dict.fromkeys(self.agents, "how much more ?")
        none = {agent: {} for agent in self.agents}
        cut = dict.fromkeys(self.agents, False)
        if self.left == 0:
            self.agents = []
        return seen, pay, over, cut, none


def make():
    return Numbers()
'''
SMALL = (
    "--game.num-turns", "2", "--sampling.max-new-tokens", "3", "--questions-per-step", "4",
    "--eval.questions", "6", "--steps", "2", "--team.device", "cpu", "--checkpoint-every", "1",
)  # fmt: skip


@pytest.fixture
def env(tmp_path: Path) -> str:
    file = tmp_path / "numbers.py"
    file.write_text(ENV, "utf-8")
    return f"{file}:make"


@pytest.mark.thorough
@pytest.mark.timeout(600)  # three short runs, on a busy machine
def test_a_run_measures_trains_and_resumes(
    env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ("--runs", tmp_path, "--name", "numbers", "--game.env", env, *SMALL)
    assert maporl("train", *runs) == 0
    said = capsys.readouterr().out
    assert "returns after training" in said
    run = tmp_path / "numbers"
    found = json.loads((run / "returns.json").read_text("utf-8"))
    for stage in ("before", "after"):
        assert len(found[stage]["mean"]) == 2
        assert all(0 <= mean <= 2 for mean in found[stage]["mean"])
        assert found[stage]["num_games"] == 6
        assert found[stage]["messages"] == 4
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    steps = [json.loads(line) for line in lines]
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        paid = [step["return/left"], step["return/right"]]
        assert all(0 <= mean <= 2 for mean in paid)
        shown = " ".join(f"{mean:.2f}" for mean in paid)
        assert f"step   {step['step']} / 2  return by agent {shown}" in said
        assert not any(name.startswith(("invalid/", "copy/", "lazy/")) for name in step)
    assert maporl("train", "--resume", run, "--steps", "3", "--force") == 0
    again = json.loads((run / "returns.json").read_text("utf-8"))
    assert again["before"] == found["before"]
    assert len((run / "metrics.jsonl").read_text("utf-8").splitlines()) == 3
    assert maporl("export", run, "--to", tmp_path / "out") == 0
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["agent_0", "agent_1"]


@pytest.mark.thorough
@pytest.mark.timeout(600)  # each takes five seconds of one core, and minutes where 20 share it
@pytest.mark.parametrize("scheme", [(), ("--scheme", "grpo", "--grpo.group-size", "2")])
def test_a_run_that_was_killed_goes_on_as_if_uncut(
    env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: tuple[str, ...]
) -> None:
    """Killed in the second of two steps, behind the checkpoint of the first."""
    runs = ("--game.env", env, *SMALL, "--eval.questions", "2", "--name", "x", *scheme)
    assert maporl("train", *runs, "--runs", tmp_path / "whole") == 0
    take_step, steps = loop.take_step, []

    def killed(*args: Any) -> Any:
        steps.append(args[4])
        if len(steps) == 2:
            raise RuntimeError("killed")
        return take_step(*args)

    monkeypatch.setattr(loop, "take_step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        maporl("train", *runs, "--runs", tmp_path / "cut")
    assert maporl("train", "--resume", tmp_path / "cut" / "x") == 0
    assert steps == [0, 1, 1]
    for name in ("metrics.jsonl", "returns.json", "config.json"):
        assert (tmp_path / "cut/x" / name).read_bytes() == (
            tmp_path / "whole/x" / name
        ).read_bytes()


def test_what_makes_no_such_run_is_refused(
    env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, complaint in (
        (("--game.num-agents", "3"), "has 2 agents (left, right)"),
        (("--game.history", "last"), "game.history would do nothing"),
        (("--scheme", "magrpo"), "learns by maporl or grpo, from single games"),
        (("--scheme", "grpo", "--grpo.variant", "remax"), "choose another --grpo.variant"),
        (("--game.env", "nothing_here:make"), "environment"),
    ):
        given = ("--runs", tmp_path, "--name", "x", "--game.env", env, *SMALL, *flags)
        assert maporl("train", *given) == 2
        assert complaint in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x").exists()


def test_a_game_of_a_library_that_is_not_there_is_one_sentence() -> None:
    try:
        import textarena  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pip install 'maporl\[textarena\]'"):
            env_maker("textarena:KuhnPoker-v0")()
