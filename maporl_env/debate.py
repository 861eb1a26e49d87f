"""The rules of one episode as a plain object, without any API library.

A debate goes round in three steps: speak, score, go on. The protocol says who speaks in a turn and
whose messages are scored; in most protocols all agents do and all messages are.

    debate.reset(question)
    while not debate.over:
        for agent in debate.speakers:                  # a sequential protocol names one at a time
            debate.post(agent, answer(debate.observation(agent)))
        if debate.awaits_scores:                       # the turn is complete
            due = debate.due()                         # the texts that are scored
            debate.settle(verifier([debate.question] * len(due), due))

Speaking and scoring are apart so that many debates can share one verifier call. Messages of agents
that speak at once are pending, and in no observation, until all of them are there; then they are
published together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from maporl_env.credit import Credit, OwnRewards
from maporl_env.prompts import Reading, render
from maporl_env.protocols import AppendOnly, Drafting, PartialTurns, Protocol, tries_again
from maporl_env.protocols.base import closed
from maporl_env.protocols.knowledge import (
    as_known_to,
    clean,
    cleaned,
    require_private,
    require_unreachable,
    with_results,
)
from maporl_env.tasks.worked import AnswerRule, WorkedExamples, read_by
from maporl_env.types import AgentID, Answer, Message, Question, Transcript, View, agent_ids

MAX_CHARS = 100_000

OnLong = Literal["truncate", "error"]


class Debate:
    """One debate: protocol, agents, transcript, pending messages, scores.

    A call with wrong arguments raises before it changes anything.

    Attributes:
        played: number of turns that are complete and scored.
        truncated: whether the debate was ended from outside.
        truncation_reason: why.
        drafts: per agent, the refused tries of the message that it is to write now.

    Args:
        protocol: the order of speakers and their views.
        num_agents: A >= 1.
        credit: computes the rewards of the finished debate.
        max_chars: longest message, in characters.
        on_long: "truncate" cuts and flags a longer message; "error" raises ValueError.
        answer_rule: how answers that are numbers are read.
        examples: worked examples that every agent reads first.
        drafting: lets agents try again where a message is refused; None takes every message.
    """

    def __init__(
        self,
        protocol: Protocol,
        num_agents: int,
        *,
        credit: Credit | None = None,
        max_chars: int = MAX_CHARS,
        on_long: OnLong = "truncate",
        answer_rule: AnswerRule = "box",
        examples: WorkedExamples | None = None,
        drafting: Drafting | None = None,
    ) -> None:
        self.protocol = protocol
        self.agents: tuple[AgentID, ...] = agent_ids(num_agents)
        self.seats = {agent: agent_index for agent_index, agent in enumerate(self.agents)}
        self.credit = credit if credit is not None else Credit()
        self.max_chars = max_chars
        self.on_long = on_long
        self.answer_rule: AnswerRule = answer_rule
        self.examples = examples
        self.drafting = drafting
        self.drafts: dict[AgentID, tuple[Message, ...]] = {}
        self.truncated = False
        self.truncation_reason = ""
        self._transcript: Transcript | None = None
        self._pending: dict[AgentID, Message] = {}
        self.played = 0
        self._due = False
        self._speakers: tuple[AgentID, ...] = ()
        self._read: dict[AgentID, Reading] = {}

    # -- question and transcript -------------------------------------------------------------

    def reset(self, question: Question) -> None:
        """Start a debate about a question; the debate before it is dropped.

        Lone surrogates in prompt, private texts and reference become U+FFFD, as in messages.

        Raises:
            ValueError: some agent's persona and question are over the protocol's token budget, the
                question has private texts for another number of agents, or one of them holds the
                reference.
        """
        require_private(question, len(self.agents))
        question = read_by(cleaned(question), self.answer_rule)
        partial = isinstance(self.protocol, PartialTurns)
        transcript = Transcript(question, self.agents, (), () if partial else None)
        require_unreachable(question, transcript, self.protocol)
        if getattr(self.protocol, "token_budget", None) is not None:
            for agent in self.agents:
                self.protocol.view(agent, as_known_to(agent, transcript, self.protocol))
        self._transcript = transcript
        self._pending = {}
        self.played = 0
        self._due = False
        self._read = {}
        self.drafts = {}
        self.truncated = False
        self.truncation_reason = ""
        self._speakers = self.protocol.speakers(self._transcript)

    @property
    def started(self) -> bool:
        """Whether :meth:`reset` has been called."""
        return self._transcript is not None

    @property
    def transcript(self) -> Transcript:
        """Everything published so far; RuntimeError before the first reset."""
        if self._transcript is None:
            raise RuntimeError("no debate yet: call reset(question) first")
        return self._transcript

    @property
    def pending(self) -> tuple[Message, ...]:
        """Messages of agents that speak at once, not all of which are there, in their order."""
        return tuple(self._pending[agent] for agent in self.agents if agent in self._pending)

    @property
    def question(self) -> Question:
        """The question debated."""
        return self.transcript.question

    @property
    def num_turns(self) -> int:
        """The horizon T."""
        return self.protocol.num_turns

    # -- speaking ----------------------------------------------------------------------------

    @property
    def speakers(self) -> tuple[AgentID, ...]:
        """The agents that may speak now, in order; empty while scores are due and at the end."""
        if not self._pending:
            return self._speakers
        return tuple(agent for agent in self._speakers if agent not in self._pending)

    def view(self, agent: AgentID) -> View:
        """Return the view of an agent, as segments."""
        return self.reading(agent).view

    def observation(self, agent: AgentID) -> str:
        """Return the view of an agent, as one text."""
        return self.reading(agent).text

    def reading(self, agent: AgentID) -> Reading:
        """Return the view of an agent, as segments and as one text."""
        if agent not in self.agents:
            raise ValueError(f"unknown agent {agent!r}: choose one of {', '.join(self.agents)}")
        reading = self._reading(agent)
        if self.drafts.get(agent):
            again = tries_again(self.protocol, self.seats[agent], self.drafts[agent])
            return Reading(reading.turns, reading.view, reading.text).then(again)
        return reading

    def _reading(self, agent: AgentID) -> Reading:
        """Return the reading of an agent without its drafts."""
        transcript, protocol = self.transcript, self.protocol
        turn = transcript.turn
        # Once the agent may speak in a turn, its view before that turn is final: keep it.
        final = (protocol.simultaneous or agent in self._speakers) and not self._due
        if final and isinstance(protocol, AppendOnly) and protocol.appends:
            reading = self._read.get(agent, _NOTHING)
            if reading.turns <= turn:
                known = as_known_to(agent, transcript, self.protocol)
                while reading.turns <= turn:
                    added = protocol.added(agent, reading.turns, known)
                    reading = reading.then(added if reading.turns else self._begun(agent, added))
                self._read[agent] = reading
            return reading
        view = self.view_after(agent, transcript)
        return Reading(0, view, render(view))

    def view_after(self, agent: AgentID, history: Transcript) -> View:
        """Return the view of an agent after any history of this game."""
        view = self.protocol.view(agent, as_known_to(agent, history, self.protocol))
        return self._begun(agent, view, history.question)

    def _begun(self, agent: AgentID, view: View, asked: Question | None = None) -> View:
        """Return a view with the worked examples before it."""
        if self.examples is None:
            return view
        return self.examples.before(view, self.seats[agent], asked or self.question)

    def check(self, agent: AgentID, text: object) -> None:
        """Raise what :meth:`post` would raise; change nothing.

        Raises:
            ValueError: not a string, too long where that is an error, or not this agent's turn.
        """
        if agent not in self.speakers:
            raise ValueError(self._refusal(agent))
        if not isinstance(text, str):
            raise ValueError(f"the message of {agent} must be a string, not {_kind_of(text)}")
        if self.on_long == "error" and len(text) > self.max_chars:
            raise ValueError(
                f"the message of {agent} has {len(text)} characters, more than "
                f"max_chars={self.max_chars}: shorten it, or choose on_long='truncate'"
            )

    def _refusal(self, agent: AgentID) -> str:
        if agent not in self.agents:
            return f"unknown agent {agent!r}: choose one of {', '.join(self.agents)}"
        if self.over:
            return "the debate is over: call reset before the next message"
        if self._due:
            return "the turn is complete: settle its scores before the next message"
        return f"{agent} may not speak now; next: {', '.join(self.speakers)}"

    def post(self, agent: AgentID, text: str) -> None:
        """Let an agent speak.

        Text is kept as written, except that lone surrogates, which no encoding can carry, become
        U+FFFD, and that a message longer than `max_chars` is cut and flagged (or refused).

        Raises:
            ValueError: see :meth:`check`.
        """
        self.check(agent, text)
        self.accept(agent, text)

    def accept(self, agent: AgentID, text: str, *, cut: bool = False) -> bool:
        """Do what :meth:`post` does, for a text that :meth:`check` has passed.

        Args:
            agent: who speaks.
            text: what it says.
            cut: whether a limit of its author, e.g. on tokens, has cut its end already.

        Returns:
            Whether it is the agent's message; if not, it is a draft, and the agent tries again.
        """
        said = clean(text)
        cut = cut or len(said) > self.max_chars
        message = with_results(Message(self.played, agent, said[: self.max_chars], None, cut), text)
        if self.drafting is not None:
            tries = self.drafts.pop(agent, ())
            if self.drafting.refuses(self.question, message, len(tries)):
                self.drafts[agent] = (*tries, message)
                return False
        if len(self._speakers) == 1 or not self._at_once():
            self._publish((message,))
            return True
        self._pending[agent] = message
        if len(self._pending) == len(self._speakers):
            ordered = self.pending
            self._pending = {}
            self._publish(ordered)
        return True

    def _at_once(self) -> bool:
        """Whether the messages of all that may speak now are published together."""
        return self.protocol.simultaneous or isinstance(self.protocol, PartialTurns)

    def _publish(self, messages: Sequence[Message]) -> None:
        transcript = self.transcript.publish(messages)
        if isinstance(self.protocol, PartialTurns) and self.protocol.turn_over(transcript):
            transcript = closed(self.protocol, transcript)
        self._transcript = transcript
        self._due = transcript.turn > self.played
        self._speakers = () if self._due else self.protocol.speakers(transcript)

    def _scored_agents(self) -> tuple[AgentID, ...]:
        """Return whose messages of the turn in play are scored, in order of their index."""
        if not isinstance(self.protocol, PartialTurns):
            return self.agents
        scored = {m.agent for m in self.transcript.of_turn(self.played) if m.scored}
        return tuple(agent for agent in self.agents if agent in scored)

    # -- scoring -----------------------------------------------------------------------------

    @property
    def awaits_scores(self) -> bool:
        """Whether the turn is complete and not yet scored."""
        return self._due

    def due(self) -> list[str]:
        """Return the texts of the complete turn that await a score, by agent; else []."""
        if not self._due:
            return []
        transcript = self.transcript
        return [self.protocol.response(agent, transcript) for agent in self._scored_agents()]

    def settle(
        self, scores: Sequence[float | None], shown: Sequence[float | None] | None = None
    ) -> None:
        """Write in the scores of the turn that awaits them, in order of the agents.

        Args:
            scores: one per text of `due` in [0, 1]; None where the verifier failed.
            shown: likewise, the scores that agents read; None if they read `scores`.

        Raises:
            ValueError: no scores are due, the wrong number, or a score outside [0, 1].
        """
        if not self._due:
            raise ValueError("no scores are due: the turn is not complete or is settled already")
        by_agent = self._by_agent(scores)
        shown_by_agent = None if shown is None else self._by_agent(shown)
        self._transcript = self.transcript.with_scores(self.played, by_agent, shown_by_agent)
        self._due = False
        self.played += 1
        self._speakers = () if self.truncated else self.protocol.speakers(self._transcript)

    def _by_agent(self, scores: Sequence[float | None]) -> dict[AgentID, float | None]:
        agents = self._scored_agents()
        if len(scores) != len(agents):
            raise ValueError(f"{len(scores)} scores for {len(agents)} agents")
        for score in scores:
            if score is not None and not 0.0 <= score <= 1.0:
                raise ValueError(f"a score must lie in [0, 1] or be None, not {score!r}")
        return dict(zip(agents, scores, strict=True))

    # -- the end -----------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether no agent may speak any more and no score is due."""
        return not self._speakers and not self._due

    @property
    def terminated(self) -> bool:
        """Whether the debate ended by its rules: horizon or consensus."""
        return self.over and not self.truncated

    def truncate(self, reason: str) -> None:
        """End the debate from outside, e.g. after a generation time-out; ValueError if it is over.

        Messages of an incomplete turn are ignored: only complete turns are rewarded.
        """
        if self.over:
            raise ValueError("the debate is over: there is nothing to truncate")
        self._pending, self.drafts, self._speakers = {}, {}, ()
        self.truncated = True
        self.truncation_reason = reason

    def turn_rewards(self) -> NDArray[np.float32]:
        """Return the reward of every message, (T, A) float32; unplayed turns are 0."""
        return self.rewards().astype(np.float32)

    def rewards(self) -> NDArray[np.float64]:
        """Return :meth:`turn_rewards` in full precision."""
        done = self._complete()
        return self.credit.table(done, self.num_turns, self._own_rewards(done))

    def scored(self) -> NDArray[np.bool_]:
        """Return where a message has a reward, (T, A) booleans.

        It has one if it has a verifier score or, where it is not scored but paid, if its reward can
        be made of other scores or is the protocol's own.
        """
        done = self._complete()
        return self.credit.rewarded(done, self.num_turns, self._own_rewards(done))

    def _own_rewards(self, complete: Transcript) -> OwnRewards | None:
        protocol = self.protocol
        return protocol.own_rewards(complete) if isinstance(protocol, PartialTurns) else None

    def _complete(self) -> Transcript:
        """The transcript without the messages of an incomplete turn."""
        return self.transcript.until(self.transcript.turn)

    def outcome(self) -> tuple[Answer, ...]:
        """Return the final answers so far: one, several if tied, none if no answer is valid."""
        return self.protocol.outcome(self._complete())


_NOTHING = Reading(0, (), "")


def _kind_of(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__} ({str(value)[:40]!r})"
