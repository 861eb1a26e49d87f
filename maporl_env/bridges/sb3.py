"""Many debates as a `VecEnv` of Stable-Baselines3.

    envs = DebateVecEnv(16, partners=my_model, num_agents=2)    # a learner each, token by token
    envs = DebateVecEnv(16, learner="all", num_agents=4)        # 4 debates, 4 learners each
    model = MaskablePPO("MlpPolicy", envs, seed=0)

A lane is one learner of one debate. Partners of all debates are asked in one call, and all turns
that are complete are scored in one; a debate that ends starts anew at once, as a `VecEnv` must.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from maporl_env.batched import BatchedDebate
from maporl_env.bridges.single_agent import Partners, ask, assign, learner_index
from maporl_env.config import DebateConfig
from maporl_env.env_bases.debate_base import DebateBase
from maporl_env.game import Game
from maporl_env.types import AgentID

Indices = int | Sequence[int] | None


class Lane:
    """One learner of one debate; other attributes are those of its debate (`DebateBase`)."""

    def __init__(self, core: DebateBase, agent: AgentID) -> None:
        self.core = core
        self.agent = agent

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which ids are legal now; sb3-contrib asks by this name.

        (num_ids,) booleans where an action is one id. Every row of ids is a legal message, so where
        an action is a row all (message_tokens * num_ids,) are True.
        """
        space = self.core.action_space(self.agent)
        if not isinstance(space, Discrete):
            return np.ones(_choices(space).nvec.sum(), np.bool_)
        mask: NDArray[np.int8] = self.core.medium.info(self.agent)["action_mask"]
        return mask.astype(np.bool_)

    def truncate(self, reason: str) -> None:
        """End this debate from outside; its lanes are done at the next step, truncated.

        The first reason holds: nothing happens if another lane has ended the debate already.
        """
        if not self.core.debate.truncated:
            self.core.debate.truncate(reason)

    def __getattr__(self, name: str) -> Any:
        if name == "core":  # not set yet: while a pickle is read
            raise AttributeError(name)
        return getattr(self.core, name)


