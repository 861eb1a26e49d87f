"""Print a checksum of short seeded runs of every scheme, to compare two versions of the code.

    python scripts/run_sums.py                        # all schemes, about a minute
    python scripts/run_sums.py --schemes maporl iac

Equal sums on one machine mean equal weights, metrics and messages, bit for bit. Sums of different
machines differ: processors add in different orders.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

SMALL = ["--eval.questions", "8"]
FLAGS = {
    "maporl": ["--steps", "3", "--questions-per-step", "8"],
    "maporl-lora": ["--steps", "2", "--questions-per-step", "8", "--team.tuning", "lora",
                    "--team.sharing", "turn", "--game.num-agents", "3"],
    "magrpo": ["--steps", "2", "--questions-per-step", "2"],
    "iac": ["--steps", "2", "--questions-per-step", "4"],
    "malt": ["--steps", "3", "--questions-per-step", "4"],
}  # fmt: skip
TIMES = ("seconds", "time", "tokens_per_second")
"""Parts of the names of metrics that are measured with a clock."""


def sums_of(folder: Path) -> dict[str, str]:
    """Return shortened SHA-256 sums: policies of the last checkpoint, metrics, messages."""
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: path.name)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]
    kept = [
        {name: x for name, x in sorted(row.items()) if not any(part in name for part in TIMES)}
        for row in metrics
    ]
    weights = sorted((newest / "policies").rglob("*.safetensors"))
    texts = sorted((folder / "transcripts").glob("*.jsonl"))
    return {
        "weights": _digest(path.read_bytes() for path in weights),
        "metrics": _digest([json.dumps(kept).encode()]),
        "texts": _digest(path.read_bytes() for path in texts),
    }


def _digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def main() -> None:
    """Run what is asked for, one thread each, and print a line per run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--schemes", nargs="+", default=list(FLAGS), choices=list(FLAGS))
    chosen = parser.parse_args().schemes
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MAPORL_CORES": "1"}
    with tempfile.TemporaryDirectory() as runs:
        for name in chosen:
            flags = ["--runs", runs, "--name", name, "--scheme", name.partition("-")[0]]
            command = [sys.executable, "-m", "maporl_agents.cli", "train", *flags]
            done = subprocess.run(
                [*command, *SMALL, *FLAGS[name]], env=environment, capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(f"{name}: exit {done.returncode}\n{done.stdout}{done.stderr}")
            sums = sums_of(Path(runs) / name).items()
            print(f"{name:12s}", *(f" {what} {total}" for what, total in sums), flush=True)


if __name__ == "__main__":
    main()
