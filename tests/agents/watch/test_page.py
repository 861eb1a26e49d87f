"""The page of a watched debate over HTTP: its token, hostile text, secrets, two browsers."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from page_cases import HOSTILE
from watch_cases import (
    QUESTION,
    TOKEN,
    Browser,
    Scripted,
    approve_all,
    decide,
    open_slots,
    scripts,
    served,
    serving,
    session_of,
    wait,
)

from maporl_agents.watch.app import POLICY, WAIT_SECONDS, listen
from maporl_env.rendering.plain_text import harmless
from maporl_env.types import Question

HIDDEN = "the-reference-that-nobody-reads"


class Tags(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_without_the_token_there_is_one_sentence(tmp_path: Path) -> None:
    with served(tmp_path, scripts()) as (session, browser):
        open_slots(session, 2)
        wrong = ("/", "/version", "/watch.css", "/act", f"/{TOKEN[:-1]}/", f"/{TOKEN}x/", "//", "")
        for path in (*wrong, f"/x/{TOKEN}/", "/%00/", "/%C3%A9/"):
            for method in ("GET", "POST", "HEAD"):
                status, said, headers = browser.ask(method, path or "*", "action=approve&n=0")
                assert status == 403
                assert headers["content-security-policy"] == POLICY
                if method != "HEAD":
                    assert said.count(".") == 1
                    assert TOKEN not in said
        assert session.watched.slots[0].status == "open"
        status, _, headers = browser.ask("GET", f"/{TOKEN}")
        assert (status, headers["location"]) == (307, f"/{TOKEN}/")


def test_the_token_is_in_no_log_and_on_no_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with served(tmp_path, scripts()) as (session, browser):
        open_slots(session, 2)
        pages = browser.page() + browser.act("burn")[1] + browser.ask("GET", f"/{TOKEN}/no")[1]
        session.watched.slots[0].tries.clear()  # the page cannot be made of this
        status, said, _ = browser.ask("GET", f"/{TOKEN}/")
        assert (status, said) == (500, "The page could not be made; nothing was lost.\n")
    shown = capfd.readouterr()
    assert TOKEN not in pages + caplog.text + shown.out + shown.err
    for file in tmp_path.iterdir():
        assert TOKEN not in file.read_text()


def test_the_page_takes_nothing_from_elsewhere(tmp_path: Path) -> None:
    with served(tmp_path, scripts()) as (session, browser):
        open_slots(session, 2)
        status, page, headers = browser.ask("GET", f"/{TOKEN}/")
        assert status == 200
        assert headers["content-security-policy"] == POLICY
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in POLICY
        assert "unsafe" not in POLICY
        places = [
            value
            for tag, attributes in Tags(page).tags
            for name, value in attributes.items()
            if name in ("src", "href", "action")
        ]
        assert sorted(set(map(str, places))) == ["#now", "act", "watch.css", "watch.js"]
        for name in ("watch.css", "watch.js"):
            status, content, _ = browser.ask("GET", f"/{TOKEN}/{name}")
            assert status == 200
            assert "http" not in content
        assert not re.search(r"\son\w+=|\sstyle=", page)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_text(tmp_path: Path, text: str) -> None:
    """In a message, an edit, a note and a name: the tags of the page are those of a tame one."""
    tame, found = [], []
    for number, said in enumerate(("tame", text)):
        question = Question("q", said or "empty", "4")
        speakers = [Scripted(said, "again"), Scripted(said)]
        folder = tmp_path / str(number)
        with served(folder, speakers, question=question) as (session, one):
            first, second = open_slots(session, 2)
            where = {"n": first.number, "tries": 1}
            clean = said.encode("utf-8", "replace").decode()[:99_000]
            assert (
                one.act("send_back", note=clean[:4_000] or "x", who=clean[:60], **where)[0] == 303
            )
            wait(session, lambda first=first: len(first.tries) == 2 and first.status == "open")
            refused = one.act("edit", text=clean, n=99, tries=1)
            assert refused[0] == 409
            decide(session, second, "edit", text=f"{clean}!")
            pages = one.page() + refused[1]
        (tame if not number else found).append(pages)
        parsed = Tags(pages)
        for shown in parsed.text.splitlines():
            assert shown == harmless(shown)
        if len(said) < 1_000 and said.strip():
            assert " ".join(harmless(said).split()) in " ".join(parsed.text.split())
    tags = [[(t, sorted(a)) for t, a in Tags(page[0]).tags] for page in (tame, found)]
    drop = "" if text else "textarea"  # nothing was typed that could be lost
    assert [t for t in tags[0] if not drop] == [t for t in tags[1] if not drop]


def test_secrets_are_shown_only_by_the_option(tmp_path: Path) -> None:
    """A reference of the simulated user stands on no page, in no form, in no answer."""
    question = Question("q", "What is it?", "4", private=("PRIVATE-0", "PRIVATE-1"), hidden=HIDDEN)
    speakers = [Scripted("Which colour?", "Which one?", "ANSWER: 4"), Scripted("Blue.")]
    options: dict[str, Any] = {"question": question, "protocol": "dialogue"}
    with session_of(tmp_path, speakers, **options) as session:
        with serving(session) as browser, serving(session, show_private=True) as seeing:
            first = open_slots(session)[0]
            pages = [browser.page()]
            assert HIDDEN in seeing.page()
            assert "PRIVATE-1" in seeing.page()
            where = {"n": first.number, "tries": 1}
            pages += [browser.act("send_back", note="shorter", **where)[1]]
            wait(session, lambda: len(first.tries) == 2 and first.status == "open")
            pages += [browser.act("veto", **where)[1], browser.page()]
            approve_all(session)
            pages += [browser.page()]
        assert HIDDEN in speakers[1].read[0].text
        assert all(HIDDEN not in p.text for p in speakers[0].read)
        assert all("PRIVATE-1" not in p.text for p in speakers[0].read)
    for secret in (HIDDEN, "PRIVATE-0", "PRIVATE-1"):
        assert all(secret not in page for page in pages)


def test_of_two_browsers_the_first_is_heard(tmp_path: Path) -> None:
    """Twenty at once: one decision is taken, nineteen are told by whom, what was typed is kept."""
    with served(tmp_path, scripts()) as (session, browser):
        open_slots(session, 2)
        answers: dict[int, tuple[int, str, dict[str, str]]] = {}

        def edit(number: int) -> None:
            other = Browser(browser.port)
            text, who = f"text of {number}", f"watcher {number}"
            answers[number] = other.act("edit", n=0, tries=1, text=text, who=who)

        threads = [threading.Thread(target=edit, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [winner] = [number for number, answer in answers.items() if answer[0] == 303]
        assert answers[winner][2]["location"] == f"./?who=watcher+{winner}#now"
        assert session.watched.slots[0].said.text == f"text of {winner}"  # type: ignore[union-attr]
        for number, (status, page, _) in answers.items():
            if number != winner:
                assert status == 409
                assert f"watcher {winner} was first: this message of agent_0 was edited at" in page
                assert f"\ntext of {number}</textarea>" in page
    [row] = (tmp_path / "interventions.jsonl").read_text().splitlines()
    assert json.loads(row)["who"] == f"watcher {winner}"


def test_a_reload_shows_where_it_stands(tmp_path: Path) -> None:
    with served(tmp_path, scripts()) as (session, browser):
        open_slots(session, 2)
        page = browser.page("?who=Zoe+%22%3E")
        assert page == browser.page("?who=Zoe+%22%3E")
        assert 'name="who" maxlength="60" value="Zoe &quot;&gt;"' in page
        assert "2 messages wait: agent_0, agent_1." in page
        browser.act("edit", n=0, tries=1, text="mine\r\nand more", who="Zoe")
        page = browser.page()
        assert "1 message waits: agent_1." in page
        assert "edited by Zoe · goes out when all of this turn are decided" in page
        assert "mine\nand more" in page
        approve_all(session)
        page = browser.page()
        assert "The debate is over." in page
        assert "<dt>key</dt><dd>4</dd>" in page
        assert "<form" not in page
        assert browser.act("approve", n=0, tries=1)[0] == 409


def test_news_comes_at_once_and_the_end_of_the_server_too(tmp_path: Path) -> None:
    with session_of(tmp_path, scripts()) as session:
        start = time.monotonic()
        with serving(session) as browser:
            open_slots(session, 2)
            version = session.version
            news: list[Any] = []

            def listen_for_news(after: int) -> None:
                news.append(browser.ask("GET", f"/{TOKEN}/version?after={after}")[1])

            thread = threading.Thread(target=listen_for_news, args=(version,))
            thread.start()
            decide(session, session.watched.slots[0], "approve")
            thread.join()
            assert json.loads(news[0]) == {"version": version + 1}
            thread = threading.Thread(target=listen_for_news, args=(version + 1,))
            thread.start()
        thread.join()
        assert time.monotonic() - start < 2 * WAIT_SECONDS


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "does not say which message"),
        ({"n": "x", "tries": 1}, "does not say which message"),
        ({"n": "9" * 5000, "tries": 1}, "does not say which message"),
        ({"n": 0, "tries": 7}, "is still writing|was first"),
        ({"action": "burn", "n": 0, "tries": 1}, "nothing that can be done"),
        ({"action": "pass", "n": 0, "tries": 1}, "nothing that can be done"),
    ],
)
def test_what_is_no_decision_is_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with served(tmp_path, scripts()) as (session, browser):
        open_slots(session, 2)
        status, page, _ = browser.act(fields.pop("action", "approve"), **fields)
        assert status == 409
        assert re.search(words, page)
        assert session.watched.slots[0].status == "open"


def test_a_form_that_is_too_large_or_broken_is_refused(tmp_path: Path) -> None:
    with served(tmp_path, scripts()) as (session, browser):
        open_slots(session, 2)
        assert browser.ask("POST", f"/{TOKEN}/act", "x" * 4_000_001)[0] == 413
        for body in ("&" * 1000, "a=1&" * 30, "%ff=%fe", "action=%00&n=0"):
            assert browser.ask("POST", f"/{TOKEN}/act", body)[0] == 409
        assert session.watched.slots[0].status == "open"


def test_it_runs_by_itself_and_stops_again(tmp_path: Path) -> None:
    speakers = [*scripts(1), None]
    with served(tmp_path, speakers) as (session, browser):
        open_slots(session, 2)
        assert browser.act("run")[0] == 303
        wait(session, lambda: session.watched.slots[0].status == "decided")
        assert 'value="pause"' in browser.page()
        browser.act("pause")
        browser.act("say", n=1, tries=0, text="mine")
        assert open_slots(session, 2)[0].status == "open"


def test_an_address_in_use_is_one_sentence() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ValueError, match=rf"cannot listen on 127\.0\.0\.1, port {port} .*--port"
        ):
            listen("127.0.0.1", port)
    with pytest.raises(ValueError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)
    with pytest.raises(ValueError, match="port 70000"):
        listen("127.0.0.1", 70_000)


def test_the_question_of_the_cases_has_no_secret() -> None:
    assert not QUESTION.private
    assert not QUESTION.hidden
