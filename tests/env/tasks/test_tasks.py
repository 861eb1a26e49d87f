"""Tasks by name, file or list, and what is refused as a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maporl_env.tasks import Task, load_task, shopping
from maporl_env.types import Question

from .task_rows import OWN, write


def test_the_built_in_task_keeps_its_test_pairs_out_of_training() -> None:
    task = load_task("shopping")
    parts = {name: task.split(name) for name in ("train", "validation", "test")}
    sizes = {name: len(questions) for name, questions in parts.items()}
    assert sizes == {"train": 25_488, "validation": 3_600, "test": 7_200}

    def pairs(questions: Any) -> set[frozenset[str]]:
        return {frozenset(q.id.split("/")[1].split("-")[1::2]) for q in questions}

    assert sum(len(pairs(part)) for part in parts.values()) == 2_016  # each pair once
    assert len(set().union(*map(pairs, parts.values()))) == 2_016
    test = parts["test"]
    assert len({q.id for part in parts.values() for q in part}) == 36_288
    question = test[0]
    n, first, m, second = question.id.split("/")[1].split("-")
    total = int(n) * shopping.PRICES[first] + int(m) * shopping.PRICES[second]
    assert question.answer == str(total)
    assert load_task("shopping") is task


def test_a_list_of_questions_is_a_task() -> None:
    questions = [Question("a", "p", "1"), Question("b", "p", "neutral", "nli")]
    assert list(load_task(questions).split("train")) == questions
    task = Task("t", {"all": questions})
    assert load_task(task) is task
    assert task.default_split == "all"
    with pytest.raises(ValueError, match="question 'bad': gold answer 'many' is not readable"):
        load_task([*questions, Question("bad", "p", "many")])


@pytest.mark.parametrize(
    ("task", "error", "complaint"),
    [
        ("gsm8", ValueError, r"did you mean 'gsm8k'\?.*shopping, gsm8k, anli"),
        ("nowhere.jsonl", FileNotFoundError, r"no such file: nowhere\.jsonl"),
        ("data/nowhere", FileNotFoundError, "no such file"),
        ("", ValueError, "unknown task"),
        ([], ValueError, "at least one Question"),
        (["p"], ValueError, "at least one Question"),
        (3, ValueError, "a task is a name"),
    ],
)
def test_what_is_no_task_is_refused(task: Any, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        load_task(task)


def test_data_belong_to_a_named_task(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", OWN)
    with pytest.raises(ValueError, match="makes its own questions"):
        load_task("shopping", path)
    with pytest.raises(ValueError, match="data is for a named task"):
        load_task(path, path)
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: nowhere.*'openai/gsm8k'"):
        load_task("gsm8k", "nowhere")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(ValueError, match="holds no question"):
        load_task(empty)
    with pytest.raises(ValueError, match=r"neither \.jsonl nor \.csv"):
        load_task(Path(__file__))


def test_what_is_measured_on_is_never_the_training_split_of_a_task_with_others(
    tmp_path: Path,
) -> None:
    def task(*splits: str) -> Task:
        return Task("t", {split: [Question("a", "p", "1")] for split in splits})

    assert task("train", "validation", "test").measured_split == "test"
    assert task("train", "validation").measured_split == "validation"
    assert task("train").measured_split == "train"
    with pytest.raises(ValueError, match=r"neither a split 'test' .*\['easy', 'train'\]"):
        _ = task("train", "easy").measured_split
