r"""# Debate: language models answer a question, read each other, and answer again.

| | |
|---|---|
| Agents | `agent_0` ... `agent_{A-1}`, A = `num_agents` |
| Actions | any text (`DebateSpace`); or token ids (Box or Discrete) |
| Observations | text (`DebateText`, a `str`); or token ids (Box) |
| Parallel | yes, where the protocol is simultaneous (`debate`, `joint`, `self_correction`) |
| Classes | `raw_env` (AEC), `env` (AEC, guarded), `parallel_env` (Parallel) |
| Make | `pettingzoo.make("aec", "maporl/debate-v0")`, `pettingzoo.make("parallel", ...)` |

## Rules

A language-model agents are asked the same question. The debate has T turns (`num_turns`). In a
turn all agents answer at once; no agent reads a message of the same turn. From the second turn on
an agent reads its own earlier messages, the other agents' messages of all earlier turns, each in
a fence that its text cannot close, and the question once more. Put your final answer into
`\boxed{...}`: the last complete box of your own message counts, and only that. You may keep or
change your answer in every turn. After the last turn the most common valid answer is the team's.

Other protocols (`protocol=`) are `sequential` (later agents of a turn read the earlier ones),
`pipeline` (generator, verifier, refiner), `joint` (parts of one answer, joined) and
`self_correction` (one agent). The debate ends for all agents at once, at the end of a turn:
terminated after T turns, or with `stop="consensus"` when all valid answers of a turn agree;
truncated only from outside (`truncate`).

## Observation

What an agent reads only ever grows, so a language model can keep its key-value cache from turn to
turn. (`history="last"` or `"none"` and `token_budget` give this up.) After the end it holds the
last turn's messages too. `env.unwrapped.view(agent)` and `.chat(agent)` give the same as segments
or chat messages; `.transcript` is everything said; `state()` is the transcript's bytes, with
messages that still wait for the turn to be complete.

## Token ids

With `observation="tokens"` observations are rows of `observation_tokens` ids (`obs_dtype`), and an
action is a whole message, a row of at most `message_tokens` ids (Box), or with `action="token"` one
id (Discrete). An id is the `tokenizer`'s own plus one; without a tokenizer, a byte of UTF-8 plus
one. Id 0 is padding; the last id, or any other that is no token, ends a message. Token by token all
agents of a turn write at the same time; who has finished waits with 0; `action_mask` in the infos
says which it is. The oldest turns are dropped, then the middles of long messages, to fit the row;
the question never. `state()` is the transcript's ids.

## Rewards

A verifier scores every message, V(t,a) in [0, 1]; without one given, the answer key: 1 if the
answer is right, else 0. The reward of a message of turn t, with x the last turn played, is

    R(t,a) = [V(t,a) + sum_{k=1..x-t} gamma^k mean_j V(t+k,j)] / sum_{k=0..x-t} gamma^k

plus the bonuses `alpha` and `beta`, minus its own `penalties`. Example: gamma = 0.3 and V =
[[1,0],[0,1],[1,1]] give R(0,0) = (1 + 0.3 * 0.5 + 0.09 * 1) / 1.39 = 0.8921.

- `reward_mode="terminal"` (default): when the debate ends each agent receives the sum of its R.
- `reward_mode="score"`: after each turn an agent receives its V. Dense and causal, but another
  objective: it does not reward the influence of a message on others.
- `infos[agent]["turn_rewards"]` holds R(., a), shape (T,), once `turn_rewards_ready` is true.
  Turns that were not played are 0.

In the AEC interface rewards appear with the last message of a turn and are collected with
`last()`; those of the last turn with each agent's final visit, when only `step(None)` is left.

A message the verifier failed on (error, time-out, NaN, wrong count) has no score: it gets no
R, `verifier_score_ready` is false, `env.unwrapped.faults` counts it, and it never counts as
wrong.

## Infos

Constant keys, shapes and dtypes from reset to the end: `turn` (int64, complete turns),
`verifier_score` (float32, of the last complete turn), `verifier_score_ready` (bool),
`turn_rewards` (float32, (T,)), `turn_rewards_ready` (bool), and only with `action="token"`
`action_mask` (int8, one per id).

## Reset options

`question` (a `Question`, a dict with prompt and answer, a text together with option `answer`, or
an index), `index`, `answer`, `split`, `template`. Other keys are ignored. `reset(seed=...)` seeds
the draw of questions, `reset()` goes on drawing; there is no other randomness.

## Messages

Any string, or any row of ids. Lone surrogates become U+FFFD. A message longer than `max_chars` is
cut and flagged in the transcript (`on_long="truncate"`) or refused (`"error"`). Anything else, a
missing or an extra agent raises ValueError and changes nothing.

## Version history

* v0: initial version
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from maporl_env.config import DebateConfig
from maporl_env.env_bases.debate_base import DebateBase, needs_reset
from maporl_env.env_bases.members import start_agents
from maporl_env.types import AgentID

__all__ = ["env", "parallel_env", "raw_env"]

_SIGNATURE = inspect.signature(DebateConfig)

Infos = dict[AgentID, dict[str, Any]]
Flags = dict[AgentID, bool]


class raw_env(DebateBase, AECEnv[AgentID, Any, Any]):
    """The debate in the AEC interface, without wrappers. Options: :class:`DebateConfig`.

    Raises:
        TypeError: an unknown option; the nearest valid one is named.
        ValueError: an unknown or impossible value; the valid ones are named.
    """

    __signature__ = _SIGNATURE

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.agents = []

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start a debate; see the module docstring for `options`."""
        self.begin(seed, options)
        start_agents(self)
        self.infos = self.current_infos()
        self.agent_selection = self.medium.actors[0]
        if self.render_mode == "human":
            self.render()

    def step(self, action: Any) -> None:
        """Post the message of the selected agent; with None, remove the agent after the end.

        Raises:
            ResetNeeded: no agent is left.
            ValueError: not of the right type, or too long a text; nothing has changed.
        """
        if not self.agents:
            raise needs_reset("step")
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self.medium.check(agent, action)
        self.medium.take(agent, action)
        self._cumulative_rewards[agent] = 0.0
        self.rewards = dict.fromkeys(self.agents, 0.0)
        if self.debate.awaits_scores:
            self.score_turn()
            self._end_turn()
        else:
            self.infos = self.current_infos()
            self.agent_selection = self.medium.actors[0]

    def _end_turn(self) -> None:
        """Set rewards, ends and infos, and select the next agent (after the end the first one)."""
        over, truncated = self.debate.over, self.debate.truncated
        self.rewards = self.payments()
        self.terminations = dict.fromkeys(self.agents, over and not truncated)
        self.truncations = dict.fromkeys(self.agents, truncated)
        self.infos = self.current_infos()
        self._accumulate_rewards()
        self.agent_selection = self.agents[0] if over else self.medium.actors[0]
        if self.render_mode == "human":
            self.render()

    def truncate(self, reason: str) -> None:
        """End the debate from outside, e.g. after a generation time-out; only full turns count."""
        self.debate.truncate(reason)
        self.medium.clear()
        self._end_turn()


