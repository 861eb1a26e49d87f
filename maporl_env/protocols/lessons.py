"""Agents solve at once, write what they learnt, and read each other's lessons (LessonL)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from maporl_env import fitting, prompts
from maporl_env.answers import extract_answer
from maporl_env.protocols.bank_file import earlier, read_banks
from maporl_env.protocols.base import PartialTurns
from maporl_env.protocols.lesson_bank import Lesson, judged, selected
from maporl_env.protocols.observation_layout import Conversation
from maporl_env.types import AgentID, Answer, Message, Transcript, View

BANK = "\nLessons from earlier attempts:\n"
ENTRY = "{number}. ({effect}) {fence}{text}{fence}\n"
RESULT = (
    "\nResult of your attempt: {result}.\nWrite one or two sentences on what to learn from it.\n"
)


def likeness(lesson: str, question: str) -> float:
    """Return the cosine of the word counts of two texts, in [0, 1].

    The paper compares embeddings; this needs no model.
    """
    one, two = (Counter(text.lower().split()) for text in (lesson, question))
    norms = math.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in two.values()))
    return sum(one[word] * two[word] for word in one) / norms if norms else 0.0


def require_pay(pay_lessons: object) -> None:
    """Raise ValueError unless a value is one of the ways to reward lessons."""
    if not isinstance(pay_lessons, bool) and pay_lessons != "factor":
        raise ValueError(f'pay_lessons must be true, false or "factor", not {pay_lessons!r}')


def factor_rewards(
    history: Transcript, turns: Iterable[int], lessons: Sequence[Lesson]
) -> dict[tuple[int, AgentID], float]:
    """Return factor - 1 by turn and author of the last lessons, those written in some turns."""
    authors = [(said.turn, said.agent) for turn in turns for said in history.of_turn(turn)]
    own = lessons[len(lessons) - len(authors) :]
    return {place: one.factor - 1 for place, one in zip(authors, own, strict=True)}


@dataclass(frozen=True, slots=True)
class Lessons(PartialTurns, Conversation):
    """Turns 1, 3, 5, ... solve, the turns between write lessons; all read the same lessons.

    Source: LessonL, arXiv 2505.23946, sections 3 and 4 (code optimisation). In a solving turn all
    agents answer at once and are scored; in a lesson turn each reads its own last answer and its
    result and writes a lesson. Later solvers read the question and the selected lessons, and
    nobody's earlier answer. The team's answer is that with the highest score of all turns,
    whatever the factors of lessons. Lesson turns are not scored.

    Attributes:
        shown: k, the most lessons that are shown. Paper: 4.
        cut: least speedup x factor of a lesson shown for its speed; None ranks all by it. Paper:
            1.1 for code optimisation. With it, agents read results as speed-ups.
        scale: the speed-up of a solution whose score is 1, which a verifier in [0, 1] cannot say.
        pay_lessons: reward lessons (not in the paper): "factor", with their last factor - 1, which
            is 0 for a lesson that nobody was shown; or True, with the scores that follow.
        quality: relevance of a lesson to a question's prompt.
        bank_file: lessons of earlier episodes, with which banks begin, see `bank_file`; "" for
            empty banks, as in the paper.
    """

    num_turns: int = 7
    shown: int = 4
    cut: float | None = None
    scale: float = 1.0
    pay_lessons: bool | Literal["factor"] = False
    quality: Callable[[str, str], float] = likeness
    bank_file: str = ""

    def __post_init__(self) -> None:
        Conversation.__post_init__(self)
        if self.num_turns % 2 == 0:
            raise ValueError(
                "protocol 'lessons' solves in the first and in the last turn, with lessons "
                f"between: num_turns must be odd, not {self.num_turns}"
            )
        if isinstance(self.shown, bool) or not isinstance(self.shown, int) or self.shown < 0:
            raise ValueError(f"shown must be an integer >= 0, not {self.shown!r}")
        require_pay(self.pay_lessons)
        if self.bank_file:
            read_banks(self.bank_file)
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale must be a finite number above 0, not {self.scale!r}")

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """All agents at once, until the horizon."""
        return history.agents if history.turn < self.num_turns else ()

    def turn_over(self, history: Transcript) -> bool:
        """Whoever speaks in a turn speaks at once."""
        return True

    def turn_of(self, agent: AgentID, history: Transcript) -> int:
        """Return the turn of the agent's next message (0-based)."""
        return history.turn

    def scored(self, history: Transcript) -> tuple[AgentID, ...]:
        """All agents, after a solving turn."""
        return () if history.turn % 2 == 0 else history.agents

    def paid(self, history: Transcript) -> tuple[AgentID, ...]:
        """All agents, after a solving turn; after a lesson turn too with `pay_lessons`."""
        return history.agents if self.pay_lessons or history.turn % 2 else ()

    def speedup(self, message: Message) -> float:
        """Return the speed-up of a solution: its score times `scale`, 0 without a score."""
        return (message.score or 0.0) * self.scale

    def bank(self, history: Transcript) -> tuple[tuple[Lesson, ...], tuple[int, ...]]:
        """Return the bank after the complete turns, and the places of the lessons to show next.

        A function of the history alone: each solving turn judges the lessons that were shown in it
        before the next lessons are added.
        """
        lessons = earlier(self.bank_file, history.question)
        shown = self._shown(lessons)
        for turn in range(0, history.turn - history.turn % 2, 2):
            solutions = history.of_turn(turn)
            lessons = judged(lessons, shown, [self.speedup(one) for one in solutions])
            for solution, said in zip(solutions, history.of_turn(turn + 1), strict=True):
                quality = self.quality(said.text, history.question.prompt)
                lessons = (*lessons, Lesson(said.text, self.speedup(solution), quality))
            shown = self._shown(lessons)
        return lessons, shown

    def judged_bank(self, history: Transcript) -> tuple[Lesson, ...]:
        """Return the bank after the complete turns, judged also by attempts without lessons yet."""
        lessons, shown = self.bank(history)
        if history.turn % 2:
            last = history.of_turn(history.turn - 1)
            lessons = judged(lessons, shown, [self.speedup(one) for one in last])
        return lessons

    def own_rewards(self, history: Transcript) -> Mapping[tuple[int, AgentID], float]:
        """Return factor - 1 of every lesson, with `pay_lessons="factor"`; else {}."""
        if self.pay_lessons != "factor":
            return {}
        return factor_rewards(history, range(1, history.turn, 2), self.judged_bank(history))

    def _shown(self, lessons: tuple[Lesson, ...]) -> tuple[int, ...]:
        return selected(lessons, self.shown, self.cut, take_all=len(lessons) <= self.shown)

    def view(self, agent: AgentID, history: Transcript) -> View:
        """The question with the lessons; in a lesson turn, with the own last answer and result."""
        agent_index, turn = history.agents.index(agent), min(history.turn, self.num_turns - 1)
        question = self._question(agent_index, history)
        if turn == 0 and not earlier(self.bank_file, history.question):
            return question
        spoken = history.until(turn)
        if turn % 2:
            return self._after_own(agent_index, spoken)
        template = self.words(agent_index)
        again = prompts.ask_again(template, history.question, turn, agent_index)
        opening = prompts.ask(template, history.question, agent_index)

        def made(max_shown: int | None) -> View:
            listed = self._listed(agent_index, spoken, max_shown)
            return self._opened(agent_index, opening + listed + again)

        return fitting.fit_texts(made, question, self.token_budget, self.count_tokens)

    def _after_own(self, agent_index: int, history: Transcript) -> View:
        """Return the question, the own solution, and its result with the request for a lesson."""
        own = history.message(history.turn - 1, history.agents[agent_index])
        asked = RESULT.format(result=self.result(own, history))
        asked = prompts.apart(prompts.breaks_off(own), asked) + asked
        question = self._question(agent_index, history)
        whole: View = (*question, ("own", own.text), ("user", asked))
        too_long = (
            self.token_budget is not None
            and self.count_tokens(prompts.render(whole)) > self.token_budget
        )
        return question if too_long else whole

    def result(self, solution: Message, history: Transcript) -> str:
        """Return in words what a solution is worth; with a `cut`, as a speed-up."""
        if solution.score is None:
            return "no result"
        if self.cut is None:
            return f"score {solution.score:.2f}"
        fast = self.speedup(solution)
        return f"right, {fast:.2f} times as fast" if fast > 0 else "wrong"

    def _listed(self, agent_index: int, history: Transcript, max_shown: int | None) -> str:
        """Return the selected lessons, each with what its solution was worth."""
        lessons, places = self.bank(history)
        template = self.words(agent_index)
        said = ""
        limit = self.max_shown if max_shown is None else max_shown
        for number, place in enumerate(places, start=1):
            one = lessons[place]
            text, note = prompts.shorten(template, one.text, limit)
            said += ENTRY.format(
                number=number, effect=self.effect(one), fence=prompts.fence(text), text=text + note
            )
        return BANK + said if said else ""

    def effect(self, lesson: Lesson) -> str:
        """Return in words what the solution of a lesson was worth."""
        if lesson.speedup <= 0:
            return "the attempt failed"
        if self.cut is None:
            return f"the attempt reached {lesson.speedup:.2f}"
        return f"the attempt was {lesson.speedup:.2f} times as fast"

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The answer with the highest score of all complete turns; the earliest of equal ones."""
        solved = [m for turn in range(0, history.turn, 2) for m in history.of_turn(turn)]
        known = [message for message in solved if message.score is not None]
        if not known:
            return ()
        best = max(known, key=self.speedup)
        answer = extract_answer(best.text, history.question.kind)
        return () if answer is None else (answer,)
