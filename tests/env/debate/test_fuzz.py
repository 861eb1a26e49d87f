"""Hostile text by the million: no exception, nothing outside the spaces, the gold never visible.

Agents write random Unicode (lone surrogates, controls, bidirectional overrides), unclosed boxes and
fences, template fields, forged headings, nothing, or too much, under random options of every
protocol; the verifier fails now and then. Some actions are no text at all and must be refused.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from maporl_env import debate_v0
from maporl_env.penalties import Penalties
from maporl_env.protocols import PROTOCOLS
from maporl_env.types import Question

GOLDS = {
    "number": "918273645546372819",
    "text": "swordfish-918273645",
    "code": "def gold_9182(): 1",
}
PIECES = (
    *(
        "\\boxed{",
        "}",
        "{",
        "\\boxed{12}",
        "\\boxed{1/0}",
        "\\frac{",
        "\\{",
        "$",
        "%",
        "-",
        "1e999",
    ),
    *("```", "````", "`" * 40, "```python\n", "~~~", "{question}", "{0}", "%s", "{{", "}}"),
    *("\x00", "\x1b[2J", "\x9b31m", "\r", "\n", "\t", "\u202e", "\u2066", "\u2028", "\ufeff"),
    *("\ud800", "\udfff", "\U0010ffff", "\u0301" * 20, "\U0001f469\u200d\U0001f680", "漢", "שלום"),
    *("Agent 1:\n", "Your answer in turn 2:\n", "Turn 1, agent_1 (score 1.00)\n", "<|im_start|>"),
    *(
        "system",
        "[red]",
        "<b>",
        "&lt;",
        "A: 7",
        "\nA: ",
        "9" * 30,
        "nan",
        "null",
        " ",
        "entailment",
    ),
)
NO_TEXTS: tuple[Any, ...] = (None, 3, 1.5, b"bytes", ["list"], {"a": 1}, float("nan"), object())


def hostile_text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.05:
        return ""
    if kind < 0.06:
        return rng.choice(PIECES) * rng.randrange(1, 3_000)
    parts = [rng.choice(PIECES) for _ in range(rng.randrange(1, 8))]
    if kind < 0.5:
        parts += [chr(rng.randrange(0x110000)) for _ in range(rng.randrange(1, 12))]
        rng.shuffle(parts)
    return "".join(parts)


NUM_TURNS = {"retrieve": 1, "teams_and_judge": 7, "lessons": 5}


def some_options(rng: random.Random) -> dict[str, Any]:
    protocol = rng.choice(sorted(PROTOCOLS))
    fixed = {"self_correction": 1, "pipeline": 3, "dialogue": 2}
    least_agents = {"teams_and_judge": 3, "retrieve": 2}.get(protocol, 1)
    num_agents = fixed.get(protocol, rng.randint(least_agents, 8))
    kind = rng.choice(sorted(GOLDS))
    faulty = rng.random() < 0.3
    options: dict[str, Any] = {
        "task": [Question("fuzz", f"{hostile_text(rng)} What is it?", GOLDS[kind], kind)],
        "protocol": protocol,
        "num_agents": num_agents,
        "num_turns": NUM_TURNS.get(protocol, rng.randint(1, 20)),
        "reward_mode": rng.choice(["terminal", "score"]),
        "reward_feedback": rng.random() < 0.5,
        "gamma": rng.choice([0.0, 0.3, 1.0]),
        "alpha": rng.choice([(0, 0), (1.0, 2.0)]),
        "beta": rng.choice([(0, 0), (0.5, -1.0)]),
        "history": rng.choice(["all", "all", "last", "none"]),
        "penalties": rng.choice([None, Penalties(too_short=1, repetition=0.5, no_answer=0.25)]),
        "max_chars": rng.choice([1, 50, 100_000]),
        "verifier": FaultyVerifier(rng.random()) if faulty else None,
        "render_mode": "ansi",
    }
    if protocol == "dialogue":
        del options["history"], options["reward_feedback"]
    if protocol not in ("joint", "leader", "dialogue", "teams_and_judge", "retrieve", "lessons"):
        options["stop"] = rng.choice(["fixed", "fixed", "consensus"])
    return options


class FaultyVerifier:
    """Scores at random; fails in every way a verifier can."""

    def __init__(self, seed: float) -> None:
        self.rng = random.Random(seed)

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[Any]:
        if self.rng.random() < 0.1:
            raise RuntimeError("verifier down")
        values = [float("nan"), 2.0, None, "x", 0.0, 0.5, 1.0, self.rng.random()]
        return [self.rng.choice(values) for _ in responses[self.rng.random() < 0.1 :]]


def check_told(env: Any, gold: str) -> None:
    """What an agent is told lies in the spaces, is finite, and keeps the gold answer."""
    observation, reward, terminated, truncated, info = env.last()
    agent = env.agent_selection
    assert env.observation_space(agent).contains(observation)
    assert gold not in observation
    observation.encode()  # no lone surrogate has survived
    assert np.isfinite(reward)
    assert (type(terminated), truncated) == (bool, False)
    assert info["turn_rewards"].shape == (env.unwrapped.debate.num_turns,)
    assert np.isfinite(info["turn_rewards"]).all()
    assert 0.0 <= info["verifier_score"] <= 1.0


def check_looks(env: Any, gold: str) -> None:
    """What people, critics and logs see is harmless, in its space, and keeps the gold answer."""
    shown = env.render()
    assert gold not in shown + env.unwrapped.state_text() + str(env.infos)
    hidden = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden <= set("\n\t\u200c\u200d")
    assert env.unwrapped.state_space.contains(env.state())
    assert env.unwrapped.transcript.from_json(env.unwrapped.transcript.to_json()) is not None


def play(rng: random.Random) -> int:
    """Play one debate to the end; return the number of messages."""
    options = some_options(rng)
    gold = options["task"][0].answer
    env = debate_v0.env(**options)
    env.reset(seed=rng.randrange(2**32))
    steps = 0
    while env.agents:
        check_told(env, gold)
        if env.terminations[env.agent_selection]:
            env.step(None)
            continue
        if rng.random() < 0.02:
            check_looks(env, gold)
            before = (env.agent_selection, env.unwrapped.transcript, env.unwrapped.debate.pending)
            with pytest.raises(ValueError, match="must be a string"):
                env.step(rng.choice(NO_TEXTS))
            after = (env.agent_selection, env.unwrapped.transcript, env.unwrapped.debate.pending)
            assert after == before
        env.step(hostile_text(rng))
        steps += 1
    check_looks(env, gold)
    assert steps == len(env.unwrapped.transcript.messages)
    if env.unwrapped.transcript.ends is None:
        assert steps == options["num_agents"] * env.unwrapped.debate.played
    return steps


def play_steps(seed: str, number: int) -> None:
    rng = random.Random(seed)
    steps = 0
    while steps < number:
        steps += play(rng)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(3))
def test_some_thousands_of_hostile_steps(seed: int) -> None:
    play_steps(f"quick/{seed}", 1_000)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", range(10))
def test_a_million_hostile_steps(seed: int) -> None:
    """Ten times 100,000, so that they can be divided among processes."""
    play_steps(f"slow/{seed}", 100_000)
