"""ReAd on PettingZoo environments: teams whose proposals a critic sends back, and episodes of them.

    team = InOrder(propose, critic, Threshold(alpha=0.1), mu)        # ReAd-S
    team = Jointly(plan, critic, Threshold(alpha=0.1), mu)           # ReAd-J
    episode = play(env, team, state_of, seed=0)

Any environment whose agents share a reward can be played, AEC or Parallel, with discrete or text
actions. A turn is a run of agents in the order of `possible_agents`; in a Parallel environment
their actions are committed one after another and then carried out at once. Tries are drafts: the
environment and the other agents see what is committed alone. A proposal outside the action space,
or against the action mask of the observation, is a try that the critic is not asked about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from pettingzoo import AECEnv, ParallelEnv

from maporl_env.revision.revise import Revision, ScoringFailed, Threshold, Try, revise
from maporl_env.revision.values import Action, State, Step, SubsetCritic
from maporl_env.types import AgentID


class Situation(NamedTuple):
    """What an agent knows before it acts.

    Attributes:
        agent: its name.
        observation: that the environment gives it.
        fixed: actions of this turn that were committed before, None for agents that did not act.
        tries: its own proposals that were sent back.
    """

    agent: AgentID
    observation: Any
    fixed: tuple[Action, ...]
    tries: Sequence[Try]


Policy = Callable[[Situation], Action]
"""Returns an action: a frozen language model, a network, a script."""
Planner = Callable[[Mapping[AgentID, Any], Sequence[Try]], Mapping[AgentID, Action]]
"""Returns an action for each agent, from the observations of all and the plans sent back."""
Proposer = TypeVar("Proposer")
Legal = Callable[[AgentID, Action], bool]
Act = Callable[[AgentID, Any], Revision[Action]]
"""Commits the action of the next agent of a turn, from its name and observation."""


class Turn(NamedTuple):
    """What a team is told at the start of a turn.

    Attributes:
        state: what the critic reads.
        agents: all that the environment may have, in order.
        observations: of the agents that are there.
        legal: whether an agent may take an action now.
    """

    state: State
    agents: tuple[AgentID, ...]
    observations: Mapping[AgentID, Any]
    legal: Legal


class _Committed:
    """The actions of a turn so far, in the order of the agents."""

    def __init__(self, agents: tuple[AgentID, ...]) -> None:
        self.agents, self.actions = agents, [None] * len(agents)

    def before(self, agent: AgentID) -> tuple[Action, ...]:
        return tuple(self.actions[: self.agents.index(agent)])

    def commit(self, agent: AgentID, action: Action) -> None:
        self.actions[self.agents.index(agent)] = action


@dataclass(frozen=True)
class Alone:
    """The policy mu without a critic: what episodes are collected with."""

    mu: Policy

    def begin(self, turn: Turn) -> Act:
        """Return what acts for each agent of a turn."""
        done = _Committed(turn.agents)

        def act(agent: AgentID, observation: Any) -> Revision[Action]:
            action = _by_mu(self.mu, turn, Situation(agent, observation, done.before(agent), ()))
            done.commit(agent, action)
            return Revision(action, (Try(action, None, -math.inf),), fell_back=False)

        return act


@dataclass(frozen=True)
class _Criticised(Generic[Proposer]):
    """A team whose proposals a critic sends back.

    Attributes:
        propose: is shown its own tries.
        critic: values of ordered subsets.
        threshold: how good a proposal has to be.
        mu: acts where no proposal passes.
    """

    propose: Proposer
    critic: SubsetCritic
    threshold: Threshold
    mu: Policy


class InOrder(_Criticised[Policy]):
    """ReAd-S: each agent proposes until its local advantage reaches the threshold."""

    def begin(self, turn: Turn) -> Act:
        """Return what acts for each agent of a turn."""
        done = _Committed(turn.agents)

        def act(agent: AgentID, observation: Any) -> Revision[Action]:
            before = done.before(agent)

            def score(action: Action) -> float | None:
                if not turn.legal(agent, action):
                    return None
                return self.critic.local_advantage(turn.state, (*before, action))

            found = revise(
                lambda tries: self.propose(Situation(agent, observation, before, tries)),
                score,
                self.threshold,
                lambda: _by_mu(self.mu, turn, Situation(agent, observation, before, ())),
            )
            done.commit(agent, found.committed)
            return found

        return act


class Jointly(_Criticised[Planner]):
    """ReAd-J: one planner proposes for all until the joint advantage reaches the threshold.

    Where the planned action of an agent has become illegal when its time comes, mu acts for it.
    The tries of a plan are recorded with the first agent of the turn.
    """

    def begin(self, turn: Turn) -> Act:
        """Return what acts for each agent of a turn."""
        there = [agent for agent in turn.agents if agent in turn.observations]

        def score(plan: Mapping[AgentID, Action]) -> float | None:
            if not all(agent in plan and turn.legal(agent, plan[agent]) for agent in there):
                return None
            actions = tuple(plan[agent] if agent in there else None for agent in turn.agents)
            return self.critic.joint_advantage(turn.state, actions)

        nothing: Mapping[AgentID, Action] = {}
        found = revise(
            partial(self.propose, turn.observations), score, self.threshold, lambda: nothing
        )
        done = _Committed(turn.agents)

        def act(agent: AgentID, observation: Any) -> Revision[Action]:
            planned = found.committed.get(agent)
            fell_back = found.fell_back or not turn.legal(agent, planned)
            if fell_back:
                situation = Situation(agent, observation, done.before(agent), ())
                planned = _by_mu(self.mu, turn, situation)
            done.commit(agent, planned)
            return Revision(planned, found.tries if agent == there[0] else (), fell_back)

        return act


Team: TypeAlias = Alone | InOrder | Jointly


def _by_mu(mu: Policy, turn: Turn, situation: Situation) -> Action:
    action = mu(situation)
    if not turn.legal(situation.agent, action):
        raise ValueError(
            f"the policy that acts without the critic gave {situation.agent} {action!r:.80}, which "
            "is not among its legal actions"
        )
    return action


class Episode(NamedTuple):
    """One episode.

    Attributes:
        steps: its turns, for the critic: actions in the order of `possible_agents`, None for an
            agent that did not act.
        revisions: of each committed action, in the order of play.
    """

    steps: tuple[Step, ...]
    revisions: tuple[Revision[Action], ...]

    @property
    def total(self) -> float:
        """The undiscounted return."""
        return sum(step.reward for step in self.steps)

    @property
    def proposals(self) -> int:
        """How often a policy or a planner was asked, falling back included."""
        return sum(len(one.tries) + one.fell_back for one in self.revisions)


StateOf = Callable[[Any], State]
"""Takes the environment; returns what the critic reads."""


def play(
    env: AECEnv[AgentID, Any, Any] | ParallelEnv[AgentID, Any, Any],
    team: Team,
    state_of: StateOf,
    *,
    seed: int | None = None,
    max_turns: int | None = None,
) -> Episode:
    """Play one episode; the environment is reset first.

    Args:
        env: whose agents share a reward.
        team: who acts.
        state_of: state of the environment before a turn, such as `lambda env: env.state()`.
        seed: of the reset.
        max_turns: the episode is broken off after these; None for the environment's own end.

    Raises:
        ValueError: agents are paid differently, or mu takes an action that is not legal.
        ScoringFailed: the critic raised; the turns before are in its `steps`.
    """
    steps: list[Step] = []
    revisions: list[Revision[Action]] = []
    turns = _parallel_turns if isinstance(env, ParallelEnv) else _aec_turns
    try:
        for step, found in turns(env, team, state_of, seed):
            steps.append(step)
            revisions += found
            if max_turns is not None and len(steps) >= max_turns:
                break
    except ScoringFailed as failed:
        failed.steps = tuple(steps)
        raise
    return Episode(tuple(steps), tuple(revisions))


Played = tuple[Step, list[Revision[Action]]]


def _parallel_turns(
    env: ParallelEnv[AgentID, Any, Any], team: Team, state_of: StateOf, seed: int | None
) -> Any:
    observations, _ = env.reset(seed=seed)
    everyone = tuple(env.possible_agents)
    while env.agents:
        state = state_of(env)
        present = {agent: observations[agent] for agent in everyone if agent in env.agents}
        act = team.begin(Turn(state, everyone, present, partial(_is_legal, env, present)))
        found = {agent: act(agent, seen) for agent, seen in present.items()}
        actions = {agent: one.committed for agent, one in found.items()}
        observations, rewards, *_ = env.step(actions)
        taken = tuple(actions.get(agent) for agent in everyone)
        yield Step(state, taken, shared_reward(rewards)), list(found.values())


def _aec_turns(
    env: AECEnv[AgentID, Any, Any], team: Team, state_of: StateOf, seed: int | None
) -> Any:
    env.reset(seed=seed)
    everyone = tuple(env.possible_agents)
    while env.agents:
        if _is_dead(env, env.agent_selection):
            env.step(None)
            continue
        state, reward, last = state_of(env), 0.0, -1
        present = {a: env.observe(a) for a in everyone if a in env.agents and not _is_dead(env, a)}
        act = team.begin(Turn(state, everyone, present, _live_legal(env)))
        found: dict[AgentID, Revision[Action]] = {}
        while env.agents and everyone.index(env.agent_selection) > last:
            agent = env.agent_selection
            last = everyone.index(agent)
            if _is_dead(env, agent):  # the game ended before it could act: it is not asked
                env.step(None)
                continue
            found[agent] = act(agent, env.observe(agent))
            env.step(found[agent].committed)
            reward += shared_reward(env.rewards)
        taken = tuple(found[a].committed if a in found else None for a in everyone)
        yield Step(state, taken, reward), list(found.values())


def _is_dead(env: AECEnv[AgentID, Any, Any], agent: AgentID) -> bool:
    return bool(env.terminations[agent] or env.truncations[agent])


def _live_legal(env: AECEnv[AgentID, Any, Any]) -> Legal:
    return lambda agent, action: _is_legal(env, {agent: env.observe(agent)}, agent, action)


def _is_legal(
    env: Any, observations: Mapping[AgentID, Any], agent: AgentID, action: Action
) -> bool:
    """Return whether an action is in the agent's space and its mask, where there is one."""
    if action is None or not env.action_space(agent).contains(action):
        return False
    seen = observations[agent]
    mask = seen.get("action_mask") if isinstance(seen, Mapping) else None
    return bool(mask is None or mask[action])


def shared_reward(rewards: Mapping[AgentID, float]) -> float:
    """Return the reward that all agents get; 0 for nobody.

    Raises:
        ValueError: they differ.
    """
    values = [float(reward) for reward in rewards.values()]
    if any(abs(value - values[0]) > 1e-9 for value in values):
        raise ValueError(
            f"ReAd needs agents with one shared reward, not {dict(rewards)!r:.200}: wrap the "
            "environment so that each gets the mean"
        )
    return values[0] if values else 0.0
