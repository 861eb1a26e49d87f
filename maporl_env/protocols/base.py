"""The interface of a protocol, and the promise of views that only grow."""

from __future__ import annotations

import typing

from maporl_env.types import AgentID, Answer, Transcript, View


class Protocol(typing.Protocol):
    """The rules of one way to collaborate, as functions of the history.

    A turn is complete when every agent has spoken once, in all protocols.
    """

    @property
    def num_turns(self) -> int:
        """The horizon T: the largest number of turns."""

    @property
    def simultaneous(self) -> bool:
        """True if all agents of a turn speak at once, none reading a same-turn message."""

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """Return who may speak next, in order; empty when the episode is over.

        A simultaneous protocol names all agents of the turn, a sequential one the next agent.
        """

    def view(self, agent: AgentID, history: Transcript) -> View:
        """Return the view of `agent` before its next message."""

    def response(self, agent: AgentID, history: Transcript) -> str:
        """Return the text whose score is `agent`'s score for the last complete turn."""

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """Return the final answers: one, several if tied, none if no answer is valid."""


class AppendOnly:
    """A protocol whose views only grow, by one block per turn.

    `Debate` asks such a protocol for the new block instead of building each view from the start.
    """

    __slots__ = ()

    @property
    def appends(self) -> bool:
        """Whether the settings keep the promise: view(turn) is view(turn - 1) plus `added`."""
        raise NotImplementedError

    def added(self, agent: AgentID, turn: int, history: Transcript) -> View:
        """Return the block that `turn` (0-based) adds to the view of `agent`."""
        raise NotImplementedError
