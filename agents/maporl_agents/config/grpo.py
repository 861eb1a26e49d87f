"""Settings of GRPO and its relatives: rewards compared in groups of debates of one question."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from maporl_agents.config import checks
from maporl_agents.config.regularised import KLMeasure, KLPlace, check_kl
from maporl_agents.config.shared import OptimizerConfig, RunConfig

Groups = Literal["message", "agent", "question"]
GroupBaseline = Literal["mean", "leave_one_out", "maximum", "greedy", "role", "none"]
GroupScale = Literal["std", "none"]
GroupSurrogate = Literal["ppo", "gspo", "cispo"]
GroupLength = Literal["sequence", "token", "constant", "sum"]
VariantName = Literal["grpo", "dr_grpo", "dapo", "rloo", "remax", "gspo", "cispo", "dr_mas", "rae"]


@dataclass(frozen=True)
class Variant(checks.Checked):
    """One way to compare rewards and to update on them; `GRPOSettings` explains the fields."""

    groups: Groups = "message"
    baseline: GroupBaseline = "mean"
    scale: GroupScale = "std"
    surrogate: GroupSurrogate = "ppo"
    clip_coef: checks.Limit = 0.2
    clip_high: checks.Limit = 0.2
    length: GroupLength = "sequence"
    kl_coef: checks.NotNegative = 0.0
    kl_estimator: KLMeasure = "k3"
    kl_place: KLPlace = "loss"


REINFORCE = Variant(scale="none", length="sum", kl_coef=0.05, kl_estimator="k1", kl_place="reward")
"""What RLOO and ReMax share: log pi of a whole message times its reward, less KL and baseline."""

VARIANTS: dict[str, Variant] = {
    "grpo": Variant(kl_coef=0.04),
    "dr_grpo": Variant(scale="none", length="constant"),
    "dapo": Variant(clip_high=0.28, length="token"),
    "rloo": replace(REINFORCE, baseline="leave_one_out"),
    "remax": replace(REINFORCE, baseline="greedy"),
    "gspo": Variant(surrogate="gspo", clip_coef=3e-4, clip_high=4e-4),
    "cispo": Variant(surrogate="cispo", clip_coef=1.0, clip_high=4.0, length="token"),
    "dr_mas": Variant(groups="agent"),
    "rae": Variant(baseline="role", scale="none", length="constant"),
}
"""By name. Sources and what is ours: docs/explanation/schemes/grpo.md."""


@dataclass(frozen=True)
class GRPOSettings(OptimizerConfig):
    """Rewards compared in groups (arXiv 2402.03300). None stands for the choice of `variant`."""

    variant: VariantName = "grpo"
    """Published choices: grpo; dr_grpo, no length or standard deviation; dapo, clip-higher; rloo,
    leave-one-out; remax, a greedy debate as baseline; gspo, sequence ratios; cispo, clipped
    weights; dr_mas, groups per agent; rae, a running baseline per agent. Single ones follow."""
    group_size: checks.AtLeast1 = 8
    """G, debates per question. Tiny; paper: 64."""
    groups: Groups | None = None
    """Rewards that are compared, all of one question: of the same turn and agent ("message"), of
    one agent in all turns ("agent"), or of all agents and turns ("question")."""
    baseline: GroupBaseline | None = None
    """Taken off a reward: the "mean" or "maximum" of its group, the mean of the others
    ("leave_one_out"), the reward of the same turn and agent in a "greedy" debate, a running mean
    per agent ("role"), or "none"."""
    scale: GroupScale | None = None
    """Divide by the standard deviation of the group ("std") or not ("none")."""
    surrogate: GroupSurrogate | None = None
    """The objective: clipped ratios of tokens ("ppo") or of messages ("gspo"), or clipped ratios as
    constant weights of log-probabilities ("cispo")."""
    clip_coef: float | None = None
    """Width of the band below ratio 1; from 1 on there is no bound."""
    clip_high: float | None = None
    """Width of the band above ratio 1; inf for no bound."""
    length: GroupLength | None = None
    """Tokens to messages: their mean ("sequence"), the mean over all tokens ("token"), their sum
    over the token limit ("constant"), or their "sum"."""
    kl_coef: float | None = None
    """KL coefficient: weight of the KL to the reference policy; 0 leaves it out."""
    kl_estimator: KLMeasure | None = None
    """The KL of a token: k1, the log-ratio; k2, half its square; k3, exp(-k1) - 1 + k1; or "exact",
    KL(pi || ref) over the vocabulary, at the cost of the reference policy in every update."""
    kl_place: KLPlace | None = None
    """Where it counts: in the "loss", or its sum over a message's tokens off the "reward"."""
    entropy_coef: checks.NotNegative = 0.0
    """Weight of the entropy per token that is added to the objective; 0 leaves it out. Paper: 0."""
    role_decay: checks.BelowOne = 0.95
    """Memory of the running mean of baseline "role", in [0, 1). Paper (SPIRAL): 0.95."""
    epochs: checks.AtLeast1 = 1
    """Passes over each batch. Paper: 1."""
    minibatches: checks.AtLeast1 = 4
    """Optimiser steps per pass, each on whole debates. Tiny; paper: 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = self.chosen()
        check_kl(chosen)
        if chosen.scale == "std" and chosen.baseline in ("greedy", "role", "none"):
            raise ValueError(
                f"scale='std' would divide by almost 0 where the rewards of a group are equal, "
                f"since baseline={chosen.baseline!r} is not of the group: set scale='none'"
            )
        if self.group_size < 2 and chosen.baseline in ("mean", "leave_one_out", "maximum"):
            raise ValueError(
                f"group_size must be at least 2 with baseline={chosen.baseline!r}, which compares "
                f"debates of one question, not {self.group_size}"
            )

    def chosen(self) -> Variant:
        """Return the choices that hold: those that are set, else those of `variant`."""
        usual = VARIANTS[self.variant]
        given = {one.name: getattr(self, one.name) for one in fields(usual)}
        return Variant(**{k: getattr(usual, k) if v is None else v for k, v in given.items()})


@dataclass(frozen=True)
class GRPOConfig(RunConfig):
    """A run of GRPO."""

    name: str = "grpo-shopping"
    questions_per_step: int = 8
    """Questions per step, each with a group of debates. Tiny: as many debates as MAPoRL's."""
    grpo: GRPOSettings = field(default_factory=GRPOSettings)
