"""The one answer of a team: its protocol's, or a majority vote of several passes (`eval.passes`).

The latter is MALT at test time (arXiv 2412.01928).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from maporl_agents.config import Sampling
from maporl_agents.measure.evaluate import Evaluation, evaluate, turn_stats
from maporl_agents.models.team import Team
from maporl_agents.seeding import seed_of
from maporl_env.batched import BatchedDebate
from maporl_env.protocols import Protocol
from maporl_env.types import Message, Question, Transcript


def vote_of_passes(
    team: Team,
    debates: BatchedDebate,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    passes: int,
    seed: int,
) -> Evaluation:
    """Let the team answer every question several times and take a majority vote.

    Returns:
        One turn: `accuracy` has an entry per pass, `vote` is their majority, ties shared. The
        transcripts hold the final answers of the passes side by side.

    Raises:
        ValueError: agents of this protocol answer separately, so a pass has no single answer.
    """
    played = [
        evaluate(team, debates, questions, sampling, seed=seed_of(seed, "pass", number))
        for number in range(passes)
    ]
    protocol = debates.game.protocol
    ballots = tuple(
        _ballot(protocol, debates_of_question)
        for debates_of_question in zip(*(one.transcripts for one in played), strict=True)
    )
    return Evaluation(
        turns=turn_stats(ballots),
        num_questions=len(questions),
        num_tokens=sum(one.num_tokens for one in played),
        transcripts=ballots,
    )


def _ballot(protocol: Protocol, passes: Sequence[Transcript]) -> Transcript:
    """Return the final answers of several passes over one question as one turn."""
    voices = [{protocol.response(agent, one) for agent in one.agents} for one in passes]
    if any(len(voice) > 1 for voice in voices):
        raise ValueError(
            "passes vote where a debate has one answer, as with protocol='pipeline' or 'joint'; "
            "here every agent has its own: set --eval.passes 1"
        )
    agents = tuple(f"agent_{number}" for number in range(len(passes)))
    scores = (one.messages[-1].score for one in passes)
    return Transcript(
        passes[0].question,
        agents,
        tuple(
            Message(0, agent, text, score)
            for agent, text, score in zip(agents, chain.from_iterable(voices), scores, strict=True)
        ),
    )


def as_one(protocol: Protocol, played: Evaluation) -> Evaluation:
    """Return an evaluation of the rewarded responses of every turn instead of all messages."""
    stands = [paid_for(protocol, transcript) for transcript in played.transcripts]
    return replace(played, turns=turn_stats(stands))


def paid_for(protocol: Protocol, history: Transcript) -> Transcript:
    """Return a debate in which every message is the response that its protocol rewards."""
    prefixes = [
        replace(history, messages=tuple(m for m in history.messages if m.turn <= turn))
        for turn in range(history.turn)
    ]
    return replace(
        history,
        messages=tuple(
            replace(message, text=protocol.response(message.agent, prefixes[message.turn]))
            for message in history.messages
        ),
    )
