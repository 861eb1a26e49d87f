"""Debates and experience for tests of metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from miniatures import make_transcript

from maporl_agents.types import Completion, Rollout, StopReason


def box(answer: object) -> str:
    return f"\\boxed{{{answer}}}"


# --- Rollouts -----------------------------------------------------------------


def make_rollout(
    texts: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float | None]],
    *,
    lengths: Sequence[int] | None = None,
    cut: Sequence[int] = (),
    rewards: Sequence[Sequence[float]] | None = None,
    num_turns: int = 0,
) -> Rollout:
    """Rewards and mask have `num_turns` rows as the environment's have; unplayed ones are 0."""
    transcript = make_transcript(texts, scores=scores)  # the key is 5
    count = len(transcript.messages)
    sizes = lengths or [1] * count
    completions = tuple(
        Completion(
            (1,) * size, (-1.0,) * size, "", StopReason.LENGTH if i in cut else StopReason.EOS
        )
        for i, size in enumerate(sizes)
    )
    paid = np.zeros((max(num_turns, len(texts)), len(texts[0])))
    if rewards is not None:
        paid[: len(texts)] = rewards
    scored = np.zeros(paid.shape, bool)
    scored[: len(texts)] = [[score is not None for score in row] for row in scores]
    return Rollout(transcript, ((0,),) * count, completions, ("all",) * count, paid, scored)
