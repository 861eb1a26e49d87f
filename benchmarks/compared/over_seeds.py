"""The command line of a benchmark that trains one run per seed and prints one table of them."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path


def spread(values: Sequence[float]) -> str:
    """Return the median and the range of some values."""
    return f"{statistics.median(values):.3f} [{min(values):.3f}-{max(values):.3f}]"


def keep(figures: object, path: Path | None) -> None:
    """Write the figures of a benchmark to a file, if one is named."""
    if path:
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def main(
    about: str,
    seeds: Sequence[int],
    questions: int,
    train: Callable[[Path, int], None],
    table: Callable[[Path], str],
) -> None:
    """Parse the command line, train what is missing, print the table.

    Args:
        about: docstring of the benchmark, whose first line is shown.
        seeds: one run each.
        questions: of each measurement.
        train: trains a seed below the folder of all runs, unless that is done.
        table: returns the table of the runs in that folder.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table")
    args = parser.parse_args()
    for seed in () if args.table else seeds:
        train(args.runs, seed)
    print(table(args.runs))
    print(
        f"\nMedian [range] over seeds {seeds}, {questions} questions; {platform.machine()}, "
        f"Python {platform.python_version()}."
    )
