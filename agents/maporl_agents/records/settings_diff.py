"""A resumed run has the settings it began with: others are refused, told as a diff, or forced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maporl_agents.records.saved_settings import plain_settings, saved_settings
from maporl_agents.records.storage import load_json


class SettingsDiffer(ValueError):
    """The settings of a run that is resumed differ from its saved ones, and `force` is False.

    The message has several lines: the differences, as `config_diff` returns them.
    """


def require_same_settings(folder: Path, config: Any, *, force: bool = False) -> list[str]:
    """Return the differences of settings from the saved ones of a run, as `config_diff` does.

    Args:
        folder: of the run that is resumed.
        config: as at the start of the run; settings that are new since then at their defaults.
        force: allow differences.

    Raises:
        SettingsDiffer: there are some, and `force` is False.
        CheckpointError: the saved config.json is damaged.
    """
    saved = saved_settings(load_json(folder / "config.json"), config)
    differences = config_diff(saved, plain_settings(config))
    if differences and not force:
        raise SettingsDiffer(
            f"The settings differ from those of the run in {folder}:\n"
            + "\n".join(differences)
            + "\nUse the old ones, go on with the new ones (--force), or start another run "
            "(--name)."
        )
    return differences


def config_diff(old: Any, new: Any) -> list[str]:
    """Return "- name: old value" and "+ name: new value" for each setting that differs."""
    before, after = dict(_flat(old)), dict(_flat(new))
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name in before and name in after and before[name] == after[name]:  # 0 equals 0.0
            continue
        lines += [f"- {name}: {json.dumps(before[name])}"] if name in before else []
        lines += [f"+ {name}: {json.dumps(after[name])}"] if name in after else []
    return lines


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested settings as (dotted name, value)."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    else:
        yield name, value
