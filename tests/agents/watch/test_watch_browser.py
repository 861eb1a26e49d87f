"""The page of a watched debate in a browser: buttons, keys, two windows, a phone, hostile text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from page_cases import HOSTILE
from watch_cases import (
    TOKEN,
    Browser,
    Scripted,
    decide,
    open_slots,
    scripts,
    served,
    wait,
)

from maporl_agents.watch.session import Session
from maporl_env.types import Question

pytestmark = pytest.mark.thorough


def visit(browser: Any, page: Browser, width: int = 1000, query: str = "") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(f"http://127.0.0.1:{page.port}/{TOKEN}/{query}")


def soon(browser: Any, script: str, *arguments: object) -> Any:
    """Wait until a script returns something true; return it."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda b: b.execute_script(script, *arguments))


def text_of(browser: Any) -> str:
    return str(browser.execute_script("return document.body.innerText"))


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def keys(browser: Any, *typed: str) -> None:
    from selenium.webdriver import ActionChains

    actions = ActionChains(browser)
    for one in typed:
        actions = actions.send_keys(one)
    actions.perform()


def decided(session: Session, number: int, action: str) -> None:
    wait(session, lambda: session.watched.slots[number].decision)
    last = session.watched.slots[number].decision
    assert last is not None
    assert last.action == action


def test_a_person_edits_approves_vetoes_and_sends_back(browser: Any, tmp_path: Path) -> None:
    """With the mouse, then with keys alone; the page follows by itself to the end."""
    speakers = scripts()
    with served(tmp_path, speakers) as (session, page):
        open_slots(session, 2)
        visit(browser, page)
        assert "2 messages wait: agent_0, agent_1." in text_of(browser)
        find(browser, "details[data-key=e] summary").click()
        field = find(browser, "details[data-key=e] textarea")
        assert field.get_attribute("value") == r"agent 0, message 0: \boxed{4}"
        field.clear()
        field.send_keys("I am edited.\n\\boxed{8}")
        find(browser, "button[value=edit]").click()
        decided(session, 0, "edit")
        assert session.watched.slots[0].said.text == "I am edited.\n\\boxed{8}"  # type: ignore[union-attr]
        soon(browser, "return document.body.innerText.includes('edited by Ann')")
        keys(browser, "s", "Say more.")  # opens the note of the message that waits, and types
        assert find(browser, "textarea[name=note]").get_attribute("value") == "Say more."
        find(browser, "button[value=send_back]").click()
        decided(session, 1, "send_back")
        soon(browser, "return document.body.innerText.includes('waits for you · try 2')")
        keys(browser, "a")
        wait(session, lambda: session.watched.debate.played == 1)
        soon(browser, "return document.querySelectorAll('button[value=veto]').length == 2")
        keys(browser, "v")
        decided(session, 2, "veto")
        soon(browser, "return document.querySelectorAll('button[value=veto]').length == 1")
        find(browser, "button[value=approve]").click()
        soon(browser, "return document.body.innerText.includes('The debate is over.')")
        assert [m.person for m in session.watched.debate.transcript.messages] == [
            "edited",
            "sent back",
            "vetoed",
            "",
        ]
        assert "I am edited." in speakers[1].read[-1].text
        assert browser.get_log("browser") == []


def test_two_windows_see_the_same_and_what_is_typed_is_kept(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, scripts()) as (session, page):
        first, second = open_slots(session, 2)
        visit(browser, page, query="?who=Zoe")
        find(browser, "details[data-key=e] summary").click()
        find(browser, "details[data-key=e] textarea").send_keys(" and my words")
        decide(session, second, "approve", who="Ben")  # another window
        soon(browser, "return !document.getElementById('news').hidden")
        assert "what you are writing is kept" in text_of(browser)
        decide(session, first, "veto", who="Ben")
        find(browser, "button[value=edit]").click()
        soon(browser, "return document.querySelector('.refused')")
        assert "Ben was first: this message of agent_0 was struck out at" in text_of(browser)
        kept = find(browser, ".refused textarea").get_attribute("value")
        assert kept == r"agent 0, message 0: \boxed{4} and my words"
        open_slots(session, 2)
        visit(browser, page, query="?who=Zoe")  # a reload
        assert find(browser, "input[name=who]:not([type=hidden])").get_attribute("value") == "Zoe"
        windows = session.version
        decide(session, open_slots(session, 2)[0], "approve", who="Ben")
        soon(browser, "return document.body.innerText.includes('approved by Ben')")
        assert session.version > windows


def test_hostile_text_runs_nothing_and_loads_nothing(browser: Any, tmp_path: Path) -> None:
    text = "\n".join(one for one in HOSTILE if len(one) < 1000)
    question = Question("<script>window.hacked=1</script>", text[:2000], "4")
    speakers = [Scripted(text), Scripted(text)]
    with served(tmp_path, speakers, question=question) as (session, page):
        open_slots(session, 2)
        visit(browser, page, query="?who=%3Cimg%20src=x%20onerror=%22window.hacked=1%22%3E")
        loaded = "return performance.getEntriesByType('resource').map((e) => e.name)"
        for name in browser.execute_script(loaded):
            assert name.startswith(f"http://127.0.0.1:{page.port}/{TOKEN}/")
        browser.get_log("browser")
        browser.execute_script(
            "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
            "const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x';"
            "i.setAttribute('onerror', 'window.hacked = 1'); document.body.append(s, i);"
        )
        assert browser.execute_script("return window.hacked") is None
        refused = [entry["message"] for entry in browser.get_log("browser")]
        assert all("Content Security Policy" in message for message in refused)
        assert len(refused) == 3
        assert "\\u202e" in text_of(browser)


@pytest.mark.parametrize("width", [360, 720])
def test_narrow_pages_need_no_sideways_scrolling(browser: Any, tmp_path: Path, width: int) -> None:
    """A phone, and 80 columns; everything one can press or fill in has a name."""
    question = Question("q" * 300, "word " * 50 + "w" * 500, "4")
    speakers = [Scripted("x" * 3_000), Scripted("\\boxed{" * 100)]
    with served(tmp_path, speakers, question=question) as (session, page):
        open_slots(session, 2)
        visit(browser, page, width)
        for one in browser.find_elements("css selector", "summary"):
            one.click()
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(wide) == 0
        nameless = (
            "return [...document.querySelectorAll('button:not([hidden]), input:not([type=hidden]),"
            "textarea')].filter((e) => !e.innerText && !e.labels?.length).length"
        )
        assert browser.execute_script(nameless) == 0


def test_it_works_without_scripts(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, scripts()) as (session, page):
        open_slots(session, 2)
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            visit(browser, page)
            find(browser, "button[value=veto]").click()
            decided(session, 0, "veto")
            find(browser, "button[value=approve]").click()
            decided(session, 1, "approve")
        finally:
            browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_page_says_when_the_server_is_gone(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, scripts()) as (session, page):
        open_slots(session, 2)
        visit(browser, page)
    soon(browser, "return !document.getElementById('news').hidden")
    assert "maporl watch --resume" in text_of(browser)
    browser.get("about:blank")
    browser.get_log("browser")
