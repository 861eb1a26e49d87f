"""Which settings act in which run, so that one that would do nothing is refused.

The tables say which fields a scheme `NEVER` reads (`never`) and `WHERE` others act (`conditions`);
the rest always do, as `tests/agents/config/test_effects.py` lists: a new field has to be placed. A
setting at its scheme's default is never refused, nor is one that says the same as the default in
other words (`train_agents` with every agent, a list of equal models). What a field does stands
under it in `config`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from maporl_agents.config import RunConfig, scheme_of
from maporl_agents.config.conditions import NO_PAIRS, WHERE
from maporl_agents.config.never import NEVER
from maporl_agents.config.run_facts import learns_from_pairs


def refuse_without_effect(config: RunConfig, kept: RunConfig | None = None) -> None:
    """Refuse settings that would change nothing.

    Args:
        config: of the run.
        kept: settings that are as in these are not looked at: those of a run that goes on; None
            for the defaults of the scheme.

    Raises:
        ValueError: names the first such setting, the scheme, and what it needs to act.
    """
    scheme = scheme_of(config)
    if scheme not in NEVER:  # one's own, which knows its settings itself
        return
    usual = dict(leaves(type(config)() if kept is None else kept))
    _refuse_no_training(config, usual)
    for name, value in leaves(config):
        if name in usual and value == usual[name]:
            continue
        if why := why_never(scheme, name):
            raise ValueError(f"{name} {why}")
        if why := why_idle(config, name):
            raise ValueError(f"{name}={value!r} would do nothing in this run of {scheme}: {why}")


def _refuse_no_training(config: RunConfig, usual: dict[str, Any]) -> None:
    """Refuse a run that trains no weights."""
    if config.team.tuning == "none" and usual["team.tuning"] != "none":
        raise ValueError(
            "team.tuning='none' trains no weights, so the run would learn nothing: choose full or "
            "lora (`maporl eval` measures models that are not trained)"
        )


def why_never(scheme: str, name: str) -> str | None:
    """Return why a scheme never reads a setting; None if it may."""
    for field, why in NEVER.get(scheme, {}).items():
        if f"{name}.".startswith(f"{field}."):
            return why.format(scheme)
    return None


ABOUT_DEBATES = ("game.", "warmup.", "eval.", "single_agent", "team.partners")
"""Settings, or groups of them, that self-play does not read."""


def why_idle(config: RunConfig, name: str) -> str | None:
    """Return why a setting does nothing beside the others of a run; None if it acts."""
    if config.self_play.game and name.startswith(ABOUT_DEBATES) and name != "eval.seed":
        return "it is about debates, and self_play.game plays another game"
    if name.startswith("malt.preference.") and not learns_from_pairs(config):
        return NO_PAIRS
    where = WHERE.get(name)
    return None if where is None or where.holds(config) else where.why_not


def leaves(settings: Any, group: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting that is no group as (dotted name, value)."""
    for field in fields(settings):
        name, value = (
            f"{group}.{field.name}" if group else field.name,
            getattr(settings, field.name),
        )
        if is_dataclass(value):
            yield from leaves(value, name)
        else:
            yield name, value
