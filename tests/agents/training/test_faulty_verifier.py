"""A training whose verifier raises, hangs, counts wrongly or returns NaN."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from small_runs import SMALL

from maporl_agents.algorithms.maporl import train_step
from maporl_agents.play.questions import questions_of_step
from maporl_agents.training import experiment
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.tasks import load_task
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey, Scorer


class FaultyKey:
    """The answer key, which in a share of its calls raises, hangs, counts wrongly or says NaN."""

    KINDS = ("raise", "hang", "count", "nan")

    def __init__(self, share: float, seed: int) -> None:
        self.share = share
        self.chance = random.Random(seed)
        self.release = threading.Event()
        self.calls: list[tuple[str, int]] = []  # kind of fault, messages that it should cost

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        right = AnswerKey().score(questions, responses)
        fault = self.chance.choice(self.KINDS) if self.chance.random() < self.share else "none"
        self.calls.append((fault, {"none": 0, "nan": 1}.get(fault, len(responses))))
        match fault:
            case "raise":
                raise RuntimeError("the verifier is out of order")
            case "hang":
                self.release.wait()
            case "count":
                return right[:-1]
            case "nan":
                return [float("nan"), *right[1:]]
        return right


def timed(scorer: Scorer) -> list[float]:
    """Note from now on how long each call takes, in seconds."""
    seconds: list[float] = []
    score = scorer.score

    def measured(questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        begun = time.monotonic()
        scores = score(questions, responses)
        seconds.append(time.monotonic() - begun)
        return scores

    scorer.score = measured  # type: ignore[method-assign]
    return seconds


def train_with_faults(updates: int, seed: int) -> FaultyKey:
    """Train; check after every step that exactly the faulty messages were left out."""
    config = replace(SMALL, steps=updates)
    _, learner = experiment.build(config)
    verifier = FaultyKey(0.2, seed)
    game = DebateConfig(num_agents=2, verifier=verifier, verifier_timeout=1.0, gamma=1.0)
    debates = BatchedDebate(game, config.questions_per_step)
    seconds = timed(debates.game.scorer)
    questions = load_task("shopping").split("train")
    try:
        for step in range(updates):
            seen = len(verifier.calls)
            asked = questions_of_step(questions, step, config.questions_per_step, 0)
            rollouts, metrics = train_step(learner, debates, asked, config, seed=step)
            calls = verifier.calls[seen:]
            assert len(calls) == 3, "one call per turn, never a second one"
            assert metrics["unscored_messages"] == sum(count for _, count in calls)
            unscored = 0
            for rollout in rollouts:
                for message in rollout.transcript.messages:
                    unscored += message.score is None
                    if message.score is not None:  # no fake zero, no fake one
                        [right] = AnswerKey().score([rollout.transcript.question], [message.text])
                        assert message.score == right
                assert (rollout.rewards[~rollout.scored] == 0).all()
            assert unscored == metrics["unscored_messages"]
            assert all(torch.isfinite(p).all() for p in learner.parameter_names())
    finally:
        verifier.release.set()
    assert max(seconds) < game.verifier_timeout + 20  # A33: however long the verifier hangs
    assert sum(debates.faults.values()) == sum(count for _, count in verifier.calls)
    return verifier


@pytest.mark.thorough
def test_training_outlives_a_faulty_verifier() -> None:
    """A32 and A33 in the small; every kind of fault occurs."""
    verifier = train_with_faults(10, seed=2)
    assert {kind for kind, _ in verifier.calls} == {"none", *FaultyKey.KINDS}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_200_updates_with_a_faulty_verifier() -> None:
    """R13: a fifth of the calls fail, and the run finishes with exact counts."""
    threads = threading.active_count()
    verifier = train_with_faults(200, seed=0)
    faulty = sum(kind != "none" for kind, _ in verifier.calls)
    assert len(verifier.calls) == 600
    assert 90 <= faulty <= 150  # 120 expected, three standard deviations of 10
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= threads, "those that hung end once they are let go"
