"""Settings of IAC: independent actor-critics at the level of turns."""

from __future__ import annotations

from dataclasses import dataclass, field

from maporl_agents.config import checks
from maporl_agents.config.magrpo import Length
from maporl_agents.config.regularised import RegularisedConfig
from maporl_agents.config.shared import JointRunConfig


@dataclass(frozen=True)
class IACSettings(RegularisedConfig):
    """Actor-critics at the level of turns, each agent with its own critic (arXiv 2508.04652)."""

    critic_learning_rate: checks.NotNegative = 5e-3
    """Of the critics, same schedule. As MAPoRL's."""
    critic_coef: checks.NotNegative = 0.5
    """Weight of the critic's loss. As MAPoRL's."""
    turn_gamma: checks.Unit = 1.0
    """Discount per turn, in [0, 1]."""
    length: Length = "sum"
    """Reduction of a message's token log-probabilities, as in MAGRPO. Paper: their sum."""


@dataclass(frozen=True)
class IACConfig(JointRunConfig):
    """A run of independent actor-critics."""

    name: str = "iac-receipts"
    questions_per_step: int = 32
    """Debates per step: as many answers as MAGRPO's trees."""
    iac: IACSettings = field(default_factory=IACSettings)
