"""Settings as plain JSON values for config.json; a run resumed with other settings is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from maporl_agents.config import CONFIGS, RunConfig, from_dict, scheme_of, without_retired
from maporl_agents.records.storage import load_json, require_plain


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
