"""Messages whose authors call tools: written in parts, with the result of a call behind each.

A call's end tag ends a part, as a stop text would. The tool is run, its result encoded as foreign
text is (no control token comes out of it), and the author goes on behind it: the ids of a message
are what it sampled and what it then read, each as it was, so that the caches of the prompt hold.
Only the author's own part is searched for a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.text.chat import Chat
from maporl_agents.types import Completion, KeptIds, Request, StopReason, TokenIds
from maporl_env.tools import Call, Toolbox
from maporl_env.tools.toolbox import block
from maporl_env.types import Insertions, WithResults

Write = Callable[[Sequence[Request]], Sequence[Completion]]
"""Writes one part, or a whole message, per request."""


def write_with_tools(
    write: Write, team: Team, asked: Sequence[Request], sampling: Sampling, tools: Toolbox
) -> list[Completion]:
    """Return one message per request, with the results of its calls among its ids.

    Args:
        write: the engine.
        team: the models.
        asked: the requests.
        sampling: the limit of a message is that of the tokens its author writes; `tool_tokens` is
            that of one result.
        tools: that agents may call.

    Raises:
        ValueError: a model's thoughts are hidden or limited, so that its calls would be too.
    """
    require_shown(team, sampling)
    messages = [_Message(one, team.base_of(one.policy).chat, sampling, tools) for one in asked]
    going = messages
    while going:
        written = write([one.next_request() for one in going])
        calls = [(one, one.take(part)) for one, part in zip(going, written, strict=True)]
        made = [(one, call) for one, call in calls if call is not None]
        results = tools.answers([call for _, call in made])
        for (one, _), result in zip(made, results, strict=True):
            one.read(result)
        going = [one for one, _ in made]
    return [one.completion() for one in messages]


def tokens_of_results(tools: Toolbox | None, sampling: Sampling) -> int:
    """Return the most tokens that tools can add to a message."""
    return 0 if tools is None else tools.calls * sampling.tool_tokens


def require_shown(team: Team, sampling: Sampling) -> None:
    """Raise ValueError if thoughts of a model are hidden or limited; for teams with tools."""
    for base in team.bases:
        if base.chat.hides:
            raise ValueError(
                f"the thoughts of {base.chat.tokenizer.name_or_path!r} are hidden, and with them "
                "the calls of tools in them: set team.thoughts='shown', or leave out game.tools"
            )
    if sampling.max_thinking_tokens is not None:
        raise ValueError(
            "sampling.max_thinking_tokens counts from the start of a message, and game.tools "
            "divides messages: leave one of them out"
        )


@dataclass
class _Message:
    """A message that is being written: its parts so far, and the results between them."""

    request: Request
    chat: Chat
    sampling: Sampling
    tools: Toolbox
    parts: list[Completion] = field(default_factory=list)
    results: list[tuple[str, TokenIds]] = field(default_factory=list)

    def next_request(self) -> Request:
        """Return the request for the next part."""
        ids = [token for piece, _ in self._pieces() for token in piece]
        more = len(self.results) < self.tools.calls
        return replace(
            self.request,
            prompt=(*self.request.prompt, *ids),
            part=len(self.parts),
            limit=self._room(),
            stops=self.tools.ends if more else (),
            keep=self.request.keep or more,
        )

    def _room(self) -> int:
        """Return how many tokens the author may still write."""
        limit = self.sampling.limit_of(self.request.agent, self.request.turn)
        return limit - sum(len(part.ids) for part in self.parts)

    def take(self, part: Completion) -> Call | None:
        """Add a part; return the call that it ends with, or None where the message ends."""
        self.parts.append(part)
        ends = self.sampling.stops_of(self.request.agent)
        if part.stop is not StopReason.TEXT or any(end in part.text for end in ends):
            return None
        call = self.tools.call_in(part.text)
        if call is not None and self._room() < 1:
            self.parts[-1] = replace(part, stop=StopReason.LENGTH)
            return None
        return call

    def read(self, result: str) -> None:
        """Add the result of the last call, shortened to `tool_tokens`."""
        text = block(result)
        while len(ids := self.chat.encode(text)) > self.sampling.tool_tokens and result:
            fits = self.sampling.tool_tokens / len(ids)
            result = result[: int(len(result) * min(fits, 0.9))]
            text = block(f"{result} [...]")
        self.results.append((text, tuple(ids)))

    def _pieces(self) -> Iterator[tuple[TokenIds, Completion | None]]:
        """Yield the ids of each part, with its completion, and of each result, with None."""
        for number, part in enumerate(self.parts):
            yield part.ids, part
            if number < len(self.results):
                yield self.results[number][1], None

    def completion(self) -> Completion:
        """Return the whole message; as it was written where it has no results."""
        last = self.parts[-1]
        if not self.results:
            return last
        pieces = list(self._pieces())
        valued = all(part.values for part in self.parts)
        return Completion(
            ids=tuple(token for ids, _ in pieces for token in ids),
            logprobs=tuple(x for ids, one in pieces for x in (one.logprobs if one else _no(ids))),
            text=self._text(),
            stop=last.stop,
            values=tuple(x for ids, one in pieces for x in (one.values if one else _no(ids)))
            if valued
            else (),
            kept=_joined_sets([(len(ids), one.kept if one else None) for ids, one in pieces]),
            served=last.served,
            results=self._spans(),
        )

    def _spans(self) -> tuple[tuple[int, int], ...]:
        """Return where among the ids each result stands."""
        spans, place = [], 0
        for ids, part in self._pieces():
            if part is None:
                spans.append((place, place + len(ids)))
            place += len(ids)
        return tuple(spans)

    def _text(self) -> WithResults:
        """Return the author's own words, decoded as one text, with the results beside."""
        own: tuple[int, ...] = ()
        places = []
        for part in self.parts:
            own = (*own, *part.ids)
            places.append(len(self.chat.decode(own)))
        found: Insertions = tuple(
            (place, text) for place, (text, _) in zip(places, self.results, strict=False)
        )
        return WithResults(self.chat.decode(own), found, shown=self.tools.shown)


def _no(ids: TokenIds) -> tuple[float, ...]:
    return (0.0,) * len(ids)


def _joined_sets(pieces: Sequence[tuple[int, KeptIds | None]]) -> KeptIds | None:
    """Return the kept sets of pieces as those of one message; None where no piece has any.

    A token of a result has no set, and is written as if its own were the whole vocabulary.
    """
    if not any(kept for _, kept in pieces):
        return None
    counts: list[int] = []
    forced: list[int] = []
    for length, kept in pieces:
        forced += [len(counts) + place for place in (kept.forced if kept else ())]
        counts += kept.counts if kept else (0,) * length
    ids = b"".join(kept.ids for _, kept in pieces if kept)
    return KeptIds(tuple(counts), ids, tuple(forced))
