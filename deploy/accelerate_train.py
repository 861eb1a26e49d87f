"""Train under accelerate: its processes are those of one run.

    accelerate launch --num_processes 8 deploy/accelerate_train.py --name first --steps 5
    python deploy/accelerate_train.py --cpu 2 --name first --steps 5      # processes on one CPU

Words are those of `maporl train`.
"""

from __future__ import annotations

import sys


def main(words: list[str]) -> None:
    """Train in this process, with those that accelerate has started."""
    from maporl_agents import cli

    cli.main(["train", *words])


def started(words: list[str]) -> None:
    """Train in a process that accelerate made; a run that ends well is no exit."""
    try:
        main(words)
    except SystemExit as stop:
        if stop.code:
            raise


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cpu"]:
        from accelerate import debug_launcher

        debug_launcher(started, (sys.argv[3:],), num_processes=int(sys.argv[2]))
    else:
        main(sys.argv[1:])
