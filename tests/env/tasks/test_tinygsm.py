"""Answers made by running programs, and questions that stay on disk; both from a cache."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from maporl_env.sandbox import Job, Limits, Outcome, Result, SandboxUnavailable, unavailable
from maporl_env.tasks import files, hub, line_index, load_task
from maporl_env.tasks.published import gsm8k, tinygsm
from maporl_env.tasks.published.gsm8k import load as load_gsm8k
from maporl_env.types import Question

needs_namespaces = pytest.mark.skipif(
    unavailable() is not None, reason=f"no namespaces: {unavailable()}"
)
HEAD = "def simple_math_problem() -> int:\n    "
PROGRAMS = [
    HEAD + "apples = 3\n    result = apples + 4\n    return result",
    HEAD + "import math\n    return math.ceil(7 / 2)",
    HEAD + "return 0.1 + 0.2",
    HEAD + "return 1 / 0",
    HEAD + "return 'seven'",
    HEAD + "return float('inf')",
    HEAD + "return True",
    HEAD + "import os; os._exit(0)",
    HEAD + "return 10 ** 3000",
    "def other(): return 1",
    HEAD + "return -12.50",
]
ANSWERS = {0: "7", 1: "4", 2: "0.3", 10: "-12.5"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def problems() -> list[dict[str, Any]]:
    return [{"question": f"Question {n}?", "code": code} for n, code in enumerate(PROGRAMS)]


@needs_namespaces
def test_final_answers_come_from_the_programs(tmp_path: Path) -> None:
    questions = load_task("tinygsm", write(tmp_path / "tinygsm.jsonl", problems())).split("rl")
    assert list(questions) == [
        Question(f"tinygsm/{n}", f"Question {n}?", answer) for n, answer in ANSWERS.items()
    ]


@needs_namespaces
def test_programs_run_once_and_changed_programs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "tinygsm.jsonl", problems())
    first = load_task("tinygsm", tmp_path).split("rl")

    def refuse(*_: object) -> None:
        raise AssertionError("a program was run again")

    with monkeypatch.context() as patch:
        patch.setattr(tinygsm, "solve", refuse)
        assert load_task("tinygsm", path).split("rl") == first
    write(path, [{"question": "Another?", "code": HEAD + "return 1"}])
    assert [q.prompt for q in load_task("tinygsm", path).split("rl")] == ["Another?"]


@dataclass(frozen=True)
class Scripted:
    """A sandbox whose verdicts are written down: for each program, one after the other."""

    verdicts: dict[str, list[Outcome]]
    limits: Limits = tinygsm.LIMITS
    seen: list[tuple[str, float]] = field(default_factory=list)

    def run_many(self, jobs: Sequence[Job]) -> list[Result]:
        """Return the next verdict on each."""
        self.seen.extend((job.source, self.limits.seconds) for job in jobs)
        outcomes = [self.verdicts[job.source].pop(0) for job in jobs]
        return [Result(outcome, 7 if outcome == "passed" else None) for outcome in outcomes]


def asked_about(verdicts: dict[str, list[Outcome]]) -> tuple[Scripted, list[files.Numbered]]:
    rows = [(f"row {name}", {"question": f"{name}?", "code": name}) for name in verdicts]
    return Scripted(verdicts), rows


def test_a_slow_program_gets_another_chance_and_what_is_left_out_is_counted() -> None:
    box, rows = asked_about(
        {
            "fine": ["passed"],
            "slow": ["timeout", "passed"],
            "endless": ["timeout", "timeout"],
            "unlucky": ["lost", "passed"],
            "wrong": ["failed"],
            "gone": ["died"],
        }
    )
    dropped: Counter[str] = Counter()
    found = list(tinygsm.solve(rows, box, dropped=dropped))  # type: ignore[arg-type]
    assert [q.prompt for q in found] == ["fine?", "slow?", "unlucky?"]
    assert dropped == {"timeout": 1, "failed": 1, "died": 1}
    assert box.seen[6:] == [("slow", 10.0), ("endless", 10.0), ("unlucky", 10.0)]


def test_a_program_without_any_verdict_is_an_error(cache: Path) -> None:
    box, rows = asked_about({"fine": ["passed"], "lost": ["lost", "lost"]})
    with pytest.raises(SandboxUnavailable, match=r"row lost: .*try again"):
        list(tinygsm.solve(rows, box))  # type: ignore[arg-type]


@needs_namespaces
def test_what_was_left_out_stands_beside_the_answers(tmp_path: Path, cache: Path) -> None:
    load_task("tinygsm", write(tmp_path / "tinygsm.jsonl", problems()))
    [kept] = (cache / "tinygsm").glob("*.json")
    # 1 / 0 and no such function; a text, infinity, True, 10^3000 are no numbers; os._exit
    assert json.loads(kept.read_text()) == {
        "kept": 4,
        "dropped": {"failed": 2, "passed": 4, "died": 1},
    }


@needs_namespaces
def test_an_empty_file_in_the_cache_is_no_answer(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "tinygsm.jsonl", problems())
    first = load_task("tinygsm", path).split("rl")
    [kept] = (cache / "tinygsm").glob("*.jsonl")
    kept.write_bytes(b"")
    assert load_task("tinygsm", path).split("rl") == first


@needs_namespaces
def test_gsm8k_takes_its_rl_questions_from_programs(tmp_path: Path) -> None:
    known = {"question": "Question 0?", "answer": "so\n#### 7"}
    write(tmp_path / "train.jsonl", [known, {"question": "Else?", "answer": "#### 1"}])
    write(tmp_path / "test.jsonl", [{"question": "Test?", "answer": "#### 1"}])
    write(tmp_path / "tinygsm.jsonl", problems())
    task = load_gsm8k(tmp_path)
    assert [q.id for q in task.split("rl")] == ["tinygsm/1", "tinygsm/2", "tinygsm/10"]


def test_given_answers_need_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinygsm, "Sandbox", None)
    path = write(
        tmp_path / "x.jsonl", [{"question": "q", "answer": 4}, {"question": "r", "answer": 5}]
    )
    assert [q.answer for q in tinygsm.read(path, 1)] == ["4"]
    assert [q.answer for q in tinygsm.read(path, 5, without={"q"})] == ["5"]


@needs_namespaces
def test_gsm8k_of_the_hub_has_its_rl_questions_there_and_reads_them_when_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def load_dataset(name: str, config: str | None, *, split: str, **options: Any) -> Any:
        asked.append(name)
        if name == "openai/gsm8k":
            return [{"question": f"{split} {n}?", "answer": f"#### {n}"} for n in range(6)]
        assert (name, options) == ("TinyGSM/TinyGSM", {"streaming": True})
        rows = ["train 1?", "new 1?", "train 5?", "new 2?"]
        return [{"question": text, "code": HEAD + "return 3"} for text in rows]

    library = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", library)  # type: ignore[arg-type]
    monkeypatch.setattr(hub, "hub_answers", lambda address: True)
    monkeypatch.setattr(gsm8k, "NUM_VERIFIER", 4)
    task = load_task("gsm8k", "openai/gsm8k")
    assert "rl" in task.splits
    assert set(asked) == {"openai/gsm8k"}
    # "train 5?" may be asked: the verifier's four are 0 to 3.
    assert [q.prompt for q in task.split("rl")] == ["new 1?", "train 5?", "new 2?"]
    assert (len(task.split("rl")), task.split("rl")[0].answer) == (3, "3")
    assert asked.count("TinyGSM/TinyGSM") == 1


def test_tinygsm_may_lie_beside_the_folder(tmp_path: Path) -> None:
    for name in ("gsm8k", "tinygsm"):
        (tmp_path / name).mkdir()
    for name in ("train", "test"):
        write(tmp_path / "gsm8k" / f"{name}.jsonl", [{"question": name, "answer": "#### 1"}] * 2)
    assert "rl" not in load_gsm8k(tmp_path / "gsm8k").splits
    write(tmp_path / "tinygsm" / "tinygsm.jsonl", [{"question": "q", "answer": 4}])
    assert [q.prompt for q in load_gsm8k(tmp_path / "gsm8k").split("rl")] == ["q"]


@needs_namespaces
def test_the_hub_is_streamed_no_further_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Any:
        assert (name, config, split, streaming) == ("TinyGSM/TinyGSM", None, "train", True)
        for n in range(10**9):
            taken.append(n)
            yield {"question": f"{n}?", "code": HEAD + f"return {n}"}

    library = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", library)  # type: ignore[arg-type]
    monkeypatch.setattr(hub, "hub_answers", lambda address: True)
    monkeypatch.setattr(tinygsm, "NUM_RL", 5)
    monkeypatch.setattr(tinygsm, "BATCH", 4)
    first = load_task("tinygsm").split("rl")
    assert [q.answer for q in first] == ["0", "1", "2", "3", "4"]
    assert len(taken) == 8
    assert load_task("tinygsm").split("rl") == first
    assert len(taken) == 8


def test_what_is_no_answer() -> None:
    for value in (None, True, "7", float("nan"), float("-inf"), [1], 10**2000, 10**5000):
        assert tinygsm.final_answer(Result("passed", value)) is None
    assert tinygsm.final_answer(Result("passed", 10**20)) == str(10**20)
    assert tinygsm.final_answer(Result("passed", 1e20)) == "1e+20"


def test_wrong_rows_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"question": "q"}])
    if unavailable() is None:
        with pytest.raises(ValueError, match=r"x\.jsonl, line 1: no text in column 'code'"):
            load_task("tinygsm", path)


# --- questions that stay on disk ---------------------------------------------


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGE_BYTES", 0)


def own(count: int) -> list[dict[str, Any]]:
    return [{"question": f"{n} + 1? \u00e9", "answer": str(n + 1)} for n in range(count)]


@pytest.mark.parametrize("name", ["mine.jsonl", "test.jsonl"])
def test_questions_on_disk_are_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(tmp_path / name, own(7))
    text = path.read_bytes().replace(b"\n", b"\r\n\n", 3)
    path.write_bytes(b"\xef\xbb\xbf" + text)
    split = "test"
    memory = load_task(path).split(split)
    monkeypatch.setattr(files, "LARGE_BYTES", 0)
    disk = load_task(path).split(split)
    assert isinstance(disk, line_index.IndexedQuestions)
    assert list(disk) == list(memory)
    assert disk[-1] == memory[-1]
    assert list(disk[2:5][1:]) == list(memory[3:5])
    assert list(pickle.loads(pickle.dumps(disk))) == list(memory)
    with pytest.raises(IndexError):
        disk[7]


def test_the_index_is_made_once_per_content(
    tmp_path: Path, cache: Path, everything_is_large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "mine.jsonl", own(5))
    first = load_task(path).split("train")
    moved = tmp_path / "mine2.jsonl"
    moved.write_bytes(path.read_bytes())

    def refuse(*_: object) -> None:
        raise AssertionError("the rows were checked again")

    with monkeypatch.context() as patch:
        patch.setattr(line_index, "_check", refuse)
        again = load_task(moved).split("train")
    assert [q.prompt for q in again] == [q.prompt for q in first]
    write(path, own(6))
    assert len(load_task(path).split("train")) == 6
    assert len(list((cache / "index").iterdir())) == 2


@pytest.mark.parametrize("harm", [b"", b"\x93NUMPY", b"nonsense"])
def test_a_damaged_index_is_made_again_and_another_version_is_another_index(
    tmp_path: Path,
    cache: Path,
    everything_is_large: None,
    monkeypatch: pytest.MonkeyPatch,
    harm: bytes,
) -> None:
    path = write(tmp_path / "mine.jsonl", own(5))
    first = list(load_task(path).split("train"))
    [kept] = (cache / "index").iterdir()
    kept.write_bytes(harm)
    assert list(load_task(path).split("train")) == first
    assert len(kept.read_bytes()) > 100
    monkeypatch.setattr(line_index, "_VERSION", line_index._VERSION + 1)
    assert list(load_task(path).split("train")) == first
    assert len(list((cache / "index").iterdir())) == 2


def test_what_is_kept_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace_ = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: order.append(f"{os.fstat(f).st_size}") or fsync(f))
    monkeypatch.setattr(os, "replace", lambda *names: order.append("named") or replace_(*names))
    line_index.keep(tmp_path / "file", b"12345")
    assert order == ["5", "named"]
    assert (tmp_path / "file").read_bytes() == b"12345"


def test_a_file_that_changes_while_in_use_is_noticed(
    tmp_path: Path, everything_is_large: None
) -> None:
    path = write(tmp_path / "mine.jsonl", own(5))
    questions = load_task(path).split("train")
    write(path, own(50))
    for kept in (questions, questions[1:], questions[1:][:2]):
        with pytest.raises(ValueError, match="changed while in use: load the task again"):
            kept[0]


def test_a_fingerprint_is_of_these_questions_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "mine.jsonl", own(5))
    memory = load_task(path).split("train")
    known = line_index.fingerprint(memory)
    assert line_index.fingerprint(list(memory)) == known
    monkeypatch.setattr(files, "LARGE_BYTES", 0)
    disk = load_task(path).split("train")
    on_disk = line_index.fingerprint(disk)
    assert line_index.fingerprint(load_task(path).split("train")[:]) == on_disk
    others: list[Any] = [memory[:4], memory[::-1], disk[:4], disk[::-1]]
    for change in ({"id": "x"}, {"prompt": "x"}, {"answer": "9"}):
        others.append([*memory[:4], replace(memory[4], **change)])
    changed = own(5)
    changed[3]["answer"] = "7"
    others.append(load_task(write(path, changed)).split("train"))
    prints = [known, on_disk, *map(line_index.fingerprint, others)]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 3: not valid JSON"),
        ("[1]", "line 3: expected a JSON object"),
        ('{"question": "q", "answer": "many"}', "line 3: gold answer 'many'"),
        ('{"question": "q", "answer": "1", "id": "mine/0"}', r"line 3: id 'mine/0' stands already"),
    ],
)
def test_a_wrong_row_on_disk_is_named_when_it_is_loaded(
    tmp_path: Path, cache: Path, everything_is_large: None, line: str, complaint: str
) -> None:
    path = write(tmp_path / "mine.jsonl", own(2))
    path.write_text(path.read_text("utf-8") + line + "\n", "utf-8")
    with pytest.raises(ValueError, match=complaint):
        load_task(path)
    assert not (cache / "index").exists()


def test_a_column_split_is_read_into_memory(tmp_path: Path, everything_is_large: None) -> None:
    rows = [{**row, "split": "test" if n else "train"} for n, row in enumerate(own(3))]
    task = load_task(write(tmp_path / "mine.jsonl", rows))
    assert (len(task.split("train")), len(task.split("test"))) == (1, 2)
