"""The result of a study as data: arms, seeds, measurements, and their JSON (`study.json`).

`maporl compare` writes it, `maporl report` reads it. Nothing here is computed from the numbers;
means, intervals and sentences are derived in `verdicts`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from maporl_agents.measure.debate_stats import Transition, TurnStats
from maporl_agents.records.storage import load_json, save_json

SCHEMA = 2
"""Version of the file's layout; 2 tells transitions apart by turn, and holds claims."""

NOT_YET = "Not carried out yet"
"""Beginning of the note that names the rows without all seeds."""

Role = Literal[
    "method",  # what is claimed to work; the first one is the reference of variants
    "control",  # what could explain it away
    "baseline",  # what it is compared with
    "variant",  # the method with another setting: the question is whether it differs
]
Stage = Literal["before", "after"]
Decoding = Literal["sampled", "greedy"]
Metric = Literal["vote", "mean_accuracy", "score"]
"""Which of `TurnStats` is compared; "score" is that of the verifier, right or not."""
ControlKind = Literal[
    "alone",  # the trained policies asked alone, one answer
    "verdicts_shuffled",  # the trained team, verdicts dealt out at random
    "peers_shuffled",  # the trained team, peers' messages from other questions
    "best_of_n",  # the best of equally many samples by the same verifier
    "self_refinement",  # one agent over all turns
    "self_consistency",  # majority of independent samples, as many tokens
    "other",
]


@dataclass(frozen=True)
class Measurement:
    """One team measured once on the held-out questions.

    Attributes:
        stage: before or after training; an arm that trains nothing has "after" only.
        decoding: sampled or greedy.
        turns: one entry per turn.
        num_questions: number of questions asked.
        num_answers: messages generated.
        num_tokens: tokens generated.
        transitions: who moved given which majority; empty where not counted.
    """

    stage: Stage
    decoding: Decoding
    turns: tuple[TurnStats, ...]
    num_questions: int
    num_answers: int
    num_tokens: int
    transitions: tuple[Transition, ...] = ()


@dataclass(frozen=True)
class SeedResult:
    """One arm with one seed.

    Attributes:
        seed: of the run.
        measurements: at most one per stage and decoding.
        train_answers: messages generated for training.
        train_tokens: tokens generated for training.
        curve: metrics by step, as in metrics.jsonl ("step", "score/turn_1", "kl", ...).
        folder: of the run, relative to the study's file; None if nothing was trained.
    """

    seed: int
    measurements: tuple[Measurement, ...]
    train_answers: int = 0
    train_tokens: int = 0
    curve: tuple[dict[str, Any], ...] = ()
    folder: str | None = None

    def find(self, stage: Stage, decoding: Decoding) -> Measurement | None:
        """Return one measurement, or None if it was not made."""
        for measurement in self.measurements:
            if (measurement.stage, measurement.decoding) == (stage, decoding):
                return measurement
        return None


@dataclass(frozen=True)
class Arm:
    """One row of the comparison.

    Attributes:
        name: short and unique in the study.
        label: as people read it.
        role: see `Role`.
        seeds: one result per seed.
        control: the part that a control removes; only for the role "control".
        of: name of the arm that a control belongs to; None means every method.
        description: one sentence.
        settings: the settings in which this arm differs from the others.
    """

    name: str
    label: str
    role: Role
    seeds: tuple[SeedResult, ...]
    control: ControlKind | None = None
    of: str | None = None
    description: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.control is not None) != (self.role == "control"):
            raise ValueError(f"arm {self.name}: exactly the role 'control' says what it controls")
        seeds = [result.seed for result in self.seeds]
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"arm {self.name}: a seed stands twice in {seeds}")

    def scores(
        self, metric: Metric, stage: Stage, decoding: Decoding, turn: int = -1
    ) -> dict[int, float]:
        """Return {seed: score of one turn} where it was measured."""
        found = {result.seed: result.find(stage, decoding) for result in self.seeds}
        return {s: getattr(m.turns[turn], metric) for s, m in found.items() if m is not None}


