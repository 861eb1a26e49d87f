"""A small run for tests of run folders."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from pathlib import Path

from maporl_agents.records import run_log
from maporl_agents.records.run_log import RunLog
from maporl_env.types import Message, Question, Transcript

AGENTS = Path(run_log.__file__).resolve().parents[2]


ENV = Path(importlib.util.find_spec("maporl_env").origin).resolve().parents[1]


@dataclass(frozen=True)
class Game:
    task: str = "shopping"
    alpha: tuple[float, float] = (0.0, 0.5)


@dataclass(frozen=True)
class Config:
    seed: int = 0
    gamma: float = 0.3
    data: Path = Path("data/train.jsonl")
    game: Game = field(default_factory=Game)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but locks, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def transcript(*texts: str) -> Transcript:
    messages = tuple(Message(0, f"agent_{i}", text, 0.5) for i, text in enumerate(texts))
    agents = tuple(f"agent_{i}" for i in range(len(texts)))
    return Transcript(Question("q/0", "How many?", "3"), agents, messages)


def play(log: RunLog, start: int, stop: int) -> None:
    """Write what a run of these steps would; every number is a function of the step."""
    for step in range(start, stop):
        log.metrics(step, {"loss": 1 / step, "kl": math.nan if step % 3 == 0 else step * 1e-9})
        log.transcripts("train", [transcript(f"step {step}", "\\boxed{3}")])
        log.transcripts("metrics", [transcript("a file of the same name")])


def finished(folder: Path, config: object = Config()) -> Path:
    with RunLog.create(folder, config) as log:
        play(log, 1, 4)
        (folder / "checkpoints" / "step-000003").mkdir(parents=True)
    return folder
