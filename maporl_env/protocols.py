"""Protocols: who speaks when, what each agent reads, and how the final answer is drawn.

A protocol is data (a frozen dataclass of settings) and functions of the history alone. It keeps no
state, so a prefix of a transcript can be resampled, branched or replayed by asking it again.

To add one, write such a dataclass and pass an instance as `protocol=`, or its name as
"module:Class" or "file.py:Class", or put the class into :data:`PROTOCOLS` under a name. The options
of an environment reach a class by the names of its fields; an option that it has no field for is
refused. Fields of its own that are no such option are set by `protocol_options`, a mapping.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from maporl_env import fitting, prompts
from maporl_env.answers import extract_answer
from maporl_env.prompts import Template
from maporl_env.types import AgentID, Answer, Message, Question, Transcript, View
from maporl_env.voting import majority

History = Literal["all", "last", "none"]
Stop = Literal["fixed", "consensus"]
DEFAULT_TEMPLATE = Template()


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
        """Return who may speak next, in order; empty when the episode is over.

        A simultaneous protocol names all agents of the turn, a sequential one the next agent.
        """

    def view(self, agent: AgentID, history: Transcript) -> View:
        """Return what `agent` reads before its next message."""

    def response(self, agent: AgentID, history: Transcript) -> str:
        """Return the text whose score is `agent`'s score for the last complete turn."""

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """Return the final answers: one, several if tied, none if nobody gave a valid answer."""


