r"""Debates between speakers that turn a prompt into a text: people, scripts, functions, models.

    batch = play([Person(), [r"\boxed{3}", r"\boxed{4}"], Endpoint(url, "my-model")], num_turns=2)
    print(batch.transcripts[0].messages, batch.turn_rewards()[0])

A speaker is a callable `prompts -> texts` or a list of texts, one per turn (see `Partner`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from maporl_env.batched import BatchedDebate
from maporl_env.bridges.single_agent import Partner, ask, assign
from maporl_env.config import DebateConfig
from maporl_env.rendering.plain_text import harmless
from maporl_env.types import Question


class Person:
    """A person at the keyboard, who is shown the observation of an agent and answers with a line.

    Args:
        read: returns the answer to a line that asks for it.
        show: shows a text.
    """

    def __init__(
        self, read: Callable[[str], str] = input, show: Callable[[str], object] = print
    ) -> None:
        self.read = read
        self.show = show

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Return one line per prompt; "" where the input has ended."""
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: str) -> str:
        self.show(f"\n--- you read ---\n{harmless(prompt)}")
        try:
            return self.read("> ")
        except EOFError:
            return ""


def play(
    speakers: Sequence[Partner],
    questions: Sequence[Question] | None = None,
    *,
    debates: int = 1,
    seed: int | None = None,
    **options: Any,
) -> BatchedDebate:
    """Play debates to their end; a speaker that plays several agents is called once per turn.

    Args:
        speakers: one per agent, in order of their index.
        questions: one debate each; None draws as many as `debates` says.
        debates: how many to play where no questions are given.
        seed: of the draws.
        options: see `config.DebateConfig`; num_agents is the number of speakers.

    Returns:
        The debates: their `transcripts`, `turn_rewards()`, `debates`.

    Raises:
        ValueError: no speakers, or one that is none; a wrong option.
    """
    if isinstance(speakers, str) or callable(speakers) or not speakers:
        raise ValueError("speakers must be a list with one speaker per agent, at least one")
    config = DebateConfig.of(**{**options, "num_agents": len(speakers)})
    batch = BatchedDebate(config, debates if questions is None else len(questions))
    by_agent = assign(speakers, batch.agents)
    batch.reset(questions, seed=seed)
    while prompts := batch.prompts():
        batch.step(ask(by_agent, prompts))
    return batch
