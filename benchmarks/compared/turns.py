"""Measured processes, taken in turns: one iteration of each, again and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

HERE = Path(__file__).resolve().parent
ALONE = {"OMP_NUM_THREADS": "1", "MAPORL_CORES": "1", "TOKENIZERS_PARALLELISM": "false"}
"""One thread in every process, whatever the machine has."""
QUIET = {
    "WANDB_MODE": "disabled",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


@dataclass
class Measured:
    """The time and memory of one process.

    Attributes:
        seconds: processor time of each iteration, without the first.
        growth: bytes, the peak over what was resident when the models were loaded.
        about: what it said of itself when it was ready.
    """

    seconds: list[float] = field(default_factory=list)
    growth: int = 0
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def middle(self) -> float:
        """The median of the seconds."""
        return median(self.seconds)


class Process:
    """A process that follows `worker.py`; its errors go to a file.

    Args:
        python: the interpreter.
        driver: a file of this folder.
        given: what the driver reads as JSON.
        path: a further PYTHONPATH.
        variables: further variables of its environment.
    """

    def __init__(
        self,
        python: Path | str,
        driver: str,
        given: Mapping[str, Any],
        path: str = "",
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.driver = driver
        self.place = tempfile.TemporaryDirectory()
        self.log = Path(self.place.name) / "errors"
        places = os.pathsep.join([str(HERE.parent), str(HERE), *filter(None, [path])])
        environment = {**os.environ, **ALONE, **QUIET, **variables, "PYTHONPATH": places}
        environment.pop("VIRTUAL_ENV", None)
        with self.log.open("w") as errors:
            self.child = subprocess.Popen(
                [str(python), str(HERE / driver), json.dumps({**given, "folder": self.place.name})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        self.about = self._hear()

    def iterate(self) -> tuple[float, int]:
        """Do one iteration; return its processor seconds and the growth so far."""
        self._say("go")
        told = self._hear()
        return told["seconds"], told["growth"]

    def close(self) -> None:
        """End the process."""
        self.child.kill()
        self.child.communicate()
        self.place.cleanup()

    def _say(self, word: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(f"{word}\n")
        self.child.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            end = self.log.read_text(errors="replace")[-3000:]
            self.close()
            raise RuntimeError(f"{self.driver} ended without a word:\n{end}")
        told: dict[str, Any] = json.loads(line)
        return told


def in_turns(processes: Sequence[Process], repeats: int) -> list[Measured]:
    """Return the costs of each process, one iteration of each in turns, the first round dropped.

    Wherever seconds differ by more than others use the machine for, the medians still compare: both
    sides of a ratio see the same neighbours.
    """
    found = [Measured(about=process.about) for process in processes]
    for repeat in range(repeats + 1):
        for process, measured in zip(processes, found, strict=True):
            seconds, measured.growth = process.iterate()
            if repeat:
                measured.seconds.append(seconds)
    return found


def ours(work: Mapping[str, Any], **variables: str) -> Process:
    """Return our side as a process in this interpreter, with further environment variables."""
    return Process(sys.executable, "games.py", work, os.environ.get("PYTHONPATH", ""), variables)
