"""The HTML report in a browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_studies import make_study
from page_cases import HOSTILE

from maporl_agents.studies.results import Claim
from maporl_agents.webpage import write_page


def texts(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    return browser.execute_script(script, selector)  # type: ignore[no-any-return]


def visit(browser: Any, path: Path, width: int = 1200) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "true"


def click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def press(browser: Any, selector: str, key: str) -> None:
    browser.execute_script(
        "const e = document.querySelector(arguments[0]); e.focus();"
        "e.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[1], bubbles: true}))",
        selector,
        key,
    )


def search(browser: Any, words: str) -> None:
    browser.execute_script(
        "const e = document.querySelector('#search'); e.value = arguments[0];"
        "e.dispatchEvent(new Event('input'))",
        words,
    )


def test_the_page_renders_without_an_error(browser: Any, run: Path) -> None:
    visit(browser, write_page(run))
    sections = browser.execute_script(
        "return [...document.querySelectorAll('section')].map((s) => s.id).join(' ')"
    )
    assert sections == "said turns stages flips incentives training debates settings"
    assert len(texts(browser, "svg[role=img]")) > 5
    assert "NaN" not in browser.execute_script("return document.getElementById('main').innerHTML")
    assert browser.execute_script("return window.hacked") is None
    assert browser.get_log("browser") == []


def test_a_foreign_script_or_picture_is_refused(browser: Any, run: Path) -> None:
    """What would happen if markup got into the page after all: the policy stops it."""
    visit(browser, write_page(run))
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        "const i = document.createElement('img'); i.src = 'data:,x';"
        "i.setAttribute('onerror', 'window.hacked = 1'); document.body.append(s, i);"
    )
    refused = [entry["message"] for entry in browser.get_log("browser")]
    assert len(refused) == 3  # the script, the picture, and the picture's handler
    assert all("Content Security Policy" in message for message in refused)
    assert browser.execute_script("return window.hacked") is None


@pytest.mark.thorough
def test_a_study_renders_and_switches_to_what_is_asked(browser: Any, tmp_path: Path) -> None:
    claims = (Claim("It rises.", ("debate/training",)), Claim("By peers.", ("debate/shuffled",)))
    replace(make_study(), claims=claims).save(tmp_path / "study.json")
    visit(browser, write_page(tmp_path))
    assert texts(browser, "#top table tbody tr") == [
        "It rises.holdsnot measured",
        "By peers.failsnot measured",
    ]
    assert texts(browser, "#arms tbody .role") == ["method", "control", "baseline"]
    assert "not collaboration" in " ".join(texts(browser, "#said li"))
    drawn = len(texts(browser, "#turns path.line"))
    click(browser, "#turns .legend button")
    assert len(texts(browser, "#turns svg[role=img] path.line")) < drawn
    assert browser.get_log("browser") == []


@pytest.mark.thorough
def test_one_can_step_through_turns(browser: Any, run: Path) -> None:
    visit(browser, write_page(run))
    assert texts(browser, "#turn") == ["Turn 1 of 2"]
    assert texts(browser, "#debate .verdict")[1] == "✕ wrong"
    click(browser, "#debate [aria-label='Turn on']")
    assert texts(browser, "#turn") == ["Turn 2 of 2"]
    assert texts(browser, "#debate .verdict")[1] == "✓ right"
    assert "answer 7 (was 6)" in texts(browser, "#debate .says small")
    press(browser, "#debate button:not(:disabled)", "ArrowLeft")
    assert texts(browser, "#turn") == ["Turn 1 of 2"]
    press(browser, "#debate button:not(:disabled)", "ArrowDown")
    assert texts(browser, "#debate .asked-now") == ["Question 1?"]
    for _ in range(30):  # never beyond the last
        press(browser, "#debates .list [aria-current=true]", "ArrowDown")
    assert texts(browser, "#debate .asked-now") == [f"Question {len(HOSTILE) - 1}?"]
    assert browser.get_log("browser") == []


@pytest.mark.thorough
def test_one_can_search_and_filter(browser: Any, run: Path) -> None:
    visit(browser, write_page(run))
    search(browser, "ONERROR")
    assert len(texts(browser, "#debates .list li")) == 1
    assert texts(browser, "#debate mark") == ["onerror", "onerror"]  # before and after
    assert texts(browser, "#debate .says p")[0] == HOSTILE[1]
    search(browser, "no such words anywhere")
    assert texts(browser, "#debates .list li") == []
    assert "No question fits" in texts(browser, "#debate")[0]
    search(browser, "")
    browser.execute_script(
        "const e = document.querySelector('[aria-label=Filter]'); e.value = 'lost';"
        "e.dispatchEvent(new Event('change'))"
    )
    assert texts(browser, "#debates .list li") == []  # before is after: nothing was lost
    assert browser.execute_script("return window.hacked") is None
    assert browser.get_log("browser") == []


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["run", "study"])
def test_a_phone_needs_no_sideways_scrolling(
    browser: Any, run: Path, tmp_path: Path, kind: str
) -> None:
    make_study().save(tmp_path / "study.json")
    visit(browser, write_page(run if kind == "run" else tmp_path), width=360)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    script = (
        "return [...document.querySelectorAll('button, input, select')]"
        ".filter((e) => !e.textContent && !e.getAttribute('aria-label')).length"
    )
    assert browser.execute_script(script) == 0  # everything one can press has a name


@pytest.mark.thorough
def test_the_dark_page_has_enough_contrast(browser: Any, run: Path) -> None:
    """WCAG: relative luminances (L1 + .05) / (L2 + .05) of text and ground, at least 4.5."""
    page = write_page(run)
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        visit(browser, page)
        names = ["paper", "card", "ink", "soft", "accent", "right", "wrong", "none"]
        style = "const s = getComputedStyle(document.documentElement);"
        hexes = browser.execute_script(
            style + "return arguments[0].map((n) => s.getPropertyValue('--' + n).trim())", names
        )
        colour = dict(zip(names, map(luminance, hexes), strict=True))
        for ground in ("paper", "card"):
            for text in ("ink", "soft", "accent", "right", "wrong", "none"):
                high, low = max(colour[text], colour[ground]), min(colour[text], colour[ground])
                assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, text, ground)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
