"""Two teams that discuss apart, and a judge who speaks at the end (Corex)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from maporl_env import fitting, prompts
from maporl_env.protocols.base import PartialTurns
from maporl_env.protocols.observation_layout import Conversation, answers_of_turn
from maporl_env.types import AgentID, Answer, Transcript, View

TEAM = "\nLast messages of team {number}:\n"


@dataclass(frozen=True, slots=True)
class TeamsAndJudge(PartialTurns, Conversation):
    """All agents but the last, the judge, are split into two teams; each discusses within itself.

    Source: Corex, arXiv 2310.00280, mode Discuss (from secondary descriptions). In all turns but
    the last one the members answer at once and read the messages of their own team. In the last
    turn the judge alone reads the last messages of both teams and answers; its answer, which need
    not be anybody's, is the team's. Every message is scored and paid.

    Attributes:
        split: names the random split; it is another for every question.
    """

    split: int = 0

    def __post_init__(self) -> None:
        Conversation.__post_init__(self)
        if self.num_turns < 2:
            raise ValueError(
                "protocol 'teams_and_judge' needs num_turns >= 2: at least one for the teams, and "
                f"the last one for the judge; got {self.num_turns}"
            )

    def check(self, num_agents: int) -> None:
        """Raise ValueError unless there are two teams and a judge."""
        if num_agents < 3:
            raise ValueError(
                "protocol 'teams_and_judge' needs at least 3 agents, two teams and the judge; got "
                f"{num_agents}"
            )
        Conversation.check(self, num_agents)

    def teams(self, history: Transcript) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the indices of the members of each team, ascending; a function of the question."""
        members = range(len(history.agents) - 1)

        def place(member: int) -> bytes:
            named = f"{self.split}/{member}/{history.question.id}"
            return hashlib.sha256(named.encode("utf-8", "surrogatepass")).digest()

        order = sorted(members, key=place)
        half = (len(order) + 1) // 2
        return tuple(sorted(order[:half])), tuple(sorted(order[half:]))

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """All members, in the last turn the judge."""
        if history.turn >= self.num_turns:
            return ()
        last = history.turn == self.num_turns - 1
        return history.agents[-1:] if last else history.agents[:-1]

    def turn_over(self, history: Transcript) -> bool:
        """Whoever speaks in a turn speaks at once."""
        return True

    def turn_of(self, agent: AgentID, history: Transcript) -> int:
        """Return the turn of the agent's next message (0-based)."""
        return self.num_turns - 1 if agent == history.agents[-1] else history.turn

    def view(self, agent: AgentID, history: Transcript) -> View:
        """The judge reads the last messages of both teams, a member the turns of its own team."""
        agent_index = history.agents.index(agent)
        if agent != history.agents[-1]:
            spoken = history.until(min(history.turn, self.num_turns - 1))
            return Conversation.view(self, agent, spoken)
        if history.turn < self.num_turns - 1:
            return self._question(agent_index, history)
        template, question = self.words(agent_index), history.question
        again = prompts.ask_again(template, question, self.num_turns - 1, agent_index)

        def made(max_shown: int | None) -> View:
            positions = self._positions(agent_index, history, max_shown)
            asked = prompts.ask(template, question, agent_index) + positions
            return self._opened(agent_index, asked + again)

        head = self._question(agent_index, history)
        return fitting.fit_texts(made, head, self.token_budget, self.count_tokens)

    def _positions(self, agent_index: int, history: Transcript, max_shown: int | None) -> str:
        """Return the last messages of both teams as one text, for the judge."""
        template, turn = self.words(agent_index), self.num_turns - 2
        said = ""
        for number, team in enumerate(self.teams(history), start=1):
            said += TEAM.format(number=number)
            for member in team:
                message = history.message(turn, history.agents[member])
                said += prompts.peer(
                    template,
                    member + 1,
                    message,
                    show_scores=self.reward_feedback,
                    max_shown=max_shown,
                )
        return said

    def others(self, agent_index: int, turn: int, history: Transcript, *, show_scores: bool) -> str:
        """Return the messages of the reader's team-mates of one turn."""
        [team] = [one for one in self.teams(history) if agent_index in one]
        mates = [history.agents[member] for member in team if member != agent_index]
        said = [history.message(turn, mate) for mate in mates]
        return self._peers_messages(agent_index, turn, list(enumerate(said, start=1)), show_scores)

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The judge's answer; none before it has spoken."""
        if history.turn < self.num_turns:
            return ()
        return tuple(a for a in answers_of_turn(history, history.turn - 1) if a is not None)