@dataclass(frozen=True)
class Claim:
    """A claim of a study, and the sentences that decide it.

    Attributes:
        words: the claim.
        stands_on: names of the sentences that must all support it, see `verdicts.Verdict`.
    """

    words: str
    stands_on: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A finished study: what its `StudyPlan` says, its measured arms, and where they come from.

    Attributes:
        command: that made it.
        created: date and time, ISO 8601, UTC.
        machine: that its jobs ran on, e.g. {"platform": "Linux x86_64", "cpu_count": "2"}.
        versions: of its jobs: "python", "packages" by name, and "commits", all there were.
        budget: its cost, e.g. {"core-minutes": "41.5"}.
        settings: common to all arms.
        notes: sentences that a reader must know, failed jobs included.
        schema: version of this layout.
    """

    name: str
    title: str
    claim: str
    command: str
    created: str
    arms: tuple[Arm, ...]
    metric: Metric = "vote"
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"study {self.name}: an arm stands twice in {names}")
        for arm in self.arms if self.metric == "score" else ():
            turns = (turn for seed in arm.seeds for m in seed.measurements for turn in m.turns)
            if any(turn.score is None for turn in turns):
                raise ValueError(f"study {self.name} compares scores: arm {arm.name} has none")
        roles = {arm.role for arm in self.arms}
        if "variant" in roles and "method" not in roles:
            raise ValueError(f"study {self.name}: variants of no method; give one arm that role")
        for arm in self.arms:
            if arm.of is not None and arm.of not in names:
                raise ValueError(f"arm {arm.name} is of {arm.of!r}, which is none of {names}")

    def arm(self, name: str) -> Arm:
        """Return one arm; ValueError names those there are."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ValueError(f"no arm {name!r}: there are {', '.join(arm.name for arm in self.arms)}")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Study:
        """Inverse of `to_dict`; ValueError names the place of what does not fit."""
        schema = data.get("schema") if isinstance(data, Mapping) else None
        if schema != SCHEMA:
            raise ValueError(
                f"the study has layout {schema!r}; this version reads {SCHEMA}: make it again with "
                "`maporl compare`, which trains nothing again that is still there"
            )
        return _read_dataclass(cls, data, "study")

    def save(self, path: Path) -> None:
        """Write the study as JSON; ValueError for NaN and infinities."""
        save_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Study:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is no study of this layout; names file and place.
            CheckpointError: the file cannot be read as JSON.
        """
        data = load_json(path)
        try:
            return cls.from_dict(data)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


# --- From JSON, by the types of the fields ------------------------------------------

D = TypeVar("D")


def _read_dataclass(cls: type[D], data: Any, place: str) -> D:
    if not isinstance(data, Mapping):
        raise ValueError(f"{place} is {type(data).__name__}, not an object")
    hints = get_type_hints(cls)
    if unknown := sorted(set(data) - set(hints)):
        raise ValueError(f"{place} holds unknown fields: {', '.join(map(str, unknown))}")
    required = {
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - set(data)):
        raise ValueError(f"{place} lacks {', '.join(missing)}")
    return cls(**{k: _read(hints[k], v, f"{place}.{k}") for k, v in data.items()})


def _read(hint: Any, value: Any, place: str) -> Any:
    """Return a JSON value as the type that a field asks for; ValueError if it is none."""
    origin, inner = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _read_dataclass(hint, value, place)  # type: ignore[arg-type]
    if origin in (Union, UnionType):
        return None if value is None else _read(inner[0], value, place)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{place} is {value!r}: choose one of {', '.join(map(repr, inner))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{place} is {type(value).__name__}, not a list")
        return tuple(_read(inner[0], item, f"{place}[{i}]") for i, item in enumerate(value))
    kind = {float: (int, float)}.get(hint, origin or hint)
    if not isinstance(value, kind) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{place} is {value!r}, not {getattr(hint, '__name__', hint)}")
    return value
