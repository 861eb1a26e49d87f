"""Our engine beside its peers: every measure as a ratio of one run, in Markdown.

    python benchmarks/peers.py                          # all of it, about an hour of one core
    python benchmarks/peers.py --only G1 G2 --repeats 3
    python benchmarks/peers.py --only G11 --real FOLDER # a real model of about 135 M parameters

The command makes a virtual environment for each peer, once (`--envs`). Peers are processes of
their own that do equal work: as many rows, prompts and messages of the same lengths, LoRA of rank 8
on all linear layers of the same random Llama of 5 M parameters (hidden 256, 4 layers, 8,192 words),
whose messages never end before the limit. One thread each; processor seconds; one iteration of each
in turns, the first dropped. A ratio is the peer's median over ours, so that above 1 ours is faster;
in parentheses the least and largest of single rounds. Memory is the peak of the resident set over
what was resident when the models were loaded. Each library runs as its users run it: the peers by
their trainers, ours as `maporl train`, which also tells the allocator to keep freed blocks.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from compared import environments as envs
from compared.engine import Engine, shares
from compared.environments import Peer, python_of
from compared.material import SHAPES, prompts, save_model
from compared.memory import by_agents, by_everything
from compared.ratios import HEAD, Line, both, mebibytes, ratio, slope
from compared.turns import ALONE, HERE, Measured, Process, in_turns, ours
from transformers.utils.logging import disable_progress_bar

from maporl_agents.models.malloc_settings import keep_freed_memory


@dataclass(frozen=True)
class Bench:
    """Settings shared by all measures.

    Attributes:
        models: folder of the random models.
        envs: folder of the peers' environments.
        repeats: measured rounds.
        real: folder of a real model; empty for none.
    """

    models: Path
    envs: Path
    repeats: int
    real: str

    @property
    def small(self) -> str:
        """The folder of the model of 5 M parameters."""
        return str(self.models / "small")

    def engine(self, place: str) -> Engine:
        """Return the measures that need no peer."""
        return Engine(self.models, Path(place), self.repeats)

    def peer(self, peer: Peer, **given: object) -> Process:
        """Start a peer."""
        usual = {"model": self.small, "rows": 24, "tokens": 64, "group": 8, "agents": 3}
        work = usual | {"epochs": 2, "minibatches": 3, "prompts": prompts(24, 200)} | given
        return Process(python_of(peer, self.envs), peer.driver, work)

    def together(self, processes: Sequence[Process]) -> list[Measured]:
        """Measure processes in turns, then end them."""
        try:
            return in_turns(processes, self.repeats)
        finally:
            for process in processes:
                process.close()


def one_agent(bench: Bench) -> Iterator[Line]:
    """G1 and G2: one agent, 24 rows of 200 + 64 ids, two epochs of three updates."""
    peers = [envs.TRL_PPO, envs.AGILERL, envs.TRL_GRPO, envs.TRL_GRPO_NEW]
    mine, *theirs = bench.together(
        [ours({"scheme": "ppo", "model": bench.small}), *map(bench.peer, peers)]
    )
    for peer, other in zip(peers[:2], theirs[:2], strict=True):
        what = f"PPO against {peer.title}"
        yield Line("G1", what, str(ratio(other, mine)), ">= 2.5x", both(other, mine))
        share = f"{mine.growth / other.growth:.2f}"
        sizes = mebibytes([other.growth, mine.growth])
        yield Line("G1", f"{what}: growth of memory", share, "<= .45", f"{sizes} MiB")
    best = min(theirs[2:], key=lambda other: other.middle)
    for peer, other in zip(peers[2:], theirs[2:], strict=True):
        wanted = ">= 1.5x" if other is best else ""
        what = f"PPO with critic against {peer.title} without"
        yield Line("G2", what, str(ratio(other, mine)), wanted, both(other, mine))


def three_agents(bench: Bench) -> Iterator[Line]:
    """G3: an iteration of three agents with 8 messages each, one update."""
    work = {"model": bench.small, "agents": 3, "epochs": 1, "minibatches": 1}
    magrpo, ppo, other = bench.together(
        [
            ours({"scheme": "magrpo", **work}),
            ours({"scheme": "ppo", **work}),
            bench.peer(envs.COMLRL),
        ]
    )
    name = envs.COMLRL.title
    yield Line(
        "G3", f"MAGRPO against {name}", str(ratio(other, magrpo)), ">= 2x", both(other, magrpo)
    )
    what = f"PPO with critic and reference against {name}"
    yield Line("G3", what, str(ratio(other, ppo)), ">= 1.2x", both(other, ppo))
    sizes = mebibytes([other.growth, magrpo.growth, ppo.growth])
    yield Line("G3", "growth of memory: peer, MAGRPO, PPO", f"{sizes} MiB")
    points = by_agents(Path(bench.small))
    added = slope([p.value for p in points], [p.growth for p in points])
    state = slope([p.value for p in points], [p.own for p in points])
    grown = f"{mebibytes([p.growth for p in points])} MiB at 1, 2, 4, 8 agents"
    yield Line(
        "G3", "memory of an added agent over its own state", f"{added / state:.1f}", "<= 1.2", grown
    )


def line(goal: str, what: str, found: Mapping[str, Measured], peer: str, wanted: str = "") -> Line:
    """Return the line of a ratio to ours."""
    theirs, mine = found[peer], found["ours"]
    return Line(goal, what, str(ratio(theirs, mine)), wanted, both(theirs, mine))


def turn(bench: Bench) -> Iterator[Line]:
    """G4: one turn of three agents."""
    with TemporaryDirectory() as place:
        for rows, wanted in ((4, ">= 2x"), (16, ">= 1.2x")):
            found = bench.engine(place).turn(rows)
            what = f"a turn of 3 agents x {rows} rows against generate with"
            yield line("G4", f"{what} set_adapter", found, "set_adapter", wanted)
            yield line("G4", f"{what} adapter_names", found, "adapter_names")


def debate(bench: Bench) -> Iterator[Line]:
    """G5: debates of three agents on four questions."""
    for shape, sizes, wanted in (
        ("small", (200, 100, 3), ">= 1.5x"),
        ("tiny", (400, 50, 4), ">= 2.2x"),
    ):
        with TemporaryDirectory() as place:
            found = bench.engine(place).debate(shape, *sizes)
        what = "debate {} + {} x {}".format(*sizes) + f", {shape}"
        share = f"{found.read / found.least:.2f}"
        told = f"{found.read} / {found.least} ids"
        yield Line("G5", f"{what}: prompt ids read over the fewest", share, "<= 1.02", told)
        yield line("G5", f"{what}: against reading anew", found.measured, "anew", wanted)


def ragged(bench: Bench) -> Iterator[Line]:
    """G6: messages of many lengths."""
    with TemporaryDirectory() as place:
        found = bench.engine(place).ragged()
    yield line("G6", "ragged lengths against generate", found, "generate", ">= 1.9x")


def limits(bench: Bench) -> Iterator[Line]:
    """G7: shares of the machine's limit."""
    with TemporaryDirectory() as place:
        wanted = {"prefill": "70 %", "decode": "25 %", "update": "60 %"}
        for part, share in shares(bench.engine(place)).items():
            yield Line("G7", f"share of the limit: {part}", f"{share:.0%}", wanted[part])


