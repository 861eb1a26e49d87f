"""Thoughts: the part of a message that reasoning models write before their answer.

Where the chat template of a model knows marks for it, what stands between them is sampled and
trained on like all else, and is not shown: not to the other agents, not to the verifier, and, as
the templates of these models do, not to the agent itself in later turns.

    <think> ... </think> answer          Qwen3, DeepSeek-R1, SmolLM3
    [THINK] ... [/THINK] answer          Magistral
    <|channel|>analysis<|message|> ... <|channel|>final<|message|> answer        gpt-oss
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from maporl_agents.types import TokenIds

MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""Begin and end of thoughts."""
CHANNEL, BODY, END, START = "<|channel|>", "<|message|>", "<|end|>", "<|start|>"
"""Control tokens of the format of gpt-oss."""
ANSWERS = "final"
"""The channel that is shown."""


class Thoughts(Protocol):
    """How one chat template marks thoughts."""

    @property
    def closing(self) -> TokenIds:
        """Ids that end a thought and begin the answer."""

    @property
    def inner(self) -> frozenset[int]:
        """Ids that end a part of a message, and so no whole one."""

    def shown(self, ids: TokenIds) -> TokenIds:
        """Return the ids of a message that are no thoughts, the one that ended it included."""

    def thinking(self, ids: Sequence[int]) -> bool:
        """Return whether the id after these would be part of a thought."""


@dataclass(frozen=True)
class MarkedThoughts:
    """Thoughts between two marks.

    What is shown begins after the last end mark and the white space that follows it. A mark that
    begins another thought ends it. A message without marks is shown as a whole, or not at all if
    its prompt begins a thought.

    Attributes:
        begin: id of the mark.
        end: id of the mark.
        open: whether the prompt of a message ends with the first mark.
        blank: whether an id is nothing but white space.
        stops: ids that end a message.
    """

    begin: int
    end: int
    open: bool
    blank: Callable[[int], bool]
    stops: frozenset[int]
    closing: TokenIds
    inner: frozenset[int] = frozenset()

    def shown(self, ids: TokenIds) -> TokenIds:
        """Return the ids that are no thoughts."""
        last = ids[-1:] if ids and ids[-1] in self.stops else ()
        body = ids[: len(ids) - len(last)]
        if self.end in body:
            body = body[len(body) - body[::-1].index(self.end) :]
            while body and self.blank(body[0]):
                body = body[1:]
        elif self.open:
            return last
        if self.begin in body:
            body = body[: body.index(self.begin)]
        return body + last

    def thinking(self, ids: Sequence[int]) -> bool:
        """Return whether the newest mark begins a thought."""
        newest = next((x for x in reversed(ids) if x in (self.begin, self.end)), None)
        return self.open if newest is None else newest == self.begin


@dataclass(frozen=True)
class ChannelThoughts:
    """Thoughts on a channel of their own; the answer is what stands on the channel `ANSWERS`.

    A message without channels is shown as a whole.

    Attributes:
        channel: id of the token before the name of a channel.
        body: id of the token before its text.
        answers: ids of the name of the channel that is shown.
        stops: ids that end a message.
    """

    channel: int
    body: int
    answers: TokenIds
    stops: frozenset[int]
    closing: TokenIds
    inner: frozenset[int]

    def shown(self, ids: TokenIds) -> TokenIds:
        """Return the ids of the last answer."""
        if self.channel not in ids:
            return ids
        last = ids[-1:] if ids[-1] in self.stops else ()
        found: TokenIds = ()
        for place in (i for i, x in enumerate(ids) if x == self.channel):
            part = ids[place + 1 : len(ids) - len(last)]
            if self._answers(part):
                text = part[part.index(self.body) + 1 :]
                ends = [i for i, x in enumerate(text) if x in (*self.inner, self.channel)]
                found = text[: min(ends, default=len(text))]
        return found + last

    def thinking(self, ids: Sequence[int]) -> bool:
        """Return whether the newest channel is none that is shown."""
        places = [i for i, x in enumerate(ids) if x == self.channel]
        return not (places and self._answers(tuple(ids[places[-1] + 1 :])))

    def _answers(self, part: TokenIds) -> bool:
        return self.body in part and part[: len(self.answers)] == self.answers


def thoughts_of(
    tokenizer: PreTrainedTokenizerBase, template: str, cue: str, stops: frozenset[int]
) -> Thoughts | None:
    """Return how a chat template marks thoughts; None if it knows no marks.

    Marks that are no single tokens of the tokenizer are warned of: such thoughts are shown.

    Args:
        tokenizer: of the model.
        template: its chat template.
        cue: what the template writes before a message that is to be written.
        stops: ids that end a message.
    """
    known = tokenizer.get_vocab()
    if CHANNEL in template and f"{CHANNEL}{ANSWERS}" in template:
        marks = [CHANNEL, BODY, END, START]
        if _are_tokens(tokenizer, marks):
            inner = frozenset({known[END], known[START]})
            return ChannelThoughts(
                channel=known[CHANNEL],
                body=known[BODY],
                answers=_ids(tokenizer, ANSWERS),
                stops=stops,
                closing=_ids(tokenizer, f"{END}{START}assistant{CHANNEL}{ANSWERS}{BODY}"),
                inner=inner,
            )
    for begin, end in MARKS:
        if end in template and _are_tokens(tokenizer, [begin, end]):
            return MarkedThoughts(
                begin=known[begin],
                end=known[end],
                open=cue.rfind(begin) > cue.rfind(end),
                blank=lambda x: not tokenizer.decode([x]).strip(),
                stops=stops,
                closing=(known[end], *_ids(tokenizer, "\n\n")),
            )
    return None


def _are_tokens(tokenizer: PreTrainedTokenizerBase, marks: Sequence[str]) -> bool:
    missing = [mark for mark in marks if len(_ids(tokenizer, mark)) != 1]
    if missing:
        warnings.warn(
            f"the chat template of {tokenizer.name_or_path!r} knows {missing[0]!r}, which is no "
            "token of its tokenizer: thoughts are shown like the rest of a message",
            stacklevel=4,
        )
    return not missing


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> TokenIds:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
