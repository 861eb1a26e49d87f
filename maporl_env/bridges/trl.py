"""Our tasks and verifiers in TRL: rows for its trainers, and `reward_funcs` for its GRPO trainer.

    task = load_task("gsm8k", "train.jsonl")
    trainer = GRPOTrainer(
        model,
        reward_funcs=[reward_function(AnswerKey())],
        train_dataset=Dataset.from_list(rows(task.split("train"), task.template.system)),
    )

Only the calling convention is TRL's; nothing is imported from it. Adapters that ``maporl export``
writes are plain PEFT folders, which TRL's trainers load as any other.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from maporl_env import prompts
from maporl_env.prompts import Template
from maporl_env.types import Question
from maporl_env.verifiers import Scorer, VerifierLike

Row = dict[str, Any]


def rows(questions: Iterable[Question], system: str = "", agent: int = 0) -> list[Row]:
    """Return questions as rows of a data set in TRL's conversational form.

    Args:
        questions: of any task.
        system: a system message before each; "" for none.
        agent: index of the agent whose private text, if there is one, stands behind the question.

    Raises:
        ValueError: a question has private texts, but none for that agent.
    """
    questions = list(questions)
    opening = [{"role": "system", "content": system}] if system else []
    # References are no part of a prompt; a column for them only where there are some.
    hidden = any(question.hidden for question in questions)
    return [
        {
            "prompt": [*opening, {"role": "user", "content": _asked(question, agent)}],
            "question_id": question.id,
            "answer": question.answer,
            "kind": question.kind,
            **({"hidden": question.hidden} if hidden else {}),
        }
        for question in questions
    ]


def _asked(question: Question, agent: int) -> str:
    count = len(question.private)
    if count and not 0 <= agent < count:
        raise ValueError(
            f"question {question.id!r} has private texts for {count} agents, and none for {agent}"
        )
    return prompts.question_of(Template(), question, agent)


class VerifierReward:
    """A reward function of TRL that asks a verifier once per batch.

    Attributes:
        scorer: between the verifier and the rewards: `scorer.last_error` is what the verifier
            raised last, `scorer.faults` counts messages without a reward by cause.
    """

    def __init__(self, scorer: Scorer, kind: str, name: str) -> None:
        self.scorer = scorer
        self.kind = kind
        self.__name__ = name

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Return a reward per completion, None where there is none; faults are warned of."""
        texts = [_text(completion) for completion in completions]
        before = self.scorer.faults.copy()
        rewards = self.scorer.score(_questions(prompts, columns, self.kind), texts)
        causes = sorted((self.scorer.faults - before).keys() - {"no score"})
        if causes:
            why = self.scorer.last_error if {"raised", "timed out"} & set(causes) else ""
            warnings.warn(
                f"{self.__name__} gave no reward ({', '.join(causes)}){f': {why}' if why else ''}",
                RuntimeWarning,
                stacklevel=2,
            )
        return rewards


def reward_function(
    verifier: VerifierLike, *, kind: str = "number", name: str = "", timeout: float | None = None
) -> VerifierReward:
    """Return a reward function of TRL that asks a verifier once per batch.

    It reads the columns `answer`, and `kind`, `question_id` and `hidden` where there are any; a
    message the verifier gives no score gets None, which TRL leaves out of the sum. A verifier that
    fails is warned of, and `.scorer.last_error` says why.

    Args:
        verifier: see `maporl_env.verifiers`.
        kind: how answers are read where the data set has no column `kind`.
        name: shown in TRL's logs; "" for the name of the verifier.
        timeout: seconds for one call; None waits.
    """
    shown = name or getattr(verifier, "__name__", type(verifier).__name__)
    return VerifierReward(Scorer(verifier, timeout), kind, shown)


def _questions(asked: Sequence[Any], columns: dict[str, Any], kind: str) -> list[Question]:
    count = len(asked)
    answers = columns.get("answer")
    if answers is None:
        raise ValueError(
            "the data set has no column 'answer' to score by: make it with "
            "maporl_env.bridges.trl.rows, or name its column so"
        )
    kinds = columns.get("kind") or [kind] * count
    ids = columns.get("question_id") or [f"row/{number}" for number in range(count)]
    hidden = columns.get("hidden") or [""] * count
    return [
        Question(str(id_), _text(prompt), str(answer), str(kind_), hidden=reference or "")
        for id_, prompt, answer, kind_, reference in zip(
            ids, asked, answers, kinds, hidden, strict=True
        )
    ]


def _text(conversation: Any) -> str:
    """Return a text, or the last message of a conversation; content in parts is joined."""
    if isinstance(conversation, str):
        return conversation
    content = conversation[-1].get("content") if conversation else ""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return content or ""
