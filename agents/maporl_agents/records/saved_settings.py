"""Settings as plain JSON values for config.json; `settings_diff` compares them with others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from maporl_agents.config import CONFIGS, RunConfig, from_dict, scheme_of, without_retired
from maporl_agents.records.storage import require_plain


def plain_settings(config: Any) -> Any:
    """Return settings as JSON gives them back: tuples as lists, paths as text.

    Raises:
        ValueError: for anything but a dataclass or dict of values that JSON can hold.
    """
    fields = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    if isinstance(config, RunConfig) and type(config) not in CONFIGS.values():
        fields = {"scheme": scheme_of(config), **fields}  # nothing else tells a user's own
    if not isinstance(fields, Mapping):
        raise ValueError(f"The config is a {type(config).__name__}: give a dataclass or a dict.")
    plain = _without_paths(dict(fields))
    require_plain(plain, "config")
    return json.loads(json.dumps(plain))


def saved_settings(saved: Any, config: Any) -> Any:
    """Return the saved settings of a run, new fields at their defaults, retired ones left out.

    Args:
        saved: plain values, read back from its folder.
        config: a dataclass that has these fields; other saved values are returned unchanged.
    """
    if not is_dataclass(config) or isinstance(config, type):
        return saved
    try:
        fields = {name: value for name, value in saved.items() if name != "scheme"}
        return plain_settings(from_dict(type(config), without_retired(type(config), fields)))
    except (AttributeError, TypeError, ValueError):
        return saved


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_paths(item) for item in value]
    return str(value) if isinstance(value, Path) else value
