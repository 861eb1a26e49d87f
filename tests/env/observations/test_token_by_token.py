"""Messages written one token at a time."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from maporl_env import debate_v0

from .token_debates import BOX, END, PINNED, SETTINGS, WRITING, ids, read

pytestmark = pytest.mark.usefixtures("warnings_are_errors")


def mask_of(env: Any, agent: str) -> str:
    mask = env.infos[agent]["action_mask"]
    assert mask.dtype == np.int8
    assert mask.shape == (END + 1,)
    return {(0, 1): "write", (1, 0): "wait"}[int(mask[0]), int(mask[1:].all())]


def test_agents_write_together_and_wait_for_each_other() -> None:
    env = debate_v0.env(**WRITING, num_agents=2, num_turns=1)
    env.reset(options=PINNED)
    prompt = read(env.observe("agent_0"))
    for one, two in zip([*ids("ab"), 7], ids("xyz"), strict=True):
        env.step(one)
        assert env.unwrapped.debate.pending == ()
        env.step(two)
    assert [message.text for message in env.unwrapped.transcript.messages] == ["ab", "xyz"]
    assert all(env.terminations.values())

    env.reset(options=PINNED)
    env.step(ids("a")[0])
    assert read(env.observe("agent_0")) == prompt + "a"
    assert read(env.observe("agent_1")) == prompt  # the unfinished message is nobody else's
    assert env.unwrapped.state_text().endswith("agent_0: a")
    env.step(END)
    assert (mask_of(env, "agent_0"), mask_of(env, "agent_1")) == ("write", "wait")
    assert env.unwrapped.state_text().endswith("agent_0: a\nagent_1: ")


def test_a_message_ends_at_its_longest() -> None:
    env = debate_v0.parallel_env(**WRITING, num_agents=1, num_turns=1)
    env.reset(options=PINNED)
    for _ in range(5):
        assert env.agents
        env.step({"agent_0": ids("x")[0]})
    assert env.agents == []
    assert env.transcript.messages[0].text == "xxxxx"


@pytest.mark.parametrize("stop", [END, 0, END + 5, -3, np.int64(END), np.array(0)])
def test_an_illegal_id_ends_the_message_and_is_padding_after_that(stop: Any) -> None:
    env = debate_v0.parallel_env(**WRITING, num_agents=2, num_turns=1)
    env.reset(options=PINNED)
    env.step({"agent_0": stop, "agent_1": ids("x")[0]})
    assert env.agents
    env.step({"agent_0": 66, "agent_1": stop})
    assert [message.text for message in env.transcript.messages] == ["", "x"]


def test_writers_of_a_sequential_protocol_take_turns() -> None:
    env = debate_v0.env(**WRITING, num_agents=2, num_turns=1, protocol="sequential")
    env.reset(options=PINNED)
    for id_ in ids("ab"):
        assert env.agent_selection == "agent_0"
        assert (mask_of(env, "agent_0"), mask_of(env, "agent_1")) == ("write", "wait")
        env.step(id_)
    assert env.agent_selection == "agent_1"
    assert (mask_of(env, "agent_0"), mask_of(env, "agent_1")) == ("wait", "write")
    assert "ab" in read(env.observe("agent_1"))
    env.step(END)
    assert [mask_of(env, agent) for agent in env.agents] == ["wait", "wait"]


def test_masks_are_in_the_infos_of_single_tokens_only() -> None:
    for options in SETTINGS:
        env = debate_v0.parallel_env(**options)
        observations, infos = env.reset(seed=0)
        assert ("action_mask" in infos["agent_0"]) == (options.get("action") == "token")
        assert isinstance(observations["agent_0"], np.ndarray)


def test_a_reset_or_truncation_forgets_what_was_being_written() -> None:
    env = debate_v0.parallel_env(**WRITING, num_agents=2)
    first, _ = env.reset(options=PINNED)
    env.step({"agent_0": 66, "agent_1": END})
    again, infos = env.reset(options=PINNED)
    assert (first["agent_0"] == again["agent_0"]).all()
    assert infos["agent_1"]["action_mask"][END] == 1
    env.step({"agent_0": 66, "agent_1": END})
    _, rewards, _, truncations, _ = env.truncate("too slow")
    assert all(truncations.values())
    assert rewards == {"agent_0": 0, "agent_1": 0}
    assert env.transcript.messages == ()
    assert env.state_text() == PINNED["question"].prompt


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_in_the_middle_of_a_message_continue_alike(duplicate: Callable[[Any], Any]) -> None:
    env = debate_v0.parallel_env(**WRITING, num_turns=1)
    env.reset(seed=0)
    env.step({"agent_0": 66, "agent_1": END, "agent_2": 67})
    twin = duplicate(env)
    for one in (env, twin):
        one.step({"agent_0": 68, "agent_1": 0, "agent_2": END})
        one.step({"agent_0": END, "agent_1": 0, "agent_2": 0})
    assert env.transcript == twin.transcript
    assert [message.text for message in twin.transcript.messages] == ["AC", "", "B"]


@pytest.mark.parametrize(
    ("options", "action"),
    [
        (BOX, None),
        (BOX, "text"),
        (BOX, 3),
        (BOX, [[1, 2]]),
        (BOX, [1] * 6),
        (BOX, ["a"]),
        (BOX, [True]),
        (WRITING, None),
        (WRITING, "a"),
        (WRITING, [1]),
        (WRITING, 1.0),
        (WRITING, True),
    ],
)
def test_a_wrong_action_changes_nothing(options: dict[str, Any], action: Any) -> None:
    good = [66] if options is BOX else 66
    aec, parallel = debate_v0.env(**options), debate_v0.parallel_env(**options)
    aec.reset(seed=0)
    aec.step(good)
    parallel.reset(seed=0)
    before = pickle.dumps(aec.unwrapped), pickle.dumps(parallel)
    with pytest.raises(ValueError, match=r"agent_1 must be"):
        aec.step(action)
    with pytest.raises(ValueError, match=r"agent_1 must be"):
        parallel.step({"agent_0": good, "agent_1": action, "agent_2": good})
    assert (pickle.dumps(aec.unwrapped), pickle.dumps(parallel)) == before
