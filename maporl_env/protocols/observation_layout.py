"""The layout of an observation: persona, question, own and peers' messages, the question again.

`Conversation`, the base of the built-in protocols, builds it turn by turn; `visibility` tells whose
messages stand in it, `prompts` words them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from maporl_env import fitting, prompts
from maporl_env.answers import extract_answer
from maporl_env.prompts import Template
from maporl_env.protocols.base import AppendOnly
from maporl_env.protocols.visibility import (
    History,
    first_turn_read,
    others_of_turn,
    require_history,
)
from maporl_env.types import AgentID, Answer, Message, Transcript, View
from maporl_env.voting import majority

DEFAULT_TEMPLATE = Template()


@dataclass(frozen=True, slots=True)
class Conversation(AppendOnly):
    """The common part of the built-in protocols: agents read the question and each other.

    A view is the persona, the question, and one block per earlier turn: the agent's own message,
    the other agents' messages since then, and the question once more.

    Attributes:
        num_turns: the horizon T >= 1.
        template: one template for all agents, or one per agent.
        personas: a system text per agent ("" for none), or () for no personas.
        reward_feedback: whether a message is shown with its score, once that is known.
        history: the earlier turns in a view: "all" (append-only), the "last" one, or "none". The
            messages of the same turn, in a sequential protocol, are always in it.
        token_budget: upper bound on the tokens of a view; the oldest turns are dropped, then the
            other agents' texts shortened (see `fitting`), the question never. None for no bound.
        count_tokens: returns the number of tokens of a text, for the budget.
        max_shown: characters shown of each text of another agent; None for all.
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
        require_history(self.history)
        if self.token_budget is not None and self.token_budget < 1:
            raise ValueError(f"token_budget must be at least 1 or None, not {self.token_budget}")
        if self.max_shown is not None and self.max_shown < 0:
            raise ValueError(f"max_shown must be at least 0 or None, not {self.max_shown}")

    def check(self, num_agents: int) -> None:
        """Raise ValueError if this protocol cannot be played by `num_agents` agents."""
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
        """Persona and question, then a block for each earlier turn that `self.history` includes."""
        turn = self.turn_of(agent, history)
        first = first_turn_read(self.history, turn)
        told = range(first + 1, turn + 1)
        if self.token_budget is not None:
            parts = self._parts(agent, told, history)
            return fitting.fit(parts, self.token_budget, self.count_tokens)
        agent_index = history.agents.index(agent)
        segments = [*self._started(agent_index, first, history)]
        segments += [s for t in told for s in self.added(agent, t, history)]
        return tuple(segments) if self.appends else prompts.join(segments)

    def _parts(self, agent: AgentID, told: range, history: Transcript) -> fitting.Parts:
        """Return the view in parts, to be fitted into a token budget."""
        agent_index = history.agents.index(agent)
        first = told.start - 1

        def part(turn: int, max_shown: int | None) -> View:
            shown = self if max_shown is None else replace(self, max_shown=max_shown)
            if turn:
                return shown.added(agent, turn, history)
            return shown._started(agent_index, first, history)

        opened = bool(self._read_at_start(agent_index, first, history))
        gap = self.words(agent_index).left_out.format()
        return fitting.Parts(self._question(agent_index, history), part, opened, told, gap)

    def _question(self, agent_index: int, history: Transcript) -> View:
        """Return persona and question, without any message."""
        return self._opened(
            agent_index, prompts.opening(self.words(agent_index), history.question, agent_index)
        )

    def _opened(self, agent_index: int, text: str) -> View:
        persona = self.personas[agent_index] if self.personas else ""
        return (("system", persona + "\n"), ("user", text)) if persona else (("user", text),)

    def turn_of(self, agent: AgentID, history: Transcript) -> int:
        """Return the turn of the agent's next message (0-based)."""
        agent_index = history.agents.index(agent)
        return history.turn + (len(history.messages) % len(history.agents) > agent_index)

    def added(self, agent: AgentID, turn: int, history: Transcript) -> View:
        """The block of one turn; that of turn 0 is persona and question."""
        agent_index = history.agents.index(agent)
        template = self.words(agent_index)
        if not turn:
            return self._started(agent_index, 0, history)
        own = history.message(turn - 1, agent)
        verdict = prompts.own_verdict(template, own, show_scores=self.reward_feedback)
        news = self.news(agent_index, turn, history)
        again = prompts.ask_again(template, history.question, turn, agent_index)
        new = verdict + news + again
        return (("own", own.text), ("user", prompts.apart(prompts.breaks_off(own), new) + new))

    def _started(self, agent_index: int, first: int, history: Transcript) -> View:
        """Return persona, question and the same-turn messages of `first`, the oldest turn shown."""
        news = self._read_at_start(agent_index, first, history)
        if not news:
            return self._question(agent_index, history)
        template, question = self.words(agent_index), history.question
        again = prompts.ask_again(template, question, first, agent_index)
        return self._opened(
            agent_index, prompts.ask(template, question, agent_index) + news + again
        )

    def _read_at_start(self, agent_index: int, first: int, history: Transcript) -> str:
        # `news` of a turn includes messages of the turn before it, which must not be shown here.
        if first:
            return self.same_turn(agent_index, first, history)
        return self.news(agent_index, 0, history)

    def words(self, agent_index: int) -> Template:
        """Return the template of agent `agent_index`."""
        return self.template[agent_index] if isinstance(self.template, tuple) else self.template

    def news(self, agent_index: int, turn: int, history: Transcript) -> str:
        """Return, as one text, the messages that an agent reads since its own of `turn` - 1."""
        if turn == 0:
            return ""
        return self.others(agent_index, turn - 1, history, show_scores=self.reward_feedback)

    def same_turn(self, agent_index: int, turn: int, history: Transcript) -> str:
        """Return, as one text, the messages of `turn` that an agent reads before its own."""
        return ""

    def others(self, agent_index: int, turn: int, history: Transcript, *, show_scores: bool) -> str:
        """Return the other agents' messages of one turn as one text, numbered by agent index."""
        numbered = others_of_turn(history, agent_index, turn)
        return self._peers_messages(agent_index, turn, numbered, show_scores)

    def _peers_messages(
        self, agent_index: int, turn: int, numbered: Sequence[tuple[int, Message]], show: bool
    ) -> str:
        limit = self.max_shown
        return prompts.peers_messages(
            self.words(agent_index), turn, numbered, show_scores=show, max_shown=limit
        )

    def response(self, agent: AgentID, history: Transcript) -> str:
        """The agent's own message of the last complete turn."""
        return history.message(history.turn - 1, agent).text

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The majority of the last complete turn; all tied answers."""
        return majority(answers_of_turn(history, history.turn - 1)) if history.turn else ()


def answers_of_turn(history: Transcript, turn: int) -> list[Answer | None]:
    """Return the answer of every message of a turn, None where there is none."""
    kind = history.question.kind
    return [extract_answer(message.text, kind) for message in history.of_turn(turn)]
