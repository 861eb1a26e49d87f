"""The nouns of a debate: questions, messages, transcripts and views.

All are frozen, hashable, and go in and out of JSON.

Everything the environment knows about an episode is one :class:`Transcript`. Protocols, rewards and
rendering are functions of it, so a prefix of a transcript *is* a state of the game.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from numbers import Integral
from typing import Any, Literal

AgentID = str
"""Name of a participant, ``"agent_0"``, ``"agent_1"``, ... It is not a network."""

Answer = str | int | Fraction
"""The answer that `maporl_env.answers.extract_answer` reads from a text; None for "no answer"."""

Segment = tuple[Literal["system", "user", "own"], str]
"""A stretch of a view: who wrote it, and the text. "own" is the viewer's own earlier message."""

View = tuple[Segment, ...]
"""The segments that an agent reads before it speaks. Made by a protocol, rendered by `prompts`."""

Insertions = tuple[tuple[int, str], ...]
"""Results of tools in a message, in order: where in its own words each stands, and its text."""

Touch = Literal["", "wrote", "edited", "vetoed", "sent back"]
"""What a person did to a message: wrote it as its author, edited it, struck it out (then it is
empty), or sent earlier tries of it back, so that its author wrote it behind a note."""

LONG_REFERENCE = 16
"""Characters from which on a hidden reference cannot stand in a prompt by chance."""


