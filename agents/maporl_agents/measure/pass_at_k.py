"""Figures of several debates per question: pass@k, the majority of k, the best of k by a verifier.

Each figure is the mean over questions of an unbiased estimate from all N debates of the question,
with a 95 % interval over questions (`maporl_env.intervals.share_of`). The answer of a debate is
the majority of its last turn, ties broken at random: its chance of being right is a number in
[0, 1], and the figures are expectations over these draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from maporl_agents.measure.debate_stats import right, vote_accuracy
from maporl_env.answers import extract_answer
from maporl_env.intervals import Share, share_of
from maporl_env.protocols import Protocol
from maporl_env.types import Answer, Transcript

Ballot = tuple[Answer | None, bool]
"""An answer, and whether it is right."""


@dataclass(frozen=True)
class Outcome:
    """What one debate came to. Made by `outcome_of`.

    Attributes:
        ballots: the answer of each agent after the last turn.
        picks: the score that a verifier gave each agent's final text, None for none; () where
            nobody picks.
    """

    ballots: tuple[Ballot, ...]
    picks: tuple[float | None, ...] = ()

    @property
    def chance(self) -> float:
        """The chance that the debate's answer is right."""
        return vote_accuracy(self.ballots)

    @property
    def best(self) -> tuple[float, float]:
        """The best score of a final text, and the share of the texts of that score that is right.

        A text without a score is worse than any other.
        """
        scores = [-math.inf if pick is None else pick for pick in self.picks]
        top = max(scores)
        hits = [
            is_right
            for score, (_, is_right) in zip(scores, self.ballots, strict=True)
            if score == top
        ]
        return top, sum(hits) / len(hits)


def final_texts(protocol: Protocol, transcript: Transcript) -> list[str]:
    """Return the text of each agent that counts after the last turn (`Protocol.response`)."""
    return [protocol.response(agent, transcript) for agent in transcript.agents]


def outcome_of(
    protocol: Protocol, transcript: Transcript, picks: Sequence[float | None] = ()
) -> Outcome:
    """Return what a finished debate came to; `picks` are the scores of its final texts."""
    question = transcript.question
    last = {message.agent: message for message in transcript.of_turn(transcript.turn - 1)}
    texts = final_texts(protocol, transcript)
    ballots = [
        (extract_answer(text, question.kind), right(replace(last[agent], text=text), question))
        for agent, text in zip(transcript.agents, texts, strict=True)
    ]
    return Outcome(tuple(ballots), tuple(picks))


def pass_at_k(chances: Sequence[float], k: int) -> float:
    """Return the chance that at least one of k debates is right, k of n drawn without replacement.

    1 - e_k(1 - p_1, ..., 1 - p_n) / C(n, k), with e_k the elementary symmetric polynomial; where
    all p are 0 or 1 it is 1 - C(n - c, k) / C(n, k) (Chen et al., arXiv 2107.03374, equation 1).

    Args:
        chances: p, each debate's chance of being right.
        k: from 1 to n.
    """
    wrong = [1.0] + [0.0] * k  # e_0 to e_k of the debates so far
    for chance in chances:
        for size in range(k, 0, -1):
            wrong[size] += (1 - chance) * wrong[size - 1]
    return min(max(1 - wrong[k] / math.comb(len(chances), k), 0.0), 1.0)


def best_at_k(tried: Sequence[tuple[float, float]], k: int) -> float:
    """Return the chance that the best-scored of k debates is right, k of n without replacement.

    The best of the k has rank r (from below) with probability C(r - 1, k - 1) / C(n, k); debates of
    equal score are drawn from at random.

    Args:
        tried: (score, chance of being right) of each debate.
        k: from 1 to n.
    """
    by_score: dict[float, list[float]] = {}
    for score, chance in tried:
        by_score.setdefault(score, []).append(chance)
    below, total = 0, 0.0
    for score in sorted(by_score):
        equal = by_score[score]
        upto = below + len(equal)
        ways = math.comb(upto, k) - math.comb(below, k)
        total += ways * sum(equal) / len(equal)
        below = upto
    return total / math.comb(len(tried), k)


def majority_at_k(ballots: Sequence[Sequence[Ballot]], k: int) -> float:
    """Return the accuracy of the majority of all agents of k debates, ties shared.

    The mean over the n // k disjoint blocks of k debates.

    Args:
        ballots: of each debate, its agents' answers.
        k: from 1 to n.
    """
    starts = range(0, len(ballots) - k + 1, k)
    votes = [vote_accuracy(list(chain.from_iterable(ballots[i : i + k]))) for i in starts]
    return sum(votes) / len(votes)


@dataclass(frozen=True)
class RepeatedRow:
    """The figures of k debates per question.

    Attributes:
        k: number of debates.
        passed: at least one of them is right.
        majority: the most common answer of all their agents is right.
        best: the final text that the verifier scores best is right; None where nobody picks.
    """

    k: int
    passed: Share
    majority: Share
    best: Share | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        best = {} if self.best is None else {"best": self.best.to_dict()}
        shares = {"pass": self.passed.to_dict(), "majority": self.majority.to_dict()}
        return {"k": self.k} | shares | best


def repeated_rows(by_question: Sequence[Sequence[Outcome]]) -> list[RepeatedRow]:
    """Return the figures for k = 1, 2, 4, ... and N.

    Args:
        by_question: the outcomes of each question's N debates.
    """
    count = len(by_question[0])
    sizes = sorted({*(2**power for power in range(count.bit_length())), count})
    return [_row([list(tried) for tried in by_question], k) for k in sizes]


def _row(by_question: list[list[Outcome]], k: int) -> RepeatedRow:
    picked = all(one.picks for tried in by_question for one in tried)
    best = [best_at_k([one.best for one in tried], k) for tried in by_question] if picked else []
    passed = [pass_at_k([one.chance for one in tried], k) for tried in by_question]
    votes = [majority_at_k([one.ballots for one in tried], k) for tried in by_question]
    return RepeatedRow(
        k, share_of(passed), share_of(votes), share_of(_unit(best)) if picked else None
    )


def _unit(values: Sequence[float]) -> list[float]:
    """Return values without what rounding put beyond [0, 1]."""
    return [min(max(value, 0.0), 1.0) for value in values]
