"""A dialogue of an agent and a simulated user who alone knows the reference (SWEET-RL)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from maporl_env import fitting, prompts
from maporl_env.answers import extract_answer
from maporl_env.prompts import Template
from maporl_env.protocols.base import PartialTurns, Privileged
from maporl_env.protocols.observation_layout import DEFAULT_TEMPLATE
from maporl_env.types import AgentID, Answer, Message, Segment, Transcript, View

MARKER = "ANSWER:"
ROLES = (
    "You work for a user whose wish is stated only in part. Ask one short question at a time. When "
    "you know enough, write ANSWER: and behind it the final answer, and nothing else.",
    "You are the user. Answer the last question in a sentence or two, only from what you know from "
    "the reference. Do not write code and do not quote the reference.",
)
REFERENCE = "\nThe reference, which you alone know:\n{fence}\n{text}\n{fence}\n"
SAID = "\n{who}:\n{fence}\n{text}\n{fence}\n"
_BLOCK = r"\n{}:\n(`{{3,}})\n(.*?)\n\1\n"
_REFERENCE_READ = re.compile(_BLOCK.format("The reference, which you alone know"), re.DOTALL)
_SAID_READ = re.compile(_BLOCK.format("The assistant"), re.DOTALL)


class UserReading(NamedTuple):
    """What a simulated user reads. Made by `read_as_user`, read by scripted users.

    Attributes:
        reference: the hidden reference; "" without one.
        asked: the messages of the agent, oldest first.
    """

    reference: str
    asked: tuple[str, ...]


def read_as_user(text: str) -> UserReading:
    """Return what stands in the rendered view of a user.

    A message stands in a fence that it cannot close, and the reference before all messages, so no
    message passes for it.
    """
    first = _SAID_READ.search(text)
    found = _REFERENCE_READ.search(text[: first.start() + 1] if first else text)
    asked = tuple(one[2] for one in _SAID_READ.finditer(text))
    return UserReading(found[2] if found else "", asked)


@dataclass(frozen=True, slots=True)
class Dialogue(PartialTurns, Privileged):
    """Agent 0 and the user, agent 1, take turns until agent 0 gives its answer.

    Source: ColBench of SWEET-RL, arXiv 2503.15478, section 3. A turn is a message of the agent and
    the user's reply. A message with the marker ends the dialogue, and what follows the marker is
    the answer; in the last turn the whole message is. The answer alone is scored. The agent is paid
    for all its messages, the user for none; the user alone reads `Question.hidden`.

    Attributes:
        num_turns: the most turns T >= 1. Paper: 10.
        template: one template for both, or one each: the words of question, format and cue.
        personas: a system text each, "" for none.
        marker: ends the dialogue.
        reply_characters: the agent reads as many of a reply. Paper: 400 for code, 1,000 for HTML.
        token_budget: upper bound on the tokens of a view; the question is never left out.
        count_tokens: returns the number of tokens of a text, for the budget.
    """

    num_turns: int = 10
    template: Template | tuple[Template, ...] = DEFAULT_TEMPLATE
    personas: tuple[str, ...] = ROLES
    marker: str = MARKER
    reply_characters: int = 400
    token_budget: int | None = None
    count_tokens: Callable[[str], int] = prompts.count_characters

    def __post_init__(self) -> None:
        for name in ("num_turns", "reply_characters"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, not {value!r}")
        if not isinstance(self.marker, str) or not self.marker.strip():
            raise ValueError(f"marker must be a text that ends the dialogue, not {self.marker!r}")

    def check(self, num_agents: int) -> None:
        """Raise ValueError unless there are two agents."""
        if num_agents != 2:
            raise ValueError(
                f"protocol 'dialogue' is of an agent and a user: set num_agents=2, not {num_agents}"
            )
        for name, value in (("personas", self.personas), ("template", self.template)):
            if isinstance(value, tuple) and value and len(value) != 2:
                raise ValueError(f"{len(value)} entries in {name} for 2 agents")

    def words(self, agent_index: int) -> Template:
        """Return the template of agent `agent_index`."""
        return self.template[agent_index] if isinstance(self.template, tuple) else self.template

    def privileged(self, agents: tuple[AgentID, ...]) -> tuple[AgentID, ...]:
        """The user reads the reference."""
        return agents[1:]

    def ended(self, history: Transcript) -> bool:
        """Whether the agent has given its answer."""
        last = history.of_turn(history.turn - 1) if history.turn else ()
        return history.turn >= self.num_turns or bool(last and self.marker in last[0].text)

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """The agent, then the user, until the answer."""
        if self.ended(history):
            return ()
        return (history.agents[len(history.of_turn(history.turn))],)

    def turn_over(self, history: Transcript) -> bool:
        """A turn ends with the user's reply, or with the answer, which gets none."""
        said = history.of_turn(history.turn)
        return len(said) == 2 or self.marker in said[0].text or history.turn + 1 == self.num_turns

    def scored(self, history: Transcript) -> tuple[AgentID, ...]:
        """The agent, once it has answered."""
        return history.agents[:1] if self.ended(history) else ()

    def paid(self, history: Transcript) -> tuple[AgentID, ...]:
        """The agent."""
        return history.agents[:1]

    def payable(self, agents: tuple[AgentID, ...]) -> tuple[AgentID, ...]:
        """The agent."""
        return agents[:1]

    def response(self, agent: AgentID, history: Transcript) -> str:
        """What follows the marker, or the whole message without one."""
        text = history.message(history.turn - 1, agent).text
        _, found, answer = text.partition(self.marker)
        return answer if found else text

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The answer of the agent, if it has given one."""
        if not history.turn or not self.ended(history):
            return ()
        answer = extract_answer(self.response(history.agents[0], history), history.question.kind)
        return () if answer is None else (answer,)

    def view(self, agent: AgentID, history: Transcript) -> View:
        """Question (for the user: with the reference), and the dialogue so far.

        Beyond the token budget the oldest messages go first, then the middles of long ones.
        """
        agent_index = history.agents.index(agent)
        head, blocks = self._head(agent_index, history), self._blocks(agent, history)

        def part(turn: int, max_shown: int | None) -> View:
            said = tuple(self._read(m, agent_index, max_shown, history) for m in blocks[turn])
            return prompts.join((*head, *said)) if turn == 0 else prompts.join(said)

        later = range(1, len(blocks))
        if self.token_budget is None:
            return prompts.join([segment for t in (0, *later) for segment in part(t, None)])
        gap = self.words(agent_index).left_out.format()
        parts = fitting.Parts(head, part, bool(blocks[0]), later, gap)
        return fitting.fit(parts, self.token_budget, self.count_tokens)

    def _head(self, agent_index: int, history: Transcript) -> View:
        """Return persona and question; the user's with the reference."""
        template, question = self.words(agent_index), history.question
        segments: list[Segment] = []
        if self.personas and self.personas[agent_index]:
            segments.append(("system", self.personas[agent_index] + "\n"))
        if agent_index == 0:
            return (*segments, ("user", prompts.opening(template, question, 0)))
        reference = question.hidden
        told = REFERENCE.format(text=reference, fence=prompts.fence(reference))
        asked = prompts.ask(template, question, 1) + told * bool(reference)
        return (*segments, ("user", asked))

    def _blocks(self, reader: AgentID, history: Transcript) -> list[list[Message]]:
        """Return the dialogue, divided before each message of the reader's own."""
        blocks: list[list[Message]] = [[]]
        for message in history.messages:
            if message.agent == reader:
                blocks.append([])
            blocks[-1].append(message)
        return blocks

    def _read(
        self, message: Message, agent_index: int, max_shown: int | None, history: Transcript
    ) -> Segment:
        """Return a message as it stands in the view of one of the two."""
        if message.agent == history.agents[agent_index]:
            return ("own", message.text)
        template = self.words(agent_index)
        text = message.text if agent_index else message.text[: self.reply_characters]
        text, note = prompts.shorten(template, text, max_shown)
        who = "The assistant" if agent_index else "The user"
        said = SAID.format(who=who, text=text, fence=prompts.fence(text)) + note
        return ("user", said + prompts.cue(template, message.turn + (agent_index == 0)))
