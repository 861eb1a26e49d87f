"""What an agent reads within a token budget: the best that fits, found in bounded time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from maporl_env import debate_v0, prompts
from maporl_env.debate import Debate
from maporl_env.prompts import Template
from maporl_env.protocols import (
    PROTOCOLS,
    Conversation,
    JointAnswer,
    Pipeline,
    SelfCorrection,
    SequentialDebate,
    SimultaneousDebate,
)
from maporl_env.types import AgentID, Question, Transcript, View

QUESTION = Question("q", "What is 2 + 2?", "4")
NUM_AGENTS = {"self_correction": 1, "pipeline": 3, "dialogue": 2, "teams_and_judge": 3}
OTHER_VIEWS = ("dialogue", "teams_and_judge", "retrieve", "lessons")
"""Protocols whose views are not built turn by turn from those of `Conversation`."""


def candidates(protocol: Conversation, agent: AgentID, history: Transcript) -> Iterator[View]:
    """Everything the agent may be told, best first, built from the start every time."""
    seat, turn = history.agents.index(agent), protocol.turn_of(agent, history)
    free = replace(protocol, token_budget=None)
    turns = {"all": range(1, turn + 1), "last": range(max(turn, 1), turn + 1), "none": range(0)}
    later = [free.added(agent, t, history) for t in turns[protocol.history]]
    first = turn - len(later)
    opening = free._started(seat, first, history)
    words, gap = free.words(seat), free.words(seat).left_out.format()
    persona = opening[:-1]
    question: View = (*persona, ("user", prompts.opening(words, history.question)))
    number = len(later) + (opening != question)

    yield (*opening, *itertools.chain(*later))
    for count in range(number - 1, 0, -1):
        yield (*question, ("user", gap), *itertools.chain(*later[len(later) - count :]))
    for own in (True, False) if number else ():
        between = (("user", gap),) if number > 1 or not own else ()
        for limit in [None, *range(200, -1, -1)]:
            short = replace(free, max_shown=limit)
            if not later:
                yield short._started(seat, first, history)
                continue
            newest = short.added(agent, turn, history)
            yield (*question, *between, *(s for s in newest if own or s[0] != "own"))
    yield (*question, ("user", gap))
    yield question


def some_protocol(rng: random.Random) -> tuple[Conversation, int]:
    kind = rng.choice([kind for kind in sorted(PROTOCOLS) if kind not in OTHER_VIEWS])
    agents = NUM_AGENTS.get(kind, rng.randint(1, 3))
    options: dict[str, Any] = {
        "num_turns": rng.randint(1, 4),
        "history": rng.choice(["all", "all", "last", "none"]),
        "reward_feedback": rng.random() < 0.5,
        "token_budget": 10**9,
        "count_tokens": rng.choice([len, prompts.count_characters]),
    }
    if kind == "joint":
        options["feedback"] = rng.choice([None, lambda question, text: f"long: {text}"])
        options["show_parts"] = rng.random() < 0.5
    if kind != "pipeline":
        options["personas"] = rng.choice([(), ("You doubt.",) * agents])
    template = Template(opening="{question}\n", again="\nAgain: {question}\n")
    return PROTOCOLS[kind](template=template, **options), agents  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_read_is_the_best_of_all_that_would_fit(seed: int) -> None:
    """Against the plain way: word everything, from the longest on, until something fits."""
    rng = random.Random(f"plain/{seed}")
    for _ in range(12):
        protocol, agents = some_protocol(rng)
        debate = Debate(protocol, agents)
        debate.reset(QUESTION)
        while not debate.over:
            for agent in debate.speakers:
                everything = [*map(prompts.render, candidates(protocol, agent, debate.transcript))]
                count = protocol.count_tokens
                budget = rng.randint(count(everything[-1]), count(everything[0]) + 1)
                bounded = replace(protocol, token_budget=budget)
                best = next(text for text in everything if count(text) <= budget)
                assert prompts.render(bounded.view(agent, debate.transcript)) == best
            for agent in debate.speakers:
                debate.post(agent, "x`y"[rng.randrange(3)] * rng.choice([0, 3, 40, 150]))
                if len(debate.speakers) == 1 or not protocol.simultaneous:
                    break
            if debate.due():
                debate.settle([rng.random() for _ in range(agents)])


@pytest.mark.parametrize("budget", range(60, 1_000, 90))
@pytest.mark.parametrize("kind", sorted(PROTOCOLS))
def test_no_message_ends_a_debate_or_hides_the_question(kind: str, budget: int) -> None:
    rng = random.Random(f"{kind}/{budget}")
    agents = NUM_AGENTS.get(kind, 3)
    options: dict[str, Any] = {"feedback": lambda q, text: text * 2} if kind == "joint" else {}
    if kind == "pipeline":
        options = {"personas": ("Solve.", "Check.", "Refine.")}
    if kind == "dialogue":
        options = {"personas": ("Ask.", "Answer.")}
    env = debate_v0.env(
        task=[QUESTION],
        protocol=kind,
        num_agents=agents,
        num_turns=1 if kind == "retrieve" else 3,
        token_budget=budget,
        reward_feedback=kind != "dialogue",
        max_chars=20_000,
        **options,
    )
    env.reset(seed=0)
    for _ in range(3 * agents):
        text, _, over, *_ = env.last()
        if over:
            break
        assert prompts.count_characters(text) <= budget
        assert QUESTION.prompt in text
        env.step(rng.choice(["x", "`", "\n", "漢", "```\n"]) * rng.choice([0, 9, 900, 30_000]))


@pytest.mark.parametrize("action", ["message", "token"])
@pytest.mark.parametrize("kind", sorted(PROTOCOLS))
def test_no_row_of_ids_ends_a_debate_or_hides_the_question(kind: str, action: str) -> None:
    rng = np.random.default_rng(0)
    env = debate_v0.env(
        task=[QUESTION],
        protocol=kind,
        num_agents=NUM_AGENTS.get(kind, 2),
        num_turns={"retrieve": 1, "lessons": 3}.get(kind, 2),
        observation="tokens",
        action=action,
        observation_tokens=400,
        message_tokens=2_000 if action == "message" else 100,
        reward_feedback=kind != "dialogue",
        personas=("", "") if kind == "dialogue" else None,
    )
    env.reset(seed=0)
    for _ in env.agent_iter():
        row, _, over, *_ = env.last()
        text = bytes(int(number) - 1 for number in row if number).decode(errors="replace")
        assert QUESTION.prompt in text
        ids = rng.integers(1, 257, 2_000 if rng.random() < 0.7 else 9)
        env.step(None if over else ids if action == "message" else ids[0])


@pytest.mark.parametrize("protocol", [SequentialDebate(num_turns=2), Pipeline(num_turns=2)])
def test_a_message_of_the_same_turn_too_long_for_the_budget_is_shortened(
    protocol: Conversation,
) -> None:
    agents = 3 if isinstance(protocol, Pipeline) else 2
    debate = Debate(replace(protocol, token_budget=160), agents)
    debate.reset(QUESTION)
    for _ in range(2):
        debate.post("agent_0", "START" + "z" * 1_190 + "FINISH")
        text = debate.observation("agent_1")
        assert prompts.count_characters(text) == pytest.approx(160, abs=1)
        shown, _, missing = text.partition("The middle of this text is left out: ")
        assert "STARTz" in shown
        assert "zFINISH" in shown
        assert shown.count("z") + int(missing.split()[0]) == 1_190
        for agent in debate.agents[1:]:
            debate.post(agent, "ok")
        debate.settle([0.5] * agents)


def test_an_own_message_stands_whole_or_not_at_all() -> None:
    """A language model has its own message as sampled ids, which cannot be shortened."""
    debate = Debate(SequentialDebate(num_turns=2, token_budget=200), 2)
    debate.reset(QUESTION)
    debate.post("agent_0", "own " * 500)
    debate.post("agent_1", "\\boxed{4}")
    debate.settle([0.5, 0.5])
    assert [who for who, _ in debate.view("agent_0")] == ["user"]
    assert "Earlier turns are left out" in debate.observation("agent_0")
    assert "\\boxed{4}" in debate.observation("agent_0")


def test_with_texts_shortened_always_what_is_read_still_only_grows() -> None:
    debate = Debate(SimultaneousDebate(num_turns=4, max_shown=10), 2)
    debate.reset(QUESTION)
    message, before = "z" * 500, ""
    while not debate.over:
        text = debate.observation("agent_0")
        assert text.startswith(before)
        assert text == prompts.render(debate.protocol.view("agent_0", debate.transcript))
        assert text.count("zzzzz\n[...]\nzzzzz\n```\n(The middle") == debate.played
        before = text + message
        for agent in debate.agents:
            debate.post(agent, message)
        debate.settle([0.5, 0.5])


def test_a_question_over_the_budget_is_an_error() -> None:
    debate = Debate(SelfCorrection(token_budget=15), 1)
    with pytest.raises(ValueError, match=r"the question alone takes 21 tokens, more than.* 15"):
        debate.reset(QUESTION)
    assert not debate.started


def test_it_is_found_before_anybody_speaks_whoever_it_is_too_long_for() -> None:
    personas = ("Solve.", "Check.", "Refine, and think of all that may be wrong. " * 9)
    debate = Debate(Pipeline(token_budget=80, personas=personas), 3)
    with pytest.raises(ValueError, match="persona and question alone take"):
        debate.reset(QUESTION)


def test_feedback_is_asked_for_once_however_often_a_view_is_tried() -> None:
    asked: list[str] = []

    def feedback(question: Question, text: str) -> str:
        asked.append(text)
        return "wrong " * 1_000

    debate = Debate(JointAnswer(num_turns=2, feedback=feedback, token_budget=120), 2)
    debate.reset(QUESTION)
    for agent in debate.agents:
        debate.post(agent, "y" * 2_000)
    debate.settle([0.0, 0.0])
    text = debate.observation("agent_0")
    assert "Feedback on the joint answer:\n```\nwrong" in text
    assert len(asked) == 1


@pytest.mark.parametrize("kind", [SimultaneousDebate, SequentialDebate])
def test_the_work_per_message_does_not_grow_with_the_debate(
    kind: Callable[..., Conversation],
) -> None:
    def characters_counted(turns: int) -> int:
        counted = 0

        def count(text: str) -> int:
            nonlocal counted
            counted += len(text)
            return len(text)

        debate = Debate(kind(num_turns=turns, token_budget=800, count_tokens=count), 2)
        debate.reset(QUESTION)
        while not debate.over:
            for agent in debate.agents:
                debate.observation(agent)
                debate.post(agent, "something")
            debate.settle([0.5, 0.5])
        return counted

    assert characters_counted(200) < 2.2 * characters_counted(100)
