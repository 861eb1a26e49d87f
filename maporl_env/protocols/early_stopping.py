"""Early stopping of a debate: it may end before its last turn because all agents agree."""

from __future__ import annotations

import typing
from typing import Literal

from maporl_env.protocols.observation_layout import answers_of_turn
from maporl_env.types import Transcript

Stop = Literal["fixed", "consensus"]
"""When a debate ends: after its last turn, or already after a turn of `consensus`."""


def require_stop(stop: str) -> None:
    """Raise ValueError, which names the valid values, for an unknown value of `stop`."""
    if stop not in typing.get_args(Stop):
        raise ValueError(f"unknown stop {stop!r}: choose one of fixed, consensus")


def stops_early(stop: Stop, history: Transcript) -> bool:
    """Return whether a debate ends now, between two turns, by its rule for stopping."""
    if stop != "consensus" or not history.turn:
        return False
    between_turns = len(history.messages) == history.turn * len(history.agents)
    return between_turns and consensus(history)


def consensus(history: Transcript) -> bool:
    """Whether all valid answers of the last complete turn agree, and there is at least one."""
    valid = {a for a in answers_of_turn(history, history.turn - 1) if a is not None}
    return len(valid) == 1
