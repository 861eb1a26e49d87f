"""The limit of tokens and the random numbers of a message, or of a part of one behind a result."""

from __future__ import annotations

from maporl_agents.config import Sampling
from maporl_agents.seeding import seed_of
from maporl_agents.types import Request


def limit_of(request: Request, sampling: Sampling) -> int:
    """Return the most tokens that may be written."""
    if request.limit is not None:
        return request.limit
    return sampling.limit_of(request.agent, request.turn)


def stream_of(request: Request, seed: int) -> int:
    """Return the name of the random numbers."""
    parts = (request.part,) if request.part else ()
    return seed_of(seed, request.debate, request.agent, *parts)
