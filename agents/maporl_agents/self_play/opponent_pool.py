"""The pool of past versions: weights on disk, and which of them a step is played against."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maporl_agents.config import Opponents
from maporl_agents.models.team import Team
from maporl_agents.records import checkpoint_folder
from maporl_agents.seeding import seed_of
from maporl_agents.self_play.ratings import Ratings, expected_score
from maporl_agents.training.checkpointing import load_weights

FOLDER = "pool"
"""In a run's folder: a checkpoint without optimiser for each version."""
ALL = 10**9
"""Versions that one more leaves where they are."""


def candidates(step: int, every: int, most: int) -> list[int]:
    """Return the versions that the step after `step` steps may be played against, in order.

    The untrained team, 0, and the newest of those that joined every `every` steps; `most` in all.
    """
    joined = list(range(every, step + 1, every))
    return [0, *joined[-(most - 1) :]]


class Pool:
    """The versions of a run on disk. Made by `run`.

    Args:
        folder: of the run.
        opponent: a team of the same settings, whose weights are replaced by those of a version.
    """

    def __init__(self, folder: Path, opponent: Team) -> None:
        self.folder = folder / FOLDER
        self.opponent = opponent
        self._loaded: int | None = None

    def add(self, step: int, team: Team) -> None:
        """Keep the team as it is after a step.

        Raises:
            CheckpointError: it could not be written.
        """
        checkpoint_folder.save(self.folder, step, team.save, keep=ALL)
        if self._loaded == step:
            self._loaded = None

    def keep_only(self, versions: Sequence[int]) -> None:
        """Remove all other versions from the disk."""
        for path in self.folder.glob("step-*[0-9]"):
            if checkpoint_folder.step_of(path) not in versions:
                shutil.rmtree(path)

    def take(self, version: int) -> Team:
        """Return the opponent with the weights of a version.

        Raises:
            CheckpointError: they are not there, or damaged.
        """
        if self._loaded != version:
            folder = self.folder / f"step-{version:06d}"
            checkpoint_folder.verify(folder)
            load_weights(folder, self.opponent)
            self._loaded = version
        return self.opponent


def drawn(versions: Sequence[int], ratings: Ratings, rule: Opponents, seed: int, step: int) -> int:
    """Return the version that a step is played against: a function of these arguments alone.

    By rating, a version's chance is proportional to its expected score against the team.
    """
    if rule == "latest":
        return versions[-1]
    weights = np.ones(len(versions))
    if rule == "rating":
        weights = np.array([expected_score(ratings.versions[v], ratings.now) for v in versions])
    rng = np.random.default_rng(seed_of(seed, "opponent", step))
    return int(rng.choice(versions, p=weights / weights.sum()))
