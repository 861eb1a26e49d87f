"""Speed of the sandbox: the figures of docs/how-to/sandbox.md.

    python benchmarks/sandbox.py                    # half a minute on 2 cores; Linux
    python benchmarks/sandbox.py --humaneval FOLDER # and HumanEval.jsonl.gz's solutions, 2 x 164

Prints programs a second by number of workers, the time of a single `run`, and what HumanEval's
published solutions take, right and broken.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from statistics import median

from maporl_env.sandbox import Job, Sandbox
from maporl_env.tasks import load_task
from maporl_env.verifiers.programs import CodeTests

PROGRAM = "def f(n):\n    a, b = 1, 1\n    for _ in range(n): a, b = b, a + b\n    return a\n"
TESTS = "assert f(20) == 10946\nassert f(10) == 89\n"


def batch(workers: int, programs: int) -> float:
    """Return programs a second in one call of `run_many`."""
    box = Sandbox(workers=workers)
    jobs = [Job(PROGRAM, "f", TESTS)] * programs
    start = time.perf_counter()
    results = box.run_many(jobs)
    assert all(result.outcome == "passed" for result in results)
    return programs / (time.perf_counter() - start)


def single() -> float:
    """Return the seconds of one `run`, its supervisor included."""
    start = time.perf_counter()
    assert Sandbox(workers=1).run(Job(PROGRAM, "f", TESTS)).outcome == "passed"
    return time.perf_counter() - start


def humaneval(folder: Path) -> float:
    """Return the seconds for the published solutions and as many that return nothing."""
    with gzip.open(folder / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    questions = load_task("humaneval", folder).split("test")
    right = [f"```python\n{row['prompt']}{row['canonical_solution']}\n```" for row in rows]
    broken = [f"```python\n{row['prompt']}    return None\n```" for row in rows]
    start = time.perf_counter()
    scores = CodeTests().score([*questions, *questions], [*right, *broken])
    assert sum(score == 1 for score in scores) == len(rows)
    return time.perf_counter() - start


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=300, help="of a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--humaneval", type=Path, help="folder of HumanEval.jsonl.gz")
    args = parser.parse_args()
    for workers in (1, 2):
        speeds = [batch(workers, args.programs) for _ in range(args.repeats)]
        print(f"workers {workers}: {min(speeds):.0f} to {max(speeds):.0f} programs a second")
    times = [single() for _ in range(4 * args.repeats)]
    print(
        f"a single run: {median(times):.2f} s in the median, {min(times):.2f} to {max(times):.2f}"
    )
    if args.humaneval:
        print(f"HumanEval, right and broken: {humaneval(args.humaneval):.0f} s")


if __name__ == "__main__":
    main()
