"""Reading settings in YAML files, recipes: shipped ones by name and a user's own by path.

A recipe fits models to a task: the game, the trained agents, and step sizes for these models. It
holds the fields of the settings dataclasses (`maporl_agents.config`) under their own names; what it
leaves out stays at its default. JSON is YAML, so the ``config.json`` of a run is a recipe too.
``maporl train --recipe NAME_OR_FILE`` starts from one, and flags change it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from maporl_agents.config import CONFIGS, RunConfig, config_of, from_dict
from maporl_agents.config.from_values import nearest

FOLDER = Path(__file__).parent
ABOUT, SCHEME = "about", "scheme"


def names() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.yaml")))


def recipe(source: str | Path) -> RunConfig:
    """Return the settings of a recipe.

    Args:
        source: one of `names`, or the path of a YAML or JSON file.

    Raises:
        ValueError: there is no such recipe, or it does not describe settings; names the place and
            the nearest or the valid choices.
    """
    file = path_of(source)
    written = _read(file)
    written.pop(ABOUT, None)
    scheme = written.pop(SCHEME, None) or next((name for name in CONFIGS if name in written), None)
    try:
        return from_dict(config_of(scheme or "maporl"), written)
    except ValueError as error:
        raise ValueError(f"recipe {file.name}: {error}") from error


def about(source: str | Path) -> str:
    """Return the one sentence in which a recipe says what it is for; empty if it has none."""
    return str(_read(path_of(source)).get(ABOUT, ""))


def path_of(source: str | Path) -> Path:
    """Return the file of a recipe; ValueError if there is none."""
    if str(source) in names():
        return FOLDER / f"{source}.yaml"
    path = Path(source)
    if path.is_file():
        return path
    near = nearest(str(source), names())
    raise ValueError(
        f"there is no recipe {str(source)!r}{near}: name a file, or one of {', '.join(names())}"
    )


_BAD_SCALARS = (ValueError, LookupError, AttributeError)
"""Exceptions of PyYAML for a value that its tag does not allow, e.g. `!!int ""` or a 13th month."""


def _read(file: Path) -> dict[str, Any]:
    try:
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, RecursionError, *_BAD_SCALARS) as error:
        raise ValueError(
            f"cannot read {str(file)!r} as a recipe, settings in YAML as `name: value`: {error}"
        ) from error
    if not isinstance(written, dict):
        raise ValueError(f"the recipe {str(file)!r} must hold settings as `name: value`")
    return written
