"""The questions of a step: each once per pass, in an order of the seed."""

from __future__ import annotations

from maporl_agents.play.questions import questions_of_step
from maporl_env.types import Question

QUESTIONS = [Question(f"q/{i}", f"how much is {i} and three ?", str(i + 3)) for i in range(3)]


class TestQuestions:
    def test_every_pass_asks_each_question_once_in_a_new_order(self) -> None:
        asked = [q for step in range(6) for q in questions_of_step(QUESTIONS, step, 2, seed=1)]
        passes = [tuple(q.id for q in asked[i : i + 3]) for i in range(0, 12, 3)]
        assert all(sorted(one) == ["q/0", "q/1", "q/2"] for one in passes)
        assert len(set(passes)) > 1

    def test_a_step_is_a_function_of_its_number(self) -> None:
        assert questions_of_step(QUESTIONS, 4, 2, seed=1) == questions_of_step(
            QUESTIONS, 4, 2, seed=1
        )
        many = QUESTIONS * 10
        assert questions_of_step(many, 0, 30, seed=1) != questions_of_step(many, 0, 30, seed=2)
