"""The vLLM engine: messages written by servers that hold the base model and are sent the adapters.

    with serving(team, sampling, folder):                       # team.engine is set inside
        play(team, debates, questions, sampling, seed=seed)

Every version of the adapters has a name of its own, such as agent_0@3-5e1f09ac, that is never used
again: a server cannot answer by an older one under the same name. Policies that are not trained
speak as the bare base. Debates are spread over the servers; those of a server that is lost go to
the others. After each version the first messages of every server are compared with the trainer's
log-probabilities (`weights_check`): a server that speaks with other weights stops the run. How
adapters get there is the matter of `weight_sync`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from maporl_agents import distributed
from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.limits import limit_of, stream_of
from maporl_agents.play.replies import ServedReply, known
from maporl_agents.play.spoken import Spoken, require_sent_weights
from maporl_agents.play.vllm_client import Ask, VLLMClient, Written, without_answer
from maporl_agents.play.weight_sync import Published, Version
from maporl_agents.seeding import seed_of
from maporl_agents.text.stop_conditions import stops_of
from maporl_agents.types import Completion, Request, StopReason
from maporl_env.services.api_keys import SERVER_KEY, key_from_environment
from maporl_env.services.http_json import (
    RemoteError,
    RemoteGarbage,
    RemoteRefused,
    RemoteUnavailable,
)

_LOGGER = logging.getLogger(__name__)

MOST_AT_ONCE = 512
"""Requests in flight, at most, of all servers together."""
CHECKED = 2
"""Messages of each server, adapter and version that are compared with the trainer."""
TRIES = 3
"""Draws of a message whose first id the tokenizer does not have."""
FIRST_PROMPT = "Question: what is 2 + 3? Answer:"
"""What servers are asked at first, to see which model they hold."""
FIRST_LIMIT = 16


@contextmanager
def serving(team: Team, sampling: Sampling, folder: Path) -> Iterator[None]:
    """Let the servers of the settings, if they name any, write a team's messages in the block.

    Args:
        team: the team.
        sampling: of the run.
        folder: of the run; adapters lie in adapters/NAME beside it, unless `sampling` says where.

    Raises:
        RemoteError: as of `Served`.
    """
    if sampling.engine == "local":
        yield
        return
    servers = [
        VLLMClient(
            url,
            timeout_seconds=sampling.request_seconds,
            retries=sampling.retries,
            token=key_from_environment(SERVER_KEY),
        )
        for url in sampling.url
    ]
    own = folder.parent / "adapters" / folder.name
    with _no_empty_folder_left(own):
        place = Path(sampling.adapters) if sampling.adapters else own
        engine = Served(team, servers, sampling, place)
        team.engine = engine
        try:
            yield
        finally:
            team.engine = None
            engine.close()


@contextmanager
def _no_empty_folder_left(folder: Path) -> Iterator[None]:
    """Remove a folder after the block, and the one it is in, as far as they are empty."""
    try:
        yield
    finally:
        if distributed.is_first():
            with suppress(OSError):
                folder.rmdir()
                folder.parent.rmdir()


class Served:
    """An engine (`speak.Engine`) that asks servers, and sends them adapters that have changed.

    Args:
        team: of which it sends the adapters; bases without adapters speak as they are.
        servers: one or more, all with the team's base model.
        sampling: of the run: limits of requests, and how far log-probabilities may be apart.
        folder: of the adapters, which the servers see under the same path.

    Attributes:
        distance: mean distance between log-probabilities of servers and trainer at the last check,
            the largest of all servers and adapters, in nats per token.

    Raises:
        ValueError: the team has several base models.
        RemoteError: a server does not answer, holds another base, or refuses an adapter.
    """

    def __init__(
        self, team: Team, servers: Sequence[VLLMClient], sampling: Sampling, folder: Path
    ) -> None:
        _require_one_model(team)
        self.team = team
        self.servers = list(servers)
        self.sampling = sampling
        self.distance = 0.0
        self.published = Published(team, folder, kept=1 + sampling.lag)
        self._bare: dict[str, str] = {}
        self._spoken: dict[tuple[str, str | None, int], list[Spoken]] = {}
        self._checked: set[tuple[str, str | None, int]] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="served")
        try:
            for server in self.servers:
                self._meet(server)
            self.publish()
        except BaseException:
            self.close()
            raise

    # -- messages ----------------------------------------------------------------------------

    def __call__(
        self, team: Team, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Completion]:
        """Write one completion per request, by the newest weights, and check who spoke."""
        completions = self.pinned()(team, asked, sampling, seed)
        self.check()
        return completions

    def pinned(self) -> Pinned:
        """Return an engine that speaks with the weights of now, whatever is learnt meanwhile."""
        return Pinned(self, self.publish())

    def begin(
        self, version: Version, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Future[ServedReply]]:
        """Send requests; each result is there as soon as its message is complete."""
        return [self._pool.submit(self._reply, version, one, sampling, seed) for one in asked]

    def _reply(
        self, version: Version, request: Request, sampling: Sampling, seed: int
    ) -> ServedReply:
        """Return the answer to one request; runs in a thread of the pool."""
        base = self.team.base_of(request.policy)
        stream = stream_of(request, seed)
        for attempt in range(TRIES):
            number = seed_of(stream, "again", attempt) if attempt else stream
            server, written = self._written(version, request, sampling, number)
            if known(base.chat, written.ids):
                return ServedReply(
                    server.name, base, version, request, sampling, written, self._note
                )
        raise RemoteGarbage(f"{server.name} writes ids that the tokenizer does not have")

    def _written(
        self, version: Version, request: Request, sampling: Sampling, number: int
    ) -> tuple[VLLMClient, Written]:
        """Ask the debate's own server, and the others where it is lost."""
        base = self.team.base_of(request.policy)
        adapter = base.adapter_of(request.policy)
        first = request.debate % len(self.servers)
        for server in (*self.servers[first:], *self.servers[:first]):
            if server.lost:
                continue
            ask = Ask(
                self._bare[server.name] if adapter is None else version.names[adapter],
                request.prompt,
                limit_of(request, sampling),
                sampling.temperature,
                number,
                base.chat.stop_ids,
                stops_of(request, sampling),
            )
            try:
                return server, self._asked(server, ask, adapter)
            except RemoteError as error:
                self._lose(server, error)
        raise self._none_left()

    def _asked(self, server: VLLMClient, ask: Ask, adapter: str | None) -> Written:
        """Ask a server; one that was restarted is sent the adapter again."""
        try:
            return server.write(ask)
        except RemoteRefused as error:
            if error.status != 404 or adapter is None:
                raise
        self.published.send(server, adapter, ask.model)
        return server.write(ask)

    def _lose(self, server: VLLMClient, error: RemoteError) -> None:
        """Ask a server nothing more until the next version; raises what is no loss."""
        if not without_answer(error):
            raise error
        with self._lock:
            told, server.lost = bool(server.lost), str(error)
        if not told:
            _LOGGER.warning("%s; it is asked again when the weights have changed", error)

    def _none_left(self) -> RemoteUnavailable:
        why = "; ".join(server.lost for server in self.servers)
        return RemoteUnavailable(f"no server is left: {why}; go on with --resume once one is back")

    # -- adapters ----------------------------------------------------------------------------

    def publish(self) -> Version:
        """Return the version of the weights of now, which servers have been sent.

        Raises:
            RemoteError: a server refuses an adapter, or none is left.
        """
        if self.published.due:
            version = self.published.add()
            list(self._pool.map(self._update, self.servers))
            old = self.published.drop()
            here = [server for server in self.servers if not server.lost]
            for name in old if distributed.is_first() else ():
                for server in here:
                    self._pool.submit(server.unload, name)
            if not here:
                raise self._none_left()
            return version
        return self.published.versions[-1]

    def _update(self, server: VLLMClient) -> None:
        """Send a server the newest version; one that was lost is met anew, if it is back."""
        back = bool(server.lost)
        server.lost = ""
        try:
            if back:
                self._meet(server)
            self.published.send_newest(server, whole=back)
        except RemoteError as error:
            if not self.published.versions[-1].number:  # at the start all of them must be there
                raise
            self._lose(server, error)

    # -- who spoke ---------------------------------------------------------------------------

    def _meet(self, server: VLLMClient) -> None:
        """Ask a server for its base model, and compare what that says with the team's."""
        model = server.model()
        self._bare[server.name] = model.name
        base = self.team.bases[0]
        prompt = tuple(base.chat.encode(FIRST_PROMPT, first=True))
        heat = self.sampling.temperature or 1.0
        rows = []
        for seed in range(CHECKED):
            stops = base.chat.stop_ids
            written = server.write(Ask(model.name, prompt, FIRST_LIMIT, heat, seed, stops))
            if ids := known(base.chat, written.ids):
                said = Completion(ids, written.logprobs[: len(ids)], "", StopReason.LENGTH)
                rows.append(Spoken(server.name, base, None, None, prompt, said, heat))
        if not rows:
            raise RemoteGarbage(f"{server.name} writes ids that the tokenizer does not have")
        self.distance = require_sent_weights(rows, self.sampling.mismatch)

    def _note(self, row: Spoken) -> None:
        """Keep one of the first messages of a server, adapter and version for `check`."""
        assert row.version is not None
        key = row.server, row.adapter, row.version.number
        with self._lock:
            rows = self._spoken.setdefault(key, [])
            if len(rows) < CHECKED and key not in self._checked:
                rows.append(row)

    def check(self) -> None:
        """Compare the messages noted since with the trainer; call it where nothing is learnt.

        Raises:
            OtherWeights: a server spoke with other weights than it was sent.
        """
        with self._lock:
            noted = [rows for rows in self._spoken.values() if rows]
            self._checked |= self._spoken.keys()
            self._spoken = {}
        distances = [require_sent_weights(rows, self.sampling.mismatch) for rows in noted]
        self.distance = max(distances, default=self.distance)

    def close(self) -> None:
        """Unload all adapters, remove their files, and send nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for name in self.published.clear() if distributed.is_first() else ():
            for server in self.servers:
                if not server.lost:
                    server.unload(name)


def _require_one_model(team: Team) -> None:
    """Raise ValueError for a team of several base models, such as the built-in "tiny"."""
    names = list(dict.fromkeys(str(base.model.name_or_path) for base in team.bases))
    if len(names) > 1:
        raise ValueError(
            "sampling.engine='vllm' asks servers of one base model, and the agents have several: "
            f"{', '.join(names)}; choose one model for all agents, by its folder or hub name"
        )


@dataclass(frozen=True)
class Pinned:
    """An engine that speaks with one version of the weights."""

    served: Served
    version: Version

    def __call__(
        self, team: Team, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Completion]:
        """Write one completion per request."""
        return [future.result().completion() for future in self.begin(asked, sampling, seed)]

    def begin(
        self, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Future[ServedReply]]:
        """Send requests; each result is there as soon as its message is complete."""
        return self.served.begin(self.version, asked, sampling, seed)
