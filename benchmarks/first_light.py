"""The README's table: MAPoRL and agents trained alone, three seeds each, on held-out questions.

    .venv/bin/python benchmarks/first_light.py            # about 10 minutes on 2 cores
    .venv/bin/python benchmarks/first_light.py --table    # only print the table of finished runs
    .venv/bin/python benchmarks/first_light.py --cost     # what MAPoRL's runs cost, one thread each
    .venv/bin/python benchmarks/first_light.py --cost --seeds 0 1 2 3 4

Every run is an ordinary ``maporl train``; a run that is finished is not repeated. Prints a Markdown
table of medians with the range over seeds, or with ``--cost`` processor seconds: of the whole run,
and until learning is visible, which is the first step where the mean score of the last turn, over
that step and the four before it, is above .7.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

SCHEMES = {"MAPoRL": [], "trained alone": ["--single-agent"]}
VISIBLE, STEPS = 0.7, 5
"""Learning is visible where the mean score over these steps is above this."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MAPORL_CORES": "1"}


def folder(runs: Path, scheme: str, seed: int) -> Path:
    """Return the run folder of a scheme and seed."""
    return runs / f"first-light-{scheme.replace(' ', '-').lower()}-{seed}"


def cost_file(runs: Path, seed: int) -> Path:
    """Return the file, beside the run's folder, of what `timed` returned."""
    return runs / f"{folder(runs, 'MAPoRL', seed).name}.cost.json"


def train(runs: Path, scheme: str, seed: int) -> None:
    """Run one training unless its results are there; an interrupted one is resumed."""
    target = folder(runs, scheme, seed)
    if (target / "results.json").exists():
        return
    if (target / "config.json").exists():
        words = ["--resume", str(target)]
    else:
        words = ["--runs", str(runs), "--name", target.name, "--seed", str(seed)]
        words += SCHEMES[scheme]
    subprocess.run([sys.executable, "-m", "maporl_agents.cli", "train", *words], check=True)


def cell(
    runs: Path, seeds: Sequence[int], scheme: str, stage: str, decoding: str, turn: int
) -> str:
    """Return the median [range] of the vote over seeds."""
    votes = []
    for seed in seeds:
        votes.append(results(runs, scheme, seed)[stage][decoding]["turns"][turn]["vote"])
    return f"{statistics.median(votes):.3f} [{min(votes):.3f}-{max(votes):.3f}]"


def results(runs: Path, scheme: str, seed: int) -> dict[str, Any]:
    """Return the measurements of a finished run."""
    found: dict[str, Any] = json.loads((folder(runs, scheme, seed) / "results.json").read_text())
    return found


def asked(runs: Path, seeds: Sequence[int]) -> str:
    """Return the number of questions of each stage, in words."""
    found = [results(runs, scheme, seed) for scheme in SCHEMES for seed in seeds]
    counts = {
        stage: sorted({one[stage]["sampled"]["num_questions"] for one in found})
        for stage in ("before", "after")
    }
    words = [f"{', '.join(map(str, numbers))} {stage}" for stage, numbers in counts.items()]
    return f"{' and '.join(words)} training"


def table(runs: Path, seeds: Sequence[int]) -> str:
    """Return the Markdown table."""
    rows = [
        "| accuracy of the vote, held-out questions | turn 1 | turn 2 | turn 3 |",
        "|---|---|---|---|",
    ]
    for decoding in ("sampled", "greedy"):
        for label, scheme, stage in (
            ("before training", "MAPoRL", "before"),
            ("each agent trained alone, then debating", "trained alone", "after"),
            ("**MAPoRL**", "MAPoRL", "after"),
        ):
            cells = " | ".join(
                cell(runs, seeds, scheme, stage, decoding, turn) for turn in range(3)
            )
            rows.append(f"| {label}, {decoding} | {cells} |")
    return "\n".join(rows)


# --- Cost -----------------------------------------------------------------------------


def timed(runs: Path, seed: int) -> dict[str, Any]:
    """Train MAPoRL anew in one thread; return its processor seconds, whole and after each step."""
    name = folder(runs, "MAPoRL", seed).name
    words = ["--runs", str(runs), "--name", name, "--seed", str(seed), "--overwrite"]
    before = _children()
    steps: list[float] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "maporl_agents.cli", "train", *words],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ONE_THREAD,
    )
    running = psutil.Process(process.pid)
    assert process.stdout is not None
    for line in process.stdout:  # a step is told as soon as it is done
        if re.match(r"step +\d+ /", line):
            spent = running.cpu_times()
            steps.append(spent.user + spent.system)
    if process.wait():
        raise SystemExit(f"the run of seed {seed} failed")
    return {"whole": _children() - before, "steps": steps}


def _children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def visible(scores: Sequence[float]) -> int | None:
    """Return the first step, counted from 1, at which learning is visible; None if it never is."""
    for last in range(STEPS, len(scores) + 1):
        if statistics.mean(scores[last - STEPS : last]) > VISIBLE:
            return last
    return None


def cost(runs: Path, seeds: Sequence[int]) -> str:
    """Return a Markdown table of what the runs of MAPoRL cost, and what they reached."""
    rows = [
        "| seed | CPU s, whole run | until learning is visible (step) | vote, sampled | greedy |",
        "|---|---|---|---|---|",
    ]
    found: list[tuple[float, ...]] = []
    for seed in seeds:
        target = folder(runs, "MAPoRL", seed)
        spent = json.loads(cost_file(runs, seed).read_text())
        lines = (target / "metrics.jsonl").read_text().splitlines()
        step = visible([json.loads(line)["score/turn_3"] for line in lines])
        seen = float("inf") if step is None else spent["steps"][step - 1]
        early = "never" if step is None else f"{seen:.1f} ({step})"
        after = results(runs, "MAPoRL", seed)["after"]
        votes = [after[each]["turns"][-1]["vote"] for each in ("sampled", "greedy")]
        told = " | ".join(f"{vote:.3f}" for vote in votes)
        rows.append(f"| {seed} | {spent['whole']:.1f} | {early} | {told} |")
        found.append((spent["whole"], seen, *votes))
    whole, seen, *votes = map(statistics.median, zip(*found, strict=True))
    told = " | ".join(f"{vote:.3f}" for vote in votes)
    rows.append(f"| median | {whole:.1f} | {seen:.1f} | {told} |")
    return "\n".join(rows)


def main() -> None:
    """Parse the command line, train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table")
    parser.add_argument("--cost", action="store_true", help="processor seconds of MAPoRL's runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    schemes = ["MAPoRL"] if args.cost else list(SCHEMES)
    for scheme in schemes:
        for seed in args.seeds:
            if args.table:
                continue
            if not args.cost:
                train(args.runs, scheme, seed)
            elif not cost_file(args.runs, seed).exists():
                cost_file(args.runs, seed).write_text(json.dumps(timed(args.runs, seed)))
    print(cost(args.runs, args.seeds) if args.cost else table(args.runs, args.seeds))
    told = "" if args.cost else f"questions: {asked(args.runs, args.seeds)}; "
    print(
        f"\nMedian [range] over seeds {args.seeds}; " * (not args.cost)
        + told
        + f"{platform.machine()}, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()
