"""A simulation of a step on several devices: what it would take, and where the time goes.

It divides the work of one device's share (`plan_of` with that share of the questions) by what makes
devices wait for each other: lengths of messages that are drawn at random, texts that are dealt out
in whole conversations, gradients that are added up. It is a model and no measurement;
`ASSUMPTIONS` are printed with it, and ``benchmarks/scale_model.py`` compares it with what one and
two processes take.
"""

from __future__ import annotations

import heapq
import random
import statistics
from dataclasses import dataclass

BYTES_OF_TOKEN = 40
"""Sent with each token of a debate: id, log-probability, value, text."""
ASSUMPTIONS = (
    "message lengths are exponential with a mean of {mean:.0%} of their limit, which cuts them",
    "{waiting}",
    "reading prompts is counted with decoding",
    "conversations of an agent are dealt out whole, largest first",
    "devices send {link:.0f} GB/s each, gradients in a ring, and compute nothing meanwhile",
    "verifiers, evaluation and checkpoints take no time",
)
"""What the simulation takes for granted; `Cluster.assumptions` fills in numbers and `WAITING`."""
WAITING = {
    True: "a writer decodes its debates in lock step: a turn takes as long as its longest message",
    False: "a debate on a server goes on as soon as its own turn is complete, at the same speed "
    "beside any number of others: the longest debate decides",
}
"""By `Cluster.lock_step`."""


@dataclass(frozen=True)
class Cluster:
    """The devices that a run is planned for.

    Attributes:
        devices: that train, one process each.
        servers: that write messages in their place; 0: the devices write themselves.
        link: bytes per second between devices.
        mean: mean length of a message as a fraction of its limit; 1: all are at the limit.
        lock_step: the debates of a writer wait for each other after each turn, as on a device that
            writes itself; with servers they do so only where agents have tools.
    """

    devices: int
    servers: int = 0
    link: float = 50e9
    mean: float = 0.5
    lock_step: bool = True

    def assumptions(self) -> list[str]:
        """Return what the simulation takes for granted, sentence by sentence."""
        given = {"mean": self.mean, "link": self.link / 1e9, "waiting": WAITING[self.lock_step]}
        return [text.format(**given) for text in ASSUMPTIONS]


@dataclass(frozen=True)
class Work:
    """The work of a step.

    Attributes:
        debates: of the whole step.
        turns: T.
        agents: A.
        tokens: of all messages of the step, at their limits.
        updates: optimiser steps.
        trained_bytes: of trained weights.
        adapter_bytes: of those among them that servers are sent after a step.
        play: seconds that the debates of one writer take, all messages at their limits.
        score: seconds of the other passes without gradient of one device's share, likewise.
        update: seconds of the updates of one device's share, likewise.
    """

    debates: int
    turns: int
    agents: int
    tokens: float
    updates: int
    trained_bytes: float
    play: float
    score: float
    update: float
    adapter_bytes: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """Seconds of a step: of the slowest device in each part, and of the mean device's work.

    Attributes:
        parts: by part, in order: play, exchange of debates, score, update, sums of gradients; with
            servers also what the adapters take to all of them, one after the other.
        busy: the share of the devices' time in which they compute.
    """

    parts: dict[str, float]
    busy: float

    @property
    def seconds(self) -> float:
        """Seconds of the whole step."""
        return sum(self.parts.values())


def forecast(cluster: Cluster, work: Work, *, seed: int = 0) -> Forecast:
    """Simulate a step.

    Args:
        cluster: the devices.
        work: of the step, its seconds those of one device's share.
        seed: of the lengths.
    """
    noise = random.Random(seed)
    lengths = [
        [[_length(noise, cluster.mean) for _ in range(work.agents)] for _ in range(work.turns)]
        for _ in range(work.debates)
    ]  # (debates, T, A), fractions of the limit
    writers = cluster.servers or cluster.devices
    written = _turns if cluster.lock_step else _longest_debate
    playing = [written(lengths[rank::writers]) for rank in range(writers) if lengths[rank::writers]]
    share = statistics.fmean(x for debate in lengths for turn in debate for x in turn)
    reading = _dealt([sum(turn[a] for turn in d) for d in lengths for a in range(work.agents)],
                     cluster.devices)  # fmt: skip
    slowest = max(reading) / statistics.fmean(reading)
    others = cluster.devices - 1
    sent = others / cluster.devices / cluster.link
    parts = {
        "play": work.play * max(playing),
        "exchange of debates": BYTES_OF_TOKEN * work.tokens * share * sent,
        "score": work.score * share * slowest,
        "update": work.update * share * slowest,
        "sums of gradients": 2 * work.updates * work.trained_bytes * sent,
    }
    if cluster.servers:
        parts["adapters to servers"] = cluster.servers * work.adapter_bytes / cluster.link
    mean_play = 0.0 if cluster.servers else work.play * statistics.fmean(playing)
    computing = mean_play + (work.score + work.update) * share
    return Forecast(parts, computing / sum(parts.values()))


def _length(noise: random.Random, mean: float) -> float:
    """Return the length of a message as a fraction of its limit, 1 at most."""
    return min(1.0, noise.expovariate(1 / mean)) if mean < 1 else 1.0


def _turns(debates: list[list[list[float]]]) -> float:
    """Return the time of debates in lock step, as a fraction of that of messages at the limit."""
    longest = [
        max(x for debate in debates for x in debate[turn]) for turn in range(len(debates[0]))
    ]
    return statistics.fmean(longest)


def _longest_debate(debates: list[list[list[float]]]) -> float:
    """Return the time of debates that do not wait for each other, as a fraction likewise."""
    return max(statistics.fmean(max(turn) for turn in debate) for debate in debates)


def _dealt(sizes: list[float], count: int) -> list[float]:
    """Return the sum of sizes of each device, dealt out as `distributed.deal` does."""
    loads = [0.0] * count
    for size in sorted(sizes, reverse=True):
        heapq.heappush(loads, heapq.heappop(loads) + size)
    return loads
