"""Training data of a verifier: labelled answers, split by question, balanced per question.

Why balance per question: where easy questions come with mostly right answers and hard ones with
mostly wrong ones, a verifier does best by recognising the question. With as many right as wrong
answers to each question, recognising it is worth nothing and only the answer can tell (Park et al.,
2025, section 3.1).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from maporl_agents.config import LongQuestions, Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.play.window_check import fitting
from maporl_agents.records.storage import write_text
from maporl_agents.seeding import seed_of
from maporl_env import replay
from maporl_env.answers import KINDS
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.tasks.files import read_rows
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey, VerifierLike

Half = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Example:
    """One answer with its label: right or wrong by the key. Read by training and evaluation."""

    question: Question
    response: str
    right: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """Numbers of questions and answers that balancing kept and dropped.

    Attributes:
        questions: number of questions before balancing.
        all_right: questions dropped because every answer is right.
        all_wrong: questions dropped because every answer is wrong.
        answers: number of answers before balancing.
        kept: answers that were kept, half of them right.
    """

    questions: int
    all_right: int
    all_wrong: int
    answers: int
    kept: int


class Sampled(NamedTuple):
    """Labelled answers, and the number of answers that the task's verifier could not judge.

    `left_out` holds the ids of questions that were too long to be asked.
    """

    examples: list[Example]
    unjudged: int
    left_out: tuple[str, ...] = ()


def label(questions: Iterable[Question], responses: Iterable[str]) -> list[Example]:
    """Return answers labelled by the key.

    Raises:
        ValueError: a kind of answer that is not right by being equal to a key, such as "code".
    """
    pairs = list(zip(questions, responses, strict=True))
    for question, _ in pairs:
        if not KINDS[question.kind].keyed:
            raise ValueError(
                f"question {question.id!r} has answers of kind {question.kind!r}, which no key "
                "can judge: leave it out"
            )
    scores = AnswerKey().score([q for q, _ in pairs], [text for _, text in pairs])
    return [
        Example(question, text, score == 1)
        for (question, text), score in zip(pairs, scores, strict=True)
    ]


def sample_answers(
    team: Team,
    game: DebateConfig,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    debates_per_question: int,
    seed: int,
    batch_size: int = 256,
    on_batch: Callable[[int], None] = lambda done: None,
    long_questions: LongQuestions = "keep",
    verifier: VerifierLike | None = None,
) -> Sampled:
    """Let a team debate each question several times; return every message and its label.

    The task's own verifier labels them: the key, or what the task names instead of it (the tests
    of "humaneval"), unless another is given. Messages that it cannot judge are left out and
    counted.

    Args:
        team: who answers.
        game: the debate; one turn gives independent answers. Its own verifier is not asked.
        questions: what is asked.
        sampling: high temperature, 1.3 to 1.5, gives right and wrong answers to most questions.
        debates_per_question: each gives agents x turns answers.
        seed: names the sampling noise.
        batch_size: debates side by side.
        on_batch: called with the number of finished debates.
        long_questions: what is done with questions that may not fit; see `window_check.fitting`.
        verifier: labels the answers, 1 for right and 0 for wrong; None for the task's own.

    Returns:
        The answers, those to one question together.

    Raises:
        ValueError: no debate, questions that are too long and refused or that have private texts,
            or a score other than 0 and 1, which is no label.
    """
    if debates_per_question < 1:
        raise ValueError(f"debates_per_question must be at least 1, not {debates_per_question}")
    require_public(questions)
    parts, left_out = fitting(team, game, sampling, {"chosen": questions}, long_questions)
    asked = [question for question in parts["chosen"] for _ in range(debates_per_question)]
    debates = BatchedDebate(replace(game, verifier=verifier), min(batch_size, len(asked)))
    examples: list[Example] = []
    unjudged = 0
    noise = seed_of(seed, "answers")
    for start in range(0, len(asked), batch_size):
        part = asked[start : start + batch_size]
        rollouts = play(team, debates, part, sampling, seed=noise, first_debate=start)
        said = [(r.transcript.question, m) for r in rollouts for m in r.transcript.messages]
        judged = [(q, m.text, m.score) for q, m in said if m.score is not None]
        examples += [Example(q, text, _is_right(q, score)) for q, text, score in judged]
        unjudged += len(said) - len(judged)
        on_batch(start + len(part))
    return Sampled(examples, unjudged, tuple(left_out.get("chosen", ())))


def require_public(questions: Iterable[Question]) -> None:
    """Raise ValueError for a question with private texts: the verifier would read the prompt alone.

    Two such questions may have one prompt and different right answers.
    """
    for question in questions:
        if question.private:
            raise ValueError(
                f"question {question.id!r} has private texts, which a learned verifier does not "
                "read: choose questions whose prompts tell all that their answers depend on"
            )


def _is_right(question: Question, score: float) -> bool:
    if score not in (0, 1):
        raise ValueError(
            f"an answer to question {question.id!r} is scored {score}: this verifier says how good "
            "answers are, not which are right, and a learned verifier needs labels"
        )
    return score == 1


def recorded_answers(path: Path) -> list[Example]:
    """Return every text of a file of recordings (see `maporl_env.replay`), labelled by the key."""
    said = [
        (recording.question, text)
        for recording in replay.load(path)
        for texts in recording.texts
        for text in texts
    ]
    return label([question for question, _ in said], [text for _, text in said])


def by_question(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Group answers by the text of their question; ids do not matter."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.question.prompt, []).append(example)
    return groups


def split(
    examples: Sequence[Example], held_out_share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Return (to train on, held out); all answers to a question are on one side."""
    held = held_out((example.question.prompt for example in examples), held_out_share, seed)
    return (
        [example for example in examples if example.question.prompt not in held],
        [example for example in examples if example.question.prompt in held],
    )


