"""Watched debates of scripted agents, in this process, and browsers made of http.client."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from maporl_agents.watch.debate import Own, Slot
from maporl_agents.watch.record import Record
from maporl_agents.watch.session import Session
from maporl_agents.watch.speakers import Speaker
from maporl_env.batched import DebateConfig, Prompt
from maporl_env.types import Question

TOKEN = "sesame-sesame-sesame-sesame"
QUESTION = Question("q/1", "2 + 2?", "4")


class Scripted:
    """Says its texts one after the other, and keeps what it read."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.read: list[Prompt] = []
        self.own: list[tuple[str, ...]] = []

    def __call__(self, prompt: Prompt, own: Sequence[Own], tries: int) -> Own:
        self.read.append(prompt)
        self.own.append(tuple(one.text for one in own))
        text = self.texts[min(len(self.read), len(self.texts)) - 1]
        return Own(text, ids=(7, len(self.read)))


def scripts(count: int = 2) -> list[Scripted]:
    return [
        Scripted(*(rf"agent {a}, message {n}: \boxed{{{4 + n}}}" for n in range(9)))
        for a in range(count)
    ]


@contextmanager
def session_of(
    folder: Path,
    speakers: Sequence[Speaker | None],
    *,
    question: Question = QUESTION,
    started: bool = True,
    config: DebateConfig | None = None,
    **options: Any,
) -> Iterator[Session]:
    """A session in a folder, new or gone on with."""
    options = {"num_turns": 2, "protocol": "debate", **options}
    if config is None:
        config = DebateConfig(task=[question], num_agents=len(speakers), **options)
    new = not (folder / "watch.json").exists()
    names = ["human" if one is None else "scripted" for one in speakers]
    with Record.create(folder, {}) if new else Record.open(folder) as record:
        session = Session(config.load(), question, speakers, names, record)
        if started:
            session.start()
        try:
            yield session
        finally:
            session.close()
            assert session.join(20)


def wait(session: Session, ready: Callable[[], Any]) -> Any:
    """Wait until something is so, which changes of the session may bring about; return it."""
    with session.changed:
        assert session.changed.wait_for(ready, timeout=60), "nothing came of it"
        return ready()


def open_slots(session: Session, count: int = 1) -> list[Slot]:
    """Return the messages that wait, once there are as many."""

    def found() -> list[Slot]:
        waiting = [s for s in session.watched.now if s.status in ("open", "person", "fault")]
        return waiting if len(waiting) >= count else []

    return list(wait(session, found))


def decide(session: Session, slot: Slot, action: str, **more: str) -> None:
    session.decide(slot.number, len(slot.tries), action, **{"who": "Ann", **more})


def approve_all(session: Session) -> None:
    """Approve whatever comes, to the end."""
    while wait(session, lambda: session.over or open_slots_now(session)) is not True:
        for slot in open_slots_now(session):
            decide(session, slot, "approve")


def open_slots_now(session: Session) -> list[Slot]:
    return [slot for slot in session.watched.now if slot.status == "open"]


class Browser:
    """Asks a server in this process."""

    def __init__(self, port: int, token: str = TOKEN) -> None:
        self.port, self.token = port, token

    def ask(
        self, method: str, path: str, body: str | None = None, **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.getheaders())
        finally:
            connection.close()

    def page(self, query: str = "") -> str:
        status, content, _ = self.ask("GET", f"/{self.token}/{query}")
        assert status == 200
        return content

    def act(self, action: str, **fields: object) -> tuple[int, str, dict[str, str]]:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        form = urlencode({"action": action, **fields})
        return self.ask("POST", f"/{self.token}/act", form, **kind)


@contextmanager
def serving(session: Session, **options: Any) -> Iterator[Browser]:
    """A server of the page in a thread."""
    from maporl_agents.watch.app import listen, server_of

    listener = listen("127.0.0.1", 0)
    options = {"who": "Ann", "show_private": False, **options}
    server = server_of(session, listener, TOKEN, **options)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Browser(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
        assert not thread.is_alive()


@contextmanager
def served(
    folder: Path, speakers: Sequence[Speaker | None], **options: Any
) -> Iterator[tuple[Session, Browser]]:
    """A session in a folder, and its page in a browser."""
    with session_of(folder, speakers, **options) as session, serving(session) as browser:
        yield session, browser
