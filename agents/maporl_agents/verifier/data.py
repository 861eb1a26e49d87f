"""Labelled answers for a verifier: sampled or recorded, split by question, balanced per question.

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

from maporl_agents.config import Sampling
from maporl_agents.rollout import play
from maporl_agents.seeding import seed_of
from maporl_agents.storage import write_text
from maporl_agents.team import Team
from maporl_env import replay
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.tasks.files import read_rows
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey


@dataclass(frozen=True, slots=True)
class Example:
    """One answer and whether the key calls it right. Made here, read by training and evaluation."""

    question: Question
    response: str
    right: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """What balancing kept and dropped.

    Attributes:
        questions: how many there were.
        all_right: questions dropped because every answer is right.
        all_wrong: questions dropped because every answer is wrong.
        answers: how many there were.
        kept: answers that were kept, half of them right.
    """

    questions: int
    all_right: int
    all_wrong: int
    answers: int
    kept: int


def label(questions: Iterable[Question], responses: Iterable[str]) -> list[Example]:
    """Return answers labelled by the key."""
    pairs = list(zip(questions, responses, strict=True))
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
) -> list[Example]:
    """Let a team debate each question several times; return every message, labelled by the key.

    Args:
        team: who answers.
        game: the debate; one turn gives independent answers.
        questions: what is asked.
        sampling: high temperature, 1.3 to 1.5, gives right and wrong answers to most questions.
        debates_per_question: each gives agents x turns answers.
        seed: names the sampling noise.
        batch_size: debates side by side.
        on_batch: called with the number of debates that are done.

    Returns:
        The answers, those to one question together.
    """
    if debates_per_question < 1:
        raise ValueError(f"debates_per_question must be at least 1, not {debates_per_question}")
    asked = [question for question in questions for _ in range(debates_per_question)]
    debates = BatchedDebate(replace(game, verifier=AnswerKey()), min(batch_size, len(asked)))
    examples: list[Example] = []
    for start in range(0, len(asked), batch_size):
        part = asked[start : start + batch_size]
        rollouts = play(team, debates, part, sampling, seed=seed_of(seed, "answers", start))
        examples += [
            Example(rollout.transcript.question, message.text, message.score == 1)
            for rollout in rollouts
            for message in rollout.transcript.messages
        ]
        on_batch(start + len(part))
    return examples


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
    """Group answers by what was asked: equal words are one question, whatever their ids."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.question.prompt, []).append(example)
    return groups


def split(
    examples: Sequence[Example], held_out_share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Return (to train on, held out); all answers to a question are on one side."""
    if not 0 < held_out_share < 1:
        raise ValueError(f"held_out_share must be between 0 and 1, not {held_out_share}")
    groups = by_question(examples)
    if len(groups) < 2:
        raise ValueError("the answers are to one question: it takes two to hold one out")
    order = sorted(groups, key=lambda prompt: seed_of(seed, "held out", prompt))
    held = set(order[: min(max(round(held_out_share * len(order)), 1), len(order) - 1)])
    return (
        [example for example in examples if example.question.prompt not in held],
        [example for example in examples if example.question.prompt in held],
    )


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