class DebateVecEnv(VecEnv):
    """Debates side by side, for learners of Stable-Baselines3 and sb3-contrib.

    Observations are token ids, Box (observation_tokens,). With `action="token"` (default) an action
    is one id, Discrete; with "message" a row of them, MultiDiscrete, and a step is a turn.
    `seed`, `set_options` (those of `debate_v0`), `has_attr` and `env_method("action_masks")` work;
    a debate's first lane names its seed and options. Infos are those of `debate_v0`, at the end
    with `terminal_observation` and `TimeLimit.truncated`.

    Args:
        num_envs: number of lanes; a multiple of the learners per debate.
        partners: what the agents say that are no learners; see `SingleAgentDebate`.
        learner: the agent index of the one learner of each debate, or "all": then every agent
            learns, and lanes go by debate and agent index.
        options: see `config.DebateConfig`.

    Raises:
        ValueError: an option or number that does not fit, text observations, or several learners in
            a protocol whose agents speak one after the other.
    """

    def __init__(
        self,
        num_envs: int = 1,
        partners: Partners | None = None,
        learner: int | Literal["all"] = 0,
        **options: Any,
    ) -> None:
        game = _game(options)
        agents = game.debate().agents
        learners = agents if learner == "all" else (agents[learner_index(learner, len(agents))],)
        self.learners: tuple[AgentID, ...] = learners
        self.partners = assign(partners, [agent for agent in agents if agent not in learners])
        self.cores = [_core(game, learners) for _ in range(_debates(num_envs, len(learners)))]
        _require_lock_step(self.cores[0], len(learners))
        self.batch = BatchedDebate(game, len(self.cores))
        self.lanes = [Lane(core, agent) for core in self.cores for agent in learners]
        self._actions: NDArray[Any] | None = None
        space = self.cores[0].action_space(learners[0])
        actions = space if isinstance(space, Discrete) else _choices(space)
        super().__init__(num_envs, self.cores[0].observation_space(learners[0]), actions)

    # -- play --------------------------------------------------------------------------------

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Name the seed of the next reset: lane n gets seed + n; None draws one."""
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        seeds: Sequence[int | None] = super().seed(seed)
        return seeds

    def reset(self) -> NDArray[Any]:
        """Start all debates, with the seeds and options given since the last reset."""
        each = len(self.learners)
        for index, core in enumerate(self.cores):
            core.begin(self._seeds[index * each], self._options[index * each])
        self._reset_seeds()
        self._reset_options()
        self._go_on()
        self.reset_infos = self._infos()
        return self._observations()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions, one per lane, for `step_wait`."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Let all learners act and all other agents answer.

        Raises:
            RuntimeError: before the first reset, or without `step_async`.
            ValueError: the wrong number of actions, or one that is refused; nothing has changed.
        """
        if self._actions is None or not self.cores[0].debate.started:
            raise RuntimeError("cannot step: call reset, then step(actions)")
        actions, self._actions = self._actions, None
        self._act(actions)
        rewards = self._go_on()
        infos = self._infos()
        done = [core.debate.over for core in self.cores]
        for lane, info in zip(self.lanes, infos, strict=True):
            if lane.core.debate.over:
                info["terminal_observation"] = lane.core.observe(lane.agent)
                info["TimeLimit.truncated"] = lane.core.debate.truncated
        for index in np.flatnonzero(done):
            self.cores[index].begin(None, None)
        self._go_on()
        return self._observations(), rewards, np.repeat(done, len(self.learners)), infos

    def _act(self, actions: NDArray[Any]) -> None:
        """Hand every learner's action in; those of debates that were truncated are ignored."""
        if len(actions) != self.num_envs:
            raise ValueError(f"{len(actions)} actions for {self.num_envs} lanes")
        playing = [
            (lane, action)
            for lane, action in zip(self.lanes, actions, strict=True)
            if not lane.core.debate.over
        ]
        for lane, action in playing:
            lane.core.medium.check(lane.agent, action)
        for lane, action in playing:
            lane.core.medium.take(lane.agent, action)

    def _go_on(self) -> NDArray[np.float32]:
        """Play until every debate waits for a learner or is over; return rewards by lane."""
        rewards = np.zeros((len(self.cores), len(self.learners)), np.float32)
        for index, core in enumerate(self.cores):
            if core.debate.truncated:
                rewards[index] += self._payment(core)
        while waiting := [index for index, core in enumerate(self.cores) if self._waits(core)]:
            debates = [self.cores[index].debate for index in waiting]
            before = [debate.played for debate in debates]
            self.batch.take_over(debates)
            self.batch.step(ask(self.partners, self.batch.prompts()))
            for index, played in zip(waiting, before, strict=True):
                if self.cores[index].debate.played > played:
                    rewards[index] += self._payment(self.cores[index])
        return rewards.reshape(-1)

    def _waits(self, core: DebateBase) -> bool:
        """Whether a debate waits for partners or for scores."""
        speakers = core.debate.speakers
        return not core.debate.over and not any(agent in speakers for agent in self.learners)

    def _payment(self, core: DebateBase) -> list[float]:
        payments = core.payments()
        return [payments[agent] for agent in self.learners]

    def _observations(self) -> NDArray[Any]:
        return np.stack([lane.core.observe(lane.agent) for lane in self.lanes])

    def _infos(self) -> list[dict[str, Any]]:
        told = [core.current_infos() for core in self.cores]
        return [infos[agent] for infos in told for agent in self.learners]

    # -- what a VecEnv is asked --------------------------------------------------------------

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Return an attribute of lanes; AttributeError if the lanes lack it."""
        return [getattr(lane, attr_name) for lane in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of the debates of lanes, e.g. `max_cycles`."""
        for lane in self._chosen(indices):
            setattr(lane.core, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of lanes, e.g. "action_masks" or "render"."""
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """Return False per lane: lanes have no wrappers."""
        return [False for _ in self._chosen(indices)]

    def get_images(self) -> list[Any]:
        """Return a picture per debate."""
        return [core.render() for core in self.cores]

    def close(self) -> None:
        """Nothing to release."""

    def _chosen(self, indices: Indices) -> list[Lane]:
        return [self.lanes[index] for index in self._get_indices(indices)]


def _game(options: dict[str, Any]) -> Game:
    options = {"observation": "tokens", "action": "token", **options}
    if options["observation"] != "tokens":
        raise ValueError(
            "Stable-Baselines3 takes numbers, not text: leave out observation, or use VectorDebate"
        )
    return DebateConfig.of(**options).load()


def _core(game: Game, learners: Sequence[AgentID]) -> DebateBase:
    core = DebateBase.of_game(game)
    core.act_through(learners)
    return core


def _choices(rows: Box) -> MultiDiscrete:
    """Return the space of rows of ids as one choice per place."""
    return MultiDiscrete(rows.high.astype(np.int64) + 1)


def _debates(num_envs: object, each: int) -> int:
    """Return the number of debates that `num_envs` lanes hold."""
    whole = isinstance(num_envs, int) and not isinstance(num_envs, bool)
    if not (whole and isinstance(num_envs, int) and num_envs > 0 and num_envs % each == 0):
        raise ValueError(
            f"num_envs must be a positive multiple of the {each} learners of a debate, not "
            f"{num_envs!r}"
        )
    return num_envs // each


def _require_lock_step(core: DebateBase, learners: int) -> None:
    if learners > 1 and not core.metadata["is_parallelizable"]:
        raise ValueError(
            f"protocol {core.config.protocol!r} lets agents speak one after the other: choose one "
            "learner, not 'all'"
        )
