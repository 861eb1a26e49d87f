r"""Many debates at once, as a Gymnasium vector environment.

    envs = gymnasium.make_vec("maporl/Debate-v0", num_envs=64, partners=my_model)   # a learner each
    envs = VectorDebate(64, learner="all", num_agents=4)               # 16 debates, 4 learners each
    observations, infos = envs.reset(seed=0)
    observations, rewards, terminations, truncations, infos = envs.step(texts)

One step is one turn of all debates: one call of `step`, one call of the partners, one of the
verifier. B debates of T turns cost exactly T of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from numpy.typing import NDArray

from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.bridges.single_agent import Partners, ask, assign, learner_index
from maporl_env.config import RENDER_MODES, DebateConfig
from maporl_env.env_bases.debate_base import DebateBase
from maporl_env.types import AgentID

Flags = NDArray[np.bool_]


class VectorDebate(VectorEnv[Any, Any, Any]):
    """Debates in lock step; one lane per learner.

    A debate that ends while others go on (by consensus) costs nothing more. With
    `AutoresetMode.SAME_STEP` the next one starts at once, in its place; what the old one last told
    is in `infos["final_obs"]` and `infos["final_info"]`. With `DISABLED` its lanes keep their last
    observation, get reward 0, and their actions are ignored, until `reset`; its option `reset_mask`
    (booleans, one per lane) resets some debates and leaves the others alone.

    Args:
        num_envs: number of lanes; a multiple of the learners per debate.
        partners: what the agents say that are no learners; see `SingleAgentDebate`. Partners of all
            debates that share a callable are asked in one call.
        learner: the agent index of the one learner of each debate, or "all": then every agent
            learns, and lanes go by debate and agent index.
        autoreset_mode: SAME_STEP or DISABLED. NEXT_STEP would waste a turn of every debate.
        options: see `config.DebateConfig`; render_mode among them.

    Raises:
        ValueError: an option or number that does not fit, a protocol whose agents speak one after
            the other, or action="token".
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        partners: Partners | None = None,
        learner: int | Literal["all"] = 0,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        **options: Any,
    ) -> None:
        game = DebateConfig.of(**options).load()
        agents = game.debate().agents
        learners = agents if learner == "all" else (agents[learner_index(learner, len(agents))],)
        self.learners: tuple[AgentID, ...] = learners
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self._check(num_envs, options)
        self.partners = assign(partners, [agent for agent in agents if agent not in learners])
        self.batch = BatchedDebate(game, num_envs // len(learners))
        self.cores = [DebateBase.of_game(game) for _ in range(self.batch.batch_size)]
        self._check_protocol(self.cores[0])
        self.render_mode = self.cores[0].render_mode
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self.cores[0].observation_space(agents[0])
        self.single_action_space = self.cores[0].action_space(agents[0])
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended = np.ones(len(self.cores), dtype=np.bool_)
        self._seen: list[Any] = []

    def _check(self, num_envs: object, options: Mapping[str, Any]) -> None:
        each = len(self.learners)
        whole = isinstance(num_envs, int) and not isinstance(num_envs, bool)
        if not (whole and isinstance(num_envs, int) and num_envs > 0 and num_envs % each == 0):
            raise ValueError(
                f"num_envs must be a positive multiple of the {each} learners of a debate, not "
                f"{num_envs!r}"
            )
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            raise ValueError(
                "autoreset_mode must be SAME_STEP or DISABLED: NEXT_STEP would generate messages "
                "that nobody reads"
            )
        if options.get("action") == "token":
            raise ValueError(
                "a lane writes whole messages: for action='token' use SyncVectorEnv, "
                "vectorization_mode='sync'"
            )

    def _check_protocol(self, core: DebateBase) -> None:
        if not core.metadata["is_parallelizable"]:
            raise ValueError(
                f"protocol {core.config.protocol!r} does not let all agents speak at once in every "
                "turn, so its debates do not go in lock step: use vectorization_mode='sync', or "
                "BatchedDebate"
            )

    # -- start -------------------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start debates: all, or those that option `reset_mask` names.

        Args:
            seed: debate d draws its questions with seed + d; or one seed per lane, of which the
                first of each debate counts; None goes on with the generators there are.
            options: those of `debate_v0`, for every debate, and `reset_mask`.

        Raises:
            ValueError: a wrong option, or a mask that cuts through a debate; nothing has changed.
        """
        options = dict(options or {})
        chosen = self._chosen(options.pop("reset_mask", None))
        seeds = self._seeds(seed)
        self._seen = self._seen or [None] * self.num_envs
        infos: dict[str, Any] = {}
        for index in np.flatnonzero(chosen):
            self._start(int(index), seeds[index], options, infos)
        self.batch.take_over([core.debate for core in self.cores if core.debate.started])
        self._show()
        return self._observations(), infos

    def _chosen(self, mask: Any) -> Flags:
        """Return which debates a mask of lanes names."""
        if mask is None:
            return np.ones(len(self.cores), dtype=np.bool_)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(
                f"reset_mask must be {self.num_envs} booleans, at least one of them True"
            )
        by_debate = mask.reshape(len(self.cores), -1)
        chosen: Flags = by_debate.any(axis=1)
        if (chosen != by_debate.all(axis=1)).any():
            raise ValueError("reset_mask must name all lanes of a debate or none: it is one game")
        if not all(core.debate.started for core in self.cores):
            raise ValueError("reset_mask cannot be used before the first reset of all debates")
        return chosen

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None or isinstance(seed, int | np.integer):
            return [None if seed is None else int(seed) + d for d in range(len(self.cores))]
        if len(seed) != self.num_envs:
            raise ValueError(f"{len(seed)} seeds for {self.num_envs} lanes")
        return list(seed[:: len(self.learners)])

    def _start(
        self, index: int, seed: int | None, options: Mapping[str, Any], infos: dict[str, Any]
    ) -> None:
        self.cores[index].begin(seed, options)
        self._ended[index] = False
        self._tell(index, infos)

    # -- a turn ------------------------------------------------------------------------------

    def step(self, actions: Any) -> tuple[Any, NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Play one turn: post the messages of all learners and of their partners.

        Args:
            actions: one per lane; those of debates that have ended are ignored.

        Raises:
            ResetNeeded: before the first reset, or when all debates have ended.
            ValueError: the wrong number of actions, or one that is refused; nothing has changed.
        """
        if self._ended.all():
            raise ResetNeeded("cannot step: call reset first")
        if isinstance(actions, str) or len(actions) != self.num_envs:
            raise ValueError(f"one action for each of {self.num_envs} lanes, not {actions!r:.80}")
        self.batch.step(self._texts(actions))
        self._show()
        return self._results()

    def _texts(self, actions: Any) -> list[str]:
        """Return the messages of all speakers, in the order of the prompts."""
        prompts = self.batch.prompts()
        texts: dict[tuple[int, AgentID], str] = {}
        asked: list[Prompt] = []
        for prompt in prompts:
            if prompt.agent not in self.learners:
                asked.append(prompt)
                continue
            medium = self.cores[prompt.debate].medium
            action = actions[self._lane(prompt.debate, prompt.agent)]
            medium.check(prompt.agent, action)
            texts[prompt.debate, prompt.agent] = medium.text(action)
        for prompt, text in zip(asked, ask(self.partners, asked), strict=True):
            texts[prompt.debate, prompt.agent] = text
        return [texts[prompt.debate, prompt.agent] for prompt in prompts]

    def _lane(self, index: int, agent: AgentID) -> int:
        return index * len(self.learners) + self.learners.index(agent)

    def _results(self) -> tuple[Any, NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Write rewards and infos of the debates in progress; restart those that have ended."""
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=np.bool_)
        infos: dict[str, Any] = {}
        for index, core in enumerate(self.cores):
            lanes = slice(index * len(self.learners), (index + 1) * len(self.learners))
            if not self._ended[index]:
                of_agents = core.payments()
                rewards[lanes] = [of_agents[agent] for agent in self.learners]
                self._ended[index] = core.debate.over
                self._tell(index, infos)
            terminated[lanes] = core.debate.terminated
            truncated[lanes] = core.debate.truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            self._restart(infos)
        return self._observations(), rewards, terminated, truncated, infos

    def _tell(self, index: int, infos: dict[str, Any], *, final: bool = False) -> None:
        """Write the observations and infos of the learners of a debate."""
        core = self.cores[index]
        told = core.current_infos()
        for agent in self.learners:
            lane = self._lane(index, agent)
            if final:
                last = {"final_obs": self._seen[lane], "final_info": told[agent]}
                self._add_info(infos, last, lane)
                continue
            self._seen[lane] = core.observe(agent)
            self._add_info(infos, told[agent], lane)

    def _restart(self, infos: dict[str, Any]) -> None:
        ended = [int(index) for index in np.flatnonzero(self._ended)]
        for index in ended:
            self._tell(index, infos, final=True)
            self._start(index, None, {}, infos)
        if ended:
            self.batch.take_over([core.debate for core in self.cores])

    # -- to look at --------------------------------------------------------------------------

    def _observations(self) -> Any:
        space = self.single_observation_space
        empty: Any = create_empty_array(space, self.num_envs)
        return concatenate(space, self._seen, empty)

    def _show(self) -> None:
        if self.render_mode == "human":
            self.render()

    def render(self) -> tuple[Any, ...]:
        """Show every debate; see `debate_v0`."""
        return tuple(core.render() for core in self.cores)
