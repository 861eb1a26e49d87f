"""Self-correction: a debate of one agent with itself."""

from __future__ import annotations

from dataclasses import dataclass

from maporl_env.protocols.debate import SimultaneousDebate


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
