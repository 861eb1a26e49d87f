"""Games of TextArena as PettingZoo environments: the real library, where it is installed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("textarena", reason="needs the extra textarena")

from pettingzoo.test import seed_test

from maporl_env.bridges.textarena import TextArenaGame, env_maker

GOODS = (
    "textarena:PublicGoodsGame-v0,players=3,points=total_scores,num_rounds=2,communication_turns=1"
)
GUESSES = "textarena:IteratedTwoThirdsAverage-v0-train,num_rounds=1"


def played(name: str, says: Any, seed: int = 0) -> tuple[dict[str, float], list[str]]:
    """Return each agent's rewards, and what was read before each message."""
    env = env_maker(name)()
    env.reset(seed=seed)
    paid, read = dict.fromkeys(env.possible_agents, 0.0), []
    for agent in env.agent_iter(200):
        observation, reward, terminated, truncated, _ = env.last()
        paid[agent] += reward
        if not (terminated or truncated):
            read.append(str(observation))
        env.step(None if terminated or truncated else says(agent, str(observation)))
    return paid, read


def test_a_two_player_game_pays_winner_and_loser() -> None:
    paid, read = played(GUESSES, lambda agent, _: {"agent_0": "5", "agent_1": "50"}[agent])
    assert paid == {"agent_0": 1.0, "agent_1": -1.0}
    assert len(read) == 2
    assert "You are Player 1" in read[1]
    assert "5" not in read[1].replace("50", "").replace("100.0", "")  # unread until both spoke


def test_points_of_the_state_are_paid_as_they_come() -> None:
    def says(agent: str, seen: str) -> str:
        return {"agent_0": "[20]", "agent_1": "[0]", "agent_2": "[10]"}[agent]

    paid, _ = played(GOODS, says)
    # Each round: 30 in the pot, 45 to share, 15 each, and what was kept.
    assert paid == {"agent_0": 30.0, "agent_1": 70.0, "agent_2": 50.0}
    together, _ = played(f"{GOODS},together=true,scale=0.1", says)
    assert together == pytest.approx(dict.fromkeys(paid, 5.0))


def test_an_invalid_move_is_the_games_own_affair() -> None:
    paid, read = played(GUESSES, lambda agent, _: "a hundred")
    assert paid == {"agent_0": -1.0, "agent_1": 1.0}
    assert len(read) == 2  # it may try once more


@pytest.mark.parametrize("text", ["", "\ud800", "[" * 20_000, "[²]", "[1e999]", "\x00", "{}{0}%s"])
def test_hostile_messages_end_no_program(text: str) -> None:
    for name in (GUESSES, GOODS, "textarena:KuhnPoker-v0-train,max_rounds=1"):
        paid, _ = played(name, lambda agent, _: text)
        assert all(np.isfinite(list(paid.values())))


def test_games_side_by_side_draw_alike_and_leave_global_random_numbers_alone() -> None:
    name = "textarena:KuhnPoker-v0-train,max_rounds=3"
    state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    alone = [played(name, lambda *_: "[check]", seed)[1] for seed in (3, 4)]
    envs = [env_maker(name)() for _ in range(2)]
    for env, seed in zip(envs, (3, 4), strict=True):
        env.reset(seed=seed)
    read: list[list[str]] = [[], []]
    while any(env.agents for env in envs):
        for env, seen in zip(envs, read, strict=True):
            if env.agents:
                observation, _, terminated, truncated, _ = env.last()
                if not (terminated or truncated):
                    seen.append(str(observation))
                env.step(None if terminated or truncated else "[check]")
    assert read == alone
    assert read[0] != read[1]
    assert random.getstate() == state
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


def test_pettingzoos_own_test_of_seeds() -> None:
    seed_test(env_maker("textarena:KuhnPoker-v0-train,max_rounds=1"), num_cycles=10)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("textarena:KuhnPoke-v0", r"has no 'KuhnPoke-v0'; alike are KuhnPoker-v0"),
        ("textarena:KuhnPoker-v0,rounds=3", "cannot make 'KuhnPoker-v0'"),
        ("textarena:KuhnPoker-v0,max_rounds", "KEY=VALUE"),
        ("textarena:KuhnPoker-v0,players=2,players=3", "each once"),
    ],
)
def test_wrong_names_are_one_sentence(name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        env_maker(name)()


def test_points_that_the_game_does_not_count_are_named() -> None:
    env = TextArenaGame("KuhnPoker-v0", points="score")
    with pytest.raises(ValueError, match=r"no number per player in 'score'; it has .*player_chips"):
        env.reset(seed=0)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_self_play_in_a_game_of_two_from_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra train")
    from small_runs import maporl

    flags = (
        *("--scheme", "grpo", "--self-play.game", GUESSES, "--self-play.games-measured", 4),
        *("--team.model", "tiny-sharing", "--team.sharing", "one", "--team.device", "cpu"),
        *("--sampling.max-new-tokens", 2, "--steps", 1, "--questions-per-step", 2),
        *("--grpo.group-size", 2, "--runs", tmp_path, "--name", "x"),
    )
    assert maporl("train", *flags) == 0
    results = json.loads((tmp_path / "x" / "results.json").read_text("utf-8"))
    assert results["against_untrained"]["games"] == 4
    assert 0 <= results["against_untrained"]["score"]["mean"] <= 1
    (played_step,) = (tmp_path / "x" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert 0 <= json.loads(played_step)["self_play/score"] <= 1
