"""Settings of MLPO: a leader is trained by GRPO on the answers of frozen peers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from maporl_agents.config import checks
from maporl_agents.config.game import GameConfig, LeaderGameConfig
from maporl_agents.config.grpo import GRPOConfig
from maporl_agents.config.team import TeamConfig

Contexts = Literal["one", "each"]

Pool = Literal["step", "offline"]


@dataclass(frozen=True)
class MLPOSettings(checks.Checked):
    """A leader among frozen peers (arXiv 2507.08960, from secondary descriptions)."""

    contexts: Contexts = "one"
    """What the leader of a group of debates reads: "one" draw of its peers' answers, the same
    prompt for all as in plain GRPO, or for "each" debate an own draw of the same question."""
    pool_size: checks.AtLeast1 = 4
    """First answers that every peer gives to a question of a step. Paper: 4."""
    pool: Pool = "step"
    """The pool of a question is drawn anew in every "step", or "offline": once, so that it is the
    same whenever the question comes. Paper: offline."""
    drop_from: checks.ShareOrNone = 0.75
    """Questions of which this share of the pool or more is right are dropped; None keeps all.
    Paper: 0.75."""

    backtracking: str = ""
    """Words between a wrong try and a right one, such as "Wait, that is wrong."; the warm-up
    (warmup.steps) then imitates texts that start wrong and recover, made of `pool_size` samples of
    the leader. Empty: a warm-up imitates right messages."""


@dataclass(frozen=True)
class MLPOConfig(GRPOConfig):
    """A run of MLPO. The first turn is trained, as in the paper; `grpo` trains all turns."""

    name: str = "mlpo-shopping"
    steps: int = 25
    """Rounds of play and update."""
    questions_per_step: int = 32
    """Questions per step, each with a group of the leader's answers."""
    game: LeaderGameConfig = field(default_factory=LeaderGameConfig)
    team: TeamConfig = field(default_factory=lambda: TeamConfig(train_agents=(1,)))
    mlpo: MLPOSettings = field(default_factory=MLPOSettings)

    def training_game(self) -> tuple[GameConfig, int]:
        """Return the game that is trained on, and the number of questions of a step."""
        return replace(self.game, num_turns=1), self.questions_per_step
