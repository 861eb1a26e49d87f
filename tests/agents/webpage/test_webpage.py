"""The page of a run or a study: its numbers by hand, hostile text, and a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_studies import make_study

from maporl_agents.measure.debate_stats import Transition, TurnStats, turn_stats
from maporl_agents.studies.results import Arm, Claim, Measurement, SeedResult, Study
from maporl_agents.webpage import write_page
from maporl_agents.webpage.debates import MAX_QUESTIONS, MAX_TEXT, debate_sets, shown
from maporl_agents.webpage.figures import (
    MAX_POINTS,
    arms,
    curves,
    flip_matrix,
    training,
    warnings_of,
)
from maporl_agents.webpage.incentives import incentives
from maporl_agents.webpage.page import embed, page_data
from maporl_agents.webpage.sources import load
from maporl_env.types import Message, Question, Transcript

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<!--<script>",
    "]]> &lt;b&gt; ${window.hacked = 1} `${window.hacked = 1}`",
    "javascript:window.hacked=1",
    "right \u202eto left\u2066, \u2028 line and \u2029 paragraph, \u200b\ufeff hidden",
    "null \x00 bell \x07 escape \x1b[31m delete \x7f lone \ud800 surrogate",
    "Z\u0351\u036b\u0343" * 50,
    "\\boxed{" * 100,
    "x" * 100_000,
    "",
)


def debate(index: int, text: str, score: float | None = 0.0, turns: int = 2) -> Transcript:
    """Return a debate of two agents; agent_0 says `text`, agent_1 answers right from turn 2 on."""
    agents = ("agent_0", "agent_1")
    messages = [
        message
        for t in range(turns)
        for message in (
            Message(t, "agent_0", text, score),
            Message(t, "agent_1", f"turn {t + 1}: \\boxed{{{7 if t else 6}}}", 1.0 if t else 0.0),
        )
    ]
    return Transcript(Question(f"q/{index}", f"Question {index}?", "7"), agents, tuple(messages))


def make_run(folder: Path, debates: list[Transcript], finished: bool = True) -> Path:
    """Write a run folder as a training run leaves it."""
    (folder / "transcripts").mkdir(parents=True)
    config = {"name": "toy", "seed": 3, "steps": 4, "game": {"task": "toy", "num_agents": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    versions = {"python": "3.12", "packages": {"maporl": "0.1"}, "platform": "P", "commit": None}
    (folder / "versions.json").write_text(json.dumps(versions))
    rows = [
        {"step": s, "score/turn_1": 0.1 * s, "score/turn_2": 0.2 * s, "kl": 0.01, "entropy": 1.0}
        | {"tokens": 60.0, "answers": 12.0}
        for s in range(1, 5)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        turns = [asdict(turn) for turn in turn_stats(debates)]
        result = {"turns": turns, "num_questions": len(debates), "num_tokens": 99}
        stage = {"sampled": result, "greedy": result}
        (folder / "results.json").write_text(json.dumps({"before": stage, "after": stage}))
        for name in ("before", "after"):
            lines = [json.dumps({"step": 4, **one.to_dict()}) + "\n" for one in debates]
            (folder / "transcripts" / f"{name}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "toy", [debate(i, text) for i, text in enumerate(HOSTILE)])


# --- Numbers ------------------------------------------------------------------------


def stats(accuracy: float, won: float = 0.0, lost: float = 0.0) -> TurnStats:
    return TurnStats((accuracy, accuracy), accuracy, 0.02, won, lost, 0.5, 0.0)


def test_flip_matrix_by_hand() -> None:
    """Right .4, of which .1 are lost; wrong .6, of which .3 are won: .3 .1 / .3 .3."""
    matrix = flip_matrix(stats(0.4), stats(0.6, won=0.3, lost=0.1))
    assert matrix == [pytest.approx([0.3, 0.1]), pytest.approx([0.3, 0.3])]
    assert sum(map(sum, matrix)) == pytest.approx(1)
    assert matrix[0][0] + matrix[1][0] == pytest.approx(0.6)  # who is right afterwards


def test_curves_take_means_over_seeds_and_questions_for_one() -> None:
    """Seeds .60 .61 .62: mean .61, half width 4.3026527 * .01 / sqrt(3) = .0248414."""
    [_, after, *_] = curves(make_study())
    assert (after["arm"], after["stage"]) == ("debate", "after")
    assert after["points"][1]["mean"] == pytest.approx(0.61)
    assert after["points"][1]["half"] == pytest.approx(0.0248414, abs=1e-6)
    single = Study("s", "", "", "", "", (Arm("a", "A", "method", make_study().arms[0].seeds[:1]),))
    assert curves(single)[0]["points"][0]["half"] == 0.02  # of the vote, over questions


def test_the_table_pairs_by_seed_and_states_cost() -> None:
    """400 messages and 4000 tokens for 100 questions: 4 and 40 each."""
    method, shuffled, single = arms(make_study())
    assert method["lead"] is None
    assert shuffled["lead"]["values"] == pytest.approx([0, 0, 0])
    assert single["lead"]["values"] == pytest.approx([0.3, 0.3, 0.3])
    assert (single["answers"], single["tokens"]) == (4, 40)
    assert single["before"] is None
    assert method["before"]["mean"] == pytest.approx(0.31)


def with_moves(width: int, *moves: Transition) -> Study:
    turns = (TurnStats((0.5,) * width, 0.5, 0, 0, 0, 0, 0),) * 2
    measurement = Measurement("after", "sampled", turns, 10, 40, 400, moves)
    arm = Arm("a", "A", "method", (SeedResult(0, (measurement,)),))
    return Study("s", "", "", "", "", (arm,))


def test_incentives_by_hand() -> None:
    """Of 4 wrong agents among right peers 3 become right; nobody else is known."""
    moves = (
        Transition(1, False, "right", True, "right", 3),
        Transition(1, False, "right", False, "wrong", 1),
    )
    shown_three = incentives(with_moves(3, *moves))
    assert shown_three is not None
    assert len(shown_three["cases"]) == 8
    [column] = shown_three["columns"]
    assert (column["cells"][0]["mean"], column["cells"][0]["count"]) == (0.75, 4)
    assert column["cells"][1] is None
    assert column["cells"][7]["mean"] == 0.25  # right peers of a wrong agent that become wrong
    assert shown_three["cases"][0][1].endswith("becomes right, turn 2 to 3")
    shown_two = incentives(with_moves(2, *moves))
    assert shown_two is not None
    assert [weight for weight, _ in shown_two["cases"]] == ["α₁, β₁", "α₀, β₀"] * 2
    assert len(shown_two["columns"][0]["cells"]) == 4
    assert incentives(with_moves(2)) is None
    best_of_six = Arm("b", "B", "baseline", with_moves(6).arms[0].seeds)  # one turn: no moves
    both = Study("s", "", "", "", "", (*with_moves(2, *moves).arms, best_of_six))
    assert incentives(both) == shown_two


def trained(*curves_: list[dict[str, Any]]) -> dict[str, Any]:
    seeds = tuple(SeedResult(i, (), curve=tuple(rows)) for i, rows in enumerate(curves_))
    [result] = training(Study("s", "", "", "", "", (Arm("a", "A", "method", seeds),)))
    return result


def test_training_curves_by_hand() -> None:
    """Two seeds at step 1: scores .2 and .4 of turn 10; one kl is unknown, so is its panel."""
    rows = [
        [{"step": 1, "score/turn_10": 0.2, "score/turn_9": 0.1, "lazy/agent_0": 0.5}],
        [{"step": 1, "score/turn_10": 0.4, "kl": None}],
    ]
    scores, lazy = trained(*rows)["panels"]
    assert [line["label"] for line in scores["lines"]] == ["turn 9", "turn 10"]
    assert scores["lines"][1]["points"] == [pytest.approx([1, 0.3, 0.2, 0.4])]
    assert [line["label"] for line in lazy["lines"]] == ["agent 0"]


def test_long_curves_are_thinned() -> None:
    [panel] = trained([{"step": s, "kl": 0.0} for s in range(1000)])["panels"]
    points = panel["lines"][0]["points"]
    assert len(points) <= MAX_POINTS
    assert [p[0] for p in points[:3]] == [0, 4, 8]


def test_warnings_name_step_and_extent() -> None:
    """A KL of .7 and then .9 is above the alarm's .5; the newest figure is told."""
    rows = [{"step": 1, "kl": 0.1}, {"step": 2, "kl": 0.7}, {"step": 3, "kl": 0.9, "nonfinite": 1}]
    runaway, lost = warnings_of(rows)
    assert runaway.startswith("From step 2, in 2 of 3 steps: KL runaway: 0.90 nats")
    assert lost.startswith("From step 3, in 1 of 3 steps: not finite")
    assert warnings_of(rows[:1]) == []


