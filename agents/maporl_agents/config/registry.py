"""Which settings belong to which scheme; settings from JSON."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from maporl_agents.config.checks import require_choice
from maporl_agents.config.from_values import from_dict, without_retired
from maporl_agents.config.grpo import GRPOConfig
from maporl_agents.config.iac import IACConfig
from maporl_agents.config.magrpo import MAGRPOConfig
from maporl_agents.config.malt import MALTConfig
from maporl_agents.config.maporl import TrainConfig
from maporl_agents.config.mlpo import MLPOConfig
from maporl_agents.config.shared import OptimizerConfig, RunConfig
from maporl_agents.config.sweet_rl import SweetConfig
from maporl_env.user_functions import is_own_name, object_named, whole_name

CONFIGS: dict[str, type[RunConfig]] = {
    "maporl": TrainConfig,
    "magrpo": MAGRPOConfig,
    "malt": MALTConfig,
    "iac": IACConfig,
    "mlpo": MLPOConfig,  # before grpo, whose group of settings it has too
    "grpo": GRPOConfig,
    "sweet_rl": SweetConfig,
}
"""The settings of each scheme: a published way to collaborate and to learn from it."""

_OWN: dict[str, type[RunConfig]] = {}
"""The settings of users' own schemes, by whole names, once `config_of` was asked for them."""

SCHEME_PARTS = ("settings", "check", "learner", "train_step")
"""The attributes of a user's own scheme; see `algorithms.Scheme`."""


def config_of(scheme: str) -> type[RunConfig]:
    """Return the class of a scheme's settings, of one's own too (module:name or file.py:name).

    Raises:
        ValueError: there is no such scheme, or it lacks a part; names the schemes there are.
    """
    if scheme not in CONFIGS and is_own_name(scheme):
        return _own_settings(whole_name(scheme))
    require_choice("scheme", scheme, tuple(CONFIGS))
    return CONFIGS[scheme]


def _own_settings(name: str) -> type[RunConfig]:
    try:
        found = object_named(name)
    except ValueError as error:
        raise ValueError(f"scheme {error}") from error
    if missing := [part for part in SCHEME_PARTS if not hasattr(found, part)]:
        raise ValueError(
            f"scheme {name!r} has no {', '.join(missing)}: make it a "
            "maporl_agents.algorithms.Scheme"
        )
    kind = found.settings
    own = isinstance(kind, type) and is_dataclass(kind) and issubclass(kind, RunConfig)
    if not own or kind in (RunConfig, *CONFIGS.values()):
        raise ValueError(
            f"the settings of scheme {name!r} must be a dataclass of its own, derived from "
            "RunConfig or from the settings of another scheme"
        )
    _OWN[name] = kind
    return _OWN[name]


def scheme_of(config: RunConfig) -> str:
    """Return the name of the scheme that settings belong to."""
    known = {**CONFIGS, **_OWN}
    return next(name for name, cls in known.items() if type(config) is cls)


def learning_rate_flags(settings: Any, group: str = "-") -> list[str]:
    """Return the flags of `maporl train` that set the rates of the policies of a run."""
    flags = [f"{group}.learning-rate".replace("-.", "--")] * isinstance(settings, OptimizerConfig)
    for one in fields(settings):
        if is_dataclass(inner := getattr(settings, one.name)):
            flags += learning_rate_flags(inner, f"{group}.{one.name}")
    return flags


def read_settings(data: dict[str, Any]) -> RunConfig:
    """Build the settings of a run from its JSON; settings that were retired since are left out.

    The scheme is named by "scheme", if it is a user's own, or by the group of settings that bears
    its name.

    Raises:
        ValueError: the scheme or a setting is unknown, or a value has the wrong type; says which.
    """
    scheme = data.get("scheme") or next((name for name in CONFIGS if name in data), "maporl")
    kind = config_of(scheme)
    saved = {name: value for name, value in data.items() if name != "scheme"}
    return from_dict(kind, without_retired(kind, saved))
