"""Text, rows of ids and single ids play the same debate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from maporl_env import debate_v0
from maporl_env.bridges.tokens import TokenDebate

from .token_debates import CONVERTED, PINNED, ids

pytestmark = pytest.mark.usefixtures("warnings_are_errors")


SAYS = ("\\boxed{4}", "\\boxed{5}", "so \\boxed{4}", "", "no")


def by_text(script: list[list[str]], **options: Any) -> Any:
    env = debate_v0.parallel_env(**options)
    env.reset(options=PINNED)
    paid, turns = np.zeros(3), iter(script)
    while env.agents:
        paid += list(env.step(dict(zip(env.agents, next(turns), strict=True)))[1].values())
    return env.transcript, paid.tolist()


def by_rows(script: list[list[str]], **options: Any) -> Any:
    env = debate_v0.env(observation="tokens", **options)
    env.reset(options=PINNED)
    paid = dict.fromkeys(env.agents, 0.0)
    for agent in env.agent_iter():
        _, reward, terminated, *_ = env.last()
        paid[agent] += reward
        turn = env.unwrapped.debate.played
        env.step(None if terminated else ids(script[turn][int(agent[-1])]))
    return env.unwrapped.transcript, list(paid.values())


def by_writing(make: Callable[..., Any], script: list[list[str]], **options: Any) -> Any:
    env = make(observation="tokens", action="token", message_tokens=20, **options)
    debate = env.unwrapped.debate if hasattr(env, "unwrapped") else env.debate
    env.reset(options=PINNED)
    paid, at, turn = np.zeros(3), 0, 0
    while env.agents:
        if debate.played != turn:
            turn, at = debate.played, 0
        rows = [ids(text) for text in script[turn]]
        actions = {
            a: row[at] if at < len(row) else 0 for a, row in zip(env.agents, rows, strict=True)
        }
        paid += list(env.step(actions)[1].values())
        at += 1
    return debate.transcript, paid.tolist()


def by_one_learner(script: list[list[str]], learner: int, **options: Any) -> Any:
    partners = [[turn[seat] for turn in script] for seat in range(3) if seat != learner]
    env = TokenDebate(partners, learner, message_tokens=20, **options)
    _, info = env.reset(options=PINNED)
    paid, done = 0.0, False
    while not done:
        for id_ in ids(script[env.core.debate.played][learner]):
            assert (env.action_masks() == info["action_mask"]).all()
            assert env.action_masks()[id_]
            _, reward, done, _, info = env.step(id_)
            paid += reward
    return env.core.transcript, paid


@pytest.mark.parametrize("options", [{}, {"stop": "consensus", "reward_mode": "score"}])
def test_text_rows_and_single_ids_play_the_same_debate(options: dict[str, Any]) -> None:
    script = [list(SAYS[:3]), [SAYS[0], SAYS[2], SAYS[4]], list(SAYS[1:4])]
    transcript, paid = by_text(script, **options)
    assert by_rows(script, **options) == (transcript, paid)
    assert by_writing(debate_v0.parallel_env, script, **options) == (transcript, paid)
    assert by_writing(CONVERTED.to_parallel, script, **options) == (transcript, paid)
    for learner in range(3):
        assert by_one_learner(script, learner, **options) == (transcript, paid[learner])
    assert max(paid) > 0