# --- Reading ------------------------------------------------------------------------


def test_a_run_becomes_a_study_of_one_arm(run: Path) -> None:
    source = load(run)
    [arm] = source.study.arms
    assert source.kind == "run"
    assert [seed.seed for seed in arm.seeds] == [3]
    assert (arm.seeds[0].train_answers, arm.seeds[0].train_tokens) == (48, 240)
    measured = arm.seeds[0].find("before", "sampled")
    assert measured is not None
    assert sum(m.count for m in measured.transitions) == 2 * len(HOSTILE)  # both agents, one move
    data = page_data(source)
    assert "carries no controls" in " ".join(data["notes"])
    assert ["seed", "3"] in data["facts"]
    # agent_1 goes from wrong to right in every debate, so the vote goes from 0 to above 0
    assert "From turn 1 to the last" in data["verdicts"]["sampled"][1]["sentence"]
    assert data["verdicts"]["sampled"][1]["kind"] == "supports"
    assert data["verdicts"]["sampled"][0]["kind"] == "open"  # before is after


def test_an_unfinished_run_has_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "toy", [], finished=False)
    (run / "transcripts" / "before.jsonl").write_text('{"torn')
    data = page_data(load(run))
    assert "not finished" in data["notes"][0]
    assert (data["curves"], data["verdicts"]["sampled"]) == ([], [])
    assert data["training"][0]["panels"]


