"""A causal language model as the policy of Stable-Baselines3: one step, one token.

    model = "path/to/a/model"
    envs = DebateVecEnv(8, tokenizer=load_vocabulary(model), num_agents=2, message_tokens=32)
    learner = PPO(CausalLMPolicy, envs, policy_kwargs={"model": model})

A route for teaching and for checking our own PPO against another: every token costs a full forward
pass, there is no key-value cache, no reference policy and no adapter. Not for large models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete, Space
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from maporl_agents.config import TeamConfig
from maporl_agents.models.lm_head import Head
from maporl_agents.models.loading import examine, load_model
from maporl_agents.models.roster import model_names
from maporl_agents.models.trunk import read, width_of
from maporl_agents.text.chat import Chat
from maporl_agents.text.vocabulary import rows_of

RESERVED_IDS = 2
"""Ids of the environment that are none of the model's: padding 0 and the end of a message."""


class Vocabulary:
    """A model's tokenizer as the environment numbers it; foreign text holds no control token.

    Attributes:
        vocab_size: ids the model can write, the added ones included.
        eos_token_id: the id that ends a message.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self.vocab_size = chat.vocabulary.size
        self.eos_token_id: int = chat.tokenizer.eos_token_id

    def encode(self, text: str) -> Sequence[int]:
        """Return the ids of a text."""
        return self._chat.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        return self._chat.decode(ids)


def load_vocabulary(name: str) -> Vocabulary:
    """Return the `tokenizer` option of an environment for a model: built in, or of a folder or hub.

    Raises:
        ValueError: there is no tokenizer, or it has no end-of-sequence token.
    """
    tokenizer, architecture = examine(_place(name), TeamConfig(device="cpu"))
    return Vocabulary(Chat(tokenizer, embeddings=rows_of(architecture)))


def _place(name: str) -> str:
    """Return where a model is: a built-in one is the folder of its first agent's weights."""
    [place] = model_names(TeamConfig(model=(name,)), num_agents=1)
    return place


class LastState(BaseFeaturesExtractor):
    """The trunk of a language model: its hidden state at the last id of an observation, (B, H)."""

    def __init__(self, observation_space: Box, model: str) -> None:
        language_model, chat = load_model(_place(model), TeamConfig(device="cpu"))
        super().__init__(observation_space, width_of(language_model))
        self.model = language_model
        self.head = Head(language_model, chat)

    def forward(self, observations: Tensor) -> Tensor:
        """Map ids of the environment, (B, N) numbers padded with 0 at the end, to states."""
        numbers = observations.long()
        lengths = (numbers > 0).sum(1).clamp(min=1)
        width = int(lengths.max())
        ids = (numbers[:, :width] - 1).clamp(min=0)
        columns = torch.arange(width, device=ids.device)
        states = read(self.model, ids, (columns < lengths[:, None]).long(), columns.expand_as(ids))
        return states[torch.arange(len(ids), device=ids.device), lengths - 1]

    def train(self, mode: bool = True) -> LastState:
        """Keep the model in eval mode: no dropout between sampling and scoring."""
        super().train(mode)
        self.model.eval()
        return self


class NextToken(nn.Module):
    """The model's own head: states (B, H) to logits of the environment's ids, (B, V + 2)."""

    def __init__(self, trunk: LastState) -> None:
        super().__init__()
        self.weights = trunk.model.get_output_embeddings()
        self._trunk = (trunk,)  # in a tuple: no child, so its weights are named once

    def forward(self, states: Tensor) -> Tensor:
        """Return the model's logits between two that are never drawn: padding and the end."""
        [trunk] = self._trunk
        logits = trunk.head(trunk.model, states)
        never = torch.full_like(logits[:, :1], torch.finfo(logits.dtype).min)
        return torch.cat([never, logits, never], 1)


class _LanguagePolicy:
    """Shared part of both policies: trunk, head and optimiser are those of the model."""

    features_extractor: LastState
    value_net: nn.Linear

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        lr_schedule: Any,
        *,
        model: str,
        **options: Any,
    ) -> None:
        kept = {
            "net_arch": [],
            "ortho_init": False,
            "features_extractor_class": LastState,
            "features_extractor_kwargs": {"model": model},
        }
        super().__init__(observation_space, action_space, lr_schedule, **(options | kept))  # type: ignore[call-arg]

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        trunk, space = self.features_extractor, self.action_space  # type: ignore[attr-defined]
        ids = trunk.head.vocab_size + RESERVED_IDS
        if not isinstance(space, Discrete) or space.n != ids:
            raise ValueError(
                f"the model writes one of {ids} ids, the environment reads {space}: make it with "
                "action='token' and tokenizer=load_vocabulary(model)"
            )
        self.action_net = NextToken(trunk)
        nn.init.zeros_(self.value_net.weight)
        nn.init.zeros_(self.value_net.bias)
        self.optimizer = self.optimizer_class(  # type: ignore[attr-defined]
            self.parameters(),  # type: ignore[attr-defined]
            lr=lr_schedule(1),
            **self.optimizer_kwargs,  # type: ignore[attr-defined]
        )


class CausalLMPolicy(_LanguagePolicy, ActorCriticPolicy):
    """A causal language model for PPO and A2C: softmax of its next-token logits, and a critic.

    Args:
        model: a built-in model, or the folder or hub name of a causal language model, in
            `policy_kwargs`. A saved learner holds the weights, and needs the folder for the
            architecture.
        options: of `ActorCriticPolicy`; network and features are the model's.

    Raises:
        ValueError: the model cannot be loaded, or the environment numbers other ids.
    """


class MaskableCausalLMPolicy(_LanguagePolicy, MaskableActorCriticPolicy):
    """The same for `MaskablePPO` of sb3-contrib."""
