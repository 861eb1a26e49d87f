"""One step of lag: which weights play which step, what is waited for, and where errors surface."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from maporl_agents.config import MALTConfig, Sampling, TrainConfig
from maporl_agents.play.speak import Engine
from maporl_agents.training.ahead import Ahead, ahead_of, asked_in_step
from maporl_agents.types import Completion, Rollout
from maporl_env.types import Question


class Weights:
    """An engine that is the number of updates so far."""

    def __init__(self) -> None:
        self.updates = 0
        self.checks = 0

    def pinned(self) -> Engine:
        return Speaking(self.updates)

    def check(self) -> None:
        self.checks += 1


class Speaking:
    """An engine that speaks with the weights after some updates."""

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def __call__(self, *_: object) -> list[Completion]:
        return []


def played(weights: Weights, steps: int, start: int = 0) -> list[tuple[int, int, int]]:
    """Learn step by step; return (step, updates when it was played, updates when it is learnt)."""
    said: dict[int, int] = {}

    def play(step: int, engine: Engine) -> list[Rollout]:
        assert isinstance(engine, Speaking)
        said[step] = engine.updates
        return []

    ahead = Ahead(weights, play, steps)
    found = []
    for step in range(start, steps):
        ahead.rollouts(step)
        found.append((step, said[step], weights.updates))
        weights.updates += 1
    ahead.settle()
    assert sorted(said) == list(range(start, steps))  # nothing beyond the last step
    return found


def test_each_step_is_played_by_the_weights_before_the_last_update() -> None:
    assert played(Weights(), 4) == [(0, 0, 0), (1, 0, 1), (2, 1, 2), (3, 2, 3)]


def test_a_resumed_run_begins_with_the_weights_it_has() -> None:
    weights = Weights()
    weights.updates = 2
    assert played(weights, 4, start=2) == [(2, 2, 2), (3, 2, 3)]


def test_weights_are_checked_at_every_step() -> None:
    weights = Weights()
    played(weights, 3)
    assert weights.checks == 3


def test_the_next_step_is_played_while_this_one_is_learnt() -> None:
    """Step 1 ends only after the caller has got step 0, which it would wait for otherwise."""
    got = threading.Event()

    def play(step: int, _: Engine) -> list[Rollout]:
        if step == 1:
            assert got.wait(60)
        return []

    ahead = Ahead(Weights(), play, 2)
    ahead.rollouts(0)
    got.set()
    ahead.rollouts(1)


def test_an_error_of_the_background_is_raised_with_its_step() -> None:
    def play(step: int, _: Engine) -> list[Rollout]:
        if step == 1:
            raise OSError("no server is left")
        return []

    ahead = Ahead(Weights(), play, 3)
    ahead.rollouts(0)
    ahead.settle()  # waits, and raises nothing
    with pytest.raises(OSError, match="no server is left"):
        ahead.rollouts(1)


def test_a_step_has_its_questions_and_seed_whenever_it_is_played() -> None:
    questions = [Question(f"q/{i}", "how ?", "1") for i in range(9)]
    config = TrainConfig(questions_per_step=2)
    steps = [asked_in_step(config, questions, step) for step in range(3)]
    assert len({seed for _, seed in steps}) == 3
    assert steps == [asked_in_step(config, questions, step) for step in range(3)]


def test_a_scheme_without_debates_of_its_own_is_refused() -> None:
    class Team:
        engine = Weights()

    config = replace(MALTConfig(), sampling=Sampling(lag=1))
    with pytest.raises(ValueError, match=r"Scheme\.play"):
        ahead_of(config, Team(), None, [])  # type: ignore[arg-type]
    assert ahead_of(MALTConfig(), Team(), None, []) is None  # type: ignore[arg-type]
