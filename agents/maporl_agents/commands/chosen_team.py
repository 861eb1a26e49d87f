"""The team, the game and the questions that ``maporl eval`` and ``maporl play`` are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from maporl_agents import terminal
from maporl_agents.config import GameConfig, Sampling, TeamConfig, asking
from maporl_agents.models.loading import make_team
from maporl_agents.models.parallel_bases import share_cores
from maporl_agents.models.team import Team
from maporl_agents.play.model_defaults import with_model_defaults
from maporl_agents.records import questions_record
from maporl_agents.tiny import MODELS
from maporl_agents.training.experiment import load_team, read_config
from maporl_agents.training.make_game import LoadedGame, make_game, training_split
from maporl_env.tasks import BUILT_IN, load_task
from maporl_env.types import Question

if TYPE_CHECKING:
    from maporl_agents.commands.eval import Eval
    from maporl_agents.commands.play import Play


class ChosenGame(NamedTuple):
    """The game that a command plays, and the split of its questions.

    `told` is a sentence on the truncation that models bring along, "" for none.
    """

    settings: GameConfig
    sampling: Sampling
    loaded: LoadedGame
    split: str
    told: str = ""


def chosen_game(args: Eval | Play) -> ChosenGame:
    """Return the game of the run, changed by the flags, and the split that they name."""
    settings, sampling = game_and_sampling(args)
    loaded, told = make_game(settings), ""
    if args.run is None:
        sampling, told = with_model_defaults(sampling, args.model)
    return ChosenGame(settings, sampling, loaded, args.split or loaded.task.measured_split, told)


def game_and_sampling(args: Eval | Play) -> tuple[GameConfig, Sampling]:
    """Return the game and the sampling settings: those of the run, changed by the flags."""
    own = None if args.run is None else read_config(args.run)
    if own is None and args.checkpoint:
        raise ValueError("--checkpoint is one of a run: give its folder by --run, or leave it out")
    if own is not None and args.model != type(args)().model:
        raise ValueError("--run brings its own models: leave out --model, or the run")
    game = GameConfig() if own is None else own.game
    game = asking(game, args.task or game.task)
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
    short = game.task in BUILT_IN or not MODELS.keys().isdisjoint(args.model)
    limit = args.max_new_tokens or (32 if short else 300)
    if own is None:
        sampling = Sampling(max_new_tokens=limit)
    elif args.max_new_tokens:
        sampling = own.sampling.limited_to(limit)
    else:
        sampling = own.sampling
    if args.temperature is not None:
        sampling = replace(sampling, temperature=args.temperature, model_temperature=False)
    return game, sampling


def team_of(args: Eval | Play, game: GameConfig) -> Team:
    """Return the team of a run, or of the named models, for speaking only."""
    if args.run is not None:
        return load_team(args.run, args.checkpoint)[1]
    team = make_team(
        TeamConfig(model=args.model, tuning="none"),
        num_agents=game.num_agents,
        num_turns=game.num_turns,
        seed=0,
    )
    share_cores(len(team.bases))
    return team


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
