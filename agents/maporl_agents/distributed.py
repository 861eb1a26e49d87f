"""Distributed training: several processes that train one team, over torch.distributed.

Each process, a rank, runs the same program and holds the same weights, debates and numbers. Ranks
divide what takes long: debates are played by one rank each (`part_of`, `joined`), texts read by one
rank each (`deal`), and gradients added up (`reduce_gradients`). All else every rank computes for
itself, from the same inputs. Rank 0 alone writes files and prints (`first`). Without a launcher
there is one process, and every function here returns what it is given.

Launchers (`commands.launch`, torchrun) set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. A rank
that fails sends its error in the place of its next message, so that all ranks end with the same
sentence. Messages between ranks are pickled by torch.distributed: ranks trust each other and their
network. Base models are sharded over ranks in `models.fsdp`.
"""

from __future__ import annotations

import atexit
import copy
import heapq
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # commands import this module before torch is loaded
    from torch import Tensor, nn

T = TypeVar("T")

LONGEST_WAIT = timedelta(minutes=30)
"""How long a rank waits for the others, which may play, measure or save meanwhile."""
ADDRESS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
BEGUN = "maporl: has begun: "
CALL = "maporl: the name of this start"
PAUSE_SECONDS = 0.05
"""Between two looks at the launcher's store."""


class RankLost(RuntimeError):
    """Another process of the run has ended, or does not answer."""


@dataclass
class _World:
    """The ranks of this run.

    Attributes:
        rank: of this process.
        count: of all.
        messages: the process group that messages go through.
        start: the name of this start of the processes, by which restarts tell it from others.
        failed: whether an error was sent or received.
        due: an error that is told in the place of the next message.
    """

    rank: int
    count: int
    messages: Any
    start: str = ""
    failed: bool = False
    due: Exception | None = None


_world: _World | None = None
_begun: list[Any] = []
"""The process groups that messages went through, to be ended with the process."""
_start = ""
"""The name of this start, once the processes have met in the launcher's store."""


def launched() -> bool:
    """Return whether a launcher has started several processes, of which this is one.

    It has said so by the environment, or by starting torch.distributed, as accelerate can.
    """
    told = all(name in os.environ for name in ADDRESS) and int(os.environ["WORLD_SIZE"]) > 1
    return told or _started() is not None


def _started() -> int | None:
    """Return the rank of this process where torch.distributed runs already with several."""
    if (torch := sys.modules.get("torch")) is None or not torch.distributed.is_initialized():
        return None
    return int(torch.distributed.get_rank()) if torch.distributed.get_world_size() > 1 else None


def count() -> int:
    """Return the number of ranks."""
    return 1 if _world is None else _world.count


def rank() -> int:
    """Return the index of this rank, from 0."""
    return 0 if _world is None else _world.rank


def is_first() -> bool:
    """Return whether this rank writes files and prints; before `together` too."""
    if _world is not None or not launched():
        return rank() == 0
    return (int(os.environ["RANK"]) if (own := _started()) is None else own) == 0


@contextmanager
def together() -> Iterator[None]:
    """Work with the other processes of the launcher, if there are any, until the block ends.

    Raises:
        RankLost: another process has ended.
        Exception: one that was raised on another rank.
    """
    global _world
    if _world is not None or not launched():
        yield
        return
    _world = _join()
    try:
        yield
        if not _world.failed:
            _exchange("end", None)  # none ends before the first is ready
    except Exception as error:
        tell(error)
        raise
    finally:
        _world = None


def _join() -> _World:
    global _start
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    if dist.is_initialized():  # Ray Train and accelerate have done it, or an earlier run
        pass
    elif (store := _launchers_store()) is None:
        dist.init_process_group(timeout=LONGEST_WAIT)
    else:
        own, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        _start = meet(store, own, size)
        apart = dist.PrefixStore(_start, store)  # type: ignore[attr-defined]
        dist.init_process_group(store=apart, rank=own, world_size=size, timeout=LONGEST_WAIT)
    gloo = dist.get_backend() == "gloo"
    messages = dist.group.WORLD if gloo else dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
    if not _begun:
        atexit.register(_leave)
    _begun.append(messages)
    return _World(dist.get_rank(), dist.get_world_size(), messages, _start)


