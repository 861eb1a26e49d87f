"""Settings of MALT: trees of samples, imitation, preferences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from maporl_agents.config import checks
from maporl_agents.config.game import GameConfig
from maporl_agents.config.shared import EvalConfig, OptimizerConfig, RunConfig


@dataclass(frozen=True)
class FitConfig(OptimizerConfig):
    """Settings for fitting a role of MALT to a fixed data set, by passes over it."""

    warmup_steps: int = 5
    """Updates of linear warm-up. Tiny."""
    epochs: checks.AtLeast1 = 3
    """Passes over the data. Paper: 1 to 10."""
    batch_size: checks.AtLeast1 = 8
    """Messages, or pairs, per update of a role. Paper: 8."""


Role = Literal["generator", "verifier", "refiner"]


@dataclass(frozen=True)
class MALTSettings(checks.Checked):
    """Trees of samples, and what is learnt from them (arXiv 2412.01928)."""

    roles: tuple[Role, ...] = get_args(Role)
    """The roles by agent index; the last one's answer is the team's. Without a role there is one
    agent less: set --game.num-agents and --game.personas too."""
    branching: checks.AtLeast1 = 3
    """n, samples that continue each prefix: n + n^2 + n^3 generations a question. Paper: 3."""
    thresholds: tuple[float, ...] = (0.5,)
    """A message is positive if its value is above this, strictly. One per round, the last for all
    further ones. Paper: 0.5."""
    examples: Literal["positive", "right_paths"] = "positive"
    """The messages that are imitated: positive ones, or all of debates that ended right (STaR)."""
    prefer: tuple[Role, ...] = ("verifier", "refiner")
    """Roles that learn from pairs, too. Paper: these; with the generator it got worse."""
    beta: checks.Above0 = 0.2
    """Pull towards what the role was after imitation. Paper: 0.2."""
    labels: Literal["hard", "soft"] = "hard"
    """Preference within a pair: the positive one for sure, or with probability
    sigmoid(difference of the values). Paper: hard in training, soft in its theorem."""
    imitation: FitConfig = field(default_factory=FitConfig)
    """SFT. The paper's learning rate is not known."""
    preference: FitConfig = field(default_factory=lambda: FitConfig(learning_rate=1e-4, epochs=1))
    """DPO."""
    trees_per_file: checks.AtLeast1 = 64
    """Questions whose trees are grown and saved at a time; bounds memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.roles or len(set(self.roles)) < len(self.roles):
            raise ValueError(f"roles must be different, and at least one, not {self.roles}")
        for role in (*self.roles, *self.prefer):
            checks.require_choice("role", role, get_args(Role))
        if not self.thresholds or not all(0 <= x < 1 for x in self.thresholds):
            raise ValueError(f"thresholds must lie in [0, 1), at least one, not {self.thresholds}")


TINY_ROLES = ("think :", "think again :", "think once more :")
"""System texts of the three roles in words that the built-in model knows."""


@dataclass(frozen=True)
class MALTConfig(RunConfig):
    """A run of MALT."""

    steps_per_round: ClassVar[int] = 3  # grow, imitate, prefer

    name: str = "malt-shopping"
    steps: int = 18
    """Stages, three per round: grow trees, imitate, prefer. Tiny: six rounds; paper: one."""
    questions_per_step: int = 39
    """Trees per round. Tiny."""
    checkpoint_every: int = 1
    """Stages between checkpoints."""
    game: GameConfig = field(
        default_factory=lambda: GameConfig(
            protocol="pipeline", num_agents=3, num_turns=1, personas=TINY_ROLES
        )
    )
    eval: EvalConfig = field(default_factory=lambda: EvalConfig(passes=3))
    malt: MALTSettings = field(
        default_factory=lambda: MALTSettings(
            thresholds=(0.15, 0.2, 0.25, 0.3, 0.35, 0.4), imitation=FitConfig(epochs=1)
        )
    )
