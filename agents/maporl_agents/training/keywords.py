"""Settings of a run from the keywords of a Python call, each meant for one field somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from maporl_agents.config import RunConfig, from_dict, refuse_retired
from maporl_env.similar_names import alike

R = TypeVar("R", bound=RunConfig)

FLAG = re.compile(r"(?<![\w-])--([a-z]+(?:[.-][a-z]+)*)")
"""As the sentences of errors name one."""
MEANT = {"template": "game.template"}
"""Keywords that stood for one field before another group got a field of that name."""
BESIDE = ("warmup.", "self_play.")
"""Groups whose fields have to be named with them where another group has a field of that name."""
SWITCHES = ("resume", "overwrite", "force")
"""Keywords that are True or False."""


@contextmanager
def told_in_keywords() -> Iterator[None]:
    """Let errors of the block name the keywords of a Python call instead of flags."""
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (in_keywords(error.args[0]),)
        raise


def in_keywords(text: str) -> str:
    """Return a sentence with keywords instead of flags: `name` for --name, `force=True`."""

    def keyword(flag: re.Match[str]) -> str:
        name = flag[1].replace("-", "_")
        return f"{name}=True" if name in SWITCHES else name

    return FLAG.sub(keyword, text)


def settings_with(start: R, given: Mapping[str, Any]) -> R:
    """Return settings with some fields changed.

    Args:
        start: the settings of a scheme, a recipe or a run.
        given: values by name. A name is that of a field of the run (``steps``), of a group, whose
            value is then a mapping or a dataclass (``ppo={"epochs": 2}``), of a field in one of the
            groups (``num_agents``), or written with its groups (``"malt.imitation.epochs"``).

    Raises:
        ValueError: a name is unknown, stands for several fields or sets one twice; or a value does
            not suit its field. Names the near or the possible ones.
    """
    places = places_of(type(start))
    written = asdict(start)
    taken: dict[str, str] = {}
    for name in given:
        place = _place_of(name, places)
        if place in taken:
            raise ValueError(f"{taken[place]} and {name} are one setting: leave one of them out")
        taken[place] = name
    for place in sorted(taken):  # groups before their fields
        _put(written, place, _plain(given[taken[place]]))
    made: R = from_dict(type(start), written)
    return made


def places_of(cls: type[Any]) -> tuple[str, ...]:
    """Return the dotted names of all fields and groups of settings."""
    return tuple(_places(cls))


def _places(cls: type[Any], before: str = "") -> Iterator[str]:
    hints = get_type_hints(cls)
    for field in fields(cls):
        yield f"{before}{field.name}"
        if is_dataclass(hints[field.name]):
            yield from _places(hints[field.name], f"{before}{field.name}.")


def _place_of(name: str, places: tuple[str, ...]) -> str:
    """Return the dotted name that a keyword stands for."""
    if name in places:
        return name
    if MEANT.get(name) in places:
        return MEANT[name]
    found = [place for place in places if place.endswith(f".{name}")]
    # What a warm-up or self-play has as well is meant of the training on debates.
    found = [place for place in found if not place.startswith(BESIDE)] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{name} stands for {', '.join(found)}: name one of them with its groups, as in "
            f'**{{"{found[0]}": ...}}'
        )
    refuse_retired(name)
    known = {place.rpartition(".")[2] for place in places} | set(places)
    near = alike(name, sorted(known), most=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(places)}"
    raise ValueError(f"unknown setting {name}: {hint}")


def _put(written: dict[str, Any], place: str, value: Any) -> None:
    *groups, last = place.split(".")
    for group in groups:
        written = written[group]
    old = written[last]
    written[last] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value) if isinstance(value, Path) else value
