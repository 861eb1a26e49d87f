"""Measuring a team on held-out questions: accuracy by turn, the vote, who changed whose mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from maporl_agents.config import Sampling
from maporl_agents.rollout import play
from maporl_agents.seeding import seed_of
from maporl_agents.team import Team
from maporl_env.answers import answers_equal, extract_answer, read_gold
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question, Transcript
from maporl_env.voting import expected_accuracy


@dataclass(frozen=True, slots=True)
class TurnStats:
    """What happened in one turn, over all questions. Shares are in [0, 1].

    Attributes:
        accuracy: of each agent, in seat order.
        vote: expected accuracy of the majority vote, ties shared.
        vote_interval: half width of its 95 % interval over questions (normal approximation).
        wrong_to_right: share of messages that are right after a wrong one of the same agent.
        right_to_wrong: the opposite; both 0 in the first turn.
        agreement: share of questions whose valid answers all agree (at least one valid).
        invalid: share of messages without a readable answer.
    """

    accuracy: tuple[float, ...]
    vote: float
    vote_interval: float
    wrong_to_right: float
    right_to_wrong: float
    agreement: float
    invalid: float

    @property
    def mean_accuracy(self) -> float:
        """Mean over agents."""
        return sum(self.accuracy) / len(self.accuracy)


@dataclass(frozen=True)
class Evaluation:
    """A team's result on a set of questions.

    Attributes:
        turns: one entry per turn. A debate that stopped early counts with its last turn.
        num_questions: how many were asked.
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
) -> Evaluation:
    """Let the team debate every question once and report.

    Args:
        team: who speaks.
        debates: the environment; its batch size bounds how many debates run at once.
        questions: what is asked.
        sampling: how messages are drawn.
        seed: names the sampling noise.
        greedy: take the most probable token instead of sampling.
    """
    if greedy:
        sampling = replace(sampling, temperature=0.0)
    transcripts: list[Transcript] = []
    num_tokens = 0
    for start in range(0, len(questions), debates.batch_size):
        part = questions[start : start + debates.batch_size]
        rollouts = play(team, debates, part, sampling, seed=seed_of(seed, "evaluate", start))
        transcripts += [rollout.transcript for rollout in rollouts]
        num_tokens += sum(len(c.ids) for rollout in rollouts for c in rollout.completions)
    return Evaluation(turn_stats(transcripts), len(questions), num_tokens, tuple(transcripts))


def turn_stats(transcripts: Sequence[Transcript]) -> tuple[TurnStats, ...]:
    """Return the statistics of each turn over a set of finished debates."""
    if not transcripts:
        return ()
    horizon = max(transcript.turn for transcript in transcripts)
    read = [_read(transcript, horizon) for transcript in transcripts]
    correct_NTA = np.array([[[right for _, right in turn] for turn in debate] for debate in read])
    votes_NT = np.array([_votes(t, debate) for t, debate in zip(transcripts, read, strict=True)])
    return tuple(
        _turn(t, [debate[t] for debate in read], correct_NTA, votes_NT) for t in range(horizon)
    )


def _read(transcript: Transcript, horizon: int) -> list[list[tuple[Any, bool]]]:
    """Return (answer, right?) of every message by turn; an early end repeats the last turn."""
    question = transcript.question
    gold = read_gold(question.answer, question.kind)
    turns = []
    for t in range(horizon):
        by_agent = {m.agent: m for m in transcript.of_turn(min(t, transcript.turn - 1))}
        answers = [
            extract_answer(by_agent[agent].text, question.kind) for agent in transcript.agents
        ]
        turns.append([(answer, answers_equal(answer, gold)) for answer in answers])
    return turns


def _votes(transcript: Transcript, debate: list[list[tuple[Any, bool]]]) -> list[float]:
    gold = read_gold(transcript.question.answer, transcript.question.kind)
    return [expected_accuracy([answer for answer, _ in turn], gold) for turn in debate]


def _turn(
    t: int,
    answers: list[list[tuple[Any, bool]]],
    correct_NTA: np.ndarray,
    votes_NT: np.ndarray,
) -> TurnStats:
    now, before = correct_NTA[:, t], correct_NTA[:, max(t - 1, 0)]
    votes = votes_NT[:, t]
    valid = [[answer for answer, _ in turn if answer is not None] for turn in answers]
    spread = votes.std(ddof=1) if len(votes) > 1 else 0.0
    return TurnStats(
        accuracy=tuple(float(x) for x in now.mean(0)),
        vote=float(votes.mean()),
        vote_interval=float(1.96 * spread / len(votes) ** 0.5),
        wrong_to_right=float((now & ~before).mean()),
        right_to_wrong=float((~now & before).mean()),
        agreement=float(np.mean([len(set(given)) == 1 for given in valid])),
        invalid=float(np.mean([answer is None for turn in answers for answer, _ in turn])),
    )
