"""Settings of MAGRPO: joint returns compared in groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from maporl_agents.config import checks
from maporl_agents.config.regularised import RegularisedConfig
from maporl_agents.config.shared import JointRunConfig

Joining = Literal["aligned", "cross"]

Comparison = Literal["mean", "leave_one_out", "standardised", "raw", "preferences"]

Length = Literal["sum", "sequence", "token"]


@dataclass(frozen=True)
class MAGRPOSettings(RegularisedConfig):
    """Policy gradient without a critic, joint returns compared in groups (arXiv 2508.04652)."""

    learning_rate: float = 1e-3
    """Of the policies: the peak of the schedule. Tiny; library: 5e-6."""
    group_size: checks.AtLeast2 = 8
    """G, samples of each agent at each node of the tree; at least 2. Tiny; library: 2 or 4."""
    joining: Joining = "aligned"
    """Joint actions of a node: the g-th samples with each other ("aligned", G of them; leaves
    G^T), or all combinations ("cross", G^A; leaves G^(A T))."""
    turn_gamma: checks.Unit = 1.0
    """Discount per turn of the joint return, in [0, 1]. Paper: 1; library: 0.9."""
    comparison: Comparison = "mean"
    """Advantage of a joint action: its return minus the "mean" of its node (paper), minus the mean
    of the others ("leave_one_out"), the first over the standard deviation ("standardised", GRPO's),
    the return itself ("raw"), or DPO of the joint policy on all pairs of a node ("preferences")."""
    preference_beta: checks.Above0 = 0.1
    """With "preferences": pull towards the reference policies, above 0."""
    credit: Literal["mean", "sum"] = "mean"
    """With "cross", what a completion gets of the joint actions that hold it. Library: the sum,
    which grows as G^(A - 1)."""
    length: Length = "sum"
    """Reduction of a completion's token log-probabilities: their "sum" (paper), their mean
    ("sequence"), or the mean over all tokens of the batch ("token")."""
    ratio: bool = False
    """Weigh tokens by the ratio to the policy that sampled, as PPO does. Without it each batch
    allows one update. Paper: without."""
    clip_coef: checks.Above0OrNone = None
    """With the ratio: half width of the band it is clipped to; None for no clip."""
    epochs: checks.AtLeast1 = 1
    """Passes over each batch; more than one needs the ratio."""
    minibatches: checks.AtLeast1 = 1
    """Optimiser steps per pass; more than one needs the ratio."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ratio and (self.clip_coef is not None or self.epochs * self.minibatches > 1):
            raise ValueError(
                "clip_coef, and more than one update per batch, need the ratio: set ratio, or "
                "leave clip_coef None and epochs and minibatches 1"
            )
        if self.comparison == "preferences" and (
            self.ratio
            or self.length != "sum"
            or self.credit != "mean"
            or (self.kl_coef and self.kl_place == "reward")
        ):
            raise ValueError(
                "comparison='preferences' is DPO on summed log-probabilities, one update per "
                "batch: leave ratio off, length 'sum', credit 'mean', and a KL out of the reward"
            )
        if self.credit == "sum" and self.joining == "aligned":
            raise ValueError("credit='sum' is for joining='cross': aligned completions have one")


@dataclass(frozen=True)
class MAGRPOConfig(JointRunConfig):
    """A run of MAGRPO."""

    name: str = "magrpo-receipts"
    questions_per_step: int = 4
    """Trees per step. Tiny."""
    magrpo: MAGRPOSettings = field(default_factory=lambda: MAGRPOSettings(joining="cross"))