def held_out(prompts: Iterable[str], share: float, seed: int) -> set[str]:
    """Return a random share of the different prompts, at least one and not all.

    Raises:
        ValueError: a share outside (0, 1), or fewer than two prompts.
    """
    if not 0 < share < 1:
        raise ValueError(f"held_out_share must be between 0 and 1, not {share}")
    order = sorted(set(prompts), key=lambda prompt: seed_of(seed, "held out", prompt))
    if len(order) < 2:
        raise ValueError("the answers are to one question: it takes two to hold one out")
    return set(order[: min(max(round(share * len(order)), 1), len(order) - 1)])


def is_one_list(train: Sequence[Question], test: Sequence[Question]) -> bool:
    """Whether two splits ask the same: a file that tells no split is both of them."""
    if train is test:
        return True
    return len(train) == len(test) and {q.prompt for q in train} == {q.prompt for q in test}


def choose_halves(
    train: Sequence[Question],
    test: Sequence[Question],
    draw: Callable[[Sequence[Question], Half], list[Question]],
    *,
    held_out_share: float,
    seed: int,
) -> tuple[list[Question], list[Question]]:
    """Return questions to train on and questions to measure on; no prompt is in both.

    Two splits that are one list are divided. Of others, the test half leaves out what was chosen
    for training.

    Args:
        train: the split to train on.
        test: the split to measure on.
        draw: takes those it wants of the questions there are for a half.
        held_out_share: of one list, for the test half.
        seed: names the division of one list.

    Raises:
        ValueError: nothing is left to measure on.
    """
    if is_one_list(train, test):
        held = held_out((question.prompt for question in train), held_out_share, seed)
        whole = train
        train = [question for question in whole if question.prompt not in held]
        test = [question for question in whole if question.prompt in held]
    chosen = draw(train, "train")
    known = {question.prompt for question in chosen}
    if any(question.prompt in known for question in test):
        test = [question for question in test if question.prompt not in known]
    if not test:
        raise ValueError(
            "every question of the test split is among those to train on: train on fewer, or name "
            "another split"
        )
    return chosen, draw(test, "test")


def balance(examples: Sequence[Example], *, seed: int) -> tuple[list[Example], Balance]:
    """Keep as many right as wrong answers of each question, drawn at random; drop the rest.

    A question whose answers are all right or all wrong is dropped and counted.

    Returns:
        The kept answers in their old order, and what was dropped.
    """
    kept: list[Example] = []
    all_right = all_wrong = 0
    groups = by_question(examples)
    for prompt, group in groups.items():
        right = [i for i, example in enumerate(group) if example.right]
        wrong = [i for i, example in enumerate(group) if not example.right]
        all_right += not wrong
        all_wrong += not right
        count = min(len(right), len(wrong))
        rng = random.Random(seed_of(seed, "balance", prompt))
        chosen = sorted(rng.sample(right, count) + rng.sample(wrong, count))
        kept += [group[i] for i in chosen]
    return kept, Balance(len(groups), all_right, all_wrong, len(examples), len(kept))


def save_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write answers, one JSON object per line."""
    rows = (
        {"question": e.question.to_dict(), "response": e.response, "right": e.right}
        for e in examples
    )
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def load_examples(path: Path) -> list[Example]:
    """Read what `save_examples` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an empty file, or a line of another form (with file and line number).
    """
    examples = []
    for where, row in read_rows(path):
        try:
            question = Question.from_dict(row["question"])
            example = Example(question, row["response"], row["right"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{where}: an answer has question, response and right") from error
        words = (question.id, question.prompt, question.kind, example.response)
        if not all(isinstance(text, str) for text in words) or not isinstance(example.right, bool):
            raise ValueError(f"{where}: response must be text and right true or false")
        examples.append(example)
    if not examples:
        raise ValueError(f"{path} holds no answers: make some with `maporl verifier data`")
    return examples
