"""Two processes of one thread against one: time, bytes between them, and the cost of the same code.

    .venv/bin/python benchmarks/scale.py                      # about ten minutes on two idle cores
    .venv/bin/python benchmarks/scale.py --shape tiny --rounds 1

A step of MAPoRL with three LoRA agents on a random Llama: 24 messages of 64 tokens in a turn after
prompts of 200, two turns, 2 epochs of 3 minibatches. Each side takes one step before it is
measured; sides alternate, `--rounds` times. Prints a Markdown table:

- seconds of a step on the clock, which tells something only where a core is idle for each process,
  and processor seconds of the busiest process, which other programs disturb far less;
- bytes that a process sends in a training step, of every kind, over the bytes of trained weights
  times the optimiser steps;
- the share of a step that one process spends in `maporl_agents.distributed`: calls of each function
  times the seconds that a call takes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from compared.games import Trainer, Work, settings
from compared.material import SHAPES, save_model

from maporl_agents import distributed
from maporl_agents.phases import measured

STEPS = 2
"""Measured steps of a side in a round."""
OWN = ("count", "rank", "is_first", "gather", "first", "part_of", "joined", "reduce_gradients")


ROWS = 24
"""Messages of a turn."""


def work_of(model: Path, rows: int = ROWS) -> Work:
    """Return the work of a step."""
    return Work("ppo", str(model), agents=3, rows=rows, turns=2)


def counted_bytes(sent: Counter[str]) -> None:
    """Count the bytes that this process gives to torch.distributed, by operation."""
    inner = dist.distributed_c10d
    reduce, gather = dist.all_reduce, inner.all_gather

    def all_reduce(tensor: torch.Tensor, *rest: Any, **more: Any) -> Any:
        sent["reduced"] += tensor.numel() * tensor.element_size()
        return reduce(tensor, *rest, **more)

    def all_gather(found: Any, tensor: torch.Tensor, *rest: Any, **more: Any) -> Any:
        sent["gathered"] += tensor.numel() * tensor.element_size()
        return gather(found, tensor, *rest, **more)

    dist.all_reduce, inner.all_gather = all_reduce, all_gather


def counted_calls(calls: Counter[str]) -> None:
    """Count the calls of each function of `distributed`."""
    for name in OWN:
        real: Callable[..., Any] = getattr(distributed, name)

        def wrapped(*args: Any, real: Any = real, name: str = name, **more: Any) -> Any:
            calls[name] += 1
            return real(*args, **more)

        setattr(distributed, name, wrapped)


def seconds_of_calls(calls: Counter[str]) -> float:
    """Return the seconds that so many calls take in one process."""
    given: dict[str, tuple[Any, ...]] = {
        "gather": ("x", 0),
        "first": (int,),
        "part_of": (64,),
        "joined": ("x", [0] * 64),
        "reduce_gradients": ([],),
    }
    total = 0.0
    for name, count in calls.items():
        function, args = getattr(distributed, name), given.get(name, ())
        begin = time.perf_counter()
        for _ in range(10_000):
            function(*args)
        total += count * (time.perf_counter() - begin) / 10_000
    return total


def side(folder: Path, rows: int) -> None:
    """Take steps in this process, with others if a launcher started them; print what they took."""
    torch.set_num_threads(1)
    sent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    with distributed.together():
        trainer = Trainer(
            settings(work_of(folder / "model", rows), folder / f"side-{distributed.rank()}")
        )
        trainer.train_step()
        counted_bytes(sent)
        distributed.gather("start", None)
        sent.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        updates = 0
        with measured() as seconds:
            for _ in range(STEPS):
                updates += int(trainer.train_step()[1]["updates"])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        told = {
            "wall": wall / STEPS,
            "cpu": cpu / STEPS,
            "sent": dict(sent),
            "due": updates * trainer.own_bytes() / 4,
            "phases": {name: spent / STEPS for name, spent in seconds.items()},
        }
        if distributed.count() == 1:
            costs = Counter[str]()
            counted_calls(calls)
            trainer.train_step()
            costs.update(calls)
            told["own"] = seconds_of_calls(costs)
        everyone = distributed.gather("told", told)
        if distributed.is_first():
            print(json.dumps(everyone))


def started(count: int, folder: Path, rows: int = ROWS) -> list[dict[str, Any]]:
    """Run a side in `count` processes; return what each told."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--side", str(folder), "--rows", str(rows)],
            env=os.environ
            | {name: str(value) for name, value in shared.items()}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost"}
            | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a process ended with an error")
    found: list[dict[str, Any]] = json.loads(outputs[0].splitlines()[-1])
    return found


def table(alone: list[dict[str, Any]], pair: list[list[dict[str, Any]]]) -> str:
    """Return the figures as Markdown."""
    wall = [one["wall"] / two[0]["wall"] for one, two in zip(alone, pair, strict=True)]
    cpu = [one["cpu"] / max(r["cpu"] for r in two) for one, two in zip(alone, pair, strict=True)]
    sent = pair[-1][0]["sent"]
    due = pair[-1][0]["due"]
    own = [one["own"] / one["cpu"] for one in alone]
    kinds = ", ".join(f"{kind} {size / due:.3f}" for kind, size in sorted(sent.items()))
    rows = [
        ("seconds on the clock, 1 process over 2", _spread(wall), "1.7 where cores are idle"),
        ("processor seconds, 1 process over the busier of 2", _spread(cpu), "1.7"),
        ("bytes sent over trained bytes", f"{sum(sent.values()) / due:.3f} ({kinds})", "1.05"),
        ("share of a step spent in ranks, 1 process", f"{max(own):.4%}", "1 %"),
        ("processor seconds of a step, 1 process", f"{alone[-1]['cpu']:.2f}", ""),
    ]
    lines = ["| figure | measured | wanted |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {a} | {b} | {c} |" for a, b, c in rows)])


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=ROWS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        side(given.side, given.rows)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model", SHAPES[given.shape])
        alone, pair = [], []
        for _ in range(given.rounds):
            alone.append(started(1, folder)[0])
            pair.append(started(2, folder))
        print(
            f"{given.shape}, torch {torch.__version__}, {given.rounds} rounds, load of the machine"
        )
        print(f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
        print(table(alone, pair))


if __name__ == "__main__":
    main()
