"""The border between text and tokens of one model, as the settings of a team ask for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from maporl_agents.config import TeamConfig, template_switches
from maporl_agents.text.chat import Chat
from maporl_agents.text.stop_conditions import stop_ids_of
from maporl_agents.text.vocabulary import rows_of


def chat_of(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, config: TeamConfig) -> Chat:
    """Return the chat border of a model, with those switches that its template reads."""
    template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    switches = {
        name: value
        for name, value in template_switches(config.template).items()
        if re.search(rf"\b{name}\b", template)
    }
    return Chat(
        tokenizer,
        stop_ids_of(model),
        rows_of(model.config),
        switches=switches,
        hide_thoughts=config.thoughts == "hidden",
    )


def require_switches(chats: Iterable[Chat], config: TeamConfig) -> None:
    """Raise ValueError for a switch that none of the models' templates reads."""
    known = {name for chat in chats for name in chat.switches}
    for name in template_switches(config.template):
        if name not in known:
            raise ValueError(
                f"team.template: no chat template of {_words(config.model)} reads {name!r}: "
                "leave it out, or name one of the template's variables"
            )


def _words(models: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(models))
