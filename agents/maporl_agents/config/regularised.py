"""Settings of the KL to the reference policy and of the entropy, for schemes without MAPoRL's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from maporl_agents.config import checks
from maporl_agents.config.shared import OptimizerConfig

KLMeasure = Literal["k1", "k2", "k3", "exact"]
KLPlace = Literal["loss", "reward"]


@dataclass(frozen=True)
class RegularisedConfig(OptimizerConfig):
    """AdamW, its schedule, and two terms that keep a policy near its reference or spread out."""

    kl_coef: checks.NotNegative = 0.0
    """KL coefficient: weight of the KL to the reference policy; 0 leaves it out. Paper: none."""
    kl_estimator: KLMeasure = "k3"
    """The KL of a token: k1, the log-ratio; k2, half its square; k3, exp(-k1) - 1 + k1; or "exact",
    KL(pi || ref) over the vocabulary, at the cost of the reference policy in every update."""
    kl_place: KLPlace = "loss"
    """Where it counts: in the "loss", reduced over tokens as the policy loss is, or its sum over
    the tokens of a message off the "reward"."""
    entropy_coef: checks.NotNegative = 0.0
    """Weight of the entropy per token that is added to the objective; 0 leaves it out. Paper: 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kl(self)


def check_kl(settings: Any) -> None:
    """Raise ValueError for k1 in the loss.

    On tokens that the policy sampled its gradient is that of log pi, whose mean is 0, so that it
    adds noise and holds nothing back.
    """
    if settings.kl_coef and settings.kl_place == "loss" and settings.kl_estimator == "k1":
        raise ValueError(
            "kl_estimator='k1' has a mean gradient of 0 in the loss, so it would hold nothing "
            "back: set kl_place='reward', or choose k2, k3 or exact"
        )
