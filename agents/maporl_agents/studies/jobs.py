"""Jobs of studies: train a team by a recipe (or none), then measure it in several ways.

A job lives in a folder named by its settings, so that the same team is trained once for all studies
and never again:

    <jobs>/<key>/job.json                the recipe and the seed
    <jobs>/<key>/versions.json           what the measurements ran on, a list of all there were
    <jobs>/<key>/run/                    the run folder, as `maporl train` leaves it
    <jobs>/<key>/measures/<key>.json     one measurement: what, sampled, greedy, who moved
    <jobs>/<key>/log.txt                 what the process printed

`carry_out` does the missing parts; an interrupted run continues from its checkpoint.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

from maporl_agents.algorithms import scheme_for
from maporl_agents.config import (
    CONFIGS,
    GameConfig,
    RunConfig,
    TrainConfig,
    read_settings,
    scheme_of,
)
from maporl_agents.measure.debate_stats import transitions
from maporl_agents.measure.evaluate import Evaluation
from maporl_agents.models.roster import model_names
from maporl_agents.models.sources.model_download import FETCHABLE
from maporl_agents.models.team import Team
from maporl_agents.records.saved_settings import plain_settings
from maporl_agents.records.storage import load_json, write_text
from maporl_agents.records.versions import versions
from maporl_agents.studies import sft
from maporl_agents.studies.controls import Measure, measure
from maporl_agents.studies.sft import SFTConfig
from maporl_agents.training import experiment
from maporl_agents.training.loop import Interrupted, interruptible
from maporl_agents.training.resume import resume
from maporl_env.user_functions import source_digest

Method = Literal["none", "ppo", "magrpo", "malt", "iac", "grpo", "sft", "own"]
SCHEME_OF_METHOD = {
    "ppo": "maporl",
    "magrpo": "magrpo",
    "malt": "malt",
    "iac": "iac",
    "grpo": "grpo",
    "sft": "maporl",
}
"""The settings that a method takes; an untrained team may have those of any scheme, "own" those of
a user's own."""
TRAINING_SETTINGS = (
    *("ppo", "magrpo", "malt", "iac", "grpo"),
    *("steps", "questions_per_step", "single_agent"),
)
"""Settings of training, which change nothing about an untrained team."""
LAYOUT = 2
"""Version of measurements; 2 tells transitions apart by turn. Older ones are made again."""
EVAL_SEED_STRIDE = 1_000
"""Evaluations of different seeds draw different noise: `eval.seed` plus this times the seed."""
REWARD_SETTINGS = ("gamma", "horizon", "share", "alpha", "beta", "majority", "penalties")
"""Settings of the reward, which change nothing about an untrained team."""
RUN_QUESTIONS = 10
"""Held-out questions that the run of a job measures itself on; the figures are the measures',
of the last step in every arm: all are trained equally long."""
READ_BYTES = 16 * 2**20
"""Files of models up to this size are read to tell one model from another."""


@dataclass(frozen=True)
class Recipe:
    """The way a team is made: untrained ("none"), by a scheme's training, or by imitation ("sft").

    "ppo" is MAPoRL's training, "own" that of a user's own scheme, which the settings name; the
    others are called as their schemes.
    """

    method: Method
    config: RunConfig
    sft: SFTConfig = field(default_factory=SFTConfig)

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(
                f"unknown method {self.method!r}; choose one of {', '.join(get_args(Method))}"
            )
        given, wanted = scheme_of(self.config), SCHEME_OF_METHOD.get(self.method)
        if self.method == "own" and given in CONFIGS:
            raise ValueError(
                f"method 'own' takes settings of a scheme of one's own, not of {given}"
            )
        if wanted not in (None, given):
            raise ValueError(
                f"method {self.method!r} takes settings of {wanted} "
                f"({CONFIGS[str(wanted)].__name__}), not of {given}"
            )