def _leave() -> None:
    """End the groups of gloo before the interpreter ends, without waiting for other ranks.

    Their threads free tensors after a message; a late one would find no interpreter, and abort the
    process. Groups of NCCL, which might wait for ranks that are lost, end with the process.
    """
    import torch
    import torch.distributed as dist

    while _begun and dist.is_initialized():  # else ended by whoever began them
        messages = _begun.pop()
        dist.destroy_process_group(messages if torch.cuda.is_available() else None)
    _begun.clear()  # the threads of a group end with the last reference to it


def meet(store: Any, own: int, count: int) -> str:
    """Return a name that the ranks of this start have in common, and those of no earlier start.

    torchrun keeps its store when it starts workers again, with the addresses of those that are
    gone: a rank that reads one before the new one is there would call nobody. Rank 0 names the
    start; each other rank answers under that name with a token of its own and goes on when rank 0
    repeats it, which no rank 0 of an earlier start can have done.

    Args:
        store: of the launcher.
        own: index of this rank.
        count: of ranks.

    Raises:
        RankLost: rank 0 does not answer.
    """
    if own == 0:
        name = secrets.token_hex(8)
        store.set(CALL, name)
        for other in range(1, count):
            store.set(f"{name}/go/{other}", store.get(f"{name}/here/{other}"))
        return name
    token, end = secrets.token_hex(8), time.monotonic() + LONGEST_WAIT.total_seconds()
    while time.monotonic() < end:
        name = store.get(CALL).decode()
        store.set(f"{name}/here/{own}", token)
        if store.check([go := f"{name}/go/{own}"]) and store.get(go).decode() == token:
            return name
        time.sleep(PAUSE_SECONDS)
    raise RankLost("rank 0 of this run does not answer")


def tell(error: Exception) -> None:
    """Send an error to the other ranks, whatever they wait for; not if they know one already."""
    if _world is None or _world.failed or isinstance(error, RankLost):
        return
    _world.failed = True
    # If they have ended, this rank raises its error all the same.
    with suppress(RankLost):
        _all_of(("error", _sendable(error)))


def tell_later(error: Exception) -> bool:
    """Let all ranks raise an error at their next message; return whether there are other ranks.

    For signals, which must not stop a rank between two messages that belong together.
    """
    if _world is None:
        return False
    _world.due = _world.due or error
    return True


def _sendable(error: Exception) -> Exception:
    """Return an error that another process can make again: itself, or its text."""
    try:
        copy.copy(error)
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def gather(what: str, value: T) -> list[T]:
    """Return the value of every rank, in order; all call this with the same `what`.

    Raises:
        Exception: that of the first rank which failed.
        RankLost: another process has ended.
    """
    return [value] if _world is None else _exchange(what, value)


def _exchange(what: str, value: T) -> list[T]:
    assert _world is not None
    answers = _all_of((what, value) if _world.due is None else ("error", _world.due))
    for origin, (name, found) in enumerate(answers):
        if name == "error":
            _world.failed = True
            found.rank = origin
            raise found
    others = {name for name, _ in answers} - {what}
    if others:
        raise RankLost(f"ranks are out of step: {what!r} here, {sorted(others)} elsewhere")
    return [found for _, found in answers]


def _all_of(message: tuple[str, Any]) -> list[tuple[str, Any]]:
    import torch.distributed as dist

    assert _world is not None
    answers: list[Any] = [None] * _world.count
    try:
        dist.all_gather_object(answers, message, group=_world.messages)
    except RuntimeError as error:
        raise RankLost(
            f"another process of this run has ended or does not answer (seen by rank {rank()} of "
            f"{count()}); the run can be resumed from its newest checkpoint"
        ) from error
    return answers


