"""The README's table: MAPoRL and agents trained alone, three seeds each, on held-out questions.

    .venv/bin/python benchmarks/first_light.py            # about half an hour on 2 cores
    .venv/bin/python benchmarks/first_light.py --table    # only print the table of finished runs

Every run is an ordinary ``maporl train``; a run that is finished is not repeated. Prints a Markdown
table of medians with the range over seeds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

SEEDS = (0, 1, 2)
SCHEMES = {"MAPoRL": [], "trained alone": ["--single-agent"]}


def folder(runs: Path, scheme: str, seed: int) -> Path:
    """Return the run folder of a scheme and seed."""
    return runs / f"first-light-{scheme.replace(' ', '-').lower()}-{seed}"


def train(runs: Path, scheme: str, seed: int) -> None:
    """Run one training unless its results are there; an interrupted one is resumed."""
    target = folder(runs, scheme, seed)
    if (target / "results.json").exists():
        return
    command = [sys.executable, "-m", "maporl_agents.cli", "train"]
    if (target / "config.json").exists():
        command += ["--resume", str(target)]
    else:
        command += ["--runs", str(runs), "--name", target.name, "--seed", str(seed)]
        command += SCHEMES[scheme]
    subprocess.run(command, check=True)


def cell(runs: Path, scheme: str, stage: str, decoding: str, turn: int) -> str:
    """Return the median [range] of the vote over seeds."""
    votes = []
    for seed in SEEDS:
        results = json.loads((folder(runs, scheme, seed) / "results.json").read_text())
        votes.append(results[stage][decoding]["turns"][turn]["vote"])
    return f"{statistics.median(votes):.3f} [{min(votes):.3f}-{max(votes):.3f}]"


def asked(runs: Path) -> str:
    """Return how many questions each stage was asked, in words."""
    counts: dict[str, set[int]] = {"before": set(), "after": set()}
    for scheme in SCHEMES:
        for seed in SEEDS:
            results = json.loads((folder(runs, scheme, seed) / "results.json").read_text())
            for stage, numbers in counts.items():
                numbers.add(results[stage]["sampled"]["num_questions"])
    words = [f"{', '.join(map(str, sorted(n)))} {stage}" for stage, n in counts.items()]
    return f"{' and '.join(words)} training"


def table(runs: Path) -> str:
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
            cells = " | ".join(cell(runs, scheme, stage, decoding, turn) for turn in range(3))
            rows.append(f"| {label}, {decoding} | {cells} |")
    return "\n".join(rows)


def main() -> None:
    """Parse the command line, train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table")
    args = parser.parse_args()
    for scheme in SCHEMES:
        for seed in SEEDS:
            if not args.table:
                train(args.runs, scheme, seed)
    print(table(args.runs))
    print(
        f"\nMedian [range] over seeds {SEEDS}; questions: {asked(args.runs)}; "
        f"{platform.machine()}, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()
