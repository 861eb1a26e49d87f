"""Pre-training data of the two `tiny` models: bills of authors who know half of the prices.

Agent 0 reads authors who know the prices of the first half of the items, agent 1 those of the other
half. An unknown price is drawn afresh every time. The data is neutral, so that what MAPoRL teaches
is not baked in: in later turns an author keeps its answer, copies a peer's or tries again, whatever
is right; and the peers it sees know what it knows, so it never learns that somebody else may know
more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

from maporl_agents.text.chat import Chat
from maporl_agents.tiny.rows import DrawRow, Row, learn_from
from maporl_agents.types import TokenIds
from maporl_env.protocols import SimultaneousDebate
from maporl_env.tasks import shopping
from maporl_env.types import Message, Question, Transcript

Write = Callable[[random.Random], str]
"""Writes the answer of an author, drawn afresh."""

MOVES = ("keep", "copy", "redo")
"""The authors' moves in later turns, drawn uniformly, whichever is right."""

COOL_DOWN_MOVES = (*MOVES, "redo", "redo", "redo")
"""The same in the second phase."""


def reader(chat: Chat, agent: int, *, one_turn_share: float, drill_share: float) -> DrawRow:
    """Return the function that draws the rows of an agent.

    Args:
        chat: of the model's tokenizer.
        agent: 0 or 1.
        one_turn_share: share of transcripts that end after the first turn.
        drill_share: share that are copying drills, in the first phase; the rest have three turns.
    """
    known = set(shopping.known_items(agent))
    questions = shopping.load().split("train")
    protocol = SimultaneousDebate(template=shopping.TEMPLATE)

    def draw(rng: random.Random, cooling: bool) -> Row:
        question = rng.choice(questions)
        kind = pick_kind(one_turn_share, 0.0 if cooling else drill_share, rng)
        write = partial(attempt, question, known)
        if kind == "drill":
            history = drill_transcript(question, write, rng)
        else:
            moves = COOL_DOWN_MOVES if cooling else MOVES
            turns = 1 if kind == "one turn" else 3
            history = transcript_of(question, turns, write, rng, moves)
        ids, start = conversation(history, chat, protocol, last_only=kind == "drill")
        return Row(kind, ids, learn_from(start, ids))

    return draw


def believed(item: str, known: set[str], rng: random.Random) -> int:
    """Return the price an author writes down: the true one if it knows it, else a guess."""
    return shopping.PRICES[item] if item in known else rng.randint(1, 12)


def attempt(question: Question, known: set[str], rng: random.Random) -> str:
    """Return a worked answer by an author with the given knowledge."""
    words = question.prompt.split()
    (n, first), (m, second) = (words[2], words[3]), (words[5], words[6])
    prices = (believed(first, known, rng), believed(second, known, rng))
    return shopping.solution((int(n), int(m)), prices)


def transcript_of(
    question: Question,
    turns: int,
    write: Write,
    rng: random.Random,
    moves: Sequence[str] = MOVES,
) -> Transcript:
    """Return a debate of two authors who write alike, and whose moves ignore correctness."""
    history = Transcript(question, ("agent_0", "agent_1"))
    for turn in range(turns):
        texts = []
        for agent_index in range(2):
            move = rng.choice(moves) if turn else "redo"
            before = history.of_turn(turn - 1) if turn else ()
            texts.append(
                write(rng)
                if move == "redo"
                else before[agent_index if move == "keep" else 1 - agent_index].text
            )
        history = history.publish(
            Message(turn, agent, text) for agent, text in zip(history.agents, texts, strict=True)
        )
    return history


def drill_transcript(question: Question, write: Write, rng: random.Random) -> Transcript:
    """Return two turns, the second kept or copied at random: what is unknown must be read off.

    The authors know what they know: a drill in which they knew nothing would teach to copy known
    prices too, and such agents copy whole answers instead of the one price they lack.
    """
    history = Transcript(question, ("agent_0", "agent_1"))
    first = [write(rng) for _ in range(2)]
    second = [rng.choice(first) for _ in range(2)]
    for turn, texts in enumerate((first, second)):
        history = history.publish(
            Message(turn, agent, text) for agent, text in zip(history.agents, texts, strict=True)
        )
    return history


def conversation(
    history: Transcript, chat: Chat, protocol: SimultaneousDebate, *, last_only: bool
) -> tuple[TokenIds, int]:
    """Return the ids of one author's whole conversation and where the loss begins.

    It begins after the first question, or before the author's last message (`last_only`).
    """
    agent = history.agents[0]
    view = protocol.view(agent, history)
    own = [
        (*chat.encode(text), chat.tokenizer.eos_token_id) for role, text in view if role == "own"
    ]
    last_own = max(i for i, (role, _) in enumerate(view) if role == "own")
    start = last_own if last_only else 1
    return chat.prompt_ids(view[: last_own + 1], own), len(chat.prompt_ids(view[:start], own))


def pick_kind(one_turn_share: float, drill_share: float, rng: random.Random) -> str:
    """Draw the kind of the next row."""
    place = rng.random()
    if place < one_turn_share:
        return "one turn"
    return "drill" if place < one_turn_share + drill_share else "three turns"
