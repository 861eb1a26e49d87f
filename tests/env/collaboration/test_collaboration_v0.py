"""The collaboration game: official tests, rules by hand, bad input, copies and pictures."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test

from maporl_env import collaboration_v0
from maporl_env.bridges.collaboration import LoneCollaboration
from maporl_env.collaboration_v0 import best_response, logit_equilibrium

from ..official import Converted, check_max_cycles_and_render, check_seeds_and_state

CONVERTED = Converted(collaboration_v0)
pytestmark = pytest.mark.usefixtures("warnings_are_errors")


ROOT = Path(__file__).resolve().parents[3]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_turns": 10, "threshold": 14},
    {"num_turns": 1, "threshold": 1, "timing": "same"},
    {"num_turns": 3, "threshold": 99, "r_col": -1, "r_ind": 0, "r_syn": 2.5},
]


# -- the official tests -------------------------------------------------------------------------


@pytest.mark.parametrize("options", SETTINGS)
def test_official_tests(options: dict[str, Any]) -> None:
    for make in (collaboration_v0.env, collaboration_v0.raw_env, CONVERTED.to_aec):
        api_test(make(**options), num_cycles=30)
    for make in (collaboration_v0.parallel_env, CONVERTED.to_parallel):
        parallel_api_test(make(**options), num_cycles=30)
    check_seeds_and_state(collaboration_v0.env, collaboration_v0.parallel_env, options)


def test_official_max_cycles_and_render(capsys: pytest.CaptureFixture[str]) -> None:
    check_max_cycles_and_render(collaboration_v0, capsys, printed="Turn 1: agent_0")


def test_made_by_name() -> None:
    for api in ("aec", "parallel"):
        env = pettingzoo.make(api, "maporl/collaboration-v0", num_turns=4, threshold=3)
        assert env.max_cycles == 4
        assert env.possible_agents == ["agent_0", "agent_1"]
    check_env(gymnasium.make("maporl/Collaboration-v0", partner=0.6, num_turns=3).unwrapped)


# -- the rules ----------------------------------------------------------------------------------


def play(script: list[tuple[int, int]], **options: Any) -> list[tuple[float, float]]:
    env = collaboration_v0.parallel_env(num_turns=len(script), **options)
    env.reset()
    paid = []
    for first, second in script:
        _, rewards, *_ = env.step({"agent_0": first, "agent_1": second})
        paid.append((rewards["agent_0"], rewards["agent_1"]))
    return paid


def test_payments_by_hand() -> None:
    script = [(0, 0), (1, 0), (0, 1), (0, 1), (0, 0)]  # counts before: 0, 0, 1, 2, 3
    plain = [(0.4, 0.4), (0.2, 0.4), (0.4, 0.2)]
    assert play(script) == [*plain, (1, 1), (1, 1)]
    assert play(script, timing="same") == [*plain[:2], (1, 1), (1, 1), (1, 1)]
    assert play(script, threshold=4) == [*plain, (0.4, 0.2), (0.4, 0.4)]
    assert play(script, threshold=1, r_col=-2, r_ind=0, r_syn=5) == [
        (0, 0), (-2, 0), (5, 5), (5, 5), (5, 5),
    ]  # fmt: skip


def test_observations_infos_and_the_end() -> None:
    env = collaboration_v0.parallel_env(num_turns=2, threshold=4)
    observations, infos = env.reset()
    assert observations["agent_0"].tolist() == observations["agent_1"].tolist() == [1, 1, 0]
    observations, _, ended, _, infos = env.step({"agent_0": 1, "agent_1": 0})
    assert observations["agent_1"].tolist() == [0.5, 0.75, 0]
    assert infos["agent_0"] == {"turn": 1, "collaborations": 1, "synergy": False}
    assert not any(ended.values())
    observations, _, ended, cut, infos = env.step({"agent_0": 1, "agent_1": 1})
    assert observations["agent_0"].tolist() == [0, 0.25, 0]
    assert infos["agent_0"]["collaborations"] == 3
    assert all(ended.values())
    assert not any(cut.values())
    assert env.agents == []


def test_the_choice_of_one_is_hidden_from_the_other_until_the_turn_is_over() -> None:
    env = collaboration_v0.env()
    env.reset()
    before = env.observe("agent_1")
    env.step(1)
    assert (env.observe("agent_1") == before).all()
    assert (env.state() == before).all()
    env.step(1)
    assert env.observe("agent_1").tolist() == [0.5, 0, 1]


@pytest.mark.parametrize("timing", ["next", "same"])
def test_both_interfaces_pay_alike(timing: str) -> None:
    options: dict[str, Any] = {"num_turns": 4, "threshold": 3, "timing": timing}
    for script in itertools.product(range(4), repeat=4):
        pairs = [divmod(choice, 2) for choice in script]
        paid = np.sum(play(pairs, threshold=3, timing=timing), axis=0)
        env = collaboration_v0.env(**options)
        env.reset()
        totals = dict.fromkeys(env.agents, 0.0)
        actions = iter([action for pair in pairs for action in pair])
        for agent in env.agent_iter():
            _, reward, ended, *_ = env.last()
            totals[agent] += reward
            env.step(None if ended else next(actions))
        assert list(totals.values()) == pytest.approx(paid)


def test_starting_in_another_state() -> None:
    env = collaboration_v0.parallel_env(num_turns=3, threshold=3)
    observations, infos = env.reset(options={"turn": 2, "collaborations": 4, "unknown": object()})
    assert observations["agent_0"].tolist() == pytest.approx([1 / 3, 0, 1])
    assert infos["agent_0"] == {"turn": 2, "collaborations": 3, "synergy": True}
    assert env.step({"agent_0": 0, "agent_1": 1})[1] == {"agent_0": 1, "agent_1": 1}
    assert env.agents == []
    assert env.reset()[1]["agent_0"]["turn"] == 0


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"num_agents": 3}, TypeError, "unknown option 'num_agents': choose one of num_turns"),
        ({"num_turns": 0}, ValueError, "num_turns must be an integer >= 1, not 0"),
        ({"max_cycles": 0}, ValueError, "num_turns must be an integer"),
        ({"threshold": 1.5}, ValueError, "threshold must be an integer"),
        ({"r_col": 0.4}, ValueError, "r_col=0.4 must be below r_ind=0.4"),
        ({"r_syn": math.nan}, ValueError, "r_syn must be a finite number"),
        ({"timing": "now"}, ValueError, "unknown timing 'now': choose one of next, same"),
        ({"render_mode": "video"}, ValueError, "choose one of None, human, ansi, rgb_array"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], complaint: str) -> None:
    for make in (collaboration_v0.env, collaboration_v0.parallel_env, LoneCollaboration):
        with pytest.raises(error, match=complaint):
            make(**options)


@pytest.mark.parametrize("action", [None, 2, -1, 0.0, "1", np.array([1])])
def test_a_wrong_action_changes_nothing(action: Any) -> None:
    aec, parallel, lone = (
        collaboration_v0.raw_env(),
        collaboration_v0.parallel_env(),
        LoneCollaboration(),
    )
    aec.reset()
    aec.step(1)
    lone.reset(seed=0)
    parallel.reset()
    for env, given in (
        (aec, action),
        (lone, action),
        (parallel, {"agent_0": 1, "agent_1": action}),
        (parallel, {"agent_0": 1}),
        (parallel, {"agent_0": 1, "agent_1": 1, "agent_2": 1}),
    ):
        before = pickle.dumps(env)
        with pytest.raises(ValueError, match=r"must be 0 \(alone\)|a dict with exactly agent_0"):
            env.step(given)
        assert pickle.dumps(env) == before


@pytest.mark.parametrize(
    "options",
    [
        {"turn": 2},
        {"turn": -1},
        {"turn": 0.5},
        {"collaborations": 1},
        {"turn": 1, "collaborations": 3},
    ],
)
def test_a_wrong_start_changes_nothing(options: dict[str, Any]) -> None:
    env = collaboration_v0.raw_env()
    env.reset()
    env.step(1)
    before = pickle.dumps(env)
    with pytest.raises(ValueError, match="must be an integer"):
        env.reset(options=options)
    assert pickle.dumps(env) == before


def test_calls_in_the_wrong_order() -> None:
    envs: list[Any] = [collaboration_v0.parallel_env(), collaboration_v0.raw_env()]
    for env in [*envs, LoneCollaboration()]:
        with pytest.raises(ResetNeeded, match="call reset first"):
            env.step(1)
    with pytest.raises(ResetNeeded, match="call reset first"):
        collaboration_v0.raw_env().state()
    with pytest.raises(ValueError, match="no agent 'agent_2': choose one of agent_0, agent_1"):
        collaboration_v0.raw_env().observe("agent_2")


# -- copies and pictures ------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5])
def test_copies_continue_alike(duplicate: Callable[[Any], Any], steps: int) -> None:
    env = collaboration_v0.raw_env()
    env.reset()

    def go(one: Any, number: int) -> str:
        told = []
        for step in range(number):
            if not one.agents:
                one.reset()
            told.append(one.last())
            one.step(None if one.terminations[one.agent_selection] else step % 3 % 2)
        return repr(told)

    go(env, steps)
    assert go(duplicate(env), 9) == go(env, 9)


def test_rendering(capsys: pytest.CaptureFixture[str]) -> None:
    shown: dict[str, Any] = {}
    for mode in ("ansi", "rgb_array", "human"):
        env = collaboration_v0.parallel_env(render_mode=mode)
        env.reset()
        env.step({"agent_0": 1, "agent_1": 1})
        env.step({"agent_0": 0, "agent_1": 1})
        shown[mode] = env.render()
    text = (
        "Turn 1: agent_0 collaborates, agent_1 collaborates; paid 0.2, 0.2\n"
        "Turn 2: agent_0 alone, agent_1 collaborates; paid 1, 1 (synergy)\n"
    )
    assert shown["ansi"] == text
    assert shown["human"] is None
    assert capsys.readouterr().out == text  # each turn once
    picture = shown["rgb_array"]
    assert picture.dtype == np.uint8
    orange, blue, green, white = (214, 120, 60), (50, 110, 190), (60, 160, 80), (255, 255, 255)
    cells = picture[12::24, 12::24]  # the middles: agents and synergy down, turns across
    assert cells.tolist() == np.array([[blue, orange], [blue, blue], [white, green]]).tolist()
    with pytest.warns(UserWarning, match="nothing to render"):
        collaboration_v0.parallel_env().render()


# -- the page -----------------------------------------------------------------------------------


def test_the_rule_sheet_and_the_page() -> None:
    sheet = collaboration_v0.__doc__ or ""
    for part in ("## Rules", "## Observation", "## Rewards", "## Version history", "* v0"):
        assert part in sheet
    page = (ROOT / "docs" / "explanation" / "collaboration.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(snippets) >= 3
    names: dict[str, Any] = {"__name__": "snippets"}
    for snippet in snippets:
        exec(
            compile(snippet, "docs/explanation/collaboration.md", "exec", dont_inherit=True), names
        )


def test_the_table_of_the_page() -> None:
    page = (ROOT / "docs" / "explanation" / "collaboration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) == 5
    for threshold, cells in rows:
        rules: dict[str, Any] = {"num_turns": 10, "threshold": int(threshold)}
        lone = [best_response(p, tau=0.1, **rules) for p in (0.5, 0.6, 0.7)]
        for cell, found in zip(
            cells.split(" | "), [logit_equilibrium(**rules), *lone], strict=True
        ):
            end = found.outcome
            exact = (end.rates[0], end.reach[-1, -1], end.expected_return)
            assert [float(part) for part in cell.split("/")] == pytest.approx(exact, abs=0.0051)
