"""What a run carries from step to step besides weights: optimiser, schedule, running numbers.

Those are the price of the KL, where it adapts, and the spread of the rewards, where
they are scaled. All of it is saved with a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from maporl_agents.config import OptimizerConfig, PPOConfig, Schedule
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.team import Team
from maporl_agents.records.storage import CheckpointError
from maporl_agents.types import TokenBatch

MAX_KL_ERROR = 0.2
"""Largest relative error that one step of the adaptive KL price answers to (Ziegler et al.)."""


class PolicyLearner:
    """What all algorithms train with: one AdamW over every policy of a team, and its schedule.

    Args:
        team: whose weights are trained.
        settings: step sizes.
        steps: of the whole run; the schedule ends there.
        critic_learning_rate: of the team's critics, same schedule; None leaves them alone.

    Attributes:
        steps_done: steps of the run before the next one; set by the training loop.
        folder: of the run, where a scheme may keep files of its own; set by the training loop.
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

    @property
    def learning_rate(self) -> float:
        """Of the policies, in the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    def apply_gradients(self) -> Metrics:
        """Clip each policy's gradient on its own, step, and return the gradient norms.

        Raises:
            FloatingPointError: a gradient is not finite, and parameters stay as they are; or a
                parameter is not finite after the step, which the message says.
        """
        groups = {f"grad_norm/{policy}": params for policy, params in self.trained.items()}
        norms = {
            name: nn.utils.clip_grad_norm_(params, self.max_grad_norm)
            for name, params in (groups | self.critics).items()
        }
        for name, norm in norms.items():
            if not torch.isfinite(norm):
                raise not_finite(f"{name}, the norm of a gradient,", norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        require_finite(self.trained | self.critics)
        self.team.refresh()
        return {name: float(norms[name]) for name in groups}

    def controls(self) -> dict[str, Any]:
        """Return what else a checkpoint has to keep, ready for JSON."""
        return {}

    def restore(self, controls: dict[str, Any]) -> None:
        """Take back what `controls` returned."""


class Learner(PolicyLearner):
    """The state of PPO: policies and critics under one AdamW, the price of the KL, reward spread.

    Args:
        team: whose weights are trained.
        ppo: the settings.
        steps: of the whole run; the schedule ends there.
    """

    def __init__(self, team: Team, ppo: PPOConfig, steps: int) -> None:
        super().__init__(team, ppo, steps, critic_learning_rate=ppo.critic_learning_rate)
        self.ppo = ppo
        self.kl_coef = ppo.kl_coef
        self.spread = RunningSpread()

    def scale(self, batch: TokenBatch) -> TokenBatch:
        """Return a batch with rewards in units of their spread so far, if the settings say so."""
        if not self.ppo.reward_scale or not len(batch):
            return batch
        self.spread.add(batch.rewards)
        return replace(batch, rewards=batch.rewards / self.spread.std)

    def settings(self) -> PPOConfig:
        """Return the settings with the price of the KL as it is now."""
        return replace(self.ppo, kl_coef=self.kl_coef)

    def adapt(self, kl: float | None) -> Metrics:
        """Move the price of the KL after a step with so much of it; return what is logged.

        Args:
            kl: mean per token, in nats; None after a step that taught nothing.
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
        """Return the two running numbers, ready for JSON."""
        return {"kl_coef": self.kl_coef, "spread": asdict(self.spread)}

    def restore(self, controls: dict[str, Any]) -> None:
        """Take back what `controls` returned; a fixed price stays that of the settings.

        Raises:
            CheckpointError: a number is negative that never is.
        """
        spread = RunningSpread(**controls["spread"])
        if min(controls["kl_coef"], spread.count, spread.squares) < 0:
            raise CheckpointError(f"a number of the controls is negative: {controls}")
        if self.ppo.kl_target is not None:
            self.kl_coef = controls["kl_coef"]
        self.spread = spread


@dataclass
class RunningSpread:
    """Mean and spread of all rewards a run has seen, without keeping them (Chan et al. 1979).

    Attributes:
        count: how many.
        mean: of all.
        squares: sum of their squared distances from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, rewards: Tensor) -> None:
        """Take in one reward per message, (B,), B >= 1."""
        new = rewards.double()
        n, mean = len(new), float(new.mean())
        squares = float((new - mean).square().sum())
        gap, total = mean - self.mean, self.count + n
        self.squares += squares + gap * gap * self.count * n / total
        self.mean += gap * n / total
        self.count = total

    @property
    def std(self) -> float:
        """Their standard deviation over count - 1; 1 while there is no spread."""
        return math.sqrt(self.squares / max(self.count - 1, 1)) or 1.0


def learning_rate_factor(
    step: int,
    warmup_steps: int,
    steps: int,
    *,
    schedule: Schedule = "linear",
    final: float = 0.1,
) -> float:
    """Return the fraction of the peak rate: linear warm-up, then down to `final`, or constant.

    Args:
        step: from 0.
        warmup_steps: of linear warm-up.
        steps: of the whole run.
        schedule: the way down: a line, half a cosine wave, or none.
        final: what is left at the end, in [0, 1]; "constant" has no use for it.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    left = max((steps - step) / max(steps - warmup_steps, 1), 0.0)
    if schedule == "cosine":
        left = 0.5 - 0.5 * math.cos(math.pi * left)
    return final + (1 - final) * left


def adapted_kl_coef(kl_coef: float, kl: float, *, target: float, gain: float) -> float:
    """Return the price of the KL for the next step, higher if the KL is above its target.

    Ziegler et al., arXiv 1909.08593, section 2.2:

        error = clip((kl - target) / target, -0.2, 0.2)
        coef  = coef * (1 + gain * error)
    """
    error = max(-MAX_KL_ERROR, min(MAX_KL_ERROR, kl / target - 1))
    return kl_coef * (1 + gain * error)


REMEDY = "Look at the last transcripts of the run, or lower the learning rate"


def not_finite(what: str, value: Tensor) -> FloatingPointError:
    """Return the error that says what became infinite or not a number before an update."""
    return FloatingPointError(
        f"{what} became {float(value.detach())}; this update was not made. {REMEDY}"
    )


def require_finite(trained: Mapping[str, Sequence[Tensor]]) -> None:
    """Check trained weights after an update, by the largest of each policy or critic.

    Raises:
        FloatingPointError: one is infinite or not a number; names whose.
    """
    for name, weights in trained.items():
        largest = nn.utils.get_total_norm(weights, math.inf)
        if not torch.isfinite(largest):
            raise FloatingPointError(
                f"the weights of {name} became {float(largest)} in this update, so they are not "
                f"saved; the last checkpoint has them as they were. {REMEDY}"
            )
