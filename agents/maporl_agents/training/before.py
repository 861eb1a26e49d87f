"""The measurement before training: written when it is made, and read where a run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maporl_agents import distributed
from maporl_agents.config import RunConfig
from maporl_agents.measure.evaluate import Evaluation
from maporl_agents.records.log_lines import log_lines
from maporl_agents.records.run_log import RunLog
from maporl_agents.records.storage import CheckpointError, load_json, save_json
from maporl_env.tasks.line_index import fingerprint
from maporl_env.types import Question, Transcript

FILE = "before.json"
STAGE = "before"


@dataclass(frozen=True)
class Before:
    """Results of the untrained team.

    Attributes:
        results: figures by decoding, as in results.json.
        transcripts: its sampled debates, in the order of the questions.
    """

    results: dict[str, Any]
    transcripts: Sequence[Transcript]

    @classmethod
    def of(cls, results: dict[str, Evaluation]) -> Before:
        """Return the results of a new measurement."""
        figures = {decoding: result.to_dict() for decoding, result in results.items()}
        return cls(figures, results["sampled"].transcripts)


def save(log: RunLog, config: RunConfig, questions: Sequence[Question], before: Before) -> None:
    """Write the measurement into the run's folder, with what it depends on."""
    log.transcripts(STAGE, before.transcripts, replace=True)
    asked = {"of": _key(config, questions), "results": before.results}
    distributed.first(lambda: save_json(log.folder / FILE, asked))


def read(folder: Path, config: RunConfig, questions: Sequence[Question]) -> Before | None:
    """Return the measurement of a run; None if it has none, or one of other settings."""
    return distributed.first(lambda: _read(folder, config, questions))


def _read(folder: Path, config: RunConfig, questions: Sequence[Question]) -> Before | None:
    path = folder / FILE
    try:
        kept = load_json(path) if path.is_file() else None
        lines = list(log_lines(folder / "transcripts" / f"{STAGE}.jsonl"))
    except (CheckpointError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.get("of") != _key(config, questions):
        return None
    if len(lines) != len(questions):
        return None
    rows = ({name: row[name] for name in row if name != "step"} for row, _ in lines)
    return Before(kept["results"], [Transcript.from_dict(row) for row in rows])


def _key(config: RunConfig, questions: Sequence[Question]) -> str:
    """Return a hash of all that the measurement before training depends on."""
    measured = config.eval
    facts = [
        *(asdict(config.game), asdict(config.team), asdict(config.sampling), config.seed),
        *(measured.seed, measured.passes, measured.greedy, fingerprint(list(questions))),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
