"""How the teams of the bench are trained: by each scheme, until about as many tokens are generated.

The settings are those of the recipes of the built-in models; nothing was tuned for the bench.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

from maporl_agents.config import (
    GRPOConfig,
    IACConfig,
    JointGameConfig,
    MAGRPOConfig,
    MAGRPOSettings,
    MALTConfig,
    MLPOConfig,
    PPOConfig,
    RunConfig,
    Sampling,
    TeamConfig,
    TrainConfig,
)
from maporl_agents.config.malt import TINY_ROLES
from maporl_agents.mixtures.merged_adapters import merge
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.records.checkpoint_folder import latest
from maporl_agents.records.run_log import read_metrics
from maporl_agents.seeding import seed_of
from maporl_agents.studies.plan import training_answers
from maporl_agents.systems.playing import USUAL_TOKENS, Cast, Play, played
from maporl_agents.systems.tasks import BenchTask
from maporl_agents.systems.votes import Pass
from maporl_agents.training import experiment
from maporl_agents.training.resume import resume
from maporl_env.types import Question

SchemeName = Literal["alone", "maporl", "grpo", "review", "malt", "mlpo", "magrpo", "iac"]

MEAN_TOKENS = {"shopping": 16.0, "coins": 6.5, "sharing": 4.0, "expressions": 8.5, "routes": 7.0}
"""Tokens of a message in a training, mean over turns: measured, decides the number of steps."""
UNSHOWN: dict[str, Any] = {"reward_feedback": False, "feedback_verifier": ""}
"""Of games of one turn, in which no score of an earlier turn can be read."""
CHECKPOINTS = 4
"""Of a training, so that little is lost where it is killed."""


@dataclass(frozen=True)
class Trained:
    """A trained team, the settings it was trained by, and the tokens that it took."""

    team: Team
    config: RunConfig
    tokens: int


def mean_tokens(task: BenchTask) -> float:
    """Return the tokens of a message in a training; half of the limit where it was not measured."""
    return MEAN_TOKENS.get(task.name, (task.max_new_tokens or USUAL_TOKENS) / 2)


def settings_of(scheme: SchemeName, task: BenchTask, tokens: int) -> RunConfig:
    """Return the settings by which a scheme trains on a task, until it has generated `tokens`.

    - "alone": each member by PPO on its own first answers.
    - "maporl", "review": PPO in a debate, or in a review of two versions.
    - "grpo": the same debate, rewards compared in groups.
    - "malt": pipeline of three roles, without system texts where built-in models cannot read them.
    - "mlpo": a leader among one frozen peer, one turn.
    - "magrpo", "iac": parts written at once, both read, written again.

    Raises:
        ValueError: an unknown scheme.
    """
    config = _plain(scheme, task)
    built_in = task.models[0].startswith("tiny")
    team = replace(
        config.team,
        model=task.models,
        sharing="agent" if task.different else "one",
        tuning="full" if built_in else "lora",
    )
    if scheme == "malt":
        team = replace(team, sharing="agent")
    if scheme == "mlpo":
        team = replace(team, sharing="agent", train_agents=(1,))
    if scheme in ("maporl", "grpo"):
        team = replace(team, train_turns=task.train_turns)
    limits = Sampling(max_new_tokens=task.max_new_tokens or USUAL_TOKENS)
    few: dict[str, Any] = {
        "questions": 2,
        "questions_before": 2,
        "greedy": False,
        "use": "last",
        "passes": 1,
    }
    config = replace(config, team=team, sampling=limits, eval=replace(config.eval, **few))
    steps = steps_for(config, tokens, task)
    return replace(config, steps=steps, checkpoint_every=max(1, steps // CHECKPOINTS))


def _plain(scheme: SchemeName, task: BenchTask) -> RunConfig:
    """Return a scheme's settings on a task, without its team and number of steps."""
    game = task.training_game(num_agents=2, num_turns=3)
    one_turn = replace(game, num_turns=1, **UNSHOWN)
    ppo = PPOConfig(learning_rate=task.learning_rate)
    match scheme:
        case "alone":
            return TrainConfig(game=one_turn, ppo=ppo)
        case "maporl":
            return TrainConfig(game=game, ppo=ppo)
        case "review":
            return TrainConfig(game=replace(one_turn, protocol="review"), ppo=ppo)
        case "grpo":
            plain = GRPOConfig(game=game)
            return replace(plain, grpo=replace(plain.grpo, learning_rate=task.learning_rate))
        case "malt":
            return MALTConfig(game=replace(one_turn, **_pipeline(task)))
        case "mlpo":
            plain_mlpo = MLPOConfig()
            leader = replace(plain_mlpo.game, **_of_task(task) | UNSHOWN, num_turns=1)
            return replace(plain_mlpo, game=leader)
        case "magrpo":
            return MAGRPOConfig(
                questions_per_step=2,
                game=_joint(task),
                magrpo=MAGRPOSettings(group_size=4, learning_rate=5e-4),
            )
        case "iac":
            return IACConfig(questions_per_step=32, game=_joint(task))
    raise ValueError(f"unknown scheme {scheme!r}: choose from {', '.join(get_args(SchemeName))}")


