"""# Collaboration: two agents who may invest in a synergy that rewards both.

| | |
|---|---|
| Agents | `agent_0`, `agent_1` |
| Actions | Discrete(2): 0 acts alone, 1 collaborates |
| Observations | Box(0, 1, (3,), float32) |
| Parallel | yes |
| Make | `pettingzoo.make("aec", "maporl/collaboration-v0")`, `pettingzoo.make("parallel", ...)` |
| One learner | `gymnasium.make("maporl/Collaboration-v0", partner=0.6)` |

The game of section 2 of Park et al., "MAPoRL" (arXiv 2502.18439): why a language model trained on
its own does not learn to collaborate, and two that are trained together do. It is small enough
for every learner and is solved exactly by `logit_equilibrium`, `best_response` and `outcome`.

## Rules

T turns (`num_turns`). In each both agents act at once. The collaborations of both agents and all
turns are counted together. Before the count meets the `threshold` K, an agent's reward in a turn is

    r_col = 0.2    if it collaborates
    r_ind = 0.4    if it acts alone

With synergy, when the count has met the threshold, it is r_syn = 1 for both whatever they do. With
`timing="next"` (default) synergy starts in the turn after the one that meets the threshold, with
`"same"` in that turn.

With two turns, K = 2 and timing "next" (the defaults), collaborating in the first turn against a
partner who collaborates with probability p is best if and only if

    (r_syn - r_ind) * p >= r_ind - r_col                                 (Observation 1)

because r_col + p * r_syn + (1 - p) * r_ind >= 2 * r_ind. In the last turn
collaborating gains nothing. Two agents in equilibrium collaborate in the first turn from
r_syn = 3 r_ind - 2 r_col on, as the weight `tau` of their entropy goes to 0.

## Observation

Three numbers, the same for both agents: turns left / T, collaborations missing / K, and 1 with
synergy, else 0. No agent sees an action of the same turn. `state()` is the same.

## Rewards and infos

Rewards come at the end of each turn. Infos have constant keys and dtypes: `turn` (int64, turns
over), `collaborations` (int64, at most K), `synergy` (bool, threshold met). The game ends for both
agents after T turns (terminated; it is never truncated).

## Reset options

`turn` and `collaborations` start in another state, for learners that explore starts; any other key
is ignored. There is no randomness: `reset(seed=...)` changes nothing.

## Version history

* v0: initial version
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from gymnasium.error import ResetNeeded
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from maporl_env.collaboration.equilibrium import best_response, logit_equilibrium, outcome
from maporl_env.collaboration.game import ALONE, COLLABORATE, Rules
from maporl_env.env_bases.collaboration_base import CollaborationBase, Infos, Observation
from maporl_env.env_bases.members import start_agents
from maporl_env.types import AgentID

__all__ = [
    "ALONE",
    "COLLABORATE",
    "Rules",
    "best_response",
    "env",
    "logit_equilibrium",
    "outcome",
    "parallel_env",
    "raw_env",
]

Flags = dict[AgentID, bool]
Results = tuple[dict[AgentID, Observation], dict[AgentID, float], Flags, Flags, Infos]

_MORE = ("render_mode", "max_cycles")
_SIGNATURE = inspect.Signature(
    [
        *inspect.signature(Rules).parameters.values(),
        *(Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in _MORE),
    ]
)


class raw_env(CollaborationBase, AECEnv[AgentID, Any, Any]):
    """The game in the AEC interface, without wrappers.

    Options: those of :class:`Rules`, render_mode (None, "human", "ansi", "rgb_array"), and
    max_cycles, another name for num_turns.

    Raises:
        TypeError: an unknown option.
        ValueError: an impossible value; the valid ones are named.
    """

    __signature__ = _SIGNATURE

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.agents = []
        self._pending: list[int] = []

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start a game; see the module docstring for `options`."""
        self.begin(options)
        self._pending = []
        start_agents(self)
        self.infos = self.current_infos()
        self.agent_selection = self.agents[0]

    def step(self, action: Any) -> None:
        """Take the action of the selected agent; with None, remove the agent after the end.

        Raises:
            ResetNeeded: no agent is left.
            ValueError: no action; nothing has changed.
        """
        if not self.agents:
            raise ResetNeeded("cannot step: call reset first")
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        self._pending.append(self.check(agent, action))
        self._cumulative_rewards[agent] = 0.0
        self.rewards = dict.fromkeys(self.agents, 0.0)
        if len(self._pending) == len(self.agents):
            self._end_turn()
        self.agent_selection = self.agents[len(self._pending)]

    def _end_turn(self) -> None:
        """Play the turn with both actions, and set rewards, ends and infos."""
        self.rewards = dict(zip(self.agents, self.game.play(self._pending), strict=True))
        self._pending = []
        self.terminations = dict.fromkeys(self.agents, self.game.over)
        self.infos = self.current_infos()
        self._accumulate_rewards()
        if self.render_mode == "human":
            self.render()


class _ParallelCollaboration(CollaborationBase, ParallelEnv[AgentID, Any, Any]):
    """The game in the Parallel interface: one call per turn. Made by :func:`parallel_env`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.agents = []

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[AgentID, Observation], Infos]:
        """Start a game; see the module docstring for `options`."""
        self.begin(options)
        self.agents = self.possible_agents[:]
        return self._observations(), self.current_infos()

    def step(self, actions: Mapping[AgentID, Any]) -> Results:
        """Let both agents act.

        Raises:
            ResetNeeded: no agent is left.
            ValueError: a missing or extra agent, or no action; nothing has changed.
        """
        if not self.agents:
            raise ResetNeeded("cannot step: call reset first")
        if not isinstance(actions, Mapping) or set(actions) != set(self.agents):
            raise ValueError(
                f"actions must be a dict with exactly {', '.join(self.agents)}, not {actions!r}"
            )
        chosen = [self.check(agent, actions[agent]) for agent in self.agents]
        rewards = dict(zip(self.agents, self.game.play(chosen), strict=True))
        terminations = dict.fromkeys(self.agents, self.game.over)
        truncations = dict.fromkeys(self.agents, False)
        if self.render_mode == "human":
            self.render()
        if self.game.over:
            self.agents = []
        return self._observations(), rewards, terminations, truncations, self.current_infos()

    def _observations(self) -> dict[AgentID, Observation]:
        return {agent: self.observe(agent) for agent in self.possible_agents}


def env(*args: Any, **options: Any) -> OrderEnforcingWrapper[AgentID, Any, Any]:
    """Return the game in the AEC interface, guarded against calls in the wrong order.

    Options and errors: see :class:`raw_env`.
    """
    return OrderEnforcingWrapper(raw_env(*args, **options))


def parallel_env(*args: Any, **options: Any) -> _ParallelCollaboration:
    """Return the game in the Parallel interface: a dict of both agents' observations per turn.

    Options and errors: see :class:`raw_env`.
    """
    return _ParallelCollaboration(*args, **options)


env.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
parallel_env.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
