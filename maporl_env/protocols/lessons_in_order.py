"""LessonL for writing programs: agents try one after the other against tests of their own.

maporl train --game.protocol maporl_env.protocols.code_lessons:CodeLessons --game.task mbpp ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from maporl_env import fitting, prompts
from maporl_env.answers import extract_answer
from maporl_env.protocols.bank_file import earlier, read_banks
from maporl_env.protocols.lesson_bank import Lesson, judged
from maporl_env.protocols.lessons import Lessons, factor_rewards, require_pay
from maporl_env.protocols.observation_layout import Conversation
from maporl_env.types import AgentID, Answer, Message, Question, Transcript, View

WRITE_TESTS = (
    "\nDo not solve this yet. Write about {count} tests of a solution, each one line that begins "
    "with `assert`, in one block between ```python and ```.\n"
)


Grade = Callable[[Question, str, str], float | None]
"""`(question, tests, attempt) -> share of the tests passed`, None where they cannot be run."""


@dataclass(frozen=True, slots=True)
class LessonsInOrder(Lessons):
    """Agent 0 writes tests; then agents try in order, each failure leaves a lesson for the next.

    Source: LessonL, arXiv 2505.23946, code generation (from its published code). Agents are given
    from the largest model to the smallest. Turn 0: agent 0 writes the tests. Turns 1, 3, ...: the
    next agent writes a program; the first that passes all of these tests ends the episode. Turns
    2, 4, ...: its author writes a lesson about the failure. Lessons are ranked by share of tests
    passed x factor, without a cut; the next attempt sets the factors of the lessons it was shown.
    The answer is the first attempt with the largest share. `maporl_env.verifiers.self_tests` has
    this protocol with a `grade` that runs the tests in the sandbox.

    Attempts are scored by the verifier, whose tests no agent sees; only they are paid, unless
    `pay_lessons` pays lessons too. Tests are never paid.

    Attributes:
        num_turns: an even number, twice the most attempts.
        count: how many tests agent 0 is asked for. Paper: about 6.
        grade: runs the tests; a pure function.
    """

    num_turns: int = 6
    count: int = 6
    grade: Grade = field(kw_only=True)

    def __post_init__(self) -> None:
        Conversation.__post_init__(self)
        if self.num_turns % 2:
            raise ValueError(
                "protocol 'LessonsInOrder' begins with tests and ends with an attempt: num_turns "
                f"must be even, not {self.num_turns}"
            )
        if self.cut is not None or self.scale != 1.0:
            raise ValueError("cut and scale are for speed-ups: leave them out of 'LessonsInOrder'")
        require_pay(self.pay_lessons)
        if self.bank_file:
            read_banks(self.bank_file)
        for name in ("shown", "count"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be an integer >= 0, not {value!r}")

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """The author of the tests, of the next attempt, or of the last one for its lesson."""
        turn = history.turn
        if turn >= self.num_turns or (turn and turn % 2 == 0 and self._solved(history)):
            return ()
        return (history.agents[max(0, turn - 1) // 2 % len(history.agents)],)

    def _solved(self, history: Transcript) -> bool:
        return self.share(history.turn - 1, history) == 1.0

    def scored(self, history: Transcript) -> tuple[AgentID, ...]:
        """The author of an attempt."""
        last = history.of_turn(history.turn - 1)
        return () if history.turn % 2 else tuple(message.agent for message in last)

    def paid(self, history: Transcript) -> tuple[AgentID, ...]:
        """The author of an attempt; that of a lesson too with `pay_lessons`."""
        last = history.of_turn(history.turn - 1)
        pays = history.turn % 2 == 0 or (bool(self.pay_lessons) and history.turn > 1)
        return tuple(message.agent for message in last) if pays else ()

    def share(self, turn: int, history: Transcript) -> float:
        """Return the share of agent 0's tests that the attempt of a turn passes."""
        [tests], [attempt] = history.of_turn(0), history.of_turn(turn)
        return self.grade(history.question.public, tests.text, attempt.text) or 0.0

    def bank(self, history: Transcript) -> tuple[tuple[Lesson, ...], tuple[int, ...]]:
        """Return the bank after the complete turns, and the places of the lessons to show next."""
        lessons = earlier(self.bank_file, history.question)
        shown = self._shown(lessons)
        for turn in range(2, history.turn, 2):
            share = self.share(turn - 1, history)
            [said] = history.of_turn(turn)
            quality = self.quality(said.text, history.question.prompt)
            lessons = (*judged(lessons, shown, [share]), Lesson(said.text, share, quality))
            shown = self._shown(lessons)
        return lessons, shown

    def judged_bank(self, history: Transcript) -> tuple[Lesson, ...]:
        """Return the bank after the complete turns, judged also by an attempt without a lesson."""
        lessons, shown = self.bank(history)
        if history.turn and history.turn % 2 == 0:
            lessons = judged(lessons, shown, [self.share(history.turn - 1, history)])
        return lessons

    def own_rewards(self, history: Transcript) -> Mapping[tuple[int, AgentID], float]:
        """Return factor - 1 of every lesson, with `pay_lessons="factor"`; else {}."""
        if self.pay_lessons != "factor":
            return {}
        return factor_rewards(history, range(2, history.turn, 2), self.judged_bank(history))

    def result(self, solution: Message, history: Transcript) -> str:
        """Return in words which share of the tests an attempt passed."""
        [tests] = history.of_turn(0)
        share = self.grade(history.question.public, tests.text, solution.text)
        return "the tests could not be run" if share is None else f"{share:.0%} of the tests hold"

    def effect(self, lesson: Lesson) -> str:
        """Return in words what the attempt of a lesson was worth."""
        return f"the attempt passed {lesson.speedup:.0%} of the tests"

    def view(self, agent: AgentID, history: Transcript) -> View:
        """The question, with the request for tests, with the lessons, or with the own attempt."""
        agent_index, turn = history.agents.index(agent), min(history.turn, self.num_turns - 1)
        template, question = self.words(agent_index), history.question
        if turn and turn % 2 == 0:
            return self._after_own(agent_index, history.until(turn))
        opening = prompts.ask(template, question, agent_index)
        if turn == 0:
            asked = WRITE_TESTS.format(count=self.count) + prompts.cue(template, 0)
            return self._opened(agent_index, opening + asked)
        if turn == 1 and not earlier(self.bank_file, question):
            return self._question(agent_index, history)

        def made(max_shown: int | None) -> View:
            listed = self._listed(agent_index, history.until(turn), max_shown)
            again = prompts.ask_again(template, question, turn, agent_index)
            return self._opened(agent_index, opening + listed + again)

        head = self._question(agent_index, history)
        return fitting.fit_texts(made, head, self.token_budget, self.count_tokens)

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The first attempt that passes the largest share of the tests."""
        turns = range(1, history.turn, 2)
        if not turns:
            return ()
        best = max(turns, key=lambda turn: self.share(turn, history))
        [message] = history.of_turn(best)
        answer = extract_answer(message.text, history.question.kind)
        return () if answer is None else (answer,)
