"""Visibility: whose messages an agent reads before it speaks, and under which numbers.

No agent reads a message of the same turn before all that speak at once have spoken. Of the earlier
turns the option `history` shows all, the last one or none. Of these, the topology of each protocol:

| protocol | an agent reads the messages of |
|---|---|
| debate, joint | all others (`joint` with `show_parts=False`: nobody) |
| sequential, pipeline, review | all others, and of those before it also this turn's |
| leader | a peer: the leader; the leader: its peers, also of this turn |
| teams_and_judge | its own team; the judge: both teams, their last messages |
| self_correction, lessons | itself; in `lessons` also what the bank shows |
| retrieve | nobody; the retriever: all others |
| dialogue | the other one |

`observation_layout` puts them into the observation, and `Conversation.news` and `others` there are
what a protocol of one's own overrides. Private texts are kept apart in `knowledge`.
"""

from __future__ import annotations

import typing
from typing import Literal

from maporl_env.types import Message, Transcript

History = Literal["all", "last", "none"]
"""The earlier turns in an observation."""

Numbered = list[tuple[int, Message]]
"""Messages as one agent reads them, each under the number (1-based) of its author."""


def require_history(history: str) -> None:
    """Raise ValueError, which names the valid values, for an unknown value of `history`."""
    if history not in typing.get_args(History):
        raise ValueError(f"unknown history {history!r}: choose one of all, last, none")


def first_turn_read(history: History, turn: int) -> int:
    """Return the first turn that is read before an agent speaks in `turn` (0-based)."""
    return {"all": 0, "last": max(turn - 1, 0), "none": turn}[history]


def others_of_turn(transcript: Transcript, reader: int, turn: int) -> Numbered:
    """Return the messages of one turn but the reader's own, numbered in their order."""
    own = transcript.agents[reader]
    others = [m for m in transcript.of_turn(turn) if m.agent != own]
    return list(enumerate(others, start=1))


def number_of(agent_index: int, reader: int) -> int:
    """Return the number (1-based) of agent `agent_index` in the views of agent `reader`."""
    return agent_index + 1 if agent_index < reader else agent_index
