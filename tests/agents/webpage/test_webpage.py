"""The file of the HTML report: hostile text, content security policy, the command."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from page_cases import HOSTILE

from maporl_agents.studies.results import Study
from maporl_agents.webpage import write_page
from maporl_agents.webpage.debates import shown
from maporl_agents.webpage.page import embed

# --- One file -----------------------------------------------------------------------


class Page(HTMLParser):
    """Collects what a browser would act upon."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        self.texts[self.inside] = self.texts.get(self.inside, "") + data


def parsed(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_hostile_text_stays_inside_the_data(run: Path) -> None:
    page = parsed(write_page(run))
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    assert "img" not in [tag for tag, _ in page.tags]
    data = json.loads(page.texts["data"])
    texts = [q["stages"]["after"]["turns"][0][0]["text"] for q in data["debates"][0]["questions"]]
    assert texts == [shown(text) for text in HOSTILE]
    assert not re.search(r"[^\x20-\x7e]", page.texts["data"])


def test_embedded_json_cannot_end_its_element() -> None:
    text = embed({"</script>": ["<!--", "&amp;", "\u2028", "\ud800", "\x00"]})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"</script>": ["<!--", "&amp;", "\\u2028", "\\ud800", "\\x00"]}


def test_the_page_may_run_and_load_nothing_else(run: Path) -> None:
    path = write_page(run)
    page = parsed(path)
    [policy] = [a["content"] for tag, a in page.tags if "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.texts[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)", path.read_text(encoding="utf-8"))
    parsers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|DOMParser|Function\("
    assert not re.search(parsers, page.texts["script"])


def test_a_title_is_escaped(tmp_path: Path) -> None:
    study = Study("s", "</title><script>window.hacked = 1</script>\u202e", "", "", "", ())
    study.save(tmp_path / "study.json")
    page = parsed(write_page(tmp_path))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert page.texts["title"].startswith("</title><script>")


def test_the_command_prints_the_path(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from maporl_agents.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["report", str(run), "--out", str(tmp_path / "new" / "page.html")])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'page.html'}\n"
    assert (tmp_path / "new" / "page.html").stat().st_size > 10_000