def _of_task(task: BenchTask) -> dict[str, Any]:
    """Return the options of a game that a task decides."""
    game = task.training_game()
    names = ("task", "template", "reward_feedback", "feedback_verifier")
    return {name: getattr(game, name) for name in names}


def _pipeline(task: BenchTask) -> Mapping[str, Any]:
    roles: dict[str, Any] = {}
    if task.models == ("tiny",):
        roles["personas"] = TINY_ROLES
    elif task.models[0].startswith("tiny"):
        roles["personas"] = ("", "", "")
    return {"protocol": "pipeline", "num_agents": 3, **roles}


def _joint(task: BenchTask) -> JointGameConfig:
    return JointGameConfig(num_turns=2, show_parts=True, **_of_task(task))


def steps_for(config: RunConfig, tokens: int, task: BenchTask) -> int:
    """Return the number of steps that generate about `tokens`; at least one round."""
    once = replace(config, steps=config.steps_per_round)
    of_round = answers_of(once) * mean_tokens(task)
    return config.steps_per_round * max(1, round(tokens / of_round))


def answers_of(config: RunConfig) -> int:
    """Return the number of messages that a run generates for training."""
    answers = training_answers(config)
    if isinstance(config, MLPOConfig):
        peers, group = config.game.num_agents - 1, config.grpo.group_size
        per_question = peers * (config.mlpo.pool_size + 1) + group
        return config.steps * config.questions_per_step * per_question
    if isinstance(config, GRPOConfig):
        return answers * config.grpo.group_size
    return answers


def team(scheme: SchemeName, task: BenchTask, tokens: int, seed: int, folder: Path) -> Trained:
    """Return a team trained by a scheme; a training that was cut goes on, a finished one is read.

    Args:
        scheme: see `settings_of`.
        task: that it is trained on.
        tokens: that the training generates, about.
        seed: of the run.
        folder: of the run.

    Raises:
        ValueError: the scheme does not fit the task.
    """
    return _carried_out(replace(settings_of(scheme, task, tokens), seed=seed), folder)


def _carried_out(config: RunConfig, folder: Path) -> Trained:
    quiet = Console(quiet=True)
    if not (folder / "results.json").is_file():
        if (folder / "config.json").is_file() and latest(folder / "checkpoints") is not None:
            resume(folder, quiet)
        else:
            experiment.run(config, folder, quiet, overwrite=True)
    config, made = experiment.load_team(folder, "last")
    used = sum(row.get("tokens", 0) for row in read_metrics(folder))
    return Trained(made, config, round(used))


def as_trained(config: RunConfig) -> Play:
    """Return the way to play the game of a run; the verifier is that of test time."""

    def play(cast: Cast, questions: list[Question], temperature: float, seed: int) -> Pass:
        known = cast.task.game()
        game = replace(config.game, verifier=known.verifier, feedback_verifier="")
        return played(game, cast.speaker(temperature, seed), questions)

    return play  # type: ignore[return-value]


def lone_member(task: BenchTask, tokens: int, seed: int, member: int) -> RunConfig:
    """Return the settings by which one adapter is trained alone on about `tokens`."""
    config = settings_of("alone", task, tokens)
    return replace(
        config,
        team=TeamConfig(model=task.models, tuning="lora"),
        game=replace(config.game, num_agents=1),
        seed=seed_of(seed, "adapter", member) % 2**31,
        steps=2 * config.steps,
    )


def merged_team(task: BenchTask, tokens: int, seed: int, folder: Path) -> Trained:
    """Return the merge of two adapters, each trained alone on half of the tokens; see `merge`."""
    parts = [
        _carried_out(lone_member(task, tokens // 2, seed, member), folder / f"part-{member}")
        for member in range(2)
    ]
    saved = [latest(folder / f"part-{member}" / "checkpoints") for member in range(2)]
    [*adapters] = [next((one / "policies").iterdir()) for one in saved if one is not None]
    place = folder / "merged"
    if not (place / "merged.json").is_file():
        merge(adapters, place)
    start = replace(parts[0].config.team, start_from=(str(place),))
    whole = make_team(start, num_agents=1, num_turns=1, seed=0)
    return Trained(whole, parts[0].config, sum(part.tokens for part in parts))
