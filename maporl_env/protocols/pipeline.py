"""The pipeline of MALT: a generator, a verifier and a refiner in sequence."""

from __future__ import annotations

from dataclasses import dataclass

from maporl_env.protocols.observation_layout import answers_of_turn
from maporl_env.protocols.sequential import SequentialDebate
from maporl_env.types import AgentID, Answer, Transcript

ROLES = (
    "You are the generator. Solve the problem step by step and give a final answer.",
    "You are the verifier. Check the solution step by step and name every mistake you find.",
    "You are the refiner. Use the solution and its review to write the final, correct solution.",
)


@dataclass(frozen=True, slots=True)
class Pipeline(SequentialDebate):
    """Generator, verifier, refiner, one after the other (MALT, arXiv 2412.01928).

    The refiner's answer is the team's: it is the outcome, and every agent gets its score. With
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
        """The last role's message of the last complete turn, for every agent."""
        return history.message(history.turn - 1, history.agents[-1]).text

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The last role's answer in the last complete turn."""
        answers = answers_of_turn(history, history.turn - 1)[-1:] if history.turn else []
        return tuple(answer for answer in answers if answer is not None)
