"""The cases of the benchmark, and the knowledge of scripted agents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from maporl_env import tasks
from maporl_env.benchmark import CASES, choose_cases, listing
from maporl_env.benchmark.knowledge import (
    first_message,
    plausible_messages,
    right_message,
    wrong_messages,
)
from maporl_env.benchmark.suite import seal
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey

from .cases import BY_NAME

# --- The suite ----------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_a_case_is_what_its_digest_says(name: str) -> None:
    BY_NAME[name].require_sealed()


@pytest.mark.parametrize(
    "change",
    [
        {"num_turns": 2},
        {"num_agents": 3},
        {"verdicts": False},
        {"num_questions": 499},
        {"seed": 1},
        {"protocol": "sequential"},
        {"task": "coins"},
    ],
)
def test_a_changed_case_is_refused(change: dict[str, Any]) -> None:
    changed = replace(BY_NAME["sharing/debate/2x3"], **change)
    with pytest.raises(ValueError, match="raise the suite's version"):
        changed.require_sealed()


def test_changed_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One word of the template, read only from the second turn on."""
    case = BY_NAME["sharing/debate/2x3"]
    task = tasks.load_task("sharing")
    other = replace(task, template=replace(task.template, own_verdict="\nown score {score:.1f}"))
    monkeypatch.setitem(tasks.TASKS, "sharing", lambda data=None: other)
    assert seal(case) != case.digest
    monkeypatch.undo()
    assert seal(case) == case.digest


def test_names_are_unique_and_all_protocols_are_played() -> None:
    assert len(BY_NAME) == len(CASES)
    protocols = {"debate", "sequential", "pipeline", "joint", "self_correction"}
    assert {case.protocol for case in CASES} == protocols
    dialogues = {"bills", "prices"}  # they need a user who knows the reference
    assert {case.task for case in CASES} == set(tasks.BUILT_IN) - dialogues
    assert all(case.name in listing() and case.digest in listing() for case in CASES)


@pytest.mark.parametrize("name", BY_NAME)
def test_no_question_is_one_that_is_trained_on(name: str) -> None:
    case = BY_NAME[name]
    asked = {question.id for question in case.questions()}
    trained_on = tasks.load_task(case.task).split("train")
    assert len(asked) == case.num_questions
    assert asked.isdisjoint(question.id for question in trained_on)
    shared = {case.cluster_of(q) for q in case.questions()}
    assert shared.isdisjoint(case.cluster_of(question) for question in trained_on)


@pytest.mark.parametrize(
    ("case", "ids", "other"),
    [
        ("shopping/debate/2x3", ["shopping/1-pen-2-hat", "shopping/3-hat-1-pen"], "1-pen-2-cup"),
        ("receipts/joint/2x1", ["receipts/1-pen-2-bed", "receipts/2-bed-2-pen"], "1-pen-2-bow"),
        ("sharing/debate/2x3", ["sharing/3-14", "sharing/14-3"], "3-15"),
        ("coins/debate/2x3", ["coins/1-2-3-9/5", "coins/1-2-3-9/12"], "1-2-3-8/5"),
    ],
)
def test_questions_that_share_what_they_are_about_are_a_cluster(
    case: str, ids: list[str], other: str
) -> None:
    first, second = (BY_NAME[case].cluster_of(Question(name, "", "1")) for name in ids)
    assert first == second
    stranger = Question(f"{case.split('/')[0]}/{other}", "", "1")
    assert BY_NAME[case].cluster_of(stranger) != first


def test_cases_are_chosen_by_pattern() -> None:
    assert choose_cases() == CASES
    assert [case.task for case in choose_cases(["coins/*"])] == ["coins"] * 3
    assert choose_cases(["receipts/*", "shopping/pipeline/3x1"])[0].task == "shopping"
    with pytest.raises(ValueError, match=r"no case is called 'coin/\*': choose from shopping/"):
        choose_cases(["coin/*"])


# --- What scripted agents know ------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "plausible"), [("sharing", 3), ("coins", 4), ("shopping", 144), ("receipts", 144)]
)
def test_right_and_wrong_messages(task: str, plausible: int) -> None:
    for question in tasks.load_task(task).split("test")[:30]:
        texts, wrong = plausible_messages(question), wrong_messages(question)
        key = AnswerKey()
        assert len(set(texts)) == plausible
        assert right_message(question) in texts
        assert key.score([question], [right_message(question)]) == [1.0]
        assert key.score([question] * len(wrong), wrong) == [0.0] * len(wrong)
        right = sum(key.score([question] * len(texts), texts))
        assert len(wrong) == plausible - right  # a bill can come out right by two wrong prices


def test_the_deal_has_the_stated_accuracy_and_seats_are_independent() -> None:
    """500 draws of 1/2: four standard errors are 4 * sqrt(1/4 / 500) = .089."""
    questions = BY_NAME["coins/debate/2x3"].questions()
    right = [[first_message(q, seat) == right_message(q) for q in questions] for seat in range(5)]
    for dealt in right:
        assert abs(sum(dealt) / 500 - 0.5) < 0.09
    both = [a and b for a, b in zip(right[0], right[1], strict=True)]
    assert abs(sum(both) / 500 - 0.25) < 0.08  # 4 * sqrt(3/16 / 500) = .077
    assert all(first_message(q, 0, 1.0) == right_message(q) for q in questions)
    assert all(first_message(q, 0, 0.0) in wrong_messages(q) for q in questions)


def test_nothing_is_known_of_other_tasks() -> None:
    with pytest.raises(ValueError, match="'mine/1' is of no task of the suite"):
        first_message(Question("mine/1", "1 + 1 ?", "2"), 0)
