"""The tasks of the bench: what is asked, and what may be known about an answer before it counts.

The verifier of a task is all that systems have at test time. It never is the answer key: that alone
decides what is right in the end, and it rewards training on the training questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maporl_agents import tiny
from maporl_agents.config import GameConfig
from maporl_agents.training.make_game import make_game, make_verifier
from maporl_env.answers import KINDS, answers_equal, gold
from maporl_env.tasks import Task, load_task
from maporl_env.types import Answer, Question
from maporl_env.verifiers import VerifierLike

WORDS = Path(__file__).parent / "words"
"""Files with the words in which models that are not built in are asked the built-in tasks."""
FIRST_TEST = {"shopping": 1_000, "coins": 500, "sharing": 500}
"""Test questions before this one were used by earlier studies, and are not asked here."""


@dataclass(frozen=True)
class BenchTask:
    """A task of the bench.

    Attributes:
        name: of the task, as `maporl_env.tasks.load_task` takes it.
        about: what it is an example of.
        expected: what the bench expects of it, said beforehand.
        models: the built-in models that play it, one per agent in rotation.
        verifier: scores answers at test time, a name as for `make_game.make_verifier`; "" for none.
        told: that verifier in words.
        shown: whether agents read its scores.
        different: whether members differ, so that it matters who is asked.
        max_new_tokens: limit of a message.
        train_tokens: tokens that a training generates, at the default budget.
        train_turns: turns of a debate that are trained, as `TeamConfig.train_turns`.
        learning_rate: of PPO.
        words: a file with the words of the debate, as `GameConfig.template`; "" for the task's own.
    """

    name: str
    about: str = "a task of one's own"
    expected: str = ""
    models: tuple[str, ...] = ()
    verifier: str = ""
    told: str = "none"
    shown: bool = False
    different: bool = False
    max_new_tokens: int = 32
    train_tokens: int = 40_000
    train_turns: str = "all"
    learning_rate: float = 6e-4
    words: str = ""

    def game(self, **options: Any) -> GameConfig:
        """Return the game that is played at test time; `options` are those of `GameConfig`."""
        shown = {"reward_feedback": True} if self.shown else {}
        scorer = self.verifier or f"{__name__}:nothing_known"
        words = {"template": self.words}
        return GameConfig(task=self.name, verifier=scorer, **{**words, **shown, **options})

    def training_game(self, **options: Any) -> GameConfig:
        """Return the game that is trained on: rewards by the key, the same scores shown."""
        shown = {"reward_feedback": True, "feedback_verifier": self.verifier} if self.shown else {}
        return GameConfig(task=self.name, template=self.words, **{**shown, **options})

    def questions(self, split: str, count: int) -> list[Question]:
        """Return the first `count` questions of a split that earlier studies did not ask.

        Raises:
            ValueError: there are fewer.
        """
        start = FIRST_TEST.get(self.name, 0) if split == "test" else 0
        found = list(self.load().split(split)[start : start + count])
        if len(found) < count:
            raise ValueError(
                f"task {self.name!r} has {len(found)} questions to ask of its split {split!r}, "
                f"fewer than {count}: ask fewer (--questions, --validation-questions)"
            )
        return found

    def load(self) -> Task:
        """Return the task."""
        return load_task(self.name)

    def scorer(self) -> VerifierLike | None:
        """Return the verifier that systems have at test time; None if there is none."""
        return make_verifier(self.verifier) if self.verifier else None

    def played_by(self, model: str) -> BenchTask:
        """Return the task as a given model plays it, in plain English unless it is built in."""
        played = replace(self, models=(model,), different=False)
        if model in tiny.MODELS:
            return played
        own = WORDS / f"{self.name}.json"
        words = own if own.is_file() else WORDS / "plain.json"
        in_words = str(words) if self.name in TASKS else self.words
        return replace(played, max_new_tokens=0, words=in_words)


def nothing_known(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    """Return 0 for every answer: the verifier of a task that has none at test time."""
    return [0.0] * len(responses)


NOISY = "a noisy key, right in 9 of 10 cases, in place of a trained verifier"

TASKS: dict[str, BenchTask] = {
    task.name: task
    for task in (
        BenchTask(
            "shopping",
            about="knowledge split between agents",
            expected="Systems in which members read each other, or mix distributions, beat a vote.",
            models=("tiny",),
            verifier="noisy_key",
            told=NOISY,
            different=True,
            train_tokens=60_000,
            learning_rate=1e-3,
        ),
        BenchTask(
            "coins",
            about="checking is easier than solving",
            expected="Choosing by the verifier beats a vote.",
            models=("tiny-sharing",),
            verifier="noisy_key",
            told=f"{NOISY}; agents read its verdicts",
            shown=True,
            train_turns=">=2",
        ),
        BenchTask(
            "expressions",
            about="programs with hidden tests",
            expected="Choosing by the shown tests beats a vote.",
            models=("tiny-maker",),
            verifier="maporl_env.tasks.expressions:ShownTests",
            told="the two tests in the question; four hidden ones decide",
        ),
        BenchTask(
            "routes",
            about="planning",
            expected="Training beats every untrained system.",
            verifier="maporl_env.tasks.routes:EndsAtGoal",
            told="whether the plan ends at the goal, walls left out",
            models=("tiny-maker",),
        ),
        BenchTask(
            "sharing",
            about="plain arithmetic, at chance for these models",
            expected="Nothing helps.",
            models=("tiny-sharing",),
            train_tokens=20_000,
        ),
    )
}
"""The tasks of the default bench."""

FOR_MODELS = ("notes", "coins", "expressions", "routes", "sharing")
"""Those that a model which is not built in is asked."""


def bench_task(name: str) -> BenchTask:
    """Return a task of the bench, or any other task by its name.

    Raises:
        ValueError: there is no such task.
    """
    if name in TASKS:
        return TASKS[name]
    load_task(name)
    return BenchTask(name)


class Marker:
    """Says whether an answer is right: by the answer key, or by the task's own verifier.

    Args:
        task: of the questions.

    Raises:
        Exception: whatever the task's verifier raises.
    """

    def __init__(self, task: BenchTask) -> None:
        made = make_game(task.training_game()).task.make_verifier
        self._verifier = None if made is None else made()
        self._known: dict[tuple[str, Answer], bool] = {}

    def right(self, question: Question, answer: Answer) -> bool:
        """Return whether an answer to a question is right."""
        key = question.id, answer
        if key not in self._known:
            self._known[key] = self._marked(question, answer)
        return self._known[key]

    def _marked(self, question: Question, answer: Answer) -> bool:
        if KINDS[question.kind].keyed or self._verifier is None:
            return answers_equal(answer, gold(question.answer, question.kind))
        score = scores_by(self._verifier, [question], [as_message(question, answer)])[0]
        return score is not None and score >= 0.5


def as_message(question: Question, answer: Answer) -> str:
    """Return a message that gives an answer and nothing else."""
    if question.kind == "code":
        return f"```python\n{answer}\n```"
    return f"\\boxed{{ {answer} }}"


def scores_by(
    verifier: VerifierLike, questions: Sequence[Question], texts: Sequence[str]
) -> list[float | None]:
    """Return the scores of texts; unlike `Scorer`, what the verifier raises is raised.

    Raises:
        ValueError: another number of scores.
    """
    score: Any = getattr(verifier, "score", None) or verifier
    found = [None if one is None else float(one) for one in score([*questions], [*texts])]
    if len(found) != len(texts):
        raise ValueError(f"the verifier gave {len(found)} scores for {len(texts)} answers")
    return found
