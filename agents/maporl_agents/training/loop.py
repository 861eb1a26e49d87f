"""The loop of a training run: step, log, warn, save, and stop where a signal asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from typing import Any

from maporl_agents import distributed
from maporl_agents.algorithms import scheme_for
from maporl_agents.config import RunConfig, scheme_of
from maporl_agents.measure.alarms import Alarm, alarms, last_score
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.phases import measured
from maporl_agents.play.rollout import Playable
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.training.ahead import Ahead, ahead_of, asked_in_step
from maporl_agents.training.checkpointing import save_checkpoint
from maporl_agents.types import Rollout
from maporl_agents.update.optimiser import PolicyLearner
from maporl_env.types import Question


class Interrupted(Exception):
    """Ctrl-C or SIGTERM arrived; the run is saved and can be resumed.

    Attributes:
        step: steps that are done.
        signal_number: which signal.
    """

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(step, signal_number)  # so that it can be sent to other processes
        self.step = step
        self.signal_number = signal_number

    def __str__(self) -> str:
        return f"interrupted after step {self.step}"


def train(
    config: RunConfig,
    learner: PolicyLearner,
    game: Playable,
    questions: Sequence[Question],
    log: RunLog,
    *,
    start: int = 0,
    on_step: Callable[[int, Metrics], None] = lambda step, metrics: None,
    on_alarm: Callable[[int, Alarm], None] = lambda step, alarm: None,
    on_checkpoint: Callable[[int], bool] = lambda step: True,
    more_metrics: Callable[[int], Metrics] = lambda step: {},
) -> None:
    """Train from step `start` to the end, logging every step and saving every few.

    Args:
        config: the settings of the run.
        learner: what its scheme trains; updated in place.
        game: the environment of `config.training_game`.
        questions: that are trained on, all of them.
        log: the run's folder.
        start: steps that are done.
        on_step: told every step's metrics.
        on_alarm: told an early warning when it first comes up; alarms.jsonl has them all.
        on_checkpoint: called after each checkpoint, but not after one that a signal asks for;
            returns whether to go on.
        more_metrics: asked after each step for further metrics of it.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, once the step is finished and saved.
    """
    done = distributed.first(lambda: read_metrics(log.folder)[:start]) if start else []
    first: Mapping[str, Any] = done[0] if done else {}
    best = highest(None, *map(last_score, done))
    told: set[str] = set()
    learner.folder = log.folder
    scheme = scheme_of(config)
    ahead = ahead_of(config, learner.team, game, questions)
    with _signals() as caught:
        for step in range(start, config.steps):
            with measured() as seconds:
                rollouts, metrics = take_step(config, learner, game, questions, step, ahead)
                metrics |= more_metrics(step + 1)
            first = first or metrics
            best = highest(best, last_score(metrics))
            raised = alarms(metrics, first, scheme, best)
            log.metrics(step + 1, metrics | {"alarms": len(raised)})
            log.alarms(asdict(alarm) for alarm in raised)
            log.seconds(seconds)
            log.transcripts("train", [rollout.transcript for rollout in rollouts[:2]])
            on_step(step + 1, metrics)
            for alarm in raised:
                if alarm.name not in told:
                    on_alarm(step + 1, alarm)
            told |= {alarm.name for alarm in raised}
            due = config.saves_after(step + 1)
            signals = [*chain.from_iterable(distributed.gather("signals", caught[:1]))]
            if signals or due:
                save_checkpoint(log.folder, step + 1, learner)
            if signals:  # after the last step too: what follows may take long
                raise Interrupted(step + 1, signals[0])
            if due and ahead is not None:
                ahead.settle()  # what follows may play with the same verifier
            if due and not on_checkpoint(step + 1):
                break


def highest(*scores: float | None) -> float | None:
    """Return the highest of the scores that are known; None if none is."""
    return max((score for score in scores if score is not None), default=None)


def take_step(
    config: RunConfig,
    learner: PolicyLearner,
    game: Playable,
    questions: Sequence[Question],
    step: int,
    ahead: Ahead | None = None,
) -> tuple[list[Rollout], Metrics]:
    """Draw the questions of a step, counted from 0, and let the run's scheme train on them.

    With `ahead` it trains on debates of them that have been played already.
    """
    asked, seed = asked_in_step(config, questions, step)
    learner.steps_done = step
    before = _costs(game)
    train_step: Callable[..., tuple[list[Rollout], Metrics]] = scheme_for(config).train_step
    played = {} if ahead is None else {"rollouts": ahead.rollouts(step)}
    rollouts, metrics = train_step(learner, game, asked, config, seed=seed, **played)
    used = {f"verifier/{name}": float(n - before.get(name, 0)) for name, n in _costs(game).items()}
    return rollouts, {**metrics, **used}


def _costs(game: Playable) -> Mapping[str, int]:
    """Return what the verifier has cost so far; games without a verifier cost nothing."""
    costs: Mapping[str, int] = getattr(game, "costs", {})
    return costs


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying; a second SIGINT dies as usual.

    Of several processes each has SIGINT twice, from the terminal and from the launcher.
    """
    caught: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if caught and number == signal.SIGINT and distributed.count() == 1:
            raise KeyboardInterrupt
        caught.append(number)

    with _handling(note):
        yield caught


@contextmanager
def interruptible(step: int) -> Iterator[None]:
    """Let SIGINT and SIGTERM end at once what comes before or after training: nothing is unsaved.

    Of several processes all end, at their next message to each other.

    Raises:
        Interrupted: where a signal arrives; the run is resumed from `step`.
    """

    def stop(number: int, _frame: Any) -> None:
        if not distributed.tell_later(interrupt := Interrupted(step, number)):
            raise interrupt

    with _handling(stop):
        yield


@contextmanager
def _handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # whoever owns the main thread has the signals, such as a worker of Ray
        return
    previous = {one: signal.signal(one, handler) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
