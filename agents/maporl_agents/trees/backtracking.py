"""Texts that start wrong and recover, made of several samples of one prompt, for imitation.

MLPO's supervised stage (arXiv 2507.08960, from secondary descriptions): of a question without a
right sample nothing is taken, of one without a wrong sample a right one, and of the others a text
that starts as a wrong sample does, says so, and goes on as a right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from maporl_agents.text.chat import Chat
from maporl_agents.types import Completion

Case = Literal["none right", "all right", "recovers", "too long"]


def example_of(
    samples: Sequence[Completion], right: Sequence[bool], words: str, limit: int, chat: Chat
) -> tuple[Completion | None, Case]:
    """Return what is imitated of the samples of one prompt, if anything, and which case it is.

    The ids are those that were sampled; the words between alone are encoded. A text that recovers
    ends in the right answer, which is the one that is read.

    Args:
        samples: at least one, of one prompt.
        right: whether each is right.
        words: stand between a wrong sample and a right one.
        limit: the most tokens of a message. A longer text could not be sampled, and is not taken.
        chat: of the model that wrote the samples.
    """
    good = [one for one, is_right in zip(samples, right, strict=True) if is_right]
    bad = [one for one, is_right in zip(samples, right, strict=True) if not is_right]
    if not good:
        return None, "none right"
    if not bad:
        return good[0], "all right"
    first, last = bad[0], good[0]
    begun = first.ids[:-1] if first.ids[-1] in chat.stop_ids else first.ids
    ids = (*begun, *chat.encode(words), *last.ids)
    if len(ids) > limit:
        return None, "too long"
    text = chat.decode(ids)
    return Completion(ids, (0.0,) * len(ids), text, last.stop), "recovers"