def bookkeeping(bench: Bench) -> Iterator[Line]:
    """G9: the environment's share of a step."""
    with TemporaryDirectory() as place:
        found = bench.engine(place).bookkeeping()
    step, environment = found["step"], found["environment"]
    share = f"{environment.middle / step.middle:.1%}"
    yield Line(
        "G9", "environment and prompts in a default step", share, "<= 2 %", both(environment, step)
    )


def real_model(bench: Bench) -> Iterator[Line]:
    """G11: a step on a model of 135 M, 4 rows, against generate, forward and backward."""
    with TemporaryDirectory() as place:
        name = "a real model" if bench.real else "a random model"
        folder = bench.real or str(save_model(Path(place) / "model", SHAPES["smol-135m"]))
        found = bench.engine(place).whole_step(folder, rows=4)
    what = f"a step on {name} of 135 M against generate + forward + backward"
    yield line("G11", what, found, "plain", ">= 1.3x")


def memory(bench: Bench) -> Iterator[Line]:
    """G12: peak memory as sizes grow."""
    for point in by_everything(bench.models):
        assert point.planned is not None
        what = f"growth of memory, {point.name} = {point.value}; planned / measured"
        found = f"{mebibytes([point.growth])} MiB; {point.planned / point.growth:.2f}"
        yield Line("G12", what, found, "0.85-1.15")


MEASURES: dict[tuple[str, ...], Callable[[Bench], Iterator[Line]]] = {
    ("G1", "G2"): one_agent,
    ("G3",): three_agents,
    ("G4",): turn,
    ("G5",): debate,
    ("G6",): ragged,
    ("G7",): limits,
    ("G9",): bookkeeping,
    ("G11",): real_model,
    ("G12",): memory,
}
ASKED_FOR = ("G11",)
"""Measured only where it is named: minutes for a step."""


def about_peers() -> str:
    """Return the notes of each peer's driver on what it does and does not do."""
    told = {}
    for peer in envs.PEERS:
        text = ast.get_docstring(ast.parse((HERE / peer.driver).read_text(encoding="utf-8")))
        told[peer.driver] = " ".join((text or "").split())
    return "\n".join(f"- {text}" for text in told.values())


def main() -> None:
    """Measure what is asked for; print the table line by line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [name for names in MEASURES for name in names]
    parser.add_argument("--only", nargs="+", choices=known, metavar="G", help=", ".join(known))
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds")
    parser.add_argument("--envs", type=Path, default=envs.USUAL_FOLDER, help="of the peers")
    parser.add_argument("--real", default="", metavar="FOLDER", help="a real model, for G11")
    args = parser.parse_args()
    wanted = args.only or [name for name in known if name not in ASKED_FOR]
    os.environ.update(ALONE)
    torch.set_num_threads(1)
    keep_freed_memory()  # as `maporl train` does: it serves both sides of measures in this process
    disable_progress_bar()
    print(
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}, one thread; load at the start {os.getloadavg()[0]:.1f}\n\n"
        f"{about_peers()}\n\n{HEAD}",
        flush=True,
    )
    with TemporaryDirectory() as place:
        bench = Bench(Path(place), args.envs, args.repeats, args.real)
        for name in ("tiny", "small"):
            save_model(bench.models / name, SHAPES[name])
        for names, measure in MEASURES.items():
            if set(names) & set(wanted):
                for line in measure(bench):
                    if line.goal in wanted:
                        print(line, flush=True)


if __name__ == "__main__":
    main()
