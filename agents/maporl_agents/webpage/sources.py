"""Reads the run folder or study file of an HTML report, both into the form of a study.

A run is a study with one arm and one seed, so everything after this module knows one form only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from maporl_agents.measure.debate_stats import TurnStats, transitions
from maporl_agents.records import questions_record
from maporl_agents.records.storage import load_json
from maporl_agents.studies.results import Arm, Measurement, SeedResult, Stage, Study
from maporl_agents.training.validation import curve_of
from maporl_env.types import Transcript

STAGES: tuple[Stage, ...] = ("before", "after")
DECODINGS: tuple[Literal["sampled", "greedy"], ...] = ("sampled", "greedy")
MAX_DEBATE_SETS = 4
"""The most arms whose debates a study shows, of each one seed."""

WATCHED = "watched"
"""Folder of a run with the debates that people watched, each in a folder of its own."""

Debates = Mapping[str, Sequence[Transcript]]
"""Transcripts by stage: one of `STAGES`, or of debates that people watched, their folder."""


@dataclass(frozen=True)
class Source:
    """The data of a page.

    Attributes:
        kind: of the folder.
        study: the numbers.
        debates: {label of an arm: its debates before and after training}, not yet cut to size.
    """

    kind: Literal["run", "study"]
    study: Study
    debates: Mapping[str, Debates]


def load(path: Path) -> Source:
    """Read a run folder, a study folder, or a study's JSON file.

    Raises:
        ValueError: it is none of these, or a file in it is damaged; names the file.
        CheckpointError: a JSON file cannot be read.
    """
    path = Path(path)
    if path.is_file():
        return _load_study(path)
    if (path / "study.json").is_file():
        return _load_study(path / "study.json")
    if (path / "config.json").is_file():
        return _load_run(path)
    raise ValueError(
        f"{path} is neither a run (a folder with config.json) nor a study (study.json): give a "
        "folder that `maporl train` or `maporl compare` wrote."
    )


# --- A study ------------------------------------------------------------------------


def _load_study(path: Path) -> Source:
    study = Study.load(path)
    found: dict[str, Debates] = {}
    for arm in study.arms:
        folder = next((seed.folder for seed in arm.seeds if seed.folder), None)
        if folder is None or arm.role == "control" or len(found) == MAX_DEBATE_SETS:
            continue
        if debates := _debates_of(path.parent / folder):
            found[arm.label] = debates
    return Source("study", study, found)


# --- A run --------------------------------------------------------------------------


def _load_run(folder: Path) -> Source:
    config = load_json(folder / "config.json")
    results = folder / "results.json"
    stages = load_json(results) if results.is_file() else {}
    rows = curve_of(folder)
    debates = _debates_of(folder)
    seed = SeedResult(
        seed=config.get("seed", 0),
        measurements=tuple(_measurements(stages, debates)),
        train_answers=_total(rows, "answers"),
        train_tokens=_total(rows, "tokens"),
        curve=tuple(rows),
    )
    name = str(config.get("name", folder.name))
    versions = load_json(folder / "versions.json")
    study = Study(
        name=name,
        title=name,
        claim=_sentence(config),
        command="",
        created=_when(results if stages else folder / "config.json"),
        arms=(Arm(name, name, "method", (seed,)),),
        machine={k: versions[k] for k in ("platform", "cpu_count") if k in versions},
        versions={k: v for k, v in versions.items() if k not in ("platform", "cpu_count")},
        settings=config,
        notes=(
            *(() if stages else ("This run is not finished: it has no final measurement yet.",)),
            *_warnings(folder),
        ),
    )
    sets = {name: debates, f"{name}, {WATCHED} by people": _watched_of(folder)}
    return Source("run", study, {label: found for label, found in sets.items() if found})


def _warnings(folder: Path) -> Sequence[str]:
    path = folder / questions_record.FILE
    return tuple(load_json(path).get("warnings", ())) if path.is_file() else ()


def _sentence(config: Mapping[str, Any]) -> str:
    game = config.get("game", {})
    how = "trained alone" if config.get("single_agent") else "trained to debate"
    return (
        f"{game.get('num_agents', '?')} agents, {game.get('num_turns', '?')} turns, task "
        f"{game.get('task', '?')}, {how} for {config.get('steps', '?')} steps."
    )


def _measurements(stages: Mapping[str, Mapping[str, Any]], debates: Debates) -> list[Measurement]:
    found = []
    for stage in STAGES:
        for decoding in DECODINGS:
            if (result := stages.get(stage, {}).get(decoding)) is None:
                continue
            turns = tuple(_turn(turn) for turn in result["turns"])
            seen = debates.get(stage, ()) if decoding == "sampled" else ()
            found.append(
                Measurement(
                    stage=stage,
                    decoding=decoding,
                    turns=turns,
                    num_questions=result["num_questions"],
                    num_answers=result["num_questions"] * sum(len(t.accuracy) for t in turns),
                    num_tokens=result["num_tokens"],
                    transitions=transitions(seen),
                )
            )
    return found


def _turn(data: Mapping[str, Any]) -> TurnStats:
    return TurnStats(**{**data, "accuracy": tuple(data["accuracy"])})


def _total(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    return round(sum(row.get(name) or 0 for row in rows))


def _when(path: Path) -> str:
    stamp = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    return stamp.isoformat(timespec="minutes")


def _debates_of(folder: Path) -> Debates:
    """Return the debates of each stage that was saved."""
    paths = {stage: folder / "transcripts" / f"{stage}.jsonl" for stage in STAGES}
    return {stage: _transcripts(path) for stage, path in paths.items() if path.is_file()}


def _watched_of(folder: Path) -> Debates:
    """Return the debates of a run that people watched, by their folders, oldest first."""
    paths = sorted((folder / WATCHED).glob("*/transcript.jsonl"))
    return {f"{WATCHED} {path.parent.name}": _transcripts(path) for path in paths}


def _transcripts(path: Path) -> list[Transcript]:
    """Return the debates of a file; a torn last line, which a kill leaves, is left out."""
    found = []
    *lines, _torn = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            found.append(Transcript.from_dict(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is no transcript ({error!r}).") from error
    return found