def first(make: Callable[[], T]) -> T:
    """Return what `make` returns on rank 0, which alone calls it; all ranks wait for it."""
    if _world is None:
        return make()
    return gather("first", make() if _world.rank == 0 else None)[0]  # type: ignore[return-value]


def part_of(length: int) -> slice:
    """Return the part of `length` items in a row that this rank works on; it may be empty."""
    start, end = (length * (rank() + i) // count() for i in (0, 1))
    return slice(start, end)


def joined(what: str, own: Sequence[T]) -> list[T]:
    """Return the results of all ranks, each of which has worked on its `part_of`, in order."""
    return list(chain.from_iterable(gather(what, list(own))))


def deal(sizes: Sequence[float]) -> list[int]:
    """Return the rank of every unit of work, such that sums of sizes differ little: largest first.

    Each unit goes to the rank that has least so far (Graham 1969, longest processing time first).
    """
    loads = [(0.0, each) for each in range(count())]
    owners = [0] * len(sizes)
    for unit in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        load, owner = heapq.heappop(loads)
        owners[unit] = owner
        heapq.heappush(loads, (load + sizes[unit], owner))
    return owners


def reduce_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Add up the gradients of all ranks in place, in one message.

    A parameter without a gradient on any rank has none afterwards, so that optimisers leave it as
    it is.

    Raises:
        RankLost: another process has ended.
    """
    if _world is None or not parameters:
        return
    import torch
    import torch.distributed as dist

    given = [parameter.grad for parameter in parameters]
    device, dtype = parameters[0].device, torch.float32
    for parameter in parameters:
        dtype = torch.promote_types(dtype, parameter.dtype)
    present = torch.tensor([grad is not None for grad in given]).to(device, dtype)
    parts: list[Tensor] = [
        (torch.zeros_like(p) if grad is None else grad).detach().reshape(-1).to(device, dtype)
        for p, grad in zip(parameters, given, strict=True)
    ]
    flat = torch.cat([*parts, present])
    try:
        dist.all_reduce(flat)
    except RuntimeError as error:
        raise RankLost("another process of this run ended while gradients were added") from error
    *sums, known = flat.split([*(p.numel() for p in parameters), len(parameters)])
    for parameter, total, is_known in zip(parameters, sums, known.tolist(), strict=True):
        parameter.grad = total.view_as(parameter).to(parameter) if is_known else None


def require_same(facts: Mapping[str, str]) -> None:
    """Check that all ranks state the same facts, such as settings and digests of data.

    Raises:
        ValueError: one differs; the message names it, with its value on both ranks.
    """
    told = gather("facts", dict(facts))
    for other, stated in enumerate(told):
        for name in told[0] | stated:
            here, there = told[0].get(name, "nothing"), stated.get(name, "nothing")
            if here != there:
                raise ValueError(
                    f"rank {other} has other {name} than rank 0 ({there[:60]}, not {here[:60]}): "
                    "start all processes with the same code, settings and data"
                )


def begin(run: str) -> None:
    """Note with the launcher that rank 0 has made the folder of a run, so that a restart goes on.

    Args:
        run: its name or folder.
    """
    if _world is not None and is_first() and (store := _launchers_store()) is not None:
        store.set(BEGUN + run, _world.start)


def begun(run: str) -> bool:
    """Return whether processes that the launcher has started before had made a run's folder."""

    def by_others() -> bool:
        assert _world is not None
        store = _launchers_store()
        if store is None or not store.check([BEGUN + run]):
            return False
        return bool(store.get(BEGUN + run).decode() != _world.start)

    return _world is not None and first(by_others)


def _launchers_store() -> Any:
    """Return torchrun's own store, which outlives its workers; None without one."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    import torch.distributed as dist

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=False, wait_for_workers=False, timeout=LONGEST_WAIT
    )
