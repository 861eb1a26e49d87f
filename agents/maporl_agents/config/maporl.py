"""Settings of MAPoRL: multi-agent PPO at the level of tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from maporl_agents.config import GameConfig, checks
from maporl_agents.config.shared import OptimizerConfig, RunConfig

KLOfReward = Literal["k1", "k2", "k3", "full_ref_policy"]


@dataclass(frozen=True)
class PPOConfig(OptimizerConfig):
    """Multi-agent PPO at the level of tokens (spec of the paper's section 4)."""

    critic_learning_rate: checks.NotNegative = 5e-3
    """Of the critics, same schedule. Tiny."""
    epochs: checks.AtLeast1 = 1
    """Passes over each batch. Tiny: 1, as good per step as 2 and half the work; paper: 4."""
    minibatches: checks.AtLeast1 = 4
    """Optimiser steps per pass. Tiny."""
    clip_coef: checks.Limit = 0.2
    """Half width of the band for the ratio. Paper: 0.2."""
    kl_coef: checks.NotNegative = 0.02
    """KL coefficient: the KL to the reference policy times this is subtracted from the reward of
    each token. Tiny; paper: 0.002."""
    kl_estimator: KLOfReward = "k1"
    """The estimator of the KL: k1, the log-ratio; k2, half its square; k3, exp(-k1) - 1 + k1; or
    "full_ref_policy", KL(ref || pi) exact over the vocabulary, at the cost of a second scoring.
    Paper: k1 in its code, full_ref_policy in print. Always in the reward, never in the loss."""
    kl_target: checks.Above0OrNone = None
    """Target of the KL per token (k1), to which the KL coefficient adapts; None keeps it fixed."""
    kl_gain: checks.NotNegative = 0.1
    """Gain of the adaptive KL coefficient: a step changes it by at most 0.2 * kl_gain of itself."""
    critic_coef: checks.NotNegative = 0.5
    """Weight of the value loss. Tiny; paper: 0.1."""
    value_clip: checks.Above0OrNone = None
    """Largest counted move of a value from what it was before the step, in units of reward; None
    for no bound. Paper: none."""
    entropy_coef: checks.NotNegative = 0.0
    """Weight of the entropy per token that is added to the objective; 0 leaves it out. Paper: 0."""
    reduction: Literal["token", "sequence"] = "token"
    """Losses are means over all tokens of a policy's messages ("token"), or over its messages of
    the mean over each one's tokens ("sequence"). Paper: a token drawn uniformly in a message."""
    reward_scale: bool = False
    """Divide rewards by their standard deviation over the run so far; the mean stays."""
    leave_out_equal_rewards: bool = False
    """Leave the messages of a turn and agent out of the update where all have the same reward:
    whitening scales the errors of the critic there, and a policy that is always right drifts."""
    target_kl: checks.Above0OrNone = None
    """A minibatch whose approx_kl, mean over the policies, is above this is a step's last; None
    makes them all."""
    token_gamma: checks.Unit = 1.0
    """Discount per token. Paper: 1."""
    gae_lambda: checks.Unit = 1.0
    """Lambda of GAE over the tokens of a message, in [0, 1]. Tiny: 1; paper: 0.95."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target adapts kl_coef by factors, so kl_coef must be above 0")


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A run of MAPoRL."""

    name: str = "maporl-shopping"
    questions_per_step: int = 64
    """Debates per step; each gives agents x turns answers."""
    single_agent: bool = False
    """Train every agent alone (one turn, no other messages) on as many answers, as the control."""
    ppo: PPOConfig = field(default_factory=PPOConfig)

    def training_game(self) -> tuple[GameConfig, int]:
        """Return the game that is trained on, and the number of questions of a step.

        Training alone is one turn per debate, in which no agent reads another, and more debates:
        equally many answers per step.
        """
        if not self.single_agent:
            return self.game, self.questions_per_step
        return replace(self.game, num_turns=1), self.questions_per_step * self.game.num_turns
