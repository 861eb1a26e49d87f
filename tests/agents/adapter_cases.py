"""Messages of every agent and turn, whose prompts nest, as a batch of tokens."""

from __future__ import annotations

import numpy as np
from miniatures import make_rollout

from maporl_agents.models.team import Team
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import collate


def make_batch(team: Team, turns: int = 2) -> TokenBatch:
    """Debates whose messages nest, of unequal length."""
    n = team.num_agents
    prompts, ids = [], []
    for turn in range(turns):
        for seat in range(n):
            before = (5, 6, 7 + seat) if not turn else (5, 6, 7 + seat, 8 + seat, 9, 40, 41)
            prompts.append(before)
            ids.append((8 + seat, 9) if not turn else (20, 21 + seat, 22)[: 2 + seat % 2])
    rewards = np.arange(turns * n, dtype=float).reshape(turns, n)
    return collate(team, [make_rollout(team, prompts, ids, rewards=rewards)])[0]
