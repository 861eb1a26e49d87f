"""Settings of a run. Frozen, saved as JSON beside it, and the flags of ``maporl train``."""

from __future__ import annotations

from maporl_agents.config.from_values import from_dict, refuse_retired, without_retired
from maporl_agents.config.game import (
    DialogueGameConfig,
    GameConfig,
    JointGameConfig,
    LeaderGameConfig,
    LongQuestions,
    asking,
)
from maporl_agents.config.grpo import VARIANTS, GRPOConfig, GRPOSettings, Variant
from maporl_agents.config.iac import IACConfig, IACSettings
from maporl_agents.config.magrpo import Comparison, Joining, Length, MAGRPOConfig, MAGRPOSettings
from maporl_agents.config.malt import TINY_ROLES, FitConfig, MALTConfig, MALTSettings, Role
from maporl_agents.config.maporl import KLOfReward, PPOConfig, TrainConfig
from maporl_agents.config.mlpo import MLPOConfig, MLPOSettings
from maporl_agents.config.registry import (
    CONFIGS,
    SCHEME_PARTS,
    config_of,
    learning_rate_flags,
    read_settings,
    scheme_of,
)
from maporl_agents.config.regularised import KLMeasure, KLPlace, RegularisedConfig
from maporl_agents.config.self_play import Opponents, SelfPlayConfig
from maporl_agents.config.shared import (
    EvalConfig,
    OptimizerConfig,
    RunConfig,
    Sampling,
    Schedule,
    Truncation,
    Use,
)
from maporl_agents.config.sweet_rl import (
    Normalisation,
    SweetConfig,
    SweetSettings,
)
from maporl_agents.config.team import (
    Attention,
    Quantization,
    Sharing,
    TeamConfig,
    template_switches,
    turns_of,
    with_extra,
)
from maporl_agents.config.warmup import WarmupConfig

__all__ = [
    "CONFIGS",
    "SCHEME_PARTS",
    "TINY_ROLES",
    "VARIANTS",
    "Attention",
    "Comparison",
    "DialogueGameConfig",
    "EvalConfig",
    "FitConfig",
    "GRPOConfig",
    "GRPOSettings",
    "GameConfig",
    "IACConfig",
    "IACSettings",
    "Joining",
    "JointGameConfig",
    "KLMeasure",
    "KLOfReward",
    "KLPlace",
    "LeaderGameConfig",
    "Length",
    "LongQuestions",
    "MAGRPOConfig",
    "MAGRPOSettings",
    "MALTConfig",
    "MALTSettings",
    "MLPOConfig",
    "MLPOSettings",
    "Normalisation",
    "Opponents",
    "OptimizerConfig",
    "PPOConfig",
    "Quantization",
    "RegularisedConfig",
    "Role",
    "RunConfig",
    "Sampling",
    "Schedule",
    "SelfPlayConfig",
    "Sharing",
    "SweetConfig",
    "SweetSettings",
    "TeamConfig",
    "TrainConfig",
    "Truncation",
    "Use",
    "Variant",
    "WarmupConfig",
    "asking",
    "config_of",
    "from_dict",
    "learning_rate_flags",
    "read_settings",
    "refuse_retired",
    "scheme_of",
    "template_switches",
    "turns_of",
    "with_extra",
    "without_retired",
]
