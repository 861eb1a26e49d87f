"""Task `optimise`: slow functions, their arguments by seed, their results."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from maporl_env.answers import extract_program
from maporl_env.sandbox import Limits, Sandbox, unavailable
from maporl_env.tasks import load_task
from maporl_env.tasks.optimise import SIZES, questions, results
from maporl_env.tasks.slow_functions import FAMILIES, Family
from maporl_env.verifiers.programs import parse


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.name)
def test_the_fast_version_returns_what_the_slow_one_returns(family: Family) -> None:
    constants = family.constants[:1] + family.constants[-1:] or (0,)
    for seed, constant in enumerate(constants):
        cases = family.cases(random.Random(seed))[:2]
        slow = results(replace(family, fast=family.slow), constant, cases)
        assert slow == results(family, constant, cases)


@pytest.mark.thorough
@pytest.mark.skipif(unavailable() is not None, reason=f"no namespaces: {unavailable()}")
def test_every_original_passes_its_own_tests() -> None:
    sandbox = Sandbox(Limits(seconds=60.0))
    asked = questions("validation", len(FAMILIES))
    originals = [extract_program(q.prompt) or "" for q in asked]
    jobs = [parse(q.answer).job(source) for q, source in zip(asked, originals, strict=True)]
    assert {run.outcome for run in sandbox.run_many(jobs)} == {"passed"}


def test_questions_are_drawn_by_seed_and_differ_between_splits() -> None:
    task = load_task("optimise")
    asked = {name: list(task.split(name)) for name in SIZES}
    assert {name: len(found) for name, found in asked.items()} == SIZES
    answers = [q.answer for found in asked.values() for q in found]
    assert len(set(answers)) == len(answers)
    for answer in answers:  # no call twice in a question: keeping results is no speed-up
        calls = [line for line in answer.splitlines() if line.startswith("assert")]
        assert len(set(calls)) == len(calls) >= 3
    assert questions("test", 3) == asked["test"][:3]
    assert len({q.id for found in asked.values() for q in found}) == len(answers)


def test_the_task_refuses_data() -> None:
    with pytest.raises(ValueError, match="makes its own questions"):
        load_task("optimise", "somewhere.jsonl")
