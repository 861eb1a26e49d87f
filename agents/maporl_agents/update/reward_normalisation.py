"""Reward normalisation: rewards over the running standard deviation of all rewards of the run.

Rewards are divided and not shifted: a shift would change the task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from maporl_agents.types import TokenBatch


def over_running_std(batch: TokenBatch, spread: RunningSpread) -> TokenBatch:
    """Add the rewards of a batch to the statistics; return it with its rewards divided by them."""
    if not len(batch):
        return batch
    spread.add(batch.rewards)
    return replace(batch, rewards=batch.rewards / spread.std)


@dataclass
class RunningSpread:
    """Running mean and standard deviation of all rewards of a run (Chan et al. 1979).

    Attributes:
        count: number of rewards so far.
        mean: their mean.
        squares: sum of their squared distances from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, rewards: Tensor) -> None:
        """Add a batch of rewards, one per message, (B,), B >= 1."""
        new = rewards.double()
        n, mean = len(new), float(new.mean())
        squares = float((new - mean).square().sum())
        gap, total = mean - self.mean, self.count + n
        self.squares += squares + gap * gap * self.count * n / total
        self.mean += gap * n / total
        self.count = total

    @property
    def std(self) -> float:
        """Sample standard deviation (over count - 1); 1 while it is zero."""
        return math.sqrt(self.squares / max(self.count - 1, 1)) or 1.0
