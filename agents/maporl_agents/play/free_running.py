"""Debates that do not wait for each other: each goes on as soon as its own turn is complete.

For engines whose messages come one by one, such as servers. The game's rules, the noise of every
message and so its text are those of the lock-step form (`rollout.play` with `BatchedDebate`); what
differs is when a message is asked for. One thread, the caller's, makes prompts, steps debates and
asks the verifier, of all debates together whose turn was completed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.speak import FreeEngine, Reply, length_of, requests
from maporl_agents.seeding import seed_of
from maporl_agents.types import Completion, Request, StopReason, TokenIds
from maporl_env.batched import BatchedDebate


class Tape(Protocol):
    """What one debate consists of; see `rollout`."""

    def own(self, agent: int) -> list[TokenIds]:
        """Return the ids of an agent's earlier messages."""
        ...

    def record(self, request: Request, completion: Completion, now: int, *, draft: bool) -> None:
        """Add a message or a draft of round `now`."""
        ...


def write_freely(
    team: Team,
    debates: BatchedDebate,
    tapes: Sequence[Tape],
    sampling: Sampling,
    seed: int,
    first_debate: int,
    engine: FreeEngine,
) -> None:
    """Play debates that have just been reset to their ends.

    Args:
        team: who speaks.
        debates: B debates; at the end all of them are over.
        tapes: B records of what is said.
        sampling: how messages are drawn.
        seed: names the sampling noise.
        first_debate: as of `rollout.play`.
        engine: writes the messages.
    """
    everyone, length = list(debates.debates), length_of(debates)
    asked: list[list[Request]] = [[] for _ in everyone]
    replies: list[Sequence[Future[Reply]]] = [[] for _ in everyone]
    rounds = [0] * len(everyone)
    done: SimpleQueue[tuple[int, Future[Reply]]] = SimpleQueue()

    def ask(which: Sequence[int]) -> None:
        """Send the requests of all who may speak now in some debates."""
        debates.take_over([everyone[index] for index in which])
        prompts = [one._replace(debate=which[one.debate]) for one in debates.prompts()]
        own = [tapes[one.debate].own(one.agent_index) for one in prompts]
        found = requests(team, prompts, own, first_debate=first_debate, length=length)
        for index in which:
            asked[index] = [one for p, one in zip(prompts, found, strict=True) if p.debate == index]
            noise = seed_of(seed, "sample", rounds[index])
            replies[index] = engine.begin(asked[index], sampling, noise)
            for reply in replies[index]:
                reply.add_done_callback(partial(_put, done, index))

    def step(which: Sequence[int]) -> None:
        """Post the messages of debates whose round is complete."""
        said = [[reply.result().completion() for reply in replies[index]] for index in which]
        debates.take_over([everyone[index] for index in which])
        flat = [completion for messages in said for completion in messages]
        taken = iter(
            debates.step(
                [completion.text for completion in flat],
                [completion.stop is StopReason.LENGTH for completion in flat],
            )
        )
        for index, messages in zip(which, said, strict=True):
            for request, completion in zip(asked[index], messages, strict=True):
                tapes[index].record(request, completion, rounds[index], draft=not next(taken))
            rounds[index] += 1

    try:
        going = set(range(len(everyone)))
        ask(sorted(going))
        while going:
            arrived = [done.get()]
            while not done.empty():
                arrived.append(done.get())
            for _, reply in arrived:
                reply.result()  # raises what its request has met
            touched = going.intersection(index for index, _ in arrived)
            ready = sorted(i for i in touched if all(reply.done() for reply in replies[i]))
            if ready:
                step(ready)
                going -= {index for index in ready if everyone[index].over}
                ask([index for index in ready if index in going])
    finally:
        for waiting in replies:
            for reply in waiting:
                reply.cancel()
    debates.take_over(everyone)


def _put(done: SimpleQueue[tuple[int, Future[Reply]]], index: int, reply: Future[Reply]) -> None:
    done.put((index, reply))