class _ParallelDebate(DebateBase, ParallelEnv[AgentID, Any, Any]):
    """The debate in the Parallel interface: one call per turn. Made by :func:`parallel_env`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if not self.metadata["is_parallelizable"]:
            raise ValueError(
                f"protocol {self.config.protocol!r} does not let all agents speak at once in every "
                "turn, so it has no parallel view: use debate_v0.env, or protocol='debate'"
            )
        self.agents = []

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[AgentID, Any], Infos]:
        """Start a debate; see the module docstring for `options`."""
        self.begin(seed, options)
        self.agents = self.possible_agents[:]
        if self.render_mode == "human":
            self.render()
        return self._observations(), self.current_infos()

    def step(
        self, actions: Mapping[AgentID, Any]
    ) -> tuple[dict[AgentID, Any], dict[AgentID, float], Flags, Flags, Infos]:
        """Let all agents speak.

        Raises:
            ResetNeeded: no agent is left.
            ValueError: a missing or extra agent, or something that is no (short enough) text;
                nothing has changed.
        """
        if not self.agents:
            raise needs_reset("step")
        if not isinstance(actions, Mapping) or set(actions) != set(self.agents):
            got = ", ".join(map(str, actions)) if isinstance(actions, Mapping) else repr(actions)
            raise ValueError(
                f"actions must be a dict with exactly {', '.join(self.agents)}; got {got or 'none'}"
            )
        for agent in self.agents:
            self.medium.check(agent, actions[agent])
        for agent in self.agents:
            self.medium.take(agent, actions[agent])
        if not self.debate.awaits_scores:  # token by token: somebody is still writing
            return self._results(dict.fromkeys(self.agents, 0.0))
        self.score_turn()
        return self._results(self.payments())

    def _results(
        self, rewards: dict[AgentID, float]
    ) -> tuple[dict[AgentID, Any], dict[AgentID, float], Flags, Flags, Infos]:
        over, truncated = self.debate.over, self.debate.truncated
        terminations = dict.fromkeys(self.agents, over and not truncated)
        truncations = dict.fromkeys(self.agents, truncated)
        if self.render_mode == "human":
            self.render()
        if over:
            self.agents = []
        return (
            self._observations(),
            rewards,
            terminations,
            truncations,
            self.current_infos(),
        )

    def _observations(self) -> dict[AgentID, Any]:
        return {agent: self.observe(agent) for agent in self.possible_agents}

    def truncate(
        self, reason: str
    ) -> tuple[dict[AgentID, Any], dict[AgentID, float], Flags, Flags, Infos]:
        """End the debate from outside and return what `step` would; only full turns count."""
        self.debate.truncate(reason)
        self.medium.clear()
        return self._results(self.payments())


def env(*args: Any, **options: Any) -> OrderEnforcingWrapper[AgentID, Any, Any]:
    """Return the debate in the AEC interface, guarded against calls in the wrong order.

    Options and errors: see :class:`raw_env`.
    """
    return OrderEnforcingWrapper(raw_env(*args, **options))


def parallel_env(*args: Any, **options: Any) -> _ParallelDebate:
    """Return the debate in the Parallel interface: a dict of all agents' prompts per turn.

    Options and errors: see :class:`raw_env`; ValueError also for a protocol whose agents speak one
    after the other.
    """
    return _ParallelDebate(*args, **options)


env.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
parallel_env.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
