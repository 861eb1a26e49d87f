"""The one seed function: every stream of random numbers is named by what it is for."""

from __future__ import annotations

import hashlib
import json


def seed_of(*name: int | str) -> int:
    """Return a 63-bit seed for a stream named by its run seed and purpose.

    Stable across processes and platforms (`hash()` is neither). Naming streams by step instead of
    carrying generator state makes a resumed run continue exactly where it was cut.

    Example: ``seed_of(config.seed, "rollout", step, turn)``.
    """
    digest = hashlib.blake2b(json.dumps(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
