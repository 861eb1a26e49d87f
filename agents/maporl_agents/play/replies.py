"""From a server's answer to a message: where it ends, what its text is, who should have spoken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maporl_agents.config import Sampling
from maporl_agents.models.bases import Base
from maporl_agents.play.limits import limit_of
from maporl_agents.play.spoken import Spoken
from maporl_agents.play.vllm_client import Written
from maporl_agents.play.weight_sync import Version
from maporl_agents.text.chat import Chat
from maporl_agents.text.stop_conditions import first_stop, stops_of
from maporl_agents.types import Completion, Request, StopReason
from maporl_env.services.http_json import RemoteGarbage


@dataclass(frozen=True)
class ServedReply:
    """The answer to a request before it is a message.

    Text is made of it in the thread that asked, since tokenizers are not for several threads.

    Attributes:
        server: name of the server that wrote it.
        base: the model that reads it.
        version: of the adapters that it was asked of.
        request: what was asked for.
        sampling: limits, stop texts and temperature.
        written: the answer.
        note: told the message and whose it should be.
    """

    server: str
    base: Base
    version: Version
    request: Request
    sampling: Sampling
    written: Written
    note: Callable[[Spoken], None]

    def completion(self) -> Completion:
        """Return the message, cut where it ends by the rules of `stop_conditions`.

        Raises:
            RemoteGarbage: the server ended a message that nothing ends.
        """
        request, written, chat = self.request, self.written, self.base.chat
        stops = stops_of(request, self.sampling)
        ids = known(chat, written.ids)
        count, stop = first_stop(chat, ids, stops)
        limit = limit_of(request, self.sampling)
        if stop is StopReason.LENGTH and not written.cut and len(written.ids) < limit:
            if not stops:
                raise RemoteGarbage(f"{self.server} ended a message that nothing ends")
            stop = StopReason.TEXT  # seen by the server where the tokenizer decodes otherwise
        ids, logprobs = ids[:count], written.logprobs[:count]
        message = Completion(ids, logprobs, chat.shown_text(ids), stop, served=True)
        if heat := self.sampling.temperature:
            adapter = self.base.adapter_of(request.policy)
            whose = self.server, self.base, adapter, self.version
            self.note(Spoken(*whose, request.prompt, message, heat))
        return message


def known(chat: Chat, ids: Sequence[int]) -> tuple[int, ...]:
    """Return the ids before the first that the tokenizer does not have."""
    size, gaps = chat.vocabulary.size, set(chat.vocabulary.gaps)
    end = next((n for n, one in enumerate(ids) if one >= size or one in gaps), len(ids))
    return tuple(ids[:end])
