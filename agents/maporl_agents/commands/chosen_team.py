"""The team, the game and the questions that ``maporl eval`` and ``maporl play`` are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.console import Console

from maporl_agents import terminal
from maporl_agents.commands.chosen_flags import Groups, OneDebate, start_of
from maporl_agents.config import GameConfig, RunConfig, Sampling, TeamConfig, Use
from maporl_agents.models.loading import make_team
from maporl_agents.models.parallel_bases import share_cores
from maporl_agents.models.team import Team
from maporl_agents.play.model_defaults import with_model_defaults
from maporl_agents.records import questions_record
from maporl_agents.records.storage import MANIFEST
from maporl_agents.training.experiment import load_team, read_config
from maporl_agents.training.make_game import LoadedGame, make_game, training_split
from maporl_agents.training.measured_settings import LOADING, PLACING, UNTRAINED, refuse_idle
from maporl_agents.training.validation import chosen_checkpoint
from maporl_env.tasks import load_task
from maporl_env.types import Question

if TYPE_CHECKING:
    from maporl_agents.commands.eval import Eval


class ChosenGame(NamedTuple):
    """The game that a command plays, and the split of its questions.

    `told` is a sentence on the truncation that models bring along, "" for none.
    """

    settings: GameConfig
    sampling: Sampling
    loaded: LoadedGame
    split: str
    told: str = ""


def chosen_game(args: Eval | OneDebate) -> ChosenGame:
    """Return the game of the run, changed by the flags, and the split that they name."""
    settings, sampling = game_and_sampling(args)
    loaded, told = make_game(settings), ""
    if args.run is None:
        models = args.model if args.settings is None else args.settings.team.model
        sampling, told = with_model_defaults(sampling, models)
    return ChosenGame(settings, sampling, loaded, args.split or loaded.task.measured_split, told)


def game_and_sampling(args: Eval | OneDebate) -> tuple[GameConfig, Sampling]:
    """Return the game and the sampling settings: those of the run, changed by the flags.

    Raises:
        ValueError: flags contradict each other, or would do nothing.
    """
    own = None if args.run is None else read_config(args.run)
    if own is None and args.checkpoint:
        raise ValueError("--checkpoint is one of a run: give its folder by --run, or leave it out")
    if own is not None and args.model != type(args)().model:
        raise ValueError("--run brings its own models: leave out --model, or the run")
    start = start_of(own, args.task, args.model)
    usual = _shortened(args, start)
    if args.settings is None:
        return usual.game, usual.sampling
    given = _shortened(args, args.settings)
    if given.sampling.engine != "local":
        raise ValueError(
            "sampling.engine: servers write in `maporl train`; here the models of this process do, "
            "so leave it out"
        )
    refuse_idle(
        *(_as_run(own, given), _as_run(own, usual), PLACING if own else LOADING),
        of_run=own is not None,
    )
    return given.game, given.sampling


def _shortened(args: Eval | OneDebate, start: Groups) -> Groups:
    """Return settings changed by the short flags."""
    game, sampling = start.game, start.sampling
    wanted: dict[str, Any] = {
        "data": str(args.data or ""),
        "num_agents": args.agents,
        "num_turns": args.turns,
        "protocol": args.protocol,
        "protocol_options": args.protocol_options,
        "verifier": args.verifier,
        "feedback_verifier": args.verdicts,
        "answer_rule": args.answer_rule,
        "reward_feedback": bool(args.verdicts),
        "long_questions": args.long_questions,
    }
    game = replace(game, **{name: value for name, value in wanted.items() if value})
    if args.shots is not None:
        game = replace(game, shots=args.shots)
    if args.verdicts and game.num_turns == 1:
        raise ValueError("--verdicts are read from the second turn on, and --turns is 1")
    if args.max_new_tokens:
        sampling = sampling.limited_to(args.max_new_tokens)
    if args.temperature is not None:
        sampling = replace(sampling, temperature=args.temperature, model_temperature=False)
    return Groups(game, start.team, sampling)


def _as_run(own: RunConfig | None, groups: Groups) -> RunConfig:
    """Return the settings of a run of these groups; greedy sampling, which no run has, as 1."""
    drawn = replace(groups.sampling, temperature=groups.sampling.temperature or 1.0)
    if drawn.top_k == 1 or drawn.min_p == 1:
        drawn = replace(drawn, top_k=None, min_p=None)
    return replace(own or UNTRAINED, game=groups.game, team=groups.team, sampling=drawn)


def team_of(args: Eval | OneDebate, game: GameConfig) -> Team:
    """Return the team of a run, or of the named models, for speaking only."""
    return speaking_team(args.run, args.checkpoint, settings_of_team(args), game)


def settings_of_team(args: Eval | OneDebate) -> TeamConfig | None:
    """Return the settings of the team; None for those of the run."""
    if args.settings is not None:
        return args.settings.team
    return None if args.run is not None else TeamConfig(model=args.model, tuning="none")


def speaking_team(
    run: Path | None, checkpoint: Use | Literal[""], settings: TeamConfig | None, game: GameConfig
) -> Team:
    """Return the team of a run, or one of its settings, for speaking only."""
    if run is not None:
        return load_team(run, checkpoint, settings)[1]
    assert settings is not None
    team = make_team(settings, num_agents=game.num_agents, num_turns=game.num_turns, seed=0)
    share_cores(len(team.bases))
    return team


def weights_of(args: Eval | OneDebate) -> dict[str, Any]:
    """Return whose weights speak, and how they are loaded: JSON values that change with them."""
    team = args.settings.team if args.settings is not None else TeamConfig(model=args.model)
    loaded = {name: getattr(team, name) for name in ("model", "dtype", "quantization", "prompts")}
    switches = {name: getattr(team, name) for name in ("template", "thoughts", "start_from")}
    if args.run is None:
        return loaded | switches
    told = fingerprint_of(args.run, args.checkpoint)
    return switches | {"run": str(args.run.resolve()), "checkpoint": told}


def fingerprint_of(run: Path, checkpoint: Use | Literal[""]) -> str:
    """Return a hash of the weights of a run that speak; "" where it has no checkpoint."""
    found = chosen_checkpoint(run, checkpoint or read_config(run).eval.use)
    return "" if found is None else hashlib.sha256((found / MANIFEST).read_bytes()).hexdigest()


def memory_warning_of(run: Path | None, game: ChosenGame, asked_now: Sequence[Question]) -> str:
    """Return a warning if questions are among those that the team was, or would be, trained on.

    Args:
        run: whose team it is; None for models that were not trained here.
        game: the game that is played.
        asked_now: the questions.
    """
    played = game.settings
    trained = played if run is None else read_config(run).game
    same = (trained.task, trained.data) == (played.task, played.data)
    task = game.loaded.task if same else load_task(trained.task, trained.data or None)
    training = task.splits.get(training_split(trained), ())
    candidates = game.loaded.questions(game.split)
    seen = questions_record.seen_in_training(asked_now, candidates, training)
    return questions_record.memory_warning(seen, len(asked_now), game.split)


def shout(console: Console, warning: str) -> None:
    """Print a warning in bold red; nothing if it is empty."""
    terminal.shout(console, [warning] * bool(warning))
