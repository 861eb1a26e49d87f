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
from typing import Any, Literal

from maporl_agents import distributed
from maporl_agents.config import RunConfig, Use, asking, config_of
from maporl_agents.measure.evaluate import Evaluation
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.model_defaults import with_model_defaults
from maporl_agents.play.window_check import fitting
from maporl_agents.recipes import recipe as recipe_of
from maporl_agents.records.run_folder import folder_of
from maporl_agents.records.run_log import read_metrics
from maporl_agents.terminal import console
from maporl_agents.training import experiment
from maporl_agents.training import resume as resuming
from maporl_agents.training.keywords import settings_with, told_in_keywords
from maporl_agents.training.make_game import make_game, unjudged
from maporl_agents.training.measured_settings import LOADING, UNTRAINED, refuse_idle
from maporl_agents.training.run_questions import TASK_FILE
from maporl_env.tasks import Task
from maporl_env.types import Question
from maporl_env.user_functions import name_as, name_object
from maporl_env.verifiers import VerifierLike

TaskLike = str | Path | Sequence[Question] | Task
"""A name, a file, questions, or a `Task`."""

ModelLike = str | Path | tuple[Any, Any]
"""A built-in or fetched name, a folder, a hub name, or a model with its tokenizer."""


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
        """The trained team, read from the best checkpoint, or the last (`eval.use`)."""
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
    force: bool = False,
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
        scheme: maporl (the default), magrpo, malt, iac, grpo, one's own by name, or a
            `schemes.Scheme`.
        recipe: settings to start from: a name or a YAML file, which tells the scheme too. With
            another `task` its file, words and split are left out.
        runs: folder of all runs; the run's is named by the setting `name`.
        overwrite: replace a run of the same name.
        resume: go on with the run of that name.
        force: with `resume`: go on although the run has other settings than are given here, or
            its questions have changed.
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
    if overwrite and resume:
        raise ValueError("resume goes on with a run and overwrite begins it anew: choose one")
    if force and not resume:
        raise ValueError("force belongs to resume: set both, or none")
    start = recipe_of(recipe) if recipe else config_of(_named(scheme or "maporl", "scheme"))()
    settings |= _parts(model, verifier)
    with told_in_keywords():
        folder = folder_of(Path(runs), str(settings.get("name", start.name)))
        if task is not None:
            start = replace(start, game=asking(start.game, _task_name(task, folder)))
        config = settings_with(start, _with_protocol(settings))
        if config.self_play.game:
            raise ValueError(
                "self_play.game is played by `maporl train --self-play.game`, or by "
                "maporl_agents.self_play.run.run: this function trains debates"
            )
        with distributed.together():
            screen = console(quiet=quiet or not distributed.is_first())
            results = (
                resuming.resume(folder, screen, config, force=force, log_to=log_to)
                if resume or distributed.begun(str(folder))  # a launcher has restarted it
                else experiment.run(config, folder, screen, overwrite=overwrite, log_to=log_to)
            )
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
        settings: as for `train`, those of the game, of sampling and of measuring; `questions` is
            how many are asked, and `split` which. With `model` also how it is loaded.

    Raises:
        ValueError: the settings contradict each other, name what is not there or are about
            training; or a question is too long for a model's window (see `long_questions`).
        FileNotFoundError: `source` is no run.
    """
    if source is not None and model is not None:
        raise ValueError("a run brings its own models: leave out model, or the run")
    settings |= _parts(model, verifier)
    folder = source.folder if isinstance(source, Run) else source
    start = UNTRAINED if folder is None else experiment.read_config(Path(folder))
    if task is not None:
        start = replace(start, game=asking(start.game, _task_name(task, None)))
    with told_in_keywords():
        config = settings_with(start, _with_protocol(settings))
        refuse_idle(config, start, LOADING if folder is None else (), of_run=folder is not None)
        made = make_game(config.game)
        questions = experiment.held_out(config, made)
        if folder is None:
            sampling, _ = with_model_defaults(config.sampling, config.team.model)
            config = replace(config, sampling=sampling)
        team = _untrained(config) if folder is None else load_team(folder, config.eval.use)
        parts, _ = fitting(
            team, made.config, config.sampling, {"held-out": questions}, config.game.long_questions
        )
        return experiment.measure(config, team, parts["held-out"], made)


def load_team(folder: str | Path, checkpoint: Use | Literal[""] = "") -> Team:
    """Return the trained team of a run; FileNotFoundError if the folder is no run.

    Args:
        folder: of the run.
        checkpoint: "best", on the run's validation slice, or "last"; "" for what its settings say.
    """
    return experiment.load_team(Path(folder), checkpoint)[1]


def _untrained(config: RunConfig) -> Team:
    game = unjudged(config.game)
    return make_team(config.team, num_agents=game.num_agents, num_turns=game.num_turns, seed=0)


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
    """Return a short text of a value and its type, for errors."""
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
    path = str((folder / TASK_FILE).resolve())
    name_as(path, list(task))
    return path
