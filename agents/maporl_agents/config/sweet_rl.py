"""Settings of SWEET-RL: a critic of turns that reads the reference, and an agent that learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from maporl_agents.config import checks
from maporl_agents.config.game import DialogueGameConfig
from maporl_agents.config.shared import OptimizerConfig, RunConfig
from maporl_agents.config.team import TeamConfig

Normalisation = Literal["turn", "episode", "none"]

Compared = Annotated[int, checks.Range("at least 2, since they are compared", lambda x: x >= 2)]


@dataclass(frozen=True)
class SweetSettings(OptimizerConfig):
    """A turn-level critic as a preference model, then DPO on its choices (arXiv 2503.15478)."""

    group_size: Compared = 4
    """Dialogues of a question, which are compared."""
    normalisation: Normalisation = "turn"
    """Log-ratios of an episode: the sum over turns of their means ("turn", the paper's text), one
    mean over all tokens ("episode", its code), or their sum ("none")."""
    privileged: bool = True
    """Whether the critic reads the question's reference. Paper: yes."""
    actions: Compared = 8
    """Messages that the agent is compared on after each prefix, at least 2. Paper: 16."""
    pairs: checks.AtLeast1 = 2
    """Pairs of a prefix: one of the better half, one of the worse. Paper: 4."""
    critic_beta: checks.Above0 = 0.1
    """Strength of the critic's loss. Paper: 0.1."""
    critic_epochs: checks.AtLeast1 = 2
    """Passes of the critic over the pairs of a step. Paper: 4, over all data at once."""
    beta: checks.Above0 = 0.1
    """Strength of DPO. Paper: 0.1."""
    nll_coef: checks.NotNegative = 0.01
    """Weight of the chosen message's negative log-likelihood. Paper: 0.01."""
    batch_size: checks.AtLeast1 = 8
    """Pairs per update. Paper: 8."""


@dataclass(frozen=True)
class SweetConfig(RunConfig):
    """A run of SWEET-RL."""

    name: str = "sweet-rl"
    questions_per_step: int = 16
    """Questions per step, each with a group of dialogues."""
    game: DialogueGameConfig = field(default_factory=DialogueGameConfig)
    team: TeamConfig = field(default_factory=lambda: TeamConfig(train_agents=(0,)))
    sweet_rl: SweetSettings = field(default_factory=SweetSettings)