def test_a_study_shows_the_debates_of_its_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "jobs" / "a", [debate(0, "hm")])
    seeds = (SeedResult(0, (), folder="jobs/a"), SeedResult(1, (), folder="jobs/b"))
    control = Arm("c", "C", "control", seeds, "alone")
    gone = Arm("g", "Gone", "baseline", (SeedResult(0, (), folder="jobs/gone"),))
    study = Study("s", "", "", "", "", (control, gone, Arm("m", "M", "method", seeds)))
    study.save(tmp_path / "study.json")
    for path in (tmp_path, tmp_path / "study.json"):
        assert list(load(path).debates) == ["M"]


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_neither_run_nor_study(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"neither a run .* nor a study"):
        write_page(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_transcript_is_named(run: Path) -> None:
    path = run / "transcripts" / "after.jsonl"
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(ValueError, match=r"after\.jsonl, line 1 is no transcript"):
        write_page(run)


# --- Debates ------------------------------------------------------------------------


def test_marks_follow_the_key_and_votes_are_shared() -> None:
    [found] = debate_sets({"a": {"after": [debate(0, "\\boxed{8}"), debate(1, "?", None)]}})
    first, second = found["questions"]
    turn_1, turn_2 = first["stages"]["after"]["turns"]
    assert [m["mark"] for m in turn_1] == ["wrong", "wrong"]
    assert [(m["mark"], m["answer"]) for m in turn_2] == [("wrong", "8"), ("right", "7")]
    assert first["stages"]["after"]["votes"] == [0, 0.5]
    assert second["stages"]["after"]["turns"][0][0]["mark"] == "unscored"
    assert debate_sets({"a": {"after": [debate(0, "?")]}})[0]["questions"][0]["stages"]["after"][
        "turns"
    ][0][0] == {"agent": "agent_0", "text": "?", "mark": "none", "answer": None, "score": 0.0}


def test_debates_are_capped_in_number_and_size() -> None:
    many = [debate(i, "x") for i in range(MAX_QUESTIONS + 5)]
    one, two = debate_sets({"a": {"after": many}, "b": {"after": many}})
    assert (len(one["questions"]), len(two["questions"])) == (MAX_QUESTIONS // 2,) * 2
    assert one["total"] == MAX_QUESTIONS + 5
    long = [debate(i, "x" * 10**5, turns=9) for i in range(MAX_QUESTIONS)]
    [cut] = debate_sets({"a": {"after": long}})
    assert 0 < len(cut["questions"]) < MAX_QUESTIONS
    assert len(json.dumps(cut)) < 4_000_000


def test_shown_text() -> None:
    assert shown("a\x1b[1m\u202e\x00b\n") == "a\\x1b[1m\\u202e\\x00b\n"
    assert shown("x" * (MAX_TEXT + 1500)) == "x" * MAX_TEXT + " … (1,500 more characters)"


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
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)", path.read_text())
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


# --- In a browser -------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; `apt-get install chromium chromium-driver` where it is missing."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


def visit(browser: Any, path: Path, width: int = 1200) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "true"


def texts(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    return browser.execute_script(script, selector)  # type: ignore[no-any-return]


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
