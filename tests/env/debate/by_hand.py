"""A simultaneous debate without a verifier, played by hand: the scores are given."""

from __future__ import annotations

from collections.abc import Callable

from maporl_env.debate import Debate
from maporl_env.protocols import SimultaneousDebate
from maporl_env.types import Question

QUESTION = Question("q", "What is 2 + 2?", "4")


def make_debate(num_agents: int = 2, num_turns: int = 3, **options: object) -> Debate:
    protocol = {key: options.pop(key) for key in ("stop", "reward_feedback") if key in options}
    debate = Debate(
        SimultaneousDebate(num_turns=num_turns, **protocol),  # type: ignore[arg-type]
        num_agents,
        **options,  # type: ignore[arg-type]
    )
    debate.reset(QUESTION)
    return debate


def play(debate: Debate, say: Callable[[int, int], str], scores: list[list[float | None]]) -> None:
    """Play to the end; `say(turn, seat)` writes, `scores` are given."""
    while not debate.over:
        turn = debate.played
        for agent in debate.agents:
            debate.post(agent, say(turn, debate.seats[agent]))
        debate.settle(scores[turn])