class AppendOnly:
    """A protocol whose views only ever grow, told turn by turn.

    `Debate` asks such a protocol for what is new instead of building every view from the start.
    """

    __slots__ = ()

    @property
    def appends(self) -> bool:
        """Whether the settings keep the promise: view(turn) is view(turn - 1) plus `added`."""
        raise NotImplementedError

    def added(self, agent: AgentID, turn: int, history: Transcript) -> View:
        """Return what `agent` reads newly before its message of `turn` (0-based)."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Conversation(AppendOnly):
    """What all built-in protocols share: agents who read a question and each other, by turns.

    A view is the persona, the question, and one block per earlier turn: the agent's own message,
    the answers it has heard since, and the question once more.

    Attributes:
        num_turns: the horizon T >= 1.
        template: the words; one for all, or one per seat.
        personas: a system text per seat ("" for none), or () for nobody.
        reward_feedback: show every score that is known to everybody who reads the message.
        history: how much is rendered: "all" earlier turns (append-only), the "last" one, or "none".
        token_budget: upper bound on the tokens of a view; the oldest turns are dropped, then texts
            of others shortened (see `fitting`), the question never. None for no bound.
        count_tokens: how tokens are counted for the budget.
        max_shown: characters that are shown of each text of others; None for all.
    """

    num_turns: int = 3
    template: Template | tuple[Template, ...] = DEFAULT_TEMPLATE
    personas: tuple[str, ...] = ()
    reward_feedback: bool = False
    history: History = "all"
    token_budget: int | None = None
    count_tokens: Callable[[str], int] = prompts.count_characters
    max_shown: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.num_turns, bool) or not isinstance(self.num_turns, int):
            raise ValueError(f"num_turns must be an integer >= 1, not {self.num_turns!r}")
        if self.num_turns < 1:
            raise ValueError(f"num_turns must be at least 1, not {self.num_turns}")
        if self.history not in typing.get_args(History):
            raise ValueError(f"unknown history {self.history!r}: choose one of all, last, none")
        if self.token_budget is not None and self.token_budget < 1:
            raise ValueError(f"token_budget must be at least 1 or None, not {self.token_budget}")
        if self.max_shown is not None and self.max_shown < 0:
            raise ValueError(f"max_shown must be at least 0 or None, not {self.max_shown}")

    def check(self, num_agents: int) -> None:
        """Raise ValueError if this protocol cannot be played by so many agents."""
        for name, value in (("personas", self.personas), ("template", self.template)):
            if isinstance(value, tuple) and value and len(value) != num_agents:
                raise ValueError(f"{len(value)} entries in {name} for {num_agents} agents")

    @property
    def simultaneous(self) -> bool:
        """Whether all agents of a turn speak at once."""
        return True

    @property
    def appends(self) -> bool:
        """Views only grow unless history is left out."""
        return self.history == "all" and self.token_budget is None

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """All agents, or the next one, until the horizon."""
        if history.turn >= self.num_turns:
            return ()
        if self.simultaneous:
            return history.agents
        return (history.agents[len(history.messages) % len(history.agents)],)

    def view(self, agent: AgentID, history: Transcript) -> View:
        """Persona and question, then a block per earlier turn, as far as `history` tells them."""
        turn = self.turn_of(agent, history)
        first = {"all": 0, "last": max(turn - 1, 0), "none": turn}[self.history]
        told = range(first + 1, turn + 1)
        if self.token_budget is not None:
            parts = self._parts(agent, told, history)
            return fitting.fit(parts, self.token_budget, self.count_tokens)
        seat = history.agents.index(agent)
        segments = [*self._started(seat, first, history)]
        segments += [s for t in told for s in self.added(agent, t, history)]
        return tuple(segments) if self.appends else prompts.join(segments)

    def _parts(self, agent: AgentID, told: range, history: Transcript) -> fitting.Parts:
        """Return what an agent may read, apart, so that it can be fitted into a budget."""
        seat = history.agents.index(agent)
        first = told.start - 1

        def part(turn: int, max_shown: int | None) -> View:
            shown = self if max_shown is None else replace(self, max_shown=max_shown)
            if turn:
                return shown.added(agent, turn, history)
            return shown._started(seat, first, history)

        opened = bool(self._read_at_start(seat, first, history))
        gap = self.words(seat).left_out.format()
        return fitting.Parts(self._question(seat, history), part, opened, told, gap)

    def _question(self, seat: int, history: Transcript) -> View:
        """Persona and question, and nothing that anybody has said."""
        return self._opened(seat, prompts.opening(self.words(seat), history.question))

    def _opened(self, seat: int, text: str) -> View:
        persona = self.personas[seat] if self.personas else ""
        return (("system", persona + "\n"), ("user", text)) if persona else (("user", text),)

    def turn_of(self, agent: AgentID, history: Transcript) -> int:
        """Return how often the agent has spoken = the turn of its next message."""
        seat = history.agents.index(agent)
        return history.turn + (len(history.messages) % len(history.agents) > seat)

    def added(self, agent: AgentID, turn: int, history: Transcript) -> View:
        """The block of one turn; that of turn 0 is persona and question."""
        seat = history.agents.index(agent)
        template = self.words(seat)
        if not turn:
            return self._started(seat, 0, history)
        own = history.message(turn - 1, agent)
        verdict = prompts.own_verdict(template, own, show_scores=self.reward_feedback)
        news = self.news(seat, turn, history)
        again = prompts.ask_again(template, history.question, turn)
        return (("own", own.text), ("user", verdict + news + again))

    def _started(self, seat: int, first: int, history: Transcript) -> View:
        """Persona, question and same-turn messages, for a reader who is told turns from `first`."""
        news = self._read_at_start(seat, first, history)
        if not news:
            return self._question(seat, history)
        template, question = self.words(seat), history.question
        again = prompts.ask_again(template, question, first)
        return self._opened(seat, prompts.ask(template, question) + news + again)

    def _read_at_start(self, seat: int, first: int, history: Transcript) -> str:
        # Of a turn before `first` nothing may be read, and `news` tells of two turns.
        return self.same_turn(seat, first, history) if first else self.news(seat, 0, history)

    def words(self, seat: int) -> Template:
        """Return the template of one seat."""
        return self.template[seat] if isinstance(self.template, tuple) else self.template

    def news(self, seat: int, turn: int, history: Transcript) -> str:
        """Return what others have said since the seat's message of `turn` - 1, worded."""
        if turn == 0:
            return ""
        return self.others(seat, turn - 1, history, show_scores=self.reward_feedback)

    def same_turn(self, seat: int, turn: int, history: Transcript) -> str:
        """Return the messages of `turn` that `seat` reads before its own of that turn, worded."""
        return ""

    def others(self, seat: int, turn: int, history: Transcript, *, show_scores: bool) -> str:
        """Return the other agents' messages of one turn, worded; numbers follow the seats."""
        own = history.agents[seat]
        heard = [m for m in history.of_turn(turn) if m.agent != own]
        return self._heard(seat, turn, list(enumerate(heard, start=1)), show_scores)

    def _heard(self, seat: int, turn: int, said: Sequence[tuple[int, Message]], show: bool) -> str:
        limit = self.max_shown
        return prompts.heard(self.words(seat), turn, said, show_scores=show, max_shown=limit)

    def response(self, agent: AgentID, history: Transcript) -> str:
        """The agent's own message of the last complete turn."""
        return history.message(history.turn - 1, agent).text

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The majority of the last complete turn; all tied answers."""
        return majority(answers_of_turn(history, history.turn - 1)) if history.turn else ()


@dataclass(frozen=True, slots=True)
class SimultaneousDebate(Conversation):
    """The paper's debate: A agents answer at once, T times, each reading all earlier turns.

    s(1, i) = LLM_i(q);  s(t+1, i) = LLM_i(q and all s(t', j), j in agents, t' <= t)  (section 3.1)

    Attributes:
        stop: "fixed" plays all turns; "consensus" ends after a turn whose valid answers all agree.
    """

    stop: Stop = "fixed"

    def __post_init__(self) -> None:
        Conversation.__post_init__(self)
        if self.stop not in typing.get_args(Stop):
            raise ValueError(f"unknown stop {self.stop!r}: choose one of fixed, consensus")

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """All agents, or the next one, until the horizon or a consensus."""
        between_turns = len(history.messages) == history.turn * len(history.agents)
        if self.stop == "consensus" and history.turn and between_turns and consensus(history):
            return ()
        return Conversation.speakers(self, history)


@dataclass(frozen=True, slots=True)
class SequentialDebate(SimultaneousDebate):
    """A debate in which the later agents of a turn read the earlier ones' messages of that turn."""

    @property
    def simultaneous(self) -> bool:
        """One agent speaks at a time."""
        return False

    def news(self, seat: int, turn: int, history: Transcript) -> str:
        """The last turn's messages of the seats behind, this turn's of the seats before."""
        if turn == 0:
            return self.same_turn(seat, 0, history)
        behind = range(seat + 1, len(history.agents))
        news = self._said(seat, turn - 1, behind, history, self.reward_feedback)
        news += self.same_turn(seat, turn, history)
        return news or self._heard(seat, turn, [], False)

    def same_turn(self, seat: int, turn: int, history: Transcript) -> str:
        """The messages of the seats before, without scores: these are not known yet."""
        return self._said(seat, turn, range(seat), history, False)

    def _said(self, seat: int, turn: int, seats: range, history: Transcript, show: bool) -> str:
        messages = history.of_turn(turn)
        heard = [(_number(s, seat), messages[s]) for s in seats if s < len(messages)]
        return self._heard(seat, turn, heard, show) if heard else ""


@dataclass(frozen=True, slots=True)
class SelfCorrection(SimultaneousDebate):
    """One agent that reads its own earlier answers and may correct them: a debate with A = 1."""

    def check(self, num_agents: int) -> None:
        """Raise ValueError unless there is exactly one agent."""
        if num_agents != 1:
            raise ValueError(
                f"protocol 'self_correction' is for one agent, not {num_agents}: "
                "set num_agents=1, or choose protocol='debate'"
            )
        SimultaneousDebate.check(self, num_agents)


ROLES = (
    "You are the generator. Solve the problem step by step and give a final answer.",
    "You are the verifier. Check the solution step by step and name every mistake you find.",
    "You are the refiner. Use the solution and its review to write the final, correct solution.",
)


@dataclass(frozen=True, slots=True)
class Pipeline(SequentialDebate):
    """Generator, verifier, refiner, one after the other (MALT, arXiv 2412.01928).

    The refiner's answer is the team's: it is the outcome, and its score is everybody's. With
    num_turns > 1 the whole pipeline runs again over its own result. `personas` are the roles.
    """

    personas: tuple[str, ...] = ROLES

    def check(self, num_agents: int) -> None:
        """Raise ValueError unless there is an agent per role."""
        if num_agents != len(self.personas) or num_agents < 1:
            raise ValueError(
                f"protocol 'pipeline' has {len(self.personas)} roles (its personas), one per "
                f"agent; got {num_agents} agents"
            )
        SequentialDebate.check(self, num_agents)

    def response(self, agent: AgentID, history: Transcript) -> str:
        """The last role's message of the last complete turn, whoever asks."""
        return history.message(history.turn - 1, history.agents[-1]).text

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The last role's answer in the last complete turn."""
        answers = answers_of_turn(history, history.turn - 1)[-1:] if history.turn else []
        return tuple(answer for answer in answers if answer is not None)


Feedback = Callable[[Question, str], str]
"""Words about a joint answer, from outside (a compiler, a test run), for the next turn."""

Joiner = Callable[[Sequence[str]], str]
"""Makes one text of the parts of a joint answer, in seat order."""


@dataclass(frozen=True, slots=True)
class JointAnswer(Conversation):
    """Agents write parts of one answer at once; the joined text is what counts (MAGRPO).

    Source: arXiv 2508.04652. Everybody's score is that of the joined text.

    Attributes:
        joiner: makes one text of the parts, in seat order.
        feedback: words about the joint answer that everybody reads before the next turn; a pure
            function. None for none.
        show_parts: whether an agent reads the others' parts of earlier turns. In MAGRPO it does
            not: what reaches it of the others is what the feedback says.
    """

    joiner: Joiner = "\n".join
    feedback: Feedback | None = None
    show_parts: bool = True

    def joined(self, turn: int, history: Transcript) -> str:
        """Return the joint answer of one complete turn."""
        return self.joiner([message.text for message in history.of_turn(turn)])

    def news(self, seat: int, turn: int, history: Transcript) -> str:
        """The others' parts, or the request to think again, then the feedback on the whole."""
        if turn == 0:
            return ""
        news = self.words(seat).nobody.format()
        if self.show_parts:
            news = Conversation.news(self, seat, turn, history)
        if self.feedback is not None:
            text = self.feedback(history.question, self.joined(turn - 1, history))
            news += prompts.feedback(self.words(seat), text, self.max_shown)
        return news

    def _parts(self, agent: AgentID, told: range, history: Transcript) -> fitting.Parts:
        asked_once = None if self.feedback is None else cache(self.feedback)
        return Conversation._parts(replace(self, feedback=asked_once), agent, told, history)

    def response(self, agent: AgentID, history: Transcript) -> str:
        """The joint answer of the last complete turn, whoever asks."""
        return self.joined(history.turn - 1, history)

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The answer in the last joint text."""
        if not history.turn:
            return ()
        answer = extract_answer(self.joined(history.turn - 1, history), history.question.kind)
        return () if answer is None else (answer,)


def _number(seat: int, reader: int) -> int:
    """Return the number (1-based) under which `reader` knows another seat."""
    return seat + 1 if seat < reader else seat


def answers_of_turn(history: Transcript, turn: int) -> list[Answer | None]:
    """Return the answer of every message of a turn, None where there is none."""
    kind = history.question.kind
    return [extract_answer(message.text, kind) for message in history.of_turn(turn)]


def consensus(history: Transcript) -> bool:
    """Whether all valid answers of the last complete turn agree, and there is at least one."""
    valid = {a for a in answers_of_turn(history, history.turn - 1) if a is not None}
    return len(valid) == 1


PROTOCOLS: dict[str, Callable[..., Protocol]] = {
    "debate": SimultaneousDebate,
    "sequential": SequentialDebate,
    "pipeline": Pipeline,
    "joint": JointAnswer,
    "self_correction": SelfCorrection,
}
"""Protocols by name. A user may add one: a callable that takes the fields it knows as keywords."""
