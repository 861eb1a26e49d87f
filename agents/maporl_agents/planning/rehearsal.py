"""A rehearsal: steps of a run, taken and timed with random weights, which forecast the real ones.

The time of a step depends on its shapes; the weights matter only for the lengths of messages. So
the run is built with random weights of the same shapes (only settings and tokenizers are read), and
its own training step is taken with more and more debates, every message at its limit. If the time
allows the whole step, it is measured; else it is extrapolated by a straight line through the two
largest steps that were taken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from maporl_agents.algorithms import scheme_for
from maporl_agents.config import GameConfig, RunConfig, TeamConfig, scheme_of
from maporl_agents.models.devices import pick_device
from maporl_agents.models.parallel_bases import cores
from maporl_agents.planning.plan import Plan
from maporl_agents.planning.sketch import bare_model
from maporl_agents.planning.stand_ins import (
    EndlessChat,
    first_questions,
    stage,
    with_message_tokens,
)
from maporl_agents.text.chat import Chat
from maporl_agents.text.vocabulary import rows_of
from maporl_agents.training import experiment
from maporl_agents.training.make_game import unjudged

REPEATS = 2
"""Least number of timings of the sizes that count, if there is time; the best is taken."""
MOST_REPEATS = 6
ERROR = 0.15
"""Largest relative error of a rehearsal on idle machines: docs/explanation/performance.md."""
BUSY_LOAD = 0.5
"""With more waiting processes per core than this, a machine is called busy."""
BUSY_SPREAD = 1.3
"""So is one on which the slowest repetition of a step takes this many times the fastest."""


class Spent(NamedTuple):
    """Time of a piece of work: seconds on the clock, and of all processor cores together."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Rehearsal:
    """The timed steps of a rehearsal.

    Attributes:
        count: debates of the step that is forecast.
        timed: debates of a step that was taken -> the least it took.
        slowest: the same -> the most it took, after warming up; empty if every size ran once.
        load: processes that wanted a core just before, a mean over a minute; None if unknown.
        cores: that there are for all of them.
    """

    count: int
    timed: dict[int, Spent]
    slowest: dict[int, Spent] = field(default_factory=dict)
    load: float | None = None
    cores: int = 1

    @property
    def forecast(self) -> Spent:
        """Time of the whole step: measured, or extrapolated through the two largest."""
        return self.timed.get(self.count) or on_line(self.timed, self.count)

    @property
    def busy(self) -> bool:
        """Whether other processes were at work, by the load or by the spread of repeated steps.

        Measured times then do not predict those of another hour.
        """
        slow = any(most.wall > BUSY_SPREAD * self.timed[n].wall for n, most in self.slowest.items())
        return slow or (self.load is not None and self.load > BUSY_LOAD * self.cores)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and most seconds on the clock that the step can be expected to take.

        The fastest and the slowest of the steps taken, `ERROR` off on either side. On a busy
        machine the least is what it takes with all cores to itself.
        """
        most = {n: self.slowest.get(n, spent) for n, spent in self.timed.items()}
        slow = (most.get(self.count) or on_line(most, self.count)).wall
        fast = self.forecast.wall
        if self.busy:
            fast = min(fast, self.forecast.processor / self.cores)
        return fast * (1 - ERROR), slow * (1 + ERROR)


def on_line(timed: dict[int, Spent], count: int) -> Spent:
    """Return the value at `count` of the line through the two largest sizes, never a falling one.

    One size alone is scaled.
    """
    *rest, large = sorted(timed)
    if not rest:
        return Spent(*(value * count / large for value in timed[large]))
    small = rest[-1]
    steps = (count - large) / (large - small)
    return Spent(
        *(
            most + steps * max(most - less, 0.0)
            for less, most in zip(timed[small], timed[large], strict=True)
        )
    )


def sizes(count: int, least: int) -> list[int]:
    """Return `count` and its halves that are at least `least`, the smallest first."""
    found = [count]
    while -(-found[0] // 2) >= max(least, 2):
        found.insert(0, -(-found[0] // 2))
    return found


def time_steps(
    take: Callable[[int], Spent], count: int, least: int, seconds: float
) -> dict[int, Spent]:
    """Time steps of growing size while there is time; return the least time of each.

    Args:
        take: takes a step of a number of debates and returns its time.
        count: debates of the step that is asked for.
        least: debates that a smaller step has at least.
        seconds: that all of it may take on the clock. A first step, to warm up, is always taken.
    """
    ladder = sizes(count, least)
    warm = take(ladder[0])
    left = seconds - warm.wall
    timed: dict[int, Spent] = {}
    for size in ladder:
        expected = on_line(timed or {ladder[0]: warm}, size).wall
        if expected * (REPEATS if timed else 1) > left:
            break
        timed[size] = take(size)
        left -= timed[size].wall
    ends = [count] if count in timed else sorted(timed)[-2:]
    for _ in range(MOST_REPEATS - 1):
        if left < sum(timed[size].wall for size in ends):
            break
        for size in ends:
            again = take(size)
            left -= again.wall
            timed[size] = Spent(*map(min, timed[size], again))
    return timed


def rehearse(
    config: RunConfig,
    plan: Plan,
    seconds: float,
) -> Rehearsal:
    """Time steps of a run with random weights.

    Args:
        config: its settings.
        plan: made of them, for this device.
        seconds: that it may take.

    Raises:
        ValueError: it cannot be rehearsed, or not in so short a time; says why.
    """
    message_tokens, question_tokens = plan.lengths
    config = with_message_tokens(config, message_tokens)
    count = config.training_game()[1]
    least = min(plan.minibatches, count)
    _require_means(config, plan, seconds, sum(plan.seconds.values()) * least / count)
    began = time.perf_counter()
    load = waiting_processes()
    with threads_kept():
        watched = Watched(_stepper(config, question_tokens))
        left = seconds - (time.perf_counter() - began)
        timed = time_steps(watched, count, least, left)
    if count not in timed and len(timed) < 2:
        raise ValueError(f"steps take too long for {seconds:g} s: raise --rehearsal-seconds")
    return Rehearsal(count, timed, watched.slowest, load, cores())


class Watched:
    """Takes steps, and keeps the most that each size took, the first step of all left out.

    Attributes:
        slowest: debates of a step -> the most it took.
    """

    def __init__(self, take: Callable[[int], Spent]) -> None:
        self._take = take
        self._warm = False
        self.slowest: dict[int, Spent] = {}

    def __call__(self, size: int) -> Spent:
        """Take a step of `size` debates; return its time."""
        spent = self._take(size)
        if self._warm:
            self.slowest[size] = Spent(*map(max, spent, self.slowest.get(size, spent)))
        self._warm = True
        return spent


def waiting_processes() -> float | None:
    """Return the mean number of processes that wanted a core, last minute; None if unknown."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _require_means(config: RunConfig, plan: Plan, seconds: float, shortest: float) -> None:
    """Raise ValueError if a rehearsal would not fit; `shortest` is of its smallest step."""
    if config.steps_per_round > 1:
        raise ValueError(f"the steps of a round of {scheme_of(config)} differ from each other")
    if not plan.fits:
        raise ValueError("the run does not fit")
    if config.team.quantization != "none" or config.team.device_map == "auto":
        raise ValueError("models that are quantised or laid over several devices are not rehearsed")
    if 3 * shortest > seconds:  # one to warm up, two to time
        raise ValueError(
            f"it would take {3 * shortest:.0f} s or more, and {seconds:g} s are allowed: raise "
            "--rehearsal-seconds"
        )


