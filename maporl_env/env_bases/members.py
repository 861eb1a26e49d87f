"""Members that PettingZoo asks of every environment: spaces, `close`, the start of an episode.

The environments are `debate_v0`, `collaboration_v0`, `takeaway_v0` and `games.boxes_v0`.
"""

from __future__ import annotations

import warnings
from typing import Any

from maporl_env.types import AgentID


class EnvMembers:
    """The members that PettingZoo asks of both the AEC and the Parallel interface of a game.

    Attributes:
        possible_agents: ["agent_0", ...].
        agents: those of the episode; [] before the first reset and after the end.
        terminations: whether the game has ended by its rules, by agent (AEC interface).
        truncations: whether it was ended from outside, by agent (AEC interface).
        metadata: this instance's own copy.
        render_mode: None, "human", "ansi" or "rgb_array".
    """

    possible_agents: list[AgentID]
    agents: list[AgentID]
    terminations: dict[AgentID, bool]
    truncations: dict[AgentID, bool]
    metadata: dict[str, Any]
    render_mode: str | None
    _observation_spaces: dict[AgentID, Any]
    _action_spaces: dict[AgentID, Any]

    def observation_space(self, agent: AgentID) -> Any:
        """Return the space of an agent's observations, always the same object."""
        return self._observation_spaces[agent]

    def action_space(self, agent: AgentID) -> Any:
        """Return the space of an agent's actions, always the same object."""
        return self._action_spaces[agent]

    def close(self) -> None:
        """Release nothing: there is nothing to release."""


def start_agents(env: Any) -> None:
    """Set what an AEC environment holds for each agent at the start of an episode."""
    env.agents = env.possible_agents[:]
    env.rewards = dict.fromkeys(env.agents, 0.0)
    env._cumulative_rewards = dict.fromkeys(env.agents, 0.0)
    env.terminations = dict.fromkeys(env.agents, False)
    env.truncations = dict.fromkeys(env.agents, False)
    env.infos = {agent: {} for agent in env.agents}
    env._skip_agent_selection = None


def warn_not_rendered() -> None:
    """Warn the caller of `render` that the environment was made without a render mode."""
    warnings.warn(
        "nothing to render: make the environment with render_mode='human', 'ansi' or 'rgb_array'",
        stacklevel=3,
    )
