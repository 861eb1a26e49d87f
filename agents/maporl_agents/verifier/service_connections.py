"""Limits the connections of the verifier service, so that slow clients hold no place for long.

uvicorn waits for ever for a request that does not come, and counts the connection. Here the head of
a request has to arrive in time, a request has to come to its end in time, and where all places are
taken a new connection gets the place of one that keeps the service waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar

from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from maporl_agents.verifier.service_queue import Limits


def connections(limits: Limits, full: ASGIApp) -> type[Connection]:
    """Return the protocol class for a web server.

    Args:
        limits: how many connections, and how long they may take.
        full: answers the requests of a connection that there is no place for.
    """

    class Limited(Connection):
        pass

    Limited.limits, Limited.full = limits, staticmethod(full)
    return Limited


class Connection(H11Protocol):
    """One connection: waits for a request, answers it, waits for the next one.

    Attributes:
        since: when it began to wait for its client, in seconds of the event loop's clock.
    """

    limits: ClassVar[Limits]
    full: ClassVar[Any]  # an ASGIApp, held as a staticmethod
    since: float
    _timer: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether the connection waits for its client to send a request, or the rest of one."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or the place of another, and wait for a request."""
        super().connection_made(transport)
        self._limit(self.limits.receive_seconds)
        everybody = [one for one in self.connections if isinstance(one, Connection)]
        same_client = [one for one in everybody if self._host(one) == self._host(self)]
        room = self._make_room(same_client, self.limits.max_client_connections)
        if not (room and self._make_room(everybody, self.limits.max_connections)):
            self.app = self.full

    @staticmethod
    def _host(one: Connection) -> str | None:
        return one.client[0] if one.client else None

    def _make_room(self, present: Iterable[Connection], most: int) -> bool:
        """Return whether there is a place, after ending who has waited longest if there is none."""
        present = [one for one in present if one in self.connections]
        if len(present) <= most:
            return True
        waiting = [one for one in present if one.waits and one is not self]
        if waiting:
            min(waiting, key=lambda one: one.since).end()
        return bool(waiting)

    def handle_events(self) -> None:
        """Note a request that begins: it may take as long as reading and scoring may."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._limit(2 * self.limits.receive_seconds + self.limits.answer_seconds)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._limit(self.limits.receive_seconds)
        super().on_response_complete()

    def _limit(self, seconds: float) -> None:
        """End the connection after some time, unless this is called again before."""
        self._cancel()
        self.since = self.loop.time()
        self._timer = self.loop.call_later(seconds, self.end)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Give the place back at once, whatever the client does or fails to do."""
        self._cancel()
        self.connections.discard(self)
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._cancel()
        super().connection_lost(exc)
