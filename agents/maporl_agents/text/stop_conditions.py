"""Stop conditions of generation: the tokens and texts (stop strings) that end a message.

A message ends at the first of

- a stop token, one of `Chat.stop_ids`: the tokenizer's EOS, those of the model's generation config,
  and the token that its chat template closes an agent's message with;
- a stop text of the settings, or of what asked for the message;
- the limit of tokens (`play.limits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from maporl_agents.config import Sampling
from maporl_agents.types import Request, StopReason

if TYPE_CHECKING:
    from maporl_agents.text.chat import Chat


def stop_ids_of(model: PreTrainedModel) -> list[int]:
    """Return the ids that end a message by the generation config of a model."""
    stop_ids = model.generation_config.eos_token_id if model.generation_config else None
    return [stop_ids] if isinstance(stop_ids, int) else list(stop_ids or [])


def stops_of(request: Request, sampling: Sampling) -> tuple[str, ...]:
    """Return the texts that end what is written."""
    return (*sampling.stops_of(request.agent), *request.stops)


def stop_reason(chat: Chat, ids: Sequence[int], texts: Sequence[str]) -> StopReason | None:
    """Return why the newest id ends a message, its limit aside; None if it does not."""
    if ids[-1] in chat.stop_ids:
        return StopReason.EOS
    if texts and chat.completes(ids, texts):
        return StopReason.TEXT
    return None


def first_stop(chat: Chat, ids: Sequence[int], texts: Sequence[str]) -> tuple[int, StopReason]:
    """Return after how many ids a message ends, and why; it is cut by its limit if nothing else."""
    for count in range(1, len(ids) + 1):
        seen = ids[:count] if texts else ids[count - 1 : count]
        if (reason := stop_reason(chat, seen, texts)) is not None:
            return count, reason
    return len(ids), StopReason.LENGTH


def completes_text(chat: Chat, ids: Sequence[int], texts: Sequence[str]) -> bool:
    """Return whether the text of the newest ids contains one of the stop texts.

    Texts in thoughts do not count.

    Asked after every id, this is True at the one that completes the first of them. An id is at
    least a byte of text, but for the odd one at a start, so the newest ids hold what is new.
    """
    ids = chat.shown(tuple(ids))
    reach = max(len(text.encode()) for text in texts) + 4
    newest = chat.decode(ids[-reach:])
    return any(text in newest and text in chat.decode(ids) for text in texts)
