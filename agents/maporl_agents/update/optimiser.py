"""The state of a run besides its weights: optimiser, schedule and running statistics.

`PolicyLearner` serves every algorithm. `PPOLearner` adds the KL coefficient, which may adapt
(`kl_penalty`), and the running statistics of the rewards, by which they may be normalised
(`reward_normalisation`). Checkpoints hold all of it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from maporl_agents.config import OptimizerConfig, PPOConfig, Schedule
from maporl_agents.kl_penalty import adapted_kl_coef
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.team import Team
from maporl_agents.records.storage import CheckpointError
from maporl_agents.types import TokenBatch
from maporl_agents.update.finite_checks import not_finite, require_finite
from maporl_agents.update.reward_normalisation import RunningSpread, over_running_std


class PolicyLearner:
    """The learner of every algorithm: one AdamW over all policies of a team, and its schedule.

    Args:
        team: the team that is trained.
        settings: learning rate, schedule and gradient clip.
        steps: steps of the whole run; the schedule ends there.
        critic_learning_rate: learning rate of the team's critics, on the same schedule; None
            leaves the critics untrained.

    Attributes:
        steps_done: steps of the run that are done; set by the training loop.
        folder: folder of the run, where a scheme may keep files of its own; set by the training
            loop.
    """

    steps_done: int = 0
    folder: Path

    def __init__(
        self,
        team: Team,
        settings: OptimizerConfig,
        steps: int,
        *,
        critic_learning_rate: float | None = None,
    ) -> None:
        self.team = team
        self.max_grad_norm = settings.max_grad_norm
        self.trained = {
            policy: list(named.values()) for policy, named in team.trainable().items() if named
        }
        owned = {} if critic_learning_rate is None else team.trainable_critics()
        self.critics = {critic: list(named.values()) for critic, named in owned.items()}
        groups: list[dict[str, Any]] = [
            {"params": p, "lr": settings.learning_rate} for p in self.trained.values()
        ]
        if critic_learning_rate is not None:
            critics = [parameter for own in self.critics.values() for parameter in own]
            groups.append({"params": critics, "lr": critic_learning_rate})
        self.optimizer = torch.optim.AdamW(
            groups, betas=settings.adam_betas, eps=settings.adam_eps, weight_decay=0.0
        )
        self.schedule = LambdaLR(
            self.optimizer,
            lambda step: learning_rate_factor(
                step,
                settings.warmup_steps,
                steps,
                schedule=settings.schedule,
                final=settings.final_fraction,
            ),
        )

    def parameter_names(self) -> dict[nn.Parameter, str]:
        """Return the name of every trained parameter: policy or critic, then its own name."""
        names = {
            parameter: f"{policy}/{name}"
            for policy, named in self.team.trainable().items()
            for name, parameter in named.items()
        }
        return names | {
            parameter: f"critics.{critic}.{name}"
            for critic, named in self.team.trainable_critics().items()
            if critic in self.critics
            for name, parameter in named.items()
        }

    def parameters(self) -> list[nn.Parameter]:
        """Return all that is trained, in the same order on every rank."""
        return [own for each in (self.trained | self.critics).values() for own in each]

    @property
    def learning_rate(self) -> float:
        """Learning rate of the policies in the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    def apply_gradients(self) -> Metrics:
        """Clip the gradient of each policy and critic on its own, take a step, return the norms.

        Raises:
            FloatingPointError: a gradient is not finite, and parameters stay as they are; or a
                parameter is not finite after the step. The message says which.
        """
        groups = {f"grad_norm/{policy}": params for policy, params in self.trained.items()}
        norms = {
            name: nn.utils.clip_grad_norm_(params, self.max_grad_norm)
            for name, params in (groups | self.critics).items()
        }
        # Before the step: AdamW would carry a NaN into its moments, and so into every later step.
        for name, norm in norms.items():
            if not torch.isfinite(norm):
                raise not_finite(f"{name}, the norm of a gradient,", norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        require_finite(self.trained | self.critics)
        self.team.refresh()
        return {name: float(norms[name]) for name in groups}

    def controls(self) -> dict[str, Any]:
        """Return the other numbers that a checkpoint has to keep, ready for JSON."""
        return {}

    def restore(self, controls: dict[str, Any]) -> None:
        """Restore the numbers that `controls` returned."""


class PPOLearner(PolicyLearner):
    """The learner of PPO: policies and critics under one AdamW, KL coefficient, reward spread.

    Args:
        team: the team that is trained.
        ppo: settings of PPO.
        steps: steps of the whole run; the schedule ends there.
    """

    def __init__(self, team: Team, ppo: PPOConfig, steps: int) -> None:
        super().__init__(team, ppo, steps, critic_learning_rate=ppo.critic_learning_rate)
        self.ppo = ppo
        self.kl_coef = ppo.kl_coef
        self.spread = RunningSpread()

    def normalise_rewards(self, batch: TokenBatch) -> TokenBatch:
        """Return the batch with rewards over their running deviation, if `reward_scale` is set."""
        return over_running_std(batch, self.spread) if self.ppo.reward_scale else batch

    def settings(self) -> PPOConfig:
        """Return the settings with the current KL coefficient."""
        return replace(self.ppo, kl_coef=self.kl_coef)

    def adapt(self, kl: float | None) -> Metrics:
        """Adapt the KL coefficient to the KL measured in this step; return metrics to log.

        Args:
            kl: mean KL per token, in nats; None after a step without an update.
        """
        metrics: Metrics = {}
        if self.ppo.kl_target is not None:
            metrics["kl_coef"] = self.kl_coef
            if kl is not None:
                self.kl_coef = adapted_kl_coef(
                    self.kl_coef, kl, target=self.ppo.kl_target, gain=self.ppo.kl_gain
                )
        if self.ppo.reward_scale:
            metrics["reward_std"] = self.spread.std
        return metrics

    def controls(self) -> dict[str, Any]:
        """Return the KL coefficient and the running spread, ready for JSON."""
        return {"kl_coef": self.kl_coef, "spread": asdict(self.spread)}

    def restore(self, controls: dict[str, Any]) -> None:
        """Restore what `controls` returned; a fixed KL coefficient stays that of the settings.

        Raises:
            CheckpointError: a number that cannot be negative is negative.
        """
        spread = RunningSpread(**controls["spread"])
        if min(controls["kl_coef"], spread.count, spread.squares) < 0:
            raise CheckpointError(f"a number of the controls is negative: {controls}")
        if self.ppo.kl_target is not None:
            self.kl_coef = controls["kl_coef"]
        self.spread = spread


def learning_rate_factor(
    step: int,
    warmup_steps: int,
    steps: int,
    *,
    schedule: Schedule = "linear",
    final: float = 0.1,
) -> float:
    """Return the learning rate of a step as a fraction of its peak.

    It rises in a line, then falls to `final` or stays.

    Args:
        step: index of the step, from 0.
        warmup_steps: steps of the linear warm-up.
        steps: steps of the whole run.
        schedule: shape of the fall: "linear", "cosine" (half a wave), or "constant" (none).
        final: fraction at the end of the run, in [0, 1]; unused by "constant".
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    left = max((steps - step) / max(steps - warmup_steps, 1), 0.0)
    if schedule == "cosine":
        left = 0.5 - 0.5 * math.cos(math.pi * left)
    return final + (1 - final) * left
