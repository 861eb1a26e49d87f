"""What several tests of foreign environments and games play."""

from __future__ import annotations

import random

from maporl_env.revision.values import Step


def chains(count: int, seed: int = 1) -> list[list[Step]]:
    """A chain of three states in which WAIT changes nothing and pays 0, played by a fair coin."""
    noise, found = random.Random(seed), []
    for _ in range(count):
        state, steps = 0, []
        while state < 3:
            action = "go" if noise.random() < 0.5 else "wait"
            steps.append(Step(state, (action,), float(action == "go" and state == 2)))
            state += action == "go"
        found.append(steps)
    return found