def _stepper(config: RunConfig, question_tokens: int) -> Callable[[int], Spent]:
    """Return a function that takes a training step on a number of the run's first questions."""
    game, count = config.training_game()
    plain = unjudged(config.game)
    if question_tokens:  # the task may not be there
        plain = replace(plain, task=GameConfig().task, data="")
    models = replace(config.team, partners=())  # nobody outside is asked
    team, learner = experiment.build(replace(config, game=plain, team=models), load=load_random)
    device, train_step = team.bases[0].device, scheme_for(config).train_step
    asked, _ = first_questions(config, count, question_tokens, team.bases[0].chat)

    def take(size: int) -> Spent:
        questions = asked[:size]
        debates = stage(game, questions, made_up=question_tokens > 0)
        start = _now(device)
        train_step(learner, debates, questions, config, seed=0)
        return Spent(*(end - begin for begin, end in zip(start, _now(device), strict=True)))

    return take


def _now(device: torch.device) -> Spent:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Spent(time.perf_counter(), time.process_time())


def load_random(name: str, config: TeamConfig) -> tuple[PreTrainedModel, Chat]:
    """Return a model with random weights, by its settings alone, that never ends a message.

    Raises:
        ValueError: as `sketch.bare_model`.
    """
    device = pick_device(config.device)
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        for generator in (
            torch.default_generator,
            *(torch.cuda.default_generators if gpus else ()),
        ):
            generator.manual_seed(0)
        model, tokenizer = bare_model(name, config, device)
    return model, EndlessChat(tokenizer, embeddings=rows_of(model.config))


@contextmanager
def threads_kept() -> Iterator[None]:
    """Give torch back its number of threads."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
