"""Programs as answers: the published problems, and tests as the gold answer."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from maporl_env import debate_v0
from maporl_env.sandbox import Limits, Sandbox, unavailable
from maporl_env.tasks import load_task
from maporl_env.types import Question
from maporl_env.verifiers.programs import CodeTests, Suite

needs_namespaces = pytest.mark.skipif(
    unavailable() is not None, reason=f"no namespaces: {unavailable()}"
)
SUITE = Suite("double", "import math\n", "assert double(4) == 8\nassert double(-1) == -2\n")
DOUBLE = Question("double", "Double it.", str(SUITE), kind="code")
BREAK = """
_right = {name}
def {name}(*arguments):
    value = _right(*arguments)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return [value]
"""
"""Appended to a right program: each answer is of the right form, and wrong."""


def block(program: str) -> str:
    return f"Here it is:\n```python\n{program}\n```"


@pytest.fixture(scope="module")
def rows(data_dir: Path) -> list[dict[str, Any]]:
    path = data_dir / "humaneval" / "HumanEval.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no real data: {path} is absent")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.thorough
@needs_namespaces
def test_every_published_solution_passes_and_every_broken_one_fails(
    rows: list[dict[str, Any]], data_dir: Path
) -> None:
    questions = load_task("humaneval", data_dir / "humaneval").split("test")
    assert len(questions) == len(rows) == 164
    verifier = CodeTests(sandbox=Sandbox(Limits(seconds=20)))
    solutions = [row["prompt"] + row["canonical_solution"] for row in rows]
    broken = [s + BREAK.format(name=r["entry_point"]) for s, r in zip(solutions, rows, strict=True)]
    right = verifier.score(questions, [block(program) for program in solutions])
    assert [q.id for q, score in zip(questions, right, strict=True) if score != 1.0] == []
    wrong = verifier.score(questions, [block(program) for program in broken])
    assert [q.id for q, score in zip(questions, wrong, strict=True) if score != 0.0] == []


@needs_namespaces
def test_a_program_need_not_repeat_imports_or_helpers(
    rows: list[dict[str, Any]], data_dir: Path
) -> None:
    task = load_task("humaneval", data_dir / "humaneval")
    question = task.split("test")[32]  # find_zero, whose helper `poly` stands in the prompt
    bisect = (
        "def find_zero(xs: list):\n    lo, hi = -1e3, 1e3\n    for _ in range(200):\n"
        "        mid = (lo + hi) / 2\n"
        "        lo, hi = (lo, mid) if poly(xs, lo) * poly(xs, mid) <= 0 else (mid, hi)\n"
        "    return lo\n"
    )
    assert CodeTests().score([question], [block(bisect)]) == [1.0]
    assert rows[32]["canonical_solution"].strip() not in question.prompt + question.answer


@needs_namespaces
def test_a_debate_about_programs_is_scored_by_their_tests(
    rows: list[dict[str, Any]], data_dir: Path
) -> None:
    env = debate_v0.parallel_env(
        task="humaneval", data=data_dir / "humaneval", num_agents=2, num_turns=1
    )
    question = load_task("humaneval", data_dir / "humaneval").split("test")[0]
    observations, _ = env.reset(seed=0, options={"question": question})
    assert "has_close_elements" in observations["agent_0"]
    assert "assert" not in observations["agent_0"]
    right = rows[0]["prompt"] + rows[0]["canonical_solution"]
    _, rewards, *_ = env.step({"agent_0": block(right), "agent_1": block("x = 1")})
    assert rewards == {"agent_0": 1.0, "agent_1": 0.0}


@needs_namespaces
@pytest.mark.parametrize(
    ("response", "whole", "share"),
    [
        (block("def double(n): return 2 * n"), 1.0, 1.0),
        (block("from __future__ import annotations\ndef double(n): return n + n"), 1.0, 1.0),
        (block("def double(n): return math.floor(abs(2 * n))"), 0.0, 0.5),
        (block("def double(n): return 0"), 0.0, 0.0),
        (block("import os; os._exit(0)"), 0.0, 0.0),
        (block("class Y:\n    __eq__ = lambda s, o: True\ndef double(n): return Y()"), 0.0, 0.0),
        ("I do not know.", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_scores(response: str, whole: float, share: float) -> None:
    assert CodeTests().score([DOUBLE], [response]) == [whole]
    assert CodeTests(partial=True).score([DOUBLE], [response]) == [share]


@needs_namespaces
def test_a_question_without_tests_is_refused_and_lost_answers_are_no_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    question = Question("q", "p", "def double(n): return 2 * n", kind="code")
    with pytest.raises(ValueError, match="start with a line '# candidate: NAME'"):
        CodeTests().score([question], [block("x = 1")])
    verifier = CodeTests()
    monkeypatch.setattr("maporl_env.sandbox.GRACE_SECONDS", -1e9)  # it never answers in time
    assert verifier.score([DOUBLE], [block("def double(n): return 2 * n")]) == [None]


def test_a_suite_is_its_text() -> None:
    for preamble in ("", "import math", "import math\n", "\n\nx = 1\n"):
        suite = Suite("f", preamble, "assert f() == 1\n")
        assert Suite.parse(str(suite)) == suite


@pytest.mark.parametrize(
    ("name", "preamble", "tests", "complaint"),
    [
        ("2f", "", "assert f()", "not the name"),
        ("f", "# --- tests ---", "assert f()", "may not hold"),
        ("f", "", "assert f(", "cannot be run"),
        ("f", "", "f()", "assert nothing"),
    ],
)
def test_a_wrong_suite_is_refused(name: str, preamble: str, tests: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Suite(name, preamble, tests)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "HumanEval.jsonl"
    row = {"task_id": "x", "prompt": "def f():\n", "entry_point": "f", "test": "assert f()"}
    path.write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(ValueError, match=r"HumanEval\.jsonl, line 1: the tests of 'f' cannot"):
        load_task("humaneval", path)
    path.write_text(json.dumps({"task_id": "x"}) + "\n", "utf-8")
    with pytest.raises(ValueError, match=r"line 1: no text in column prompt, entry_point, test"):
        load_task("humaneval", tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"none of HumanEval\.jsonl"):
        load_task("humaneval", tmp_path)
    damaged = tmp_path / "HumanEval.jsonl.gz"
    damaged.write_bytes(gzip.compress(b"{}" * 1000)[:-9])
    with pytest.raises(ValueError, match="is damaged"):
        load_task("humaneval", tmp_path)
