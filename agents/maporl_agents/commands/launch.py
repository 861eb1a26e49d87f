"""Launch several processes on this machine, for ``maporl train --processes N``, by torchrun."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

PATIENCE_SECONDS = 600
"""Time for processes to finish and save their step after a signal, before they are killed."""


def launch(given: Sequence[str], count: int) -> int:
    """Run ``maporl`` with the given words in `count` processes of this machine; return a code.

    That of the process that ended first with an error: 2 for the user's mistakes, 130 or 143 after
    a signal. Like ``torchrun --standalone --nproc-per-node COUNT -m maporl_agents.cli``, but for
    what torchrun prints.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from maporl_agents.models.parallel_bases import cores

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # ours say it in a sentence
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        max_restarts=0,
        shutdown_timeout=PATIENCE_SECONDS,
    )
    try:
        elastic_launch(settings, sys.executable)("-m", "maporl_agents.cli", *given)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return int(failure.exitcode)
        name = signal.Signals(-failure.exitcode).name
        print(
            f"maporl: the process of rank {rank} was ended by {name}, which the system sends where "
            "memory runs out; go on with --resume, with fewer processes",
            file=sys.stderr,
        )
        return 1
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0
