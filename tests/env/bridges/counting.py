"""A policy, partner and verifier in one, whose answers tell what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from maporl_env.types import Question


class Counting:
    """A policy, a partner and a verifier that remember how much they were asked at once."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        self.calls.append(len(prompts))
        return [f"\\boxed{{{len(prompt) % 9}}}" for prompt in prompts]

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        self.calls.append(len(responses))
        return [
            ((7 * len(text) + len(q.prompt)) % 11) / 10.7
            for q, text in zip(questions, responses, strict=True)
        ]
