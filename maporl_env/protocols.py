"""Protocols: who speaks when, what each agent reads, and how the final answer is drawn.

A protocol is data (a frozen dataclass of settings) and functions of the history alone. It keeps no
state, so a prefix of a transcript can be resampled, branched or replayed by asking it again.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Literal

from maporl_env import prompts
from maporl_env.answers import extract_answer
from maporl_env.prompts import Template
from maporl_env.types import AgentID, Answer, Message, Segment, Transcript, View
from maporl_env.voting import majority


class Protocol(typing.Protocol):
    """What the rules of an episode need to know about a way to collaborate.

    A turn is complete when every agent has spoken once, in all protocols.
    """

    @property
    def num_turns(self) -> int:
        """The horizon T: at most so many turns are played."""

    @property
    def simultaneous(self) -> bool:
        """True if all agents of a turn speak at once, none reading a same-turn message."""

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """Return who may speak next, in order; empty when the episode is over."""

    def view(self, agent: AgentID, history: Transcript) -> View:
        """Return what `agent` reads before its next message."""

    def response(self, agent: AgentID, history: Transcript) -> str:
        """Return the text whose score is `agent`'s score for the last complete turn."""

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """Return the final answers: one, several if tied, none if nobody gave a valid answer."""


@dataclass(frozen=True, slots=True)
class SimultaneousDebate:
    """The paper's debate: A agents answer at once, T times, each reading all earlier turns.

    s(1, i) = LLM_i(q);  s(t+1, i) = LLM_i(q and all s(t', j), j in agents, t' <= t)   (section 3.1).

    Attributes:
        num_turns: the horizon T >= 1.
        template: the words.
        reward_feedback: show every message's score to everybody in the next turn.
        stop: "fixed" plays all turns; "consensus" ends after a turn whose valid answers all agree.
    """

    num_turns: int = 3
    template: Template = Template()
    reward_feedback: bool = False
    stop: Literal["fixed", "consensus"] = "fixed"

    @property
    def simultaneous(self) -> bool:
        """Always True: a turn's messages are published together."""
        return True

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """All agents, until the horizon or a consensus."""
        over = history.turn >= self.num_turns or (
            self.stop == "consensus" and history.turn > 0 and consensus(history)
        )
        return () if over else history.agents

    def view(self, agent: AgentID, history: Transcript) -> View:
        """Question, then per earlier turn the own message and the others' fenced answers."""
        segments: list[Segment] = [("user", prompts.opening(self.template, history.question))]
        for turn in range(history.turn):
            own, others = split(history.of_turn(turn), agent)
            segments.append(("own", own.text))
            text = prompts.reply(
                self.template,
                history.question,
                turn,
                own,
                others,
                show_scores=self.reward_feedback,
            )
            segments.append(("user", text))
        return tuple(segments)

    def response(self, agent: AgentID, history: Transcript) -> str:
        """The agent's own message of the last complete turn."""
        return split(history.of_turn(history.turn - 1), agent)[0].text

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The majority of the last complete turn; all tied answers."""
        return majority(answers_of_turn(history, history.turn - 1)) if history.turn else ()


def split(messages: tuple[Message, ...], agent: AgentID) -> tuple[Message, list[Message]]:
    """Return an agent's own message of a turn and the other agents', in seat order."""
    own = next(message for message in messages if message.agent == agent)
    return own, [message for message in messages if message.agent != agent]


def answers_of_turn(history: Transcript, turn: int) -> list[Answer | None]:
    """Return the answer of every message of a turn, None where there is none."""
    kind = history.question.kind
    return [extract_answer(message.text, kind) for message in history.of_turn(turn)]


def consensus(history: Transcript) -> bool:
    """Whether all valid answers of the last complete turn agree, and there is at least one."""
    valid = {a for a in answers_of_turn(history, history.turn - 1) if a is not None}
    return len(valid) == 1


PROTOCOLS = {"debate": SimultaneousDebate}