@dataclass(frozen=True, slots=True)
class Question:
    """One task item. Made by a task, read by prompts (prompt, private) and verifiers (all fields).

    Attributes:
        id: unique within its task, e.g. ``"gsm8k/test/17"``.
        prompt: what the agents are asked. Never contains the answer.
        answer: the gold answer as text that `answers.read_gold` can read. Hidden from agents.
        kind: how answers are read: "number", "nli", "code", "text", ... (see `answers`).
        private: a text per agent, in order of their index, that this agent alone reads behind the
            prompt, "" for none; () for no private texts at all.
        hidden: a reference that verifiers may read, and agents that a protocol makes privileged
            (a simulated user); it stands in no other observation.

    Raises:
        TypeError: `private` is no sequence of texts, or `hidden` no text.
        ValueError: `hidden` is of `LONG_REFERENCE` characters or more and stands in the prompt, so
            that every agent would read it.
    """

    id: str
    prompt: str
    answer: str
    kind: str = "number"
    private: tuple[str, ...] = field(default=(), repr=False)  # error texts may show a question
    hidden: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.private, list):
            object.__setattr__(self, "private", tuple(self.private))
        texts = isinstance(self.private, tuple) and all(isinstance(t, str) for t in self.private)
        if not texts:
            raise TypeError("private must be a list of texts, one per agent")
        if not isinstance(self.hidden, str):
            raise TypeError("hidden must be a text")
        reference = " ".join(self.hidden.split())
        if len(reference) >= LONG_REFERENCE and reference in " ".join(self.prompt.split()):
            raise ValueError(
                f"the hidden reference of question {self.id!r} stands in its prompt, where every "
                "agent would read it: take it out of the prompt, or leave hidden empty"
            )

    @property
    def public(self) -> Question:
        """This question without private texts and reference."""
        return replace(self, private=(), hidden="") if self.private or self.hidden else self

    @property
    def words(self) -> str:
        """The prompt and all private texts: what tells two questions apart."""
        return "\n".join((self.prompt, *self.private))

    def private_of(self, agent_index: int) -> str:
        """Return the text that only this agent reads; "" if there is none."""
        return self.private[agent_index] if self.private else ""

    def known_to(self, agent_index: int, *, reference: bool = False) -> Question:
        """Return what one agent may know of this question: without what others alone are told.

        Args:
            agent_index: of the agent.
            reference: it may read `hidden` too.
        """
        hidden = self.hidden if reference else ""
        private = tuple([t if a == agent_index else "" for a, t in enumerate(self.private)])
        return replace(self, private=private, hidden=hidden)

    def dealt_to(self, seats: Sequence[int]) -> Question:
        """Return the question for other agents: the i-th is told what agent `seats[i]` is told."""
        if not self.private:
            return self
        return replace(self, private=tuple(self.private[agent] for agent in seats))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dict, `private` and `hidden` only if they are set."""
        fields = {name: getattr(self, name) for name in ("id", "prompt", "answer", "kind")}
        if self.private:
            fields["private"] = list(self.private)
        return {**fields, "hidden": self.hidden} if self.hidden else fields

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Question:
        """Inverse of :meth:`to_dict`."""
        return cls(**data)


class WithResults(str):
    """A message whose author called tools, as an action: its own words, and the tools' results.

    As a str it is the author's words alone, which verifiers score and answers are read from.

    Attributes:
        results: of the tools; see `Insertions`.
        shown: whether the other agents read them.
        person: what a person did to it, see `Touch`.
    """

    results: Insertions
    shown: bool
    person: Touch

    def __new__(
        cls, words: str, results: Insertions = (), *, shown: bool = True, person: Touch = ""
    ) -> WithResults:
        """Return the message."""
        made = super().__new__(cls, words)
        made.results, made.shown, made.person = results, shown, person
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[str, Insertions], dict[str, Any]]:
        """Return what a copy is made of."""
        return (str(self), self.results), {"shown": self.shown, "person": self.person}


def inserted(words: str, results: Insertions) -> str:
    """Return the words of a message with the results of its tools at their places."""
    parts, start = [], 0
    for place, text in results:
        parts += [words[start:place], text]
        start = max(start, place)
    return "".join([*parts, words[start:]])


@dataclass(frozen=True, slots=True)
class Message:
    """One utterance of one agent in one turn; one AEC step.

    Attributes:
        turn: in [0, T).
        agent: who wrote it.
        text: exactly what was written (after the space's length policy), never tidied.
        score: the verifier's score in [0, 1]; None while unscored or after a verifier fault.
        cut: True if its end is missing: the text was longer than the action space allows, or its
            author says that a limit of its own stopped it.
        shown: the score that agents read where scores are shown: "score" for `score` itself, else a
            value in [0, 1] of another verifier, or None for none (see `feedback_verifier`).
        scored: whether the protocol has it scored; if not, `score` is None without any fault.
        paid: whether its author is rewarded for it.
        votes: whether its answer counts towards the team's.
        response: the text that was scored in its place, where a protocol has such turns; None for
            its own text.
        results: of the tools that its author called, which `text` does not hold; see `Insertions`.
        results_shown: whether the other agents read them.
        person: what a person did to it before others read it, see `Touch`; "" for nothing.
    """

    turn: int
    agent: AgentID
    text: str
    score: float | None = None
    cut: bool = False
    shown: float | Literal["score"] | None = "score"
    scored: bool = True
    paid: bool = True
    votes: bool = True
    response: str | None = None
    results: Insertions = ()
    results_shown: bool = True
    person: Touch = ""

    @property
    def whole(self) -> str:
        """The text with the results of tools, as its author reads it."""
        return inserted(self.text, self.results) if self.results else self.text

    @property
    def said(self) -> str:
        """The action that made it."""
        if not self.results and not self.person:
            return self.text
        shown, person = self.results_shown, self.person
        return WithResults(self.text, self.results, shown=shown, person=person)

    @property
    def answer(self) -> str:
        """The text that its answer is read from."""
        return self.text if self.response is None else self.response

    @property
    def feedback(self) -> float | None:
        """The score that readers see where scores are shown; None if there is none."""
        return self.score if isinstance(self.shown, str) else self.shown

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dict, the last seven only if they are not as usual."""
        fields = {name: getattr(self, name) for name in _ALWAYS_WRITTEN}
        fields |= {name: False for name in _USUALLY_TRUE if not getattr(self, name)}
        fields |= {"person": self.person} if self.person else {}
        if self.results:
            fields["results"] = [list(result) for result in self.results]
        return fields if self.response is None else {**fields, "response": self.response}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Inverse of :meth:`to_dict`."""
        results = tuple((int(place), str(text)) for place, text in data.get("results", ()))
        return cls(**{**data, "results": results})


_ALWAYS_WRITTEN = ("turn", "agent", "text", "score", "cut", "shown")
_USUALLY_TRUE = ("scored", "paid", "votes", "results_shown")


@dataclass(frozen=True, slots=True)
class Transcript:
    """A question and its messages in the order they were published.

    Guaranteed: messages are ordered by turn; within a turn every agent speaks at most once.

    Attributes:
        question: the task item.
        agents: all agents of the game in order of their index, also before they speak.
        messages: published messages; one still pending in a simultaneous turn is not here.
        ends: per complete turn, the number of messages up to its end. None where every agent speaks
            once in every turn, so that the number of messages tells.
    """

    question: Question
    agents: tuple[AgentID, ...]
    messages: tuple[Message, ...] = ()
    ends: tuple[int, ...] | None = None

    @property
    def turn(self) -> int:
        """Number of complete turns = index of the turn that is being played."""
        if self.ends is not None:
            return len(self.ends)
        return len(self.messages) // len(self.agents)

    def of_turn(self, turn: int) -> tuple[Message, ...]:
        """Messages of one turn, in the order they were published."""
        if self.ends is None:
            width = len(self.agents)
            return self.messages[turn * width : (turn + 1) * width]
        start, stop = self._start(turn), self._start(turn + 1)
        return self.messages[start:stop]

    def _start(self, turn: int) -> int:
        """Return the number of messages before a turn; all messages beyond the turn in play."""
        if self.ends is None:
            return turn * len(self.agents)
        if not turn:
            return 0
        return self.ends[turn - 1] if turn <= len(self.ends) else len(self.messages)

    def until(self, turn: int) -> Transcript:
        """Return the transcript as it stood when `turn` turns were complete."""
        ends = self.ends if self.ends is None else self.ends[:turn]
        return Transcript(self.question, self.agents, self.messages[: self._start(turn)], ends)

    def closed(self) -> Transcript:
        """Return the transcript with the turn in play complete, though not every agent spoke.

        For protocols in whose turns not every agent speaks; all of their turns end so.
        """
        ends = (*(self.ends or ()), len(self.messages))
        return Transcript(self.question, self.agents, self.messages, ends)

    def message(self, turn: int, agent: AgentID) -> Message:
        """Return one agent's message of a turn; ValueError if it has not spoken in it."""
        for message in self.of_turn(turn):
            if message.agent == agent:
                return message
        raise ValueError(f"{agent} has not spoken in turn {turn}")

    def publish(self, messages: Iterable[Message]) -> Transcript:
        """Return a longer transcript; this one is unchanged."""
        return Transcript(self.question, self.agents, self.messages + tuple(messages), self.ends)

    def with_scores(
        self,
        turn: int,
        scores: Mapping[AgentID, float | None],
        shown: Mapping[AgentID, float | None] | None = None,
    ) -> Transcript:
        """Return the transcript with the scores of one complete turn written in.

        `shown` are the scores that readers see instead; None for the scores themselves. A message
        without an entry in `scores` stays as it is.
        """
        start = self._start(turn)
        scored = tuple(
            [
                Message(
                    *(m.turn, m.agent, m.text, scores[m.agent], m.cut),
                    "score" if shown is None else shown[m.agent],
                    *(m.scored, m.paid, m.votes, m.response),
                    results=m.results,
                    results_shown=m.results_shown,
                    person=m.person,
                )
                if m.agent in scores
                else m
                for m in self.of_turn(turn)
            ]
        )
        messages = self.messages[:start] + scored + self.messages[start + len(scored) :]
        return Transcript(self.question, self.agents, messages, self.ends)

    @property
    def intervened(self) -> tuple[Message, ...]:
        """The messages that a person wrote, edited, struck out or sent back."""
        return tuple(message for message in self.messages if message.person)

    def texts_of(self, agent: AgentID) -> tuple[str, ...]:
        """Return the messages of one agent so far, in order."""
        return tuple(message.text for message in self.messages if message.agent == agent)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict, `ends` only if not every agent speaks in every turn."""
        written = {
            "question": self.question.to_dict(),
            "agents": list(self.agents),
            "messages": [message.to_dict() for message in self.messages],
        }
        return written if self.ends is None else {**written, "ends": list(self.ends)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Transcript:
        """Inverse of :meth:`to_dict`."""
        return cls(
            question=Question.from_dict(data["question"]),
            agents=tuple(data["agents"]),
            messages=tuple(Message.from_dict(message) for message in data["messages"]),
            ends=tuple(data["ends"]) if data.get("ends") is not None else None,
        )

    def to_json(self) -> str:
        """Return one line of JSON. Lone surrogates survive as escapes."""
        return json.dumps(self.to_dict(), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Transcript:
        """Inverse of :meth:`to_json`."""
        return cls.from_dict(json.loads(text))


def agent_ids(num_agents: int) -> tuple[AgentID, ...]:
    """Return ("agent_0", ...); ValueError unless `num_agents` is an integer >= 1."""
    if isinstance(num_agents, bool) or not isinstance(num_agents, Integral):
        raise ValueError(f"num_agents must be an integer >= 1, not {num_agents!r}")
    if num_agents < 1:
        raise ValueError(f"num_agents must be at least 1, not {num_agents}")
    return tuple(f"agent_{agent}" for agent in range(num_agents))
