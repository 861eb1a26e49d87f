"""Statistics of finished debates: accuracy by turn, majority vote, changes of answers.

Functions of transcripts alone, without torch. An answer is right if it equals the answer key; where
there are many right answers (`AnswerKind.keyed` is False), if its verifier gave at least 0.5.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from maporl_env.answers import extract_answer
from maporl_env.credit import is_right
from maporl_env.types import AgentID, Answer, Message, Question, Transcript
from maporl_env.voting import majority

Side = Literal["right", "wrong", "tie"]
"""The strict majority of the other agents: right, wrong, or neither; without others a tie."""


@dataclass(frozen=True, slots=True)
class TurnStats:
    """Statistics of one turn over all questions. Shares are in [0, 1].

    Attributes:
        accuracy: of each agent that is ever scored, in the order of the agents.
        vote: expected accuracy of the majority vote, ties shared.
        vote_interval: half width of its 95 % interval over questions (normal approximation).
        wrong_to_right: share of messages that are right after a wrong one of the same agent.
        right_to_wrong: the opposite; both 0 in the first turn.
        agreement: share of questions whose valid answers all agree (at least one valid).
        invalid: share of messages without a readable answer.
        score: mean verifier score; None without any score.
    """

    accuracy: tuple[float, ...]
    vote: float
    vote_interval: float
    wrong_to_right: float
    right_to_wrong: float
    agreement: float
    invalid: float
    score: float | None = None

    @property
    def mean_accuracy(self) -> float:
        """Mean over agents."""
        return sum(self.accuracy) / len(self.accuracy)


@dataclass(frozen=True, slots=True)
class Transition:
    """Number of messages with one change of answers from a turn to the next.

    Attributes:
        turn: that the message was of, counted from 0.
        own: whether the agent was right.
        others: the majority of the other agents, who spoke in the same turn.
        own_next: whether the agent was right one turn later.
        others_next: the majority of the others one turn later.
        count: messages of which this is true.
    """

    turn: int
    own: bool
    others: Side
    own_next: bool
    others_next: Side
    count: int


def turn_stats(transcripts: Sequence[Transcript]) -> tuple[TurnStats, ...]:
    """Return the statistics of each turn over a set of finished debates."""
    if not transcripts:
        return ()
    horizon = max(transcript.turn for transcript in transcripts)
    agents = answering(transcripts)
    read = [_read(transcript, horizon, agents) for transcript in transcripts]
    correct_NTA = np.array([[[right for _, right in turn] for turn in debate] for debate in read])
    votes_NT = np.array(
        [_votes(one, debate, agents) for one, debate in zip(transcripts, read, strict=True)]
    )
    return tuple(
        _turn(t, [debate[t] for debate in read], correct_NTA, votes_NT, _scores(transcripts, t))
        for t in range(horizon)
    )


def answering(transcripts: Sequence[Transcript]) -> tuple[AgentID, ...]:
    """Return the agents of some debates that are scored in any of them, in order of their index."""
    agents = transcripts[0].agents
    if all(one.ends is None for one in transcripts):
        return agents
    scored = {m.agent for one in transcripts for m in one.messages if m.scored}
    return tuple(agent for agent in agents if agent in scored)


def _read(
    transcript: Transcript, horizon: int, agents: Sequence[AgentID]
) -> list[list[tuple[Any, bool]]]:
    """Return (answer, right?) of some agents by turn; an early end repeats the last turn.

    An agent that is silent or not scored in a turn stands by its last scored message; before its
    first it has no answer.
    """
    question = transcript.question
    turns = []
    stands: dict[AgentID, tuple[Any, bool]] = dict.fromkeys(agents, (None, False))
    for t in range(horizon):
        for m in transcript.of_turn(t) if t < transcript.turn else ():
            if m.scored:
                stands[m.agent] = (extract_answer(m.answer, question.kind), right(m, question))
        turns.append([stands[agent] for agent in agents])
    return turns


def right(message: Message, question: Question) -> bool:
    """Return whether a message is right; one of which that is unknown is not."""
    return bool(is_right(message, question))


def vote_accuracy(turn: Sequence[tuple[Answer | None, bool]]) -> float:
    """Return the chance that a most common answer drawn at random is right; 0 without answers.

    Args:
        turn: the answer of each message, and whether it is right.
    """
    winners = majority(answer for answer, _ in turn)
    correct = {answer for answer, is_correct in turn if is_correct}
    return sum(winner in correct for winner in winners) / len(winners) if winners else 0.0


def _scores(transcripts: Sequence[Transcript], t: int) -> list[float]:
    """Return the scores of a turn, of all debates; an early end repeats the last turn."""
    return [
        message.score
        for transcript in transcripts
        for message in transcript.of_turn(min(t, transcript.turn - 1))
        if message.score is not None
    ]


def _votes(
    transcript: Transcript, debate: list[list[tuple[Any, bool]]], agents: Sequence[AgentID]
) -> list[float]:
    """Return the accuracy of each turn's vote; agents without a scored vote are left out."""
    if transcript.ends is None:
        return [vote_accuracy(turn) for turn in debate]
    votes, share = [], 0.0
    for t, turn in enumerate(debate):
        voters = {m.agent for m in transcript.of_turn(t) if m.scored and m.votes}
        asked = [one for agent, one in zip(agents, turn, strict=True) if agent in voters]
        share = vote_accuracy(asked) if asked else share  # a turn without answers changes nothing
        votes.append(share)
    return votes


