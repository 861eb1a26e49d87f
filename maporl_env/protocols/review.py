"""Review: one agent writes, the others revise its text one after the other (Corex)."""

from __future__ import annotations

from dataclasses import dataclass

from maporl_env.protocols.observation_layout import answers_of_turn
from maporl_env.protocols.sequential import SequentialDebate
from maporl_env.types import Answer, Transcript


@dataclass(frozen=True, slots=True)
class Review(SequentialDebate):
    """Agent 0 writes; each later agent reads all versions before it and writes a new one.

    Source: Corex, arXiv 2310.00280, mode Review (from secondary descriptions). The last version is
    the team's answer. Every version has its own score. With num_turns > 1 agent 0 goes on from the
    last version.
    """

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The answer of the last version in the last complete turn."""
        answers = answers_of_turn(history, history.turn - 1)[-1:] if history.turn else []
        return tuple(answer for answer in answers if answer is not None)
