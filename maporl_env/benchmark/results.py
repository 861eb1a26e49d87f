"""Measurements of one case and of a whole benchmark, and their JSON.

Every question is debated once. A value is first taken per question (over its agents, whose messages
are no independent draws), then averaged; intervals count questions that share their items, amounts
or coins as one cluster (`intervals.clustered_mean`).
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maporl_env.benchmark.suite import CASES, VERSION
from maporl_env.intervals import Mean, clustered_mean

SCHEMA = 1
"""Version of the file's layout."""
_NUMBERS = re.compile(r"\[[\d\s.,eE+-]+\]")


@dataclass(frozen=True)
class TurnResult:
    """One turn of a case, over all questions. Shares are in [0, 1].

    Attributes:
        team: accuracy of the answer the protocol draws from the turn: the majority of a debate
            (ties shared), the last agent's in a pipeline, the one in a joint text.
        accuracy: mean over agents of their own answers' accuracy.
        agents: accuracy of each agent, in order of their index.
        score: mean of the true verifier's scores; None where it gave none.
        words: mean length of a message in words, which are what blanks separate.
        invalid: share of messages without a readable answer.
    """

    team: Mean
    accuracy: Mean
    agents: tuple[float, ...]
    score: Mean | None
    words: float
    invalid: float


@dataclass(frozen=True)
class CaseResult:
    """The results of one case.

    Attributes:
        digest: of the case that was played.
        num_questions: how many were asked.
        turns: one entry per turn.
        gain: team accuracy of the last turn minus that of the first, paired by question.
        reward: sum of an agent's rewards over the turns of a debate, mean over agents and debates.
        tokens: mean length of a message in the speaking model's tokens, the end included; None
            where no model of ours spoke.
        seconds: wall-clock time.
        by_question: team accuracy of the last turn, in the order of the questions.
    """

    digest: str
    num_questions: int
    turns: tuple[TurnResult, ...]
    gain: Mean
    reward: Mean
    tokens: float | None
    seconds: float
    by_question: tuple[float, ...]

    @property
    def words(self) -> float:
        """Mean length of a message in words, over all turns."""
        return sum(turn.words for turn in self.turns) / len(self.turns)


@dataclass(frozen=True)
class Report:
    """One row of the benchmark: some agents on some cases.

    Attributes:
        name: the agents' label.
        about: what there is to know of them.
        cases: results by the name of the case.
        refused: why the other cases asked for were not played.
        version: of the suite.
        date: when it was begun, UTC.
        machine: what it ran on.
    """

    name: str
    about: dict[str, Any]
    cases: dict[str, CaseResult] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    version: str = VERSION
    date: str = ""
    machine: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, name: str, about: Mapping[str, Any]) -> Report:
        """Return a report without results, of today and of this machine."""
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        return cls(name, dict(about), date=today, machine=machine())

    def with_case(self, name: str, result: CaseResult) -> Report:
        """Return a report with one more result."""
        return dataclasses.replace(self, cases={**self.cases, name: result})

    @property
    def mean(self) -> float | None:
        """Mean over all cases of the last turn's team accuracy; None unless all were played."""
        if set(self.cases) != {case.name for case in CASES}:
            return None
        lasts = [result.turns[-1].team.mean for result in self.cases.values()]
        return sum(lasts) / len(lasts)

    def to_json(self) -> str:
        """Return the report as JSON text, each list of numbers on one line."""
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1)
        return _NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Inverse of :meth:`to_json`.

        Raises:
            ValueError: not such a text, of another version of the suite, or of a changed case.
        """
        try:
            data = json.loads(text)
            schema, version = data.pop("schema"), data["version"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"this is no result of the benchmark ({error!r})") from None
        if schema != SCHEMA or version != VERSION:
            raise ValueError(
                f"these are results of {version} (layout {schema}), which do not compare with "
                f"{VERSION} (layout {SCHEMA}): score those agents again"
            )
        try:
            cases = {name: _case_result(case) for name, case in data.pop("cases").items()}
            report = cls(**data, cases=cases)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this result of the benchmark is damaged ({error!r})") from error
        require_comparable(report)
        return report


def read_report(path: str | Path) -> Report:
    """Read a report from its file; ValueError names the file where `Report.from_json` raises."""
    try:
        return Report.from_json(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_report(path: str | Path, report: Report) -> None:
    """Write a report's file, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(report.to_json())
        os.chmod(fresh, 0o644)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise


def require_comparable(*reports: Report) -> None:
    """Raise ValueError unless all reports are of this version's cases."""
    digests = {case.name: case.digest for case in CASES}
    for report in reports:
        if report.version != VERSION:
            raise ValueError(
                f"{report.name!r} was scored on {report.version}, not on {VERSION}: versions of "
                "the suite do not mix; score those agents again"
            )
        for name, result in report.cases.items():
            if digests.get(name) != result.digest:
                raise ValueError(
                    f"{report.name!r} played another case {name} (digest {result.digest}, not "
                    f"{digests.get(name, 'known')}): score it again"
                )


def paired_difference(first: Report, second: Report, case: str) -> Mean:
    """Return the first team's accuracy minus the second's in the last turn, over common questions.

    Raises:
        ValueError: not the same version, or one of them has not played the case.
    """
    require_comparable(first, second)
    for report in (first, second):
        if case not in report.cases:
            raise ValueError(f"{report.name!r} has no result of case {case!r}")
    played = next(one for one in CASES if one.name == case)
    clusters = [played.cluster_of(question) for question in played.questions()]
    pairs = zip(first.cases[case].by_question, second.cases[case].by_question, strict=True)
    return clustered_mean([mine - other for mine, other in pairs], clusters)


def machine() -> dict[str, Any]:
    """Return a description of the machine on which the benchmark runs."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("maporl", "numpy", "torch")},
    }


def _processor() -> str | None:
    """Return the processor's name, as the system reports it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    return named[1] if named else platform.processor() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _case_result(data: dict[str, Any]) -> CaseResult:
    turns = tuple(_turn_result(turn) for turn in data["turns"])
    means = {name: Mean(**data[name]) for name in ("gain", "reward")}
    changed = {"turns": turns, "by_question": tuple(data["by_question"]), **means}
    return CaseResult(**{**data, **changed})


def _turn_result(data: dict[str, Any]) -> TurnResult:
    score = None if data["score"] is None else Mean(**data["score"])
    means = {name: Mean(**data[name]) for name in ("team", "accuracy")}
    return TurnResult(**{**data, "agents": tuple(data["agents"]), "score": score, **means})
