"""The Python entry: `train`, `evaluate` and `load_team`, which `maporl_agents` itself offers.

What the command line does by flags is done here by keywords, and tasks, models and verifiers may be
objects. They are told to the rest of the package by names (`maporl_env.user_functions`), so that a
run made here is a run like any other.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from maporl_agents.config import RunConfig, TeamConfig, config_of
from maporl_agents.measure.evaluate import Evaluation
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.recipes import recipe as recipe_of
from maporl_agents.records.run_folder import Taken, folder_of
from maporl_agents.records.run_log import read_metrics
from maporl_agents.terminal import console
from maporl_agents.training import experiment
from maporl_agents.training.keywords import settings_with
from maporl_agents.training.make_game import make_game, unjudged
from maporl_env.tasks import Task
from maporl_env.types import Question
from maporl_env.user_functions import name_as, name_object
from maporl_env.verifiers import VerifierLike

TaskLike = str | Path | Sequence[Question] | Task
"""A name, a file, questions, or a `Task`."""

ModelLike = str | Path | tuple[Any, Any]
"""A built-in name, a folder, a hub name, or a model of transformers with its tokenizer."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: with everything that was measured and saved.
        config: its settings.
        results: {"before" or "after": {"sampled" or "greedy": figures}}, as in results.json.
    """

    folder: Path
    config: RunConfig
    results: dict[str, Any]

    @cached_property
    def team(self) -> Team:
        """The trained team, read from the newest checkpoint."""
        return load_team(self.folder)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dict per step."""
        return read_metrics(self.folder)


def train(
    *,
    task: TaskLike | None = None,
    model: ModelLike | Sequence[ModelLike] | None = None,
    verifier: str | VerifierLike | None = None,
    scheme: str | object = "",
    recipe: str | Path = "",
    runs: str | Path = "runs",
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
    log_to: Sequence[str] = (),
    **settings: Any,
) -> Run:
    """Train a team; what is not given is as for ``maporl train``.

    Args:
        task: what is asked: a name, a file, a list of `Question` (saved in the run's folder), or a
            `Task`.
        model: one for all agents, or a list of one per agent; each a name, a folder, or a pair
            (model, tokenizer) of transformers, of which copies are trained.
        verifier: the reward: a name, a callable `(questions, responses) -> scores in [0, 1]`, or an
            object with `.score` of that form.
        scheme: maporl (the default), magrpo, malt, iac, one's own by name, or a
            `schemes.Scheme`.
        recipe: settings to start from: a name or a YAML file, which tells the scheme too.
        runs: folder of all runs; the run's is named by the setting `name`.
        overwrite: replace a run of the same name.
        resume: go on with the run of that name.
        quiet: print nothing.
        log_to: as for ``maporl train``.
        settings: any further setting by name; see `keywords.settings_with`. Examples: `steps=10`,
            `num_agents=2`, `learning_rate=1e-3`, `ppo={"epochs": 2}`.

    Raises:
        ValueError: the settings contradict each other, or name what is not there.
        Interrupted: Ctrl-C arrived; the run is saved, and `resume` goes on with it.
    """
    if recipe and scheme:
        raise ValueError("a recipe tells the scheme: leave one of the two out")
    start = recipe_of(recipe) if recipe else config_of(_named(scheme or "maporl", "scheme"))()
    settings |= _parts(model, verifier)
    config = settings_with(start, _with_protocol(settings))
    folder = folder_of(Path(runs), config.name)
    if task is not None:
        config = replace(config, game=replace(config.game, task=_task_name(task, folder)))
    screen = console(quiet=quiet)
    if resume:
        results = experiment.resume(folder, screen, config, log_to=log_to)
    else:
        try:
            results = experiment.run(config, folder, screen, overwrite=overwrite, log_to=log_to)
        except Taken as error:
            raise ValueError(error.by_keywords) from error
    return Run(folder, config, results)


