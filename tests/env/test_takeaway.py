"""The take-away game: its rules, its exact value, and that it is a PettingZoo environment."""

from __future__ import annotations

import time

import pettingzoo
import pytest
from pettingzoo.test import api_test, seed_test

from maporl_env import takeaway_v0
from maporl_env.takeaway_v0 import Strategy, move_of, value, worst_values


def play(stones: int, *moves: str, most: int = 3) -> tuple[dict[str, float], int]:
    """Return the rewards and the stones left after some messages."""
    game = takeaway_v0.raw_env(most=most)
    game.reset(options={"stones": stones})
    total = dict.fromkeys(game.possible_agents, 0.0)
    for move in moves:
        game.step(move)
        for agent, reward in game.rewards.items():
            total[agent] += reward
    return total, game.stones


@pytest.mark.parametrize(
    ("moves", "winner", "left"),
    [
        (("3", "1"), 1, 0),
        (("1", "2", "1"), 0, 0),
        (("4",), 1, 4),  # more than may be taken
        (("0",), 1, 4),
        (("none",), 1, 4),
        (("1", "3"), 1, 0),
    ],
)
def test_games_by_hand(moves: tuple[str, ...], winner: int, left: int) -> None:
    rewards, stones = play(4, *moves)
    assert rewards == {f"player_{winner}": 1.0, f"player_{1 - winner}": -1.0}
    assert stones == left


def test_taking_more_than_there_are_loses() -> None:
    assert play(5, "3", "3")[0] == {"player_0": 1.0, "player_1": -1.0}


@pytest.mark.parametrize(
    ("text", "move"),
    [
        ("I take 2 of 7", 2),
        (r"7 left, so \boxed{3}", 3),
        (r"\boxed{1} no, \boxed{ 2 }", 2),
        ("-3", None),
        ("1.5", None),
        ("1st", None),
        ("x2", None),
        ("3, please.", 3),
        ("99999", None),
        ("", None),
        ("٢", 2),
        ("9" * 10_000, None),
    ],
)
def test_moves_are_read_from_texts(text: str, move: int | None) -> None:
    assert move_of(text) == move


def test_a_megabyte_of_anything_is_read_at_once() -> None:
    for text in ("9" * 2**20, r"\boxed{" * 2**17, "1," * 2**19, "\ud800" * 2**20):
        start = time.process_time()
        move_of(text)
        assert time.process_time() - start < 0.25


def perfect(most: int) -> Strategy:
    """Leave a multiple of most + 1 stones where that is possible, else take one."""
    return lambda heap: {heap % (most + 1) or 1: 1.0}


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_perfect_play_earns_the_value_against_every_response(most: int) -> None:
    for stones in range(1, 20):
        moving, waiting = worst_values(perfect(most), stones, most)
        assert moving == value(stones, most)
        # Waiting on a multiple of most + 1 it wins, whatever the other does; else it is beaten.
        assert waiting == (1 if stones % (most + 1) == 0 else -1)


def test_the_value_is_that_of_the_whole_tree() -> None:
    def by_search(stones: int, most: int) -> int:
        takes = range(1, min(most, stones) + 1)
        return max(1 if take == stones else -by_search(stones - take, most) for take in takes)

    for most in (1, 2, 3):
        found = [by_search(stones, most) for stones in range(1, 12)]
        assert found == [value(stones, most) for stones in range(1, 12)]


def test_chances_by_hand() -> None:
    """On two stones with most 2: take both with .6, one with .3, lose with .1."""

    def strategy(heap: int) -> dict[int | None, float]:
        return {1: 1.0} if heap == 1 else {2: 0.6, 1: 0.3, None: 0.1}

    moving, waiting = worst_values(strategy, 2, 2)
    assert moving == pytest.approx(0.6 - 0.3 - 0.1)
    assert waiting == -1.0
    with pytest.raises(ValueError, match="do not add up"):
        worst_values(lambda heap: {1: 0.5}, 2)


def test_heaps_come_from_the_seed_and_within_bounds() -> None:
    game = takeaway_v0.env(stones=(3, 5))
    heaps = set()
    for seed in range(40):
        game.reset(seed=seed)
        heaps.add(game.unwrapped.stones)
    assert heaps == {3, 4, 5}
    game.reset(seed=7)
    first = game.observe("player_0")
    game.reset(seed=7)
    assert game.observe("player_0") == first
    assert f"Stones: {game.unwrapped.stones} " in first


@pytest.mark.parametrize("options", [{"stones": (0, 3)}, {"stones": (5, 4)}, {"most": 0}])
def test_impossible_games(options: dict) -> None:
    with pytest.raises(ValueError, match="smallest and the largest heap"):
        takeaway_v0.raw_env(**options)
    game = takeaway_v0.raw_env()
    with pytest.raises(ValueError, match="needs stones"):
        game.reset(options={"stones": 0})
    with pytest.raises(ValueError, match="unknown render_mode"):
        takeaway_v0.raw_env(render_mode="human")


def test_the_official_tests(capsys) -> None:
    api_test(takeaway_v0.env(), num_cycles=20)
    seed_test(takeaway_v0.env, num_cycles=20)
    made = pettingzoo.make("aec", "maporl/takeaway-v0", stones=(4, 4), render_mode="ansi")
    made.reset(seed=0)
    made.step("2")
    assert made.render() == "2 stones left; taken: 2"