def _turn(
    t: int,
    answers: list[list[tuple[Any, bool]]],
    correct_NTA: np.ndarray,
    votes_NT: np.ndarray,
    scores: list[float],
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
        score=float(np.mean(scores)) if scores else None,
    )


def transitions(transcripts: Iterable[Transcript]) -> tuple[Transition, ...]:
    """Count how agents and majorities moved from each turn to the next, turn by turn.

    These are the cells of the paper's Tables 1 and 2: `alpha` rewards changes of the own answer
    given the majority of the others, `beta` changes of that majority given the own answer.
    A debate that stopped early counts as far as it went. Cells that never occurred are left out.
    """
    counts: Counter[tuple[int, bool, Side, bool, Side]] = Counter()
    for transcript in transcripts:
        counts.update(_moves(transcript))
    return tuple(Transition(*cell, count) for cell, count in sorted(counts.items()))


def _moves(transcript: Transcript) -> Iterator[tuple[int, bool, Side, bool, Side]]:
    read = _read(transcript, transcript.turn, answering([transcript]))
    played = [[right for _, right in turn] for turn in read]
    for turn, (now, later) in enumerate(itertools.pairwise(played)):
        for agent in range(len(now)):
            yield turn, now[agent], _others(now, agent), later[agent], _others(later, agent)


def _others(right: Sequence[bool], agent_index: int) -> Side:
    """Return the strict majority of all agents but one: right, wrong, or a tie."""
    lead = sum(
        1 if is_right else -1 for place, is_right in enumerate(right) if place != agent_index
    )
    return "right" if lead > 0 else "wrong" if lead < 0 else "tie"


def rate(
    moves: Iterable[Transition], *, own: bool | None = None, others: Side | None = None, of: str
) -> tuple[float | None, int]:
    """Return the share of messages with a given past that became right, and their number.

    Args:
        moves: as `transitions` gives them.
        own: only messages that were right (or wrong); None takes all.
        others: only messages beside such a majority; None takes all.
        of: "own" asks who was right one turn later, "others" whether their majority was.

    Returns:
        (share in [0, 1] or None without messages of that past, number of messages with it).

    Raises:
        ValueError: another `of`.
    """
    if of not in ("own", "others"):
        raise ValueError(f"unknown of {of!r}: choose one of own, others")
    past = [m for m in moves if own in (None, m.own) and others in (None, m.others)]
    total = sum(m.count for m in past)
    hits = sum(m.count for m in past if (m.own_next if of == "own" else m.others_next == "right"))
    return (hits / total if total else None), total


def flipped(
    moves: Iterable[Transition], *, own: bool, others: Side, of: Literal["own", "others"], turn: int
) -> tuple[float | None, int]:
    """Return the rate at which messages with a given past earn (or lose) a bonus of Tables 1 and 2.

    The bonus is for a change between right and wrong; a majority that became a tie did not flip.

    Args:
        moves: as `transitions` gives them.
        own: only messages that were right, or wrong.
        others: only messages beside such a majority. With `of` "others", a tie never flips.
        of: whether the "own" answer flipped (alpha), or the majority of the "others" (beta).
        turn: of the messages, counted from 0.

    Returns:
        (share in [0, 1] or None without messages of that past, number of messages with it).
    """
    past = [m for m in moves if (m.turn, m.own, m.others) == (turn, own, others)]
    total = sum(m.count for m in past)
    hits = sum(m.count for m in past if _has_flipped(m, of))
    return (hits / total if total else None), total


def _has_flipped(move: Transition, of: Literal["own", "others"]) -> bool:
    if of == "own":
        return move.own_next != move.own
    return {move.others, move.others_next} == {"right", "wrong"}
