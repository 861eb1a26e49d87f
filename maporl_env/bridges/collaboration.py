"""The collaboration game seen by one learner with a fixed partner, as a Gymnasium environment.

    env = gymnasium.make("maporl/Collaboration-v0", partner=0.6, num_turns=10, threshold=14)

The learner is `agent_0`. What it should do is `collaboration_v0.best_response(partner, ...)`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike

from maporl_env.collaboration.equilibrium import read_policy
from maporl_env.env_bases.collaboration_base import RENDER_MODES, CollaborationBase, Observation


class LoneCollaboration(gymnasium.Env[Observation, np.int64]):
    """The game with a partner that does not learn.

    Args:
        partner: the probability that the partner collaborates, a number or (T, K + 1): one for each
            turn and count, as `logit_equilibrium` returns it.
        render_mode: None, "human", "ansi" or "rgb_array".
        options: see `collaboration.Rules`.

    Raises:
        TypeError: an unknown option.
        ValueError: an impossible one, or a partner that is no policy.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 1}  # noqa: RUF012

    def __init__(
        self, partner: ArrayLike = 0.5, *, render_mode: str | None = None, **options: Any
    ) -> None:
        self.core = CollaborationBase(render_mode=render_mode, **options)
        self.partner = read_policy("partner", partner, self.core.rules)
        self.render_mode = render_mode
        self.learner, self.other = self.core.possible_agents
        self.observation_space = self.core.observation_space(self.learner)
        self.action_space = self.core.action_space(self.learner)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a game; `seed` seeds the partner's choices. Options as in `collaboration_v0`."""
        self.core.begin(options)
        super().reset(seed=seed)
        return self.core.observe(self.learner), self.core.current_infos()[self.learner]

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one turn.

        Raises:
            ResetNeeded: before the first reset or after the end.
            ValueError: no action; nothing has changed.
        """
        game = self.core.game
        if game.over:
            raise ResetNeeded("cannot step: call reset first")
        chosen = self.core.check(self.learner, action)
        joins = int(self.np_random.random() < self.partner[game.turn, game.count])
        reward, _ = game.play((chosen, joins))
        if self.render_mode == "human":
            self.render()
        info = self.core.current_infos()[self.learner]
        return self.core.observe(self.learner), reward, game.over, False, info

    def render(self) -> Any:
        """Show the game; see `collaboration_v0`."""
        return self.core.render()
