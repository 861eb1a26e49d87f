"""The tasks of programs and plans: what is right, what can be known before, hostile answers."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_env.tasks import expressions, load_task, routes
from maporl_env.tasks.routes import Board, places
from maporl_env.types import Question

WORDS = st.lists(st.sampled_from(["x", "+", "-", "*", "(", ")", "0", "7", "12"]), max_size=14)


def by_python(program: str, x: int) -> int | None:
    """The value by Python's own parser; None for what is no expression of the task."""
    try:
        tree = ast.parse(program, mode="eval").body
    except SyntaxError:
        return None

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id="x"):
                return x
            case ast.BinOp(left, ast.Add(), right):
                return value(left) + value(right)
            case ast.BinOp(left, ast.Sub(), right):
                return value(left) - value(right)
            case ast.BinOp(left, ast.Mult(), right):
                return value(left) * value(right)
        raise LookupError(node)

    try:
        return value(tree)
    except LookupError:
        return None


@given(WORDS, st.integers(0, 9))
def test_programs_mean_what_they_mean_in_python(words: list[str], x: int) -> None:
    program = " ".join(words)
    assert expressions.value_of(program, x) == by_python(program, x)


@pytest.mark.parametrize(
    "text",
    ["", "x x", "( x", "x )", "x ** 2", "-x", "y", "1e9", "__import__", "9999999", "(" * 10_000],
)
def test_what_is_no_program_has_no_value(text: str) -> None:
    assert expressions.value_of(text, 1) is None


def test_large_values_and_long_programs_end() -> None:
    assert expressions.value_of(" * ".join(["999999"] * 15), 1) is None
    assert expressions.value_of(" + ".join(["x"] * 100), 1) is None


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_gold_program_passes_all_tests(split: str) -> None:
    asked = load_task("expressions").split(split)
    texts = [f"\\boxed{{ {q.answer} }}" for q in asked]
    for verifier in (expressions.HiddenTests(), expressions.ShownTests()):
        assert set(verifier.score(asked, texts)) == {1.0}


def test_any_program_that_passes_is_right_and_the_shown_tests_do_not_decide() -> None:
    question = next(
        q for q in load_task("expressions").split("test") if q.answer.startswith("x * x")
    )
    (x, y), (other_x, other_y) = expressions.shown_tests(question)
    slope = (other_y - y) // (other_x - x)
    line = f"\\boxed{{ {slope} * ( x - {x} ) + {y} }}"
    same = f"\\boxed{{ {question.answer} + 0 }}"
    assert expressions.ShownTests().score([question] * 2, [line, same]) == [1.0, 1.0]
    assert expressions.HiddenTests().score([question] * 2, [line, same]) == [0.0, 1.0]
    assert expressions.HiddenTests().score([question], ["no box"]) == [0.0]
    assert expressions.ShownTests().score([Question("q", "?", "x", "scored")], [same]) == [0.0]


def test_no_program_is_in_two_splits_and_the_hidden_tests_are_hidden() -> None:
    task = load_task("expressions")
    programs = {name: {q.answer for q in task.split(name)} for name in task.splits}
    assert not programs["train"] & programs["test"]
    assert not programs["validation"] & (programs["train"] | programs["test"])
    shown = {x for q in task.split("train") for x, _ in expressions.shown_tests(q)}
    assert shown.isdisjoint(x for q in task.split("train") for x, _ in expressions.hidden_tests(q))


# --- Routes -------------------------------------------------------------------------

ASKED = Question("q", "from 0 0 to 2 1 not 1 0 , 4 4 , 3 3 . moves ?", "n e e", "scored")


@pytest.mark.parametrize(
    ("plan", "right", "ends"),
    [
        ("n e e", 1, 1),
        ("e e n", 0, 1),  # through a wall
        ("n n s e e", 1, 1),  # a detour is allowed
        ("s n n e e", 0, 1),  # leaves the board
        ("n e", 0, 0),
        ("", 0, 0),
        ("north", 0, 0),
        ("n e e " + "n s " * 3, 0, 0),  # more than eight moves
        ("n e e x", 0, 0),
    ],
)
def test_plans(plan: str, right: int, ends: int) -> None:
    text = f"\\boxed{{ {plan} }}"
    assert routes.RightPlan().score([ASKED], [text]) == [right]
    assert routes.EndsAtGoal().score([ASKED], [text]) == [ends]
    assert routes.RightPlan().score([ASKED], [plan]) == [0.0]


def test_the_shortest_plans_are_all_that_are_right_without_a_detour() -> None:
    board = Board((0, 0), (2, 1), ((1, 0),))
    assert routes.shortest(board) == ["n e e"]
    assert routes.shortest(board._replace(walls=())) == ["e e n", "e n e", "n e e"]
    assert places((0, 0), ["n", "e"]) == [(0, 0), (0, 1), (1, 1)]


def test_every_board_has_a_right_plan_and_a_wrong_one_and_pairs_stay_in_their_split() -> None:
    task = load_task("routes")
    ends = {}
    for name in task.splits:
        asked = task.split(name)
        boards = [routes.board_of(q) for q in asked]
        ends[name] = {board[:2] for board in boards}
        texts = [f"\\boxed{{ {q.answer} }}" for q in asked]
        assert set(routes.RightPlan().score(asked, texts)) == {1.0}
        for board in boards[:50]:
            assert 0 < len(routes.shortest(board)) < len(routes.shortest(board._replace(walls=())))
    assert not ends["train"] & ends["test"]
    assert not ends["validation"] & (ends["train"] | ends["test"])
