"""The interface of a protocol, and what a protocol may promise or ask for beside it."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import replace

from maporl_env.types import AgentID, Answer, Transcript, View


class Protocol(typing.Protocol):
    """The rules of one way to collaborate, as functions of the history.

    A turn is complete when every agent has spoken once, all messages are scored and their authors
    rewarded, unless the protocol says otherwise as a `PartialTurns`.
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


class PartialTurns:
    """A protocol in whose turns not every agent speaks, is scored or is paid.

    Its `speakers` are the agents that speak next, all at once: their messages are published
    together, and then `turn_over` is asked. Within a turn an agent speaks at most once, and at
    least one agent does. Messages that are not scored join no vote and no
    mean of scores; those of a paid author are rewarded with the scores that follow.
    """

    __slots__ = ()

    @property
    def simultaneous(self) -> bool:
        """Never all agents in every turn."""
        return False

    @property
    def appends(self) -> bool:
        """Views may be made anew, unless a protocol promises otherwise; see `AppendOnly`."""
        return False

    def turn_over(self, history: Transcript) -> bool:
        """Return whether the turn in play, of which a message was published, is complete."""
        raise NotImplementedError

    def scored(self, history: Transcript) -> tuple[AgentID, ...]:
        """Return the agents whose `response` is scored, after the last complete turn."""
        return tuple(message.agent for message in history.of_turn(history.turn - 1))

    def paid(self, history: Transcript) -> tuple[AgentID, ...]:
        """Return the agents that are rewarded for their message of the last complete turn."""
        return tuple(message.agent for message in history.of_turn(history.turn - 1))

    def voters(self, history: Transcript) -> tuple[AgentID, ...]:
        """Return the agents whose answers of the last complete turn make the team's."""
        return self.scored(history)

    def own_rewards(self, history: Transcript) -> Mapping[tuple[int, AgentID], float]:
        """Return rewards of messages of complete turns, by turn and agent; {} for none.

        They take the place of rewards made of scores and answers, for messages that are paid.
        """
        return {}

    def payable(self, agents: tuple[AgentID, ...]) -> tuple[AgentID, ...]:
        """Return the agents that may ever be rewarded."""
        return agents

    def response(self, agent: AgentID, history: Transcript) -> str:
        """Return the text whose score is `agent`'s score for the last complete turn."""
        return history.message(history.turn - 1, agent).text


def closed(protocol: PartialTurns, transcript: Transcript) -> Transcript:
    """Return a transcript whose turn in play is complete, its messages marked as in `Message`."""
    ended = transcript.closed()
    scored, paid, voters = protocol.scored(ended), protocol.paid(ended), protocol.voters(ended)
    responses = {agent: protocol.response(agent, ended) for agent in scored}
    said = ended.of_turn(ended.turn - 1)
    marked = [
        replace(
            message,
            scored=message.agent in scored,
            paid=message.agent in paid,
            votes=message.agent in voters,
            response=None if (text := responses.get(message.agent)) == message.text else text,
        )
        for message in said
    ]
    before = ended.messages[: len(ended.messages) - len(said)]
    return replace(ended, messages=(*before, *marked))


class Privileged:
    """A protocol with agents that read the hidden reference of the question.

    The views of all other agents are made without it, as every view is made without the private
    texts of other agents: what a protocol is not given it cannot show.
    """

    __slots__ = ()

    def privileged(self, agents: tuple[AgentID, ...]) -> tuple[AgentID, ...]:
        """Return the agents whose views may hold `Question.hidden`."""
        raise NotImplementedError
