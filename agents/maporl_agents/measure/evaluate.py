"""Measuring a team on held-out questions: every one is debated once, sampled or greedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from maporl_agents.config import Sampling
from maporl_agents.measure.debate_stats import TurnStats, turn_stats
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.seeding import seed_of
from maporl_agents.types import Rollout
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question, Transcript

__all__ = ["EVAL_BATCH", "Evaluation", "TurnStats", "evaluate", "turn_stats"]

EVAL_BATCH = 100
"""Debates that are played side by side; what they said is told after each such part."""

OnPart = Callable[[Sequence[Transcript]], None]
"""Told the debates of each part as they are over."""


@dataclass(frozen=True)
class Evaluation:
    """A team's result on a set of questions.

    Attributes:
        turns: one entry per turn. A debate that stopped early counts with its last turn.
        num_questions: number of questions asked.
        num_tokens: tokens generated in all.
        transcripts: the debates, in the order of the questions.
    """

    turns: tuple[TurnStats, ...]
    num_questions: int
    num_tokens: int
    transcripts: tuple[Transcript, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict, without the transcripts."""
        return {
            "turns": [asdict(turn) for turn in self.turns],
            "num_questions": self.num_questions,
            "num_tokens": self.num_tokens,
        }


def evaluate(
    team: Team,
    debates: BatchedDebate,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    seed: int,
    greedy: bool = False,
    on_part: OnPart = lambda transcripts: None,
) -> Evaluation:
    """Let the team debate every question once and report.

    Args:
        team: the agents.
        debates: the environment; its batch size bounds how many debates run at once.
        questions: to be debated.
        sampling: how messages are drawn.
        seed: names the sampling noise.
        greedy: take the most probable token instead of sampling.
        on_part: told the finished debates of each part, in the order of the questions.
    """
    transcripts: list[Transcript] = []
    num_tokens = 0
    if greedy:
        sampling = sampling.greedy()
    for rollouts in played_parts(team, debates, questions, sampling, seed=seed):
        transcripts += (finished := [rollout.transcript for rollout in rollouts])
        on_part(finished)
        num_tokens += sum(map(tokens_of, rollouts))
    return Evaluation(turn_stats(transcripts), len(questions), num_tokens, tuple(transcripts))


def played_parts(
    team: Team,
    debates: BatchedDebate,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    seed: int,
    sample: int = 0,
    first: int = 0,
) -> Iterator[list[Rollout]]:
    """Let the team debate every question once; yield the rollouts of each batch as it is over.

    Args:
        team: the agents.
        debates: the environment; its batch size is the size of a part.
        questions: to be debated.
        sampling: how messages are drawn.
        seed: names the sampling noise.
        sample: which of several debates of each question, from 0; each has noise of its own.
        first: questions before this one have been debated; a multiple of the batch size.
    """
    noise = seed_of(seed, "evaluate", sample) if sample else seed_of(seed, "evaluate")
    for start in range(first, len(questions), debates.batch_size):
        part = questions[start : start + debates.batch_size]
        yield play(team, debates, part, sampling, seed=noise, first_debate=start)


def tokens_of(rollout: Rollout) -> int:
    """Return the number of tokens generated in a debate."""
    return sum(completion.own_tokens for completion in rollout.completions)