def evaluate(
    source: Run | str | Path | None = None,
    *,
    task: TaskLike | None = None,
    model: ModelLike | Sequence[ModelLike] | None = None,
    verifier: str | VerifierLike | None = None,
    **settings: Any,
) -> dict[str, Evaluation]:
    """Let a team debate questions once sampled and once greedily; return both results by name.

    Args:
        source: a run, or its folder, whose trained team and game are taken; None for `model` as it
            is, in the game that the settings describe.
        task: as for `train`; the run's own if it is not given.
        model: as for `train`, without `source`.
        verifier: as for `train`.
        settings: as for `train`; `questions` is how many are asked, and `split` which.

    Raises:
        ValueError: the settings contradict each other, or name what is not there.
        FileNotFoundError: `source` is no run.
    """
    if source is not None and model is not None:
        raise ValueError("a run brings its own models: leave out model, or the run")
    settings |= _parts(model, verifier)
    folder = source.folder if isinstance(source, Run) else source
    start = RunConfig() if folder is None else experiment.read_config(Path(folder))
    name = start.game.task if task is None else _task_name(task, None)
    if name != start.game.task:  # the file and the words of the run are not for another task
        start = replace(start, game=replace(start.game, task=name, data="", template=""))
    config = settings_with(start, _with_protocol(settings))
    if task is not None:
        config = replace(config, game=replace(config.game, task=name))
    made = make_game(config.game)
    questions = experiment.held_out(config, made)
    team = _untrained(config) if folder is None else load_team(folder)
    return experiment.measure(config, team, questions, made)


def load_team(folder: str | Path) -> Team:
    """Return the trained team of a run; FileNotFoundError if the folder is no run."""
    return experiment.load_team(Path(folder))[1]


def _untrained(config: RunConfig) -> Team:
    playing = TeamConfig(model=config.team.model, tuning="none", device=config.team.device)
    game = unjudged(config.game)
    return make_team(playing, num_agents=game.num_agents, num_turns=game.num_turns, seed=0)


def _named(given: Any, hint: str) -> str:
    return str(given) if isinstance(given, str | Path) else name_object(given, hint)


def _parts(model: Any, verifier: Any) -> dict[str, Any]:
    """Return the settings that name the models and the verifier which were handed over."""
    parts: dict[str, Any] = {}
    if model is not None:
        one = isinstance(model, str | Path)
        if not (one or (isinstance(model, Sequence) and model)):
            raise ValueError(
                f"model={_shown(model)}: give a name, a folder, or a pair (model, tokenizer), or a "
                "list of such, one per agent"
            )
        one = one or not isinstance(model[0], str | Path | tuple)
        models = [model] if one else model
        parts["team.model"] = tuple(_named(each, "model") for each in models)
    if verifier is not None:
        if not (isinstance(verifier, str | Path) or callable(getattr(verifier, "score", verifier))):
            raise ValueError(
                f"verifier={_shown(verifier)}: give a name, a function (questions, responses) -> "
                "scores, or an object with .score of that form"
            )
        parts["game.verifier"] = _named(verifier, "verifier")
    return parts


def _shown(given: object) -> str:
    """Return what was given, and what it is, in few words."""
    if isinstance(given, Sequence) and not given:
        return f"{given!r} is empty"
    kind = type(given).__name__
    return f"{reprlib.repr(given)} is {'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def _with_protocol(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with a protocol's class told by its name, and its options written out."""
    protocol = settings.get("protocol")
    if isinstance(protocol, type) or callable(protocol):
        return {**settings, "protocol": name_object(protocol, "protocol")}
    if protocol is not None and not isinstance(protocol, str):
        raise ValueError(
            f"a protocol is trained by its name or class, whose options are settings, not as an "
            f"object: {type(protocol).__name__}"
        )
    return dict(settings)


def _task_name(task: TaskLike, folder: Path | None) -> str:
    """Return the name of a task in the settings; questions get a file in the run's folder."""
    if isinstance(task, str | Path):
        return str(task)
    if isinstance(task, Task) or folder is None:
        return name_object(task, "task")
    path = str((folder / experiment.TASK_FILE).resolve())
    name_as(path, list(task))
    return path
