"""Debates that show the built-in models a form, and nothing of when it is worth using.

    warmup: {steps: 60, transcripts: "maporl_agents.tiny.demonstrations:dialogues"}

The shipped models were pre-trained on debates. Asking a user, or naming the answer to be retrieved,
stands nowhere in that data, and what is never said gets no reward. Whoever writes here knows the
form, and acts at random: a dialogue asks every second time, a retriever points at any answer. What
pays is left to be learnt from the reward.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from maporl_agents.tiny import shopping_data
from maporl_env.bridges import speakers
from maporl_env.tasks import shopping
from maporl_env.tasks.dialogues import prices
from maporl_env.types import Question, Transcript

COUNT = 256
"""Debates of each function, all of training questions."""


def dialogues() -> list[Transcript]:
    """Return dialogues of `prices`: ask or not, then write the price that was told, else any."""
    made = []
    for rng, question in _asked("dialogues", prices.load().split("train")):
        asks = rng.random() < 1 / 2
        first = prices.ASK if asks else prices.NOTHING
        known = question.hidden if asks else rng.choice(prices.PRICES)
        agent = [first, f"\\boxed{{ {known} }}"]
        made.append(_played([agent, prices.user], question, "prices", "dialogue", num_turns=2))
    return made


def retrievals() -> list[Transcript]:
    """Return two answers each, of who knows half of the prices, and a retriever that takes any."""
    made = []
    for rng, question in _asked("retrievals", shopping.load().split("train")):
        chosen = [f"agent {rng.choice((1, 2))} : 1"]
        texts = [*_answers(question, rng), chosen]
        made.append(_played(texts, question, "shopping", "retrieve", num_turns=1))
    return made


def _asked(name: str, questions: Sequence[Question]) -> Iterator[tuple[random.Random, Question]]:
    """Yield questions, each with one source of chance for all that is drawn about it."""
    rng = random.Random(name)
    for question in rng.sample(list(questions), COUNT):
        yield rng, question


def _answers(question: Question, rng: random.Random) -> list[list[str]]:
    """Return the answers of an author who knows the first half of the prices, and of the other."""
    halves = [set(shopping.known_items(agent)) for agent in range(2)]
    return [[shopping_data.attempt(question, known, rng)] for known in halves]


def _played(
    said: Sequence[list[str] | Callable[[Sequence[str]], list[str]]],
    question: Question,
    task: str,
    protocol: str,
    *,
    num_turns: int,
) -> Transcript:
    batch = speakers.play(said, [question], task=task, protocol=protocol, num_turns=num_turns)
    return batch.transcripts[0]