@dataclass(frozen=True)
class Job:
    """A recipe with one seed, and all measurements of its team."""

    recipe: Recipe
    seed: int
    measures: tuple[Measure, ...]

    @property
    def config(self) -> RunConfig:
        """The settings with the job's seed in them, in training and evaluation."""
        config = self.recipe.config
        stream = config.eval.seed + EVAL_SEED_STRIDE * self.seed
        return replace(
            config, name=self.key, seed=self.seed, eval=replace(config.eval, seed=stream)
        )

    @property
    def key(self) -> str:
        """Name of the job's folder: a digest of the settings that decide team and questions.

        Only settings that differ from their defaults count, so a setting that is new to this
        version, and left at its default, changes no name.
        """
        config, usual = self.recipe.config, type(self.recipe.config)()
        settings = changes(
            replace(config, name="", seed=self.seed, checkpoint_every=1),
            replace(usual, name="", seed=-1, checkpoint_every=1),
        )
        if self.recipe.method == "none":
            settings = without_training(settings)
        if self.recipe.method == "sft":
            settings["sft"] = changes(self.recipe.sft, SFTConfig())
        weights = weights_of(config)
        made = {"method": self.recipe.method, "scheme": scheme_of(config), "weights": weights}
        if self.recipe.method == "own":  # so that a changed algorithm is trained anew
            made["source"] = source_digest(scheme_for(config).train_step)
        return digest({**made, **settings})

    def to_json(self) -> str:
        """Return the job as text for another process."""
        recipe = {**asdict(self.recipe), "config": plain_settings(self.recipe.config)}
        return json.dumps({**asdict(self), "recipe": recipe}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Inverse of `to_json`; ValueError for what is no job."""
        try:
            return cls._of(json.loads(text))
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"this is no job of a study: {error!r}") from error

    @classmethod
    def _of(cls, data: Any) -> Job:
        recipe = data["recipe"]
        return cls(
            recipe=Recipe(
                recipe["method"],
                read_settings(recipe["config"]),
                SFTConfig(**recipe["sft"]),
            ),
            seed=data["seed"],
            measures=tuple(Measure(**one) for one in data["measures"]),
        )


def changes(value: Any, usual: Any) -> dict[str, Any]:
    """Return the settings in which a dataclass differs from a usual one, groups as dicts."""
    pairs = {f.name: (getattr(value, f.name), getattr(usual, f.name)) for f in fields(value)}
    return {name: _change(one, other) for name, (one, other) in pairs.items() if one != other}


def _change(one: Any, other: Any) -> Any:
    if not is_dataclass(one) or isinstance(one, type):
        return one
    return changes(one, other) if type(one) is type(other) else asdict(one)


def without_training(settings: dict[str, Any]) -> dict[str, Any]:
    """Return changed settings without those that have no effect on an untrained team."""
    kept = {name: one for name, one in settings.items() if name not in TRAINING_SETTINGS}
    game = {n: one for n, one in kept.pop("game", {}).items() if n not in REWARD_SETTINGS}
    return {**kept, "game": game}


def digest(value: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that name a JSON value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def weights_of(config: RunConfig) -> list[str]:
    """Return digests that tell the models of a team from others of the same name; [] of hub names.

    A fetched model is told by the sum of its file, so it need not be there, nor be imported by the
    same versions of the libraries.
    """
    team, count = config.team, config.game.num_agents
    if fetched := set(team.model) & FETCHABLE.keys():
        others = [replace(team, model=(name,)) for name in team.model if name not in fetched]
        folders = [Path(model_names(other, 1)[0]) for other in others]
        sums = [FETCHABLE[name].sha256 for name in team.model if name in fetched]
        return [*sums, *map(fingerprint, filter(Path.is_dir, folders))]
    folders = [Path(model) for model in model_names(team, count)]
    return [fingerprint(folder) for folder in folders if folder.is_dir()]


@lru_cache
def fingerprint(folder: Path) -> str:
    """Return 16 hexadecimal digits that name the files of a model, large ones by their size."""
    state = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.iterdir()):
        if path.is_file():
            size = path.stat().st_size
            state.update(f"{path.name} {size} ".encode())
            state.update(path.read_bytes() if size <= READ_BYTES else b"")
    return state.hexdigest()


def measure_path(folder: Path, what: Measure) -> Path:
    """Return the file that holds, or will hold, one measurement of a job."""
    settings = {"layout": LAYOUT, **changes(what, Measure())}
    return folder / "measures" / f"{digest(settings)}.json"


def missing(job: Job, folder: Path) -> tuple[Measure, ...]:
    """Return the measurements that are missing; () if the job is done.

    Raises:
        ValueError: the folder holds another job, as after a change of a default.
    """
    _require_same(job, folder / "job.json")
    return tuple(what for what in job.measures if not measure_path(folder, what).is_file())


def _require_same(job: Job, path: Path) -> None:
    """Raise unless the job that made a folder is this one, by the defaults of today."""
    if path.is_file() and Job.from_json(path.read_text(encoding="utf-8")).key != job.key:
        raise ValueError(
            f"{path.parent} was made by other settings than its name says (see job.json there; has "
            "a default changed?): move the folder away, and the job is carried out anew"
        )


def carry_out(job: Job, folder: Path, console: Console) -> None:
    """Carry out the missing parts of a job: train, then measure.

    Raises:
        Interrupted: a signal came; all that was done is saved.
        ValueError: the settings do not make a game, or it cannot be measured so.
    """
    if not (todo := missing(job, folder)):
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "job.json", job.to_json())
    team = make_team(job, folder / "run", console)
    (folder / "measures").mkdir(exist_ok=True)
    record_versions(folder)
    for what in todo:
        console.print(f"measuring {what}")
        with interruptible(job.config.steps):
            result = measured(job, team, what)
        write_text(measure_path(folder, what), json.dumps(result, indent=1))


def record_versions(folder: Path) -> None:
    """Record the versions and platform of a job's measurements, once for each combination."""
    known = recorded_versions(folder)
    if (now := versions()) not in known:
        write_text(folder / "versions.json", json.dumps([*known, now], indent=1))


def recorded_versions(folder: Path) -> list[dict[str, Any]]:
    """Return the versions and platforms of a job's measurements, every combination once."""
    path = folder / "versions.json"
    return list(load_json(path)) if path.is_file() else []


def ran_on(folder: Path) -> list[dict[str, Any]]:
    """Return the versions of a job, training and measurements; see `records.versions`."""
    trained = folder / "run" / "versions.json"
    return [*([load_json(trained)] if trained.is_file() else []), *recorded_versions(folder)]


def make_team(job: Job, run: Path, console: Console) -> Team:
    """Return the job's team, trained as far as the recipe says; a finished run is only loaded."""
    config = job.config
    if job.recipe.method == "none":
        return experiment.build(config)[0]
    if not (run / "results.json").is_file():
        if isinstance(config, TrainConfig) and job.recipe.method == "sft":
            # Short: from the start again if it was cut.
            sft.run(config, job.recipe.sft, run, console, overwrite=True)
        elif (run / "config.json").is_file():
            resume(run, console)
        else:
            few = min(RUN_QUESTIONS, config.eval.questions)
            brief = replace(config.eval, questions=few, questions_before=few, use="last")
            experiment.run(replace(config, eval=brief), run, console, overwrite=True)
    return experiment.load_team(run)[1]


def measured(job: Job, team: Team, what: Measure) -> dict[str, Any]:
    """Return one measurement as JSON values: its kind, and a result per decoding."""
    config = job.config
    game = what.game_of(config.game)
    questions = experiment.held_out(replace(config, game=game))
    results = measure(what, team, config.game, questions, config.sampling, seed=config.eval.seed)
    return {
        "measure": asdict(what),
        **{
            decoding: plain(result, answers_behind(what, game))
            for decoding, result in results.items()
        },
    }


def answers_behind(what: Measure, game: GameConfig) -> int:
    """Return the number of answers generated per message of a measurement's transcripts."""
    return 1 if what.passes is None else game.num_agents * game.num_turns


def plain(result: Evaluation, answers_per_message: int = 1) -> dict[str, Any]:
    """Return an evaluation with its transitions, as JSON values."""
    moved = transitions(result.transcripts)
    return {
        **result.to_dict(),
        "num_answers": answers_per_message * sum(len(t.messages) for t in result.transcripts),
        "transitions": [asdict(one) for one in moved],
    }


def read_measure(folder: Path, what: Measure) -> dict[str, Any]:
    """Return a measurement of a job that was carried out."""
    result: dict[str, Any] = load_json(measure_path(folder, what))
    return result


def all_measures(jobs: Sequence[Job]) -> list[Job]:
    """Return one job per key, with all measurements of the jobs of that key, in order."""
    merged: dict[str, Job] = {}
    for job in jobs:
        known = merged.get(job.key, replace(job, measures=()))
        wanted = dict.fromkeys((*known.measures, *job.measures))
        merged[job.key] = replace(known, measures=tuple(wanted))
    return list(merged.values())


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Wait until no other process carries out the job of a folder; then none can."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(folder: Path) -> int:
    """Carry out the job that ``job.json`` of a folder describes; return the exit code.

    If two studies need the same job at once, one carries it out and the other waits.
    """
    job = Job.from_json((folder / "job.json").read_text(encoding="utf-8"))
    try:
        with only_here(folder):
            carry_out(job, folder, Console(width=100))
    except Interrupted as stop:
        return 128 + stop.signal_number
    finally:
        add_cost(folder, time.process_time())
    return 0


def add_cost(folder: Path, cpu_seconds: float) -> None:
    """Add processor seconds to what a job has cost so far."""
    write_text(folder / "cost.json", json.dumps({"cpu_seconds": cost(folder) + cpu_seconds}))


def cost(folder: Path) -> float:
    """Return the processor seconds that a job has cost so far."""
    path = folder / "cost.json"
    return float(load_json(path)["cpu_seconds"]) if path.is_file() else 0.0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
