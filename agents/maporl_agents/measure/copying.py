"""Copy rates, blank messages and laziness of the agents in one debate.

Functions of a transcript alone, without torch; defined in docs/reference/metrics.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, pairwise

from maporl_env.answers import extract_answer
from maporl_env.types import AgentID, Answer, Transcript

COPY_WORDS = 4
"""n, the words of an n-gram in `copied_share`: longer than a phrase that two authors share."""

Answers = list[list[Answer | None]]
"""Answers by complete turn and agent, (T, A); None where a message has none."""


def answers_of(transcript: Transcript) -> Answers:
    """Return the answer in every message of the complete turns, (T, A) nested lists."""
    kind = transcript.question.kind
    return [
        [extract_answer(transcript.message(turn, agent).text, kind) for agent in transcript.agents]
        for turn in range(transcript.turn)
    ]


def copied_share(text: str, sources: Sequence[str], n: int = COPY_WORDS) -> float:
    """Return the share of a text's n-grams of words that occur in any of the sources.

    Words are what blanks separate; a shorter text is one n-gram of all its words. 0 for a text
    without words and where there is no source.
    """
    words = text.split()
    width = min(n, len(words))
    if not width or not sources:
        return 0.0
    known = {gram for source in sources for gram in _grams(source.split(), width)}
    own = _grams(words, width)
    return sum(gram in known for gram in own) / len(own)


def _grams(words: Sequence[str], width: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + width]) for start in range(len(words) - width + 1)]


def copy_rates(transcript: Transcript) -> list[list[float]]:
    """Return `copied_share` of each message from the others' of the turn before, (T, A).

    0 in the first turn, and in debates of one agent.
    """
    texts = [
        [transcript.message(turn, agent).text for agent in transcript.agents]
        for turn in range(transcript.turn)
    ]
    first = [[0.0] * len(row) for row in texts[:1]]
    return first + [
        [
            copied_share(text, before[:agent_index] + before[agent_index + 1 :])
            for agent_index, text in enumerate(now)
        ]
        for before, now in pairwise(texts)
    ]


def silent_agents(transcripts: Sequence[Transcript], share: float = 0.5) -> dict[AgentID, float]:
    """Return {agent: share of blank messages} for agents whose share is at least `share`."""
    blank: defaultdict[AgentID, list[bool]] = defaultdict(list)
    for message in chain.from_iterable(transcript.messages for transcript in transcripts):
        blank[message.agent].append(not message.text.strip())
    shares = {agent: sum(each) / len(each) for agent, each in blank.items()}
    return {agent: found for agent, found in sorted(shares.items()) if found >= share}


def laziness(answers_TA: Answers) -> list[float]:
    """Return each agent's laziness in one debate, (A,) in [0, 1]: reliance on others' answers.

        lazy(a) = 1[own first answer ignored] * mean over t >= 2 of 1[answer(t,a) is an answer of
                  another agent in turn t - 1]

    Ignored: there is none, or no agent, a included, gives it in any later turn. 0 in debates of one
    turn. An agent that is now and then rightly persuaded scores low over many debates; one that
    never brings anything in scores near 1.
    """
    later = {answer for row in answers_TA[1:] for answer in row}
    return [
        0.0 if first in later - {None} else _repeats(answers_TA, agent)
        for agent, first in enumerate(answers_TA[0] if answers_TA else [])
    ]


def _repeats(answers_TA: Answers, agent_index: int) -> float:
    """Share of an agent's later answers that another agent gave in the turn before."""
    hits = [
        now[agent_index] is not None
        and now[agent_index] in before[:agent_index] + before[agent_index + 1 :]
        for before, now in pairwise(answers_TA)
    ]
    return sum(hits) / len(hits) if hits else 0.0
