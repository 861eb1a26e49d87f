"""One learner that writes token by token, as a Gymnasium environment with numbers only.

    env = gymnasium.make("maporl/TokenDebate-v0", num_agents=2, partners=my_model)
    observation, info = env.reset(seed=0)                        # ids of the prompt, padded with 0
    observation, reward, terminated, truncated, info = env.step(int(id_))     # one id of a message

The view for learners that take no text, such as Stable-Baselines3 and MaskablePPO. The numbering of
ids is that of `maporl_env.observations.tokens`: the tokenizer's own plus one, 0 for padding, the
last for the end of a message. The learner sees the prompt, then what it has written of its
message so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maporl_env.bridges.single_agent import Partners, SingleAgentDebate


class TokenDebate(SingleAgentDebate):
    """The debate seen by one agent that writes one token per step.

    Args:
        partners: what the others say, in text; see `SingleAgentDebate`.
        learner: the agent index of the learner.
        options: see `config.DebateConfig`; tokenizer, observation_tokens, message_tokens and
            obs_dtype among them.
    """

    def __init__(self, partners: Partners | None = None, learner: int = 0, **options: Any) -> None:
        options = {"observation": "tokens", "action": "token", **options}
        if (options["observation"], options["action"]) != ("tokens", "token"):
            raise ValueError(
                "TokenDebate observes tokens and acts token by token; for anything else use "
                "SingleAgentDebate"
            )
        super().__init__(partners, learner, **options)

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which ids are legal now, (num_ids,) booleans; sb3-contrib asks by this name."""
        mask: NDArray[np.int8] = self.core.medium.info(self.learner)["action_mask"]
        return mask.astype(np.bool_)
