r"""One learner among given partners, as a Gymnasium environment.

    env = gymnasium.make("maporl/Debate-v0", num_agents=2, partners=my_model)
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step("I say \boxed{12}.")

One step is one message of the learner. All partners that share a callable are asked in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.error import ResetNeeded

from maporl_env.batched import Prompt
from maporl_env.config import RENDER_MODES
from maporl_env.env_bases.debate_base import DebateBase
from maporl_env.types import AgentID
from maporl_env.user_functions import texts_of

Partner = Callable[[Sequence[str]], Sequence[str]] | Sequence[str]
"""`prompts -> texts`, or a list of texts: one per turn, the last one repeated after that."""

Partners = Callable[[Sequence[str]], Sequence[str]] | Sequence[Partner]


class SingleAgentDebate(gymnasium.Env[Any, Any]):
    """The debate seen by one agent. The reward is that agent's, see `debate_v0`.

    Args:
        partners: one callable `prompts -> texts` for all other agents, or one partner per other
            agent in order of their index, each a callable or a list of texts. None: empty messages.
        learner: the agent index of the learner.
        render_mode: None, "human", "ansi" or "rgb_array".
        options: see `config.DebateConfig`.

    Raises:
        ValueError: the wrong number of partners, or an agent index that does not exist.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        partners: Partners | None = None,
        learner: int = 0,
        *,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        self.core = DebateBase(render_mode=render_mode, **options)
        self.game = self.core.game
        agents = self.core.possible_agents
        self.learner: AgentID = agents[learner_index(learner, len(agents))]
        self.core.act_through([self.learner])
        others = [agent for agent in agents if agent != self.learner]
        self.partners = assign(partners, others)
        self.render_mode = render_mode
        self.observation_space = self.core.observation_space(self.learner)
        self.action_space = self.core.action_space(self.learner)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a debate and play up to the learner's first message; options as in `debate_v0`."""
        self.core.begin(seed, options)
        super().reset(seed=seed)
        self._advance()
        if self.render_mode == "human":
            self.render()
        return self.core.observe(self.learner), self.core.current_infos()[self.learner]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Let the learner act and play up to its next action, or to the end.

        Raises:
            ResetNeeded: before the first reset or after the end.
            ValueError: not of the right type, or too long a text; nothing has changed.
        """
        debate, medium = self.core.debate, self.core.medium
        if not debate.started or debate.over:
            raise ResetNeeded("cannot step: call reset first")
        medium.check(self.learner, action)
        medium.take(self.learner, action)
        reward = self._advance()
        if self.render_mode == "human":
            self.render()
        return (
            self.core.observe(self.learner),
            reward,
            debate.terminated,
            debate.truncated,
            self.core.current_infos()[self.learner],
        )

    def _advance(self) -> float:
        """Play until it is the learner's turn or the end; return the learner's reward."""
        debate, reward = self.core.debate, 0.0
        while not debate.over and self.learner not in debate.speakers:
            if debate.awaits_scores:
                self.core.score_turn()
                reward += self.core.payments()[self.learner]
            else:
                self._ask(debate.speakers)
        return reward

    def _ask(self, agents: Sequence[AgentID]) -> None:
        """Let partners speak."""
        debate = self.core.debate
        prompts = []
        for agent in agents:
            _, view, text = debate.reading(agent)
            prompts.append(Prompt(0, agent, debate.seats[agent], debate.played, view, text))
        for agent, text in zip(agents, ask(self.partners, prompts), strict=True):
            debate.post(agent, text)

    def render(self) -> Any:
        """Show the debate; see `debate_v0`."""
        return self.core.render()


def ask(partners: Mapping[AgentID, Partner], prompts: Sequence[Prompt]) -> list[str]:
    """Return the partners' answers to their prompts; partners that share a callable get one call.

    Raises:
        ValueError: a callable gave no list of texts, or not one per prompt.
    """
    said: dict[int, str] = {}
    for partner in {id(one): one for one in (partners[p.agent] for p in prompts)}.values():
        places = [n for n, prompt in enumerate(prompts) if partners[prompt.agent] is partner]
        if callable(partner):
            given = partner([prompts[place].text for place in places])
            texts = texts_of(given, len(places), f"the partner of {_named(prompts, places)}")
        else:
            texts = [partner[min(prompts[place].turn, len(partner) - 1)] for place in places]
        said.update(zip(places, texts, strict=True))
    return [said[place] for place in range(len(prompts))]


def _named(prompts: Sequence[Prompt], places: Sequence[int]) -> str:
    return ", ".join(dict.fromkeys(prompts[place].agent for place in places))


def learner_index(learner: object, num_agents: int) -> int:
    """Return the learner's agent index; ValueError if there is no such agent."""
    if isinstance(learner, bool) or not isinstance(learner, int) or not 0 <= learner < num_agents:
        raise ValueError(
            f"learner must be an agent index from 0 to {num_agents - 1}, not {learner!r}"
        )
    return learner


def assign(partners: Partners | None, agents: Sequence[AgentID]) -> dict[AgentID, Partner]:
    """Return each other agent's partner; ValueError unless there is one for each."""
    if partners is None:
        partners = [[""]] * len(agents)
    if callable(partners):
        partners = [partners] * len(agents)
    if isinstance(partners, str) or len(partners) != len(agents):
        raise ValueError(
            f"partners must be one callable, or a list of {len(agents)}: one for each of "
            f"{', '.join(agents) or 'no other agents'}"
        )
    for agent, partner in zip(agents, partners, strict=True):
        if not callable(partner) and (isinstance(partner, str) or not partner):
            raise ValueError(
                f"the partner {agent} must be a callable (prompts -> texts) or a list of "
                f"at least one text, not {partner!r}"
            )
    return dict(zip(agents, partners, strict=True))
