r"""Pre-training data of `tiny-sharing`: debates about `sharing` and `coins` of guessing authors.

A message of a later turn reads the shown verdicts back, the own one first, and names a move:

    scores 0.0 1.0 take 2 \boxed{ 2 }

The data is neutral: authors keep their answer, take the other's or guess again, as it comes,
whatever the verdicts say. What a verdict is good for is left to be learnt from the reward. Two
things the model must bring along, because a few dozen updates cannot teach them: to read the
verdicts back, which every message does, and to carry out a copy that it has announced, which is
drilled with answers that cannot be guessed. The number stands right behind the move, before its
box: with the box between them the model finds the numbers but not whose is asked for.

One row in four of the later turns has a single author, so that the model knows self-refinement too.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from maporl_agents.text.chat import Chat
from maporl_agents.tiny.rows import NO_LOSS, DrawRow, Row
from maporl_agents.types import TokenIds
from maporl_env.answers import extract_answer
from maporl_env.protocols import SimultaneousDebate
from maporl_env.tasks import coins, sharing
from maporl_env.types import Message, Question, Transcript
from maporl_env.verifiers import NoisyKey

ALONE_SHARE = 0.25
VERDICTS = (0.0, 0.5, 1.0)
ANY_ANSWER = range(31)

Guess = Callable[[random.Random], int]


def reader(chat: Chat, *, one_turn_share: float, drill_share: float) -> DrawRow:
    """Return the function that draws the rows, half of them about each task.

    Args:
        chat: of the model's tokenizer.
        one_turn_share: share of transcripts that end after the first turn.
        drill_share: share of the others that are copying drills; the rest are debates.
    """
    tasks = [task.load().split("train") for task in (sharing, coins)]
    protocol = SimultaneousDebate(template=sharing.TEMPLATE, reward_feedback=True)

    def draw(rng: random.Random, _cooling: bool) -> Row:
        question = rng.choice(rng.choice(tasks))
        if rng.random() < one_turn_share:
            return row("one turn", author_transcript(question, 1, 1, rng), chat, protocol)
        authors = 1 if rng.random() < ALONE_SHARE else 2
        if rng.random() < drill_share:
            history = drill_transcript(question, rng.choice((2, 3)), authors, rng)
            return row(f"drill of {history.turn} turns", history, chat, protocol, drill=True)
        return row("debate", author_transcript(question, 3, authors, rng), chat, protocol)

    return draw


def guess(question: Question, rng: random.Random) -> int:
    """Return an answer that fits the question, each as probable: no author computes anything."""
    if question.id.startswith("sharing/"):
        return rng.randrange(sharing.FRIENDS)
    shown = [int(word) for word in question.prompt.split() if word.isdigit()][1:]
    return rng.choice(sorted(shown)[1:])


def author_transcript(
    question: Question, turns: int, authors: int, rng: random.Random
) -> Transcript:
    """Return a debate of authors who guess; their moves ignore the verdicts of a noisy key."""
    history = _empty(question, authors)
    judge = NoisyKey(seed=rng.getrandbits(32))
    for _ in range(turns):
        moves = [_any_move(rng, authors) for _ in history.agents]
        history = _speak(history, moves, lambda draw: guess(question, draw), rng)
        texts = [message.text for message in history.of_turn(history.turn - 1)]
        history = _judged(history, judge.score([question] * authors, texts))
    return history


def drill_transcript(
    question: Question, turns: int, authors: int, rng: random.Random
) -> Transcript:
    """Return a debate with random answers and verdicts, whose last messages are copies."""
    history = _empty(question, authors)
    for turn in range(turns):
        last = turn == turns - 1
        moves = [_any_move(rng, authors, copy=True) if last else "redo" for _ in history.agents]
        history = _speak(history, moves, lambda draw: draw.choice(ANY_ANSWER), rng)
        history = _judged(history, [rng.choice(VERDICTS) for _ in history.agents])
    return history


def _empty(question: Question, authors: int) -> Transcript:
    return Transcript(question, tuple(f"agent_{agent}" for agent in range(authors)))


def _any_move(rng: random.Random, authors: int, *, copy: bool = False) -> str:
    moves = [*(("keep", "take") if authors > 1 else ("keep",)), *(() if copy else ("redo",))]
    return rng.choice(moves)


def _speak(history: Transcript, moves: list[str], guess: Guess, rng: random.Random) -> Transcript:
    """Publish a turn in which each author carries out its move; the first turn is all guesses."""
    turn = history.turn
    before = history.of_turn(turn - 1) if turn else ()
    values = [extract_answer(message.text, "number") for message in before]
    messages = []
    for agent_index, (agent, move) in enumerate(zip(history.agents, moves, strict=True)):
        if not turn:
            messages.append(Message(0, agent, sharing.answer(guess(rng))))
            continue
        peer = (agent_index + 1) % len(before)
        value = guess(rng) if move == "redo" else values[agent_index if move == "keep" else peer]
        shown = [
            m.feedback
            for m in (before[agent_index], *before[:agent_index], *before[agent_index + 1 :])
        ]
        text = sharing.answer(int(value or 0), move, [score or 0.0 for score in shown])
        messages.append(Message(turn, agent, text))
    return history.publish(messages)


def _judged(history: Transcript, scores: list[float | None]) -> Transcript:
    return history.with_scores(history.turn - 1, dict(zip(history.agents, scores, strict=True)))


def row(
    kind: str, history: Transcript, chat: Chat, protocol: SimultaneousDebate, *, drill: bool = False
) -> Row:
    """Return the first author's conversation; loss on its messages, of a drill on the copy only."""
    view = protocol.view(history.agents[0], history)
    last = max(i for i, (role, _) in enumerate(view) if role == "own")
    ids: TokenIds = ()
    labels: TokenIds = ()
    for i, (role, text) in enumerate(view[: last + 1]):
        segment = tuple(chat.encode(text))
        given = len(segment)  # number of tokens without loss
        if role == "own":
            segment = (*segment, chat.tokenizer.eos_token_id)
            given = len(segment) - COPY_TOKENS * (i == last) if drill else 0
        ids += segment
        labels += (NO_LOSS,) * given + segment[given:]
    return Row(kind, ids, labels)


COPY_TOKENS = 5
r"""Tokens of a copy: number, `\boxed{`, number, `}`, end."""
