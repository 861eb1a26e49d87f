"""Tianshou's on-policy learners for environments in which all agents act at once.

    env = PettingZooEnv(collaboration_v0.env())
    learners = [PPO(policy=..., critic=..., optim=...) for _ in env.agents]
    SimultaneousOnPolicy(algorithms=learners, env=env).run_training(OnPolicyTrainerParams(...))

Tianshou stores with each step the rewards of all agents right after it, and trains a learner on its
own steps. Where rewards come at the end of a turn, only the agent that acted last gets them, only
that agent sees the game end, and the next observation is another agent's. Here the reward of an
agent's step is the sum of its rewards until it acts again; its first step also gets those from
before. The next observation is the one that it acts on next. An agent that never acts in a game has
no step to be rewarded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tianshou.algorithm.multiagent.marl import MultiAgentOnPolicyAlgorithm


class SimultaneousOnPolicy(MultiAgentOnPolicyAlgorithm):
    """Independent learners, one for each agent, rewarded at the end of each turn.

    Collect whole games (`collection_step_num_episodes`). An agent whose game is cut off (truncated)
    bootstraps from the last observation that Tianshou has, the next agent's.
    """

    def _preprocess_batch(self, batch: Any, buffer: Any, indices: np.ndarray) -> Any:
        settle(buffer, indices, self._dispatcher.agent_idx)
        return super()._preprocess_batch(buffer[indices], buffer, indices)


def settle(buffer: Any, indices: np.ndarray, columns: dict[Any, int]) -> None:
    """Give each step the rewards of its agent until its next action, and its observation then.

    Rewards before the first action of an agent go to its first step.

    Args:
        buffer: Tianshou's replay buffer of AEC steps; its rewards (steps, A), ends and next
            observations are changed. Steps that are settled already stay as they are.
        indices: (N,) places of whole games in it, in the order of play.
        columns: the column of the rewards that belongs to each agent.

    Raises:
        ValueError: the last game is not over; nothing has changed.
    """
    over = np.flatnonzero(buffer.done[indices]) + 1
    if len(indices) and (not len(over) or over[-1] != len(indices)):
        raise ValueError(
            "the last game in the buffer is not over, so its last turn may lack a reward: collect "
            "whole games (collection_step_num_episodes), not steps"
        )
    for first, last in zip([0, *over[:-1]], over, strict=True):
        game = indices[first:last]
        acting = buffer.obs.agent_id[game]
        for agent, column in columns.items():
            _settle_agent(buffer, game, np.flatnonzero(acting == agent), column)


def _settle_agent(buffer: Any, game: np.ndarray, own: np.ndarray, column: int) -> None:
    """Settle the steps `own` of one agent in one game."""
    if not len(own):
        return
    for step, since, until in zip(own, [0, *own[1:]], [*own[1:], len(game)], strict=True):
        span = game[since:until]
        reward = buffer.rew[span, column].sum()
        buffer.rew[span, column] = 0.0
        buffer.rew[game[step], column] = reward
    buffer.obs_next.obs[game[own[:-1]]] = buffer.obs.obs[game[own[1:]]]
    final, end = game[own[-1]], game[-1]
    buffer.obs_next.obs[final] = buffer.obs_next.obs[end]
    buffer.terminated[final] = buffer.terminated[end]
    buffer.truncated[final] = buffer.truncated[end]
