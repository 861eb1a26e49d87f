"""How critics read the hidden reference of a question: as text before what they read anyway."""

from __future__ import annotations

from maporl_agents.text.chat import Chat
from maporl_agents.types import TokenIds

REFERENCE = "The reference, which the assistant does not know:\n{reference}\n\n"


def with_reference(chat: Chat, prompt: TokenIds, reference: str) -> TokenIds:
    """Return a prompt behind the hidden reference; as it is where there is none.

    A token that begins a text stays the first one.
    """
    if not reference:
        return prompt
    begun = prompt[:1] if prompt[:1] == (chat.tokenizer.bos_token_id,) else ()
    told = chat.encode(REFERENCE.format(reference=reference))
    return (*begun, *told, *prompt[len(begun) :])
