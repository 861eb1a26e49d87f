"""Making a protocol from its name and options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Any

from maporl_env.protocols import PROTOCOLS
from maporl_env.protocols.base import Protocol
from maporl_env.similar_names import require_choice
from maporl_env.user_functions import function_named

PROTOCOL_PARTS = ("num_turns", "simultaneous", "speakers", "view", "response", "outcome")


def maker_of(name: str) -> Callable[..., Protocol]:
    """Return the callable that makes a protocol: registered by name, or the user's own."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    try:
        return function_named(name)
    except ValueError as error:
        raise ValueError(f"protocol {error}") from error


def make_protocol(
    name: str,
    make: Callable[..., Protocol],
    wanted: Mapping[str, Any],
    own: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> Protocol:
    """Build a protocol from the options it has fields for, and from its own.

    Args:
        name: of the protocol, for errors.
        make: makes it.
        wanted: options of the debate.
        own: options of the protocol alone.
        defaults: of the options of every debate, of which those at their default are silent.

    Raises:
        ValueError: an option that the protocol does not have, or something that is no protocol.
    """
    known = parameters_of(make)
    for option, value in wanted.items():
        silent = option in ("template", "num_turns") or value == defaults.get(option, MISSING)
        if option not in known and not silent:
            raise ValueError(
                f"protocol {name!r} has no option {option!r}; it has {', '.join(sorted(known))}"
            )
    for option in own:
        if option in defaults:
            raise ValueError(f"{option} is an option of every debate: leave it out of the protocol")
        if option not in known:
            further = tuple(sorted(known - set(defaults)))
            if not further:
                raise ValueError(f"protocol {name!r} has no options of its own, such as {option}")
            require_choice(f"option of protocol {name!r}", option, further)
    given = {option: value for option, value in wanted.items() if option in known}
    protocol = make(**{**given, **own})
    missing = [part for part in PROTOCOL_PARTS if not hasattr(protocol, part)]
    if missing:
        raise ValueError(f"protocol {name!r} makes no protocol: it has no {', '.join(missing)}")
    return protocol


def parameters_of(make: Callable[..., Any]) -> set[str]:
    """Return the names of the options that a callable takes."""
    return set(inspect.signature(make).parameters)
