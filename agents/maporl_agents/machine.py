"""What a device can do: its memory, and its speed, measured in about a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from maporl_agents import tiny
from maporl_agents.config import TeamConfig
from maporl_agents.ledger import Cost, Ledger
from maporl_agents.loading import load_model

GIB = 2**30
REPEATS = 4
PATIENCE_SECONDS = 0.3


@dataclass(frozen=True)
class Machine:
    """A device.

    Attributes:
        name: in words.
        memory_bytes: that models may fill.
        flops: additions and multiplications of matrix products, per second.
        bytes_per_second: read and written together.
        op_seconds: what an operator of a language model takes however small it is.
        overlaps: whether that time passes while the device is still at work, as on a GPU.
    """

    name: str
    memory_bytes: float
    flops: float
    bytes_per_second: float
    op_seconds: float
    overlaps: bool

    def seconds(self, cost: Cost) -> float:
        """Return how long a piece of work takes at best: bound by arithmetic, memory, or calls."""
        work = max(cost.flops / self.flops, cost.moved_bytes / self.bytes_per_second)
        calls = cost.ops * self.op_seconds
        return max(work, calls) if self.overlaps else work + calls


def this_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Measure the device at hand.

    Args:
        device: which.
        dtype: of the matrix products.
    """
    return Machine(
        name=torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU",
        memory_bytes=_memory_bytes(device),
        flops=_matmul_flops(device, dtype),
        bytes_per_second=_copy_speed(device),
        op_seconds=_op_seconds(device),
        overlaps=device.type == "cuda",
    )


def _memory_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


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
