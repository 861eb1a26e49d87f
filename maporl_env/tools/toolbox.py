"""The tools of a debate: how a call is written, what one message may ask for, what comes back.

A text is searched for calls only where its author has written it, piece by piece: what a tool
returns is never read as a call, whatever it looks like.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from maporl_env.protocols.knowledge import clean
from maporl_env.types import Insertions, WithResults, inserted

RESULT = "result"
"""The tag around what a tool returns."""
NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Names that tools may have."""
_LOGGER = logging.getLogger(__name__)


class Tool(Protocol):
    """A tool. Its `run` returns a text for whatever text it is given."""

    @property
    def name(self) -> str:
        """The name that calls are tagged with."""

    @property
    def use(self) -> str:
        """One sentence for the agents: what stands between the tags, and what comes back."""

    def run(self, inputs: Sequence[str]) -> Sequence[str]:
        """Return one result per input."""


class Call(NamedTuple):
    """A call at the end of a text.

    Attributes:
        name: of the tool.
        input: what stands between the tags; None where the begin tag is missing.
        end: number of characters of the text up to the end of the call.
    """

    name: str
    input: str | None
    end: int


@dataclass(frozen=True)
class Toolbox:
    """The tools that agents may call, and the limits of a message.

    Attributes:
        tools: at least one, each with a name of its own.
        calls: the most calls in one message; a later one is text like any other.
        chars: the most characters of a result; what is beyond is left out, with a note.
        shown: whether the other agents read results. Their author always does.

    Raises:
        ValueError: no tool, two of one name, a name that cannot be a tag, or a limit below 1.
    """

    tools: tuple[Tool, ...]
    calls: int = 3
    chars: int = 1000
    shown: bool = True

    def __post_init__(self) -> None:
        if not self.tools:
            raise ValueError("a toolbox needs at least one tool")
        names = [tool.name for tool in self.tools]
        for name in names:
            if not NAME.fullmatch(name) or name == RESULT:
                raise ValueError(
                    f"a tool cannot be called {name!r}: take small letters, digits and _, and not "
                    f"{RESULT!r}"
                )
            if names.count(name) > 1:
                raise ValueError(f"two tools are called {name!r}: leave one out, or rename it")
        for limit in ("calls", "chars"):
            value = getattr(self, limit)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{limit} must be an integer >= 1, not {value!r}")

    @property
    def ends(self) -> tuple[str, ...]:
        """The texts that end a call, in order of the tools."""
        return tuple(f"</{tool.name}>" for tool in self.tools)

    @property
    def instruction(self) -> str:
        """What agents are told about their tools."""
        each = "\n".join(f"- <{tool.name}>...</{tool.name}>: {tool.use}" for tool in self.tools)
        return (
            f"You may call tools inside your message, at most {self.calls} times; the result "
            f"follows the call in <{RESULT}> tags, and you write on.\n{each}"
        )

    def call_in(self, text: str) -> Call | None:
        """Return the first call of a text that its author wrote; None if no end tag is in it."""
        places = [(text.find(f"</{tool.name}>"), tool.name) for tool in self.tools]
        found = [(place, name) for place, name in places if place >= 0]
        if not found:
            return None
        place, name = min(found)
        begin = f"<{name}>"
        start = text.rfind(begin, 0, place)
        given = None if start < 0 else text[start + len(begin) : place]
        return Call(name, given, place + len(f"</{name}>"))

    def answers(self, calls: Sequence[Call]) -> list[str]:
        """Return the result of each call, as it is put behind it, without its tags.

        An error of a tool is a result too.
        """
        results = [""] * len(calls)
        for tool in self.tools:
            places = [i for i, call in enumerate(calls) if call.name == tool.name]
            given = {i: clean(text) for i in places if (text := calls[i].input) is not None}
            for i in places:
                results[i] = f"error: there is no <{tool.name}> before </{tool.name}>"
            for i, result in zip(given, self._run(tool, list(given.values())), strict=True):
                results[i] = result
        return [self.harmless(result) for result in results]

    def harmless(self, result: str) -> str:
        """Return what a tool gave as it is read: cut to `chars`, and without tags of this box."""
        text, more = result[: self.chars], len(result) - self.chars
        text = self._tags.sub("< ", clean(text)).strip() or "(nothing)"
        return f"{text}\n({more} more characters are left out)" if more > 0 else text

    def _run(self, tool: Tool, inputs: Sequence[str]) -> Sequence[str]:
        """Return the results of a tool; its own failure, which is logged once, is that of all."""
        if not inputs:
            return []
        try:
            results = tool.run(inputs)
            if len(results) == len(inputs) and all(isinstance(one, str) for one in results):
                return results
            failure = f"it must return {len(inputs)} texts"
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        if failure not in self._logged:
            self._logged.add(failure)
            _LOGGER.warning("the tool %r failed, and agents read so: %s", tool.name, failure)
        return ["error: the tool failed"] * len(inputs)

    @cached_property
    def _logged(self) -> set[str]:
        """The failures of tools that are logged already."""
        return set()

    @cached_property
    def _tags(self) -> re.Pattern[str]:
        """The first character of a tag."""
        names = "|".join([RESULT, *(tool.name for tool in self.tools)])
        return re.compile(f"<(?=/?(?:{names})>)")

    def message(self, write: Callable[[str], str]) -> WithResults:
        """Return the message of an agent that writes text, with the results of its calls.

        Args:
            write: takes the message so far, results included, and returns what follows. What it
                writes behind a call that is carried out is dropped.
        """
        words = ""
        results: Insertions = ()
        while True:
            piece = write(inserted(words, results))
            call = self.call_in(piece) if len(results) < self.calls else None
            if call is None:
                return WithResults(words + piece, results, shown=self.shown)
            words += piece[: call.end]
            [result] = self.answers([call])
            results = (*results, (len(words), block(result)))


def block(result: str) -> str:
    """Return a result as it stands in a message."""
    return f"\n<{RESULT}>\n{result}\n</{RESULT}>\n"
