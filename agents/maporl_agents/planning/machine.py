"""The device: its free memory and its speed, measured in about a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from maporl_agents import tiny
from maporl_agents.config import TeamConfig
from maporl_agents.models.loading import load_model
from maporl_agents.planning.ledger import Cost, Ledger

GIB = 2**30
REPEATS = 4
PATIENCE_SECONDS = 0.3


@dataclass(frozen=True)
class Machine:
    """A device.

    Attributes:
        name: for people.
        memory_bytes: memory that this run may fill; memory in use by others is left out.
        flops: additions and multiplications of matrix products, per second.
        bytes_per_second: read and written together.
        op_seconds: least time of an operator of a language model, however small it is.
        overlaps: whether that time passes while the device is still at work, as on a GPU.
    """

    name: str
    memory_bytes: float
    flops: float
    bytes_per_second: float
    op_seconds: float
    overlaps: bool

    def seconds(self, cost: Cost) -> float:
        """Return the least seconds of a cost: bound by arithmetic, memory, or calls."""
        work = max(cost.flops / self.flops, cost.moved_bytes / self.bytes_per_second)
        calls = cost.ops * self.op_seconds
        return max(work, calls) if self.overlaps else work + calls


def this_machine(device: torch.device, dtype: torch.dtype, *, spread: bool = False) -> Machine:
    """Measure the device at hand.

    Args:
        device: which.
        dtype: of the matrix products.
        spread: whether models are laid over all GPUs, whose memory is then taken together.
    """
    return Machine(
        name=torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU",
        memory_bytes=free_bytes(device, spread=spread),
        flops=_matmul_flops(device, dtype),
        bytes_per_second=_copy_speed(device),
        op_seconds=_op_seconds(device),
        overlaps=device.type == "cuda",
    )


def free_bytes(device: torch.device, *, spread: bool = False) -> float:
    """Return the free memory: of one GPU or all; or of this process on a CPU."""
    if device.type == "cuda":
        devices = range(torch.cuda.device_count()) if spread else [device]
        return float(sum(torch.cuda.mem_get_info(each)[0] for each in devices))
    groups = Path("/proc/self/cgroup")
    rooms = cgroup_rooms(groups.read_text(), Path("/sys/fs/cgroup")) if groups.exists() else ()
    return min([_available_bytes(), *rooms])


def _available_bytes() -> float:
    about = Path("/proc/meminfo")
    lines = about.read_text().splitlines() if about.exists() else []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return 1024.0 * int(line.split()[1])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def resident_bytes() -> int:
    """Return the resident memory of this process, in bytes; 0 where the system does not say."""
    about = Path("/proc/self/statm")
    pages = int(about.read_text().split()[1]) if about.exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def cgroup_rooms(memberships: str, root: Path) -> Iterator[float]:
    """Yield the bytes left under each memory limit of control groups and their parents.

    Args:
        memberships: of a process, as in `/proc/self/cgroup`; groups of version 2 and of 1.
        root: where the groups are files.
    """
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used, kept = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            kept = "total_inactive_file"
        else:
            continue
        group = top / path.strip("/")
        for folder in (group, *group.parents[: len(group.relative_to(top).parts)]):
            with suppress(OSError, ValueError):  # not shown here, or the limit is "max"
                room = int((folder / limit).read_text()) - int((folder / used).read_text())
                yield float(room + _stat(folder, kept))


def _stat(folder: Path, name: str) -> int:
    """Return one number of a group's statistics, e.g. of file cache, which can be reclaimed."""
    lines = (folder / "memory.stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)


def _matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == "cuda" else 1024
    generator = torch.Generator(device).manual_seed(0)  # zeros would run faster than numbers
    a, b = torch.randn(2, size, size, generator=generator, device=device).to(dtype)
    return 2.0 * size**3 / _best(lambda: torch.mm(a, b), device)


def _copy_speed(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy between buffers larger than any cache."""
    source = torch.ones(128 * 2**20, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return 2.0 * source.numel() / _best(lambda: target.copy_(source), device)


@torch.inference_mode()
def _op_seconds(device: torch.device) -> float:
    """Run the built-in tiny model on one token: next to no arithmetic, and all the calls."""
    where = TeamConfig(device=str(device))
    model, _ = load_model(str(tiny.checkpoint(0)), where)
    model.eval()
    ids = torch.zeros(1, 1, dtype=torch.long, device=device)
    with Ledger(model.parameters()) as ledger:
        model(input_ids=ids)
    return _best(lambda: model(input_ids=ids), device) / ledger.ops


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Return the fewest seconds of a few runs, after one to warm up; of one, if that takes long."""
    seconds: list[float] = []
    while len(seconds) <= REPEATS and sum(seconds) < PATIENCE_SECONDS:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:] or seconds)
