"""One training run from start to end: measure, train, measure again, draw.

`run` is what ``maporl train`` does. The update itself is in `algorithms`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from maporl_agents import checkpoint, report
from maporl_agents.alarms import Alarm, alarms
from maporl_agents.algorithms.maporl import questions_of_step, train_step
from maporl_agents.config import GameConfig, TrainConfig, from_dict, turns_of
from maporl_agents.diagnostics import Metrics
from maporl_agents.evaluate import Evaluation, evaluate
from maporl_agents.games import debates_of, questions_of
from maporl_agents.learner import Learner
from maporl_agents.loading import make_team
from maporl_agents.loggers import make_loggers, require_loggers
from maporl_agents.parallel import share_cores
from maporl_agents.runlog import RunLog, read_metrics
from maporl_agents.seeding import seed_of
from maporl_agents.team import Team
from maporl_env.types import Question

EVAL_BATCH = 250


class Interrupted(Exception):
    """Ctrl-C or SIGTERM arrived; the run is saved and can be resumed.

    Attributes:
        step: steps that are done.
        signal_number: which signal.
    """

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step = step
        self.signal_number = signal_number


def training_game(config: TrainConfig) -> tuple[GameConfig, int]:
    """Return the game that is trained on and how many debates make a step.

    Training alone is one turn per debate, in which nobody reads anybody, and more debates: equally
    many answers per step.
    """
    if not config.single_agent:
        return config.game, config.questions_per_step
    return replace(config.game, num_turns=1), config.questions_per_step * config.game.num_turns


def train(
    config: TrainConfig,
    learner: Learner,
    questions: Sequence[Question],
    log: RunLog,
    *,
    start: int = 0,
    on_step: Callable[[int, Metrics], None] = lambda step, metrics: None,
    on_alarm: Callable[[int, Alarm], None] = lambda step, alarm: None,
) -> None:
    """Train from step `start` to the end, logging every step and saving every few.

    `on_alarm` is told an early warning when it comes up, not again while it lasts.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, once the step is finished and saved.
    """
    game, debates_per_step = training_game(config)
    debates = debates_of(game, debates_per_step)
    first: Mapping[str, Any] = read_metrics(log.folder)[0] if start else {}
    lasting: set[str] = set()
    with _signals() as caught:
        for step in range(start, config.steps):
            asked = questions_of_step(questions, step, debates_per_step, config.seed)
            rollouts, metrics = train_step(
                learner, debates, asked, config.sampling, seed=seed_of(config.seed, "step", step)
            )
            first = first or metrics
            raised = alarms(metrics, first)
            log.metrics(step + 1, metrics | {"alarms": len(raised)})
            log.alarms(asdict(alarm) for alarm in raised)
            log.transcripts("train", [rollout.transcript for rollout in rollouts[:2]])
            on_step(step + 1, metrics)
            for alarm in raised:
                if alarm.where not in lasting:
                    on_alarm(step + 1, alarm)
            lasting = {alarm.where for alarm in raised}
            stopped = bool(caught) and step + 1 < config.steps
            if stopped or (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                save_checkpoint(log.folder, step + 1, learner)
            if stopped:
                raise Interrupted(step + 1, caught[0])


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying; a second SIGINT dies as usual."""
    caught: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def save_checkpoint(folder: Path, step: int, learner: Learner) -> Path:
    """Write everything a resumed run needs (random streams are named by step: no state)."""

    def write(target: Path) -> None:
        learner.team.save(target)
        tensors, state = checkpoint.optimizer_state(learner.optimizer, learner.parameter_names())
        checkpoint.save_tensors(target / "optimizer.safetensors", tensors)
        schedule = learner.schedule.state_dict()
        checkpoint.save_json(
            target / "optimizer.json",
            {"optimizer": state, "schedule": schedule, "controls": learner.controls()},
        )

    return checkpoint.save(folder / "checkpoints", step, write)


def load_checkpoint(folder: Path, learner: Learner) -> int:
    """Read the newest checkpoint of a run into a learner; return its step.

    The learner keeps the settings it was made with (rates, momenta, schedule); weights, moments and
    the place in the schedule are the checkpoint's.
    """
    newest = checkpoint.latest(folder / "checkpoints")
    if newest is None:
        return 0
    learner.team.load(newest)
    state = checkpoint.load_json(newest / "optimizer.json")
    groups, schedule = learner.optimizer.param_groups, learner.schedule
    settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    checkpoint.load_optimizer_state(
        learner.optimizer,
        learner.parameter_names(),
        checkpoint.load_tensors(newest / "optimizer.safetensors"),
        state["optimizer"],
    )
    schedule.load_state_dict(state["schedule"] | {"base_lrs": schedule.base_lrs})
    for group, kept, peak, factor in zip(
        groups, settings, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group.update(kept, lr=peak * factor(schedule.last_epoch))
    if "controls" in state:
        learner.restore(state["controls"])
    return checkpoint.step_of(newest)


def measure(
    config: TrainConfig, team: Team, questions: Sequence[Question]
) -> dict[str, Evaluation]:
    """Evaluate a team sampled and greedy."""
    debates = debates_of(config.game, min(EVAL_BATCH, len(questions)))
    return {
        name: evaluate(
            team, debates, questions, config.sampling, seed=config.eval.seed, greedy=greedy
        )
        for name, greedy in (("sampled", False), ("greedy", True))
    }


def held_out(config: TrainConfig) -> list[Question]:
    """Return the questions of the evaluation: the same for every run with the same settings."""
    questions = questions_of(config.game, config.eval.split)
    return questions_of_step(questions, 0, min(config.eval.questions, len(questions)), 0)


def build(config: TrainConfig) -> tuple[Team, Learner]:
    """Return a fresh team and its learner; ValueError if the settings do not make a game."""
    debates_of(config.game, 1)
    if config.single_agent and 0 not in turns_of(config.team.train_turns, config.game.num_turns):
        raise ValueError(
            "single_agent trains the first turn, the only one that is played alone, but "
            f"train_turns={config.team.train_turns!r} leaves it out; choose 'all'"
        )
    team = make_team(
        config.team,
        num_agents=config.game.num_agents,
        num_turns=config.game.num_turns,
        seed=seed_of(config.seed, "team"),
    )
    if team.bases[0].device.type == "cpu":
        share_cores(sum(any(base.trainable(p) for p in base.policies) for base in team.bases))
    return team, Learner(team, config.ppo, config.steps)


def run(
    config: TrainConfig,
    folder: Path,
    console: Console,
    *,
    overwrite: bool = False,
    log_to: Sequence[str] = (),
) -> dict[str, Any]:
    """Carry out a whole run in a fresh folder; return its results (also in ``results.json``).

    Metrics go to the folder, to TensorBoard and to the names of `loggers.LOGGERS` in `log_to`.
    """
    require_loggers(log_to)
    questions = questions_of(config.game, "train")
    held = held_out(config)
    _, learner = build(config)
    with RunLog.create(folder, config, overwrite=overwrite) as log:
        log.loggers += make_loggers(log_to, config.name, log.config)
        return _finish(config, learner, questions, held, log, console, start=0)


def resume(
    folder: Path,
    console: Console,
    config: TrainConfig | None = None,
    *,
    force: bool = False,
    log_to: Sequence[str] = (),
) -> dict[str, Any]:
    """Continue a run from its newest checkpoint.

    Args:
        folder: of the run.
        console: where progress is shown.
        config: other settings than those of the run, e.g. more steps; None for its own.
        force: use them although they differ. Without it they are shown and refused.
        log_to: as for `run`.

    Raises:
        ValueError: the settings differ (`SettingsDiffer`), do not fit the checkpoint, or ask for
            fewer steps than are done. The run is then as it was.
    """
    require_loggers(log_to)
    config = config or read_config(folder)
    questions = questions_of(config.game, "train")
    held = held_out(config)
    _, learner = build(config)
    with RunLog.resume(folder, config, force=force) as log:
        start = load_checkpoint(folder, learner)
        if start > config.steps:
            raise ValueError(
                f"{folder} has done {start} steps, more than the {config.steps} asked for: give "
                "at least as many --steps, or start another run (--name)"
            )
        log.truncate_after(start)
        log.loggers += make_loggers(log_to, config.name, log.config)
        console.print(f"resuming {folder} after step {start} of {config.steps}")
        return _finish(config, learner, questions, held, log, console, start=start)


def read_config(folder: Path) -> TrainConfig:
    """Return the settings of a run; FileNotFoundError if the folder is no run."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no run: it has no config.json")
    return from_dict(TrainConfig, checkpoint.load_json(path))


def load_team(folder: Path) -> tuple[TrainConfig, Team]:
    """Return the settings and the trained team of a run."""
    config = read_config(folder)
    team, learner = build(config)
    load_checkpoint(folder, learner)
    return config, team


def _finish(
    config: TrainConfig,
    learner: Learner,
    questions: Sequence[Question],
    held: Sequence[Question],
    log: RunLog,
    console: Console,
    *,
    start: int,
) -> dict[str, Any]:
    """Measure, train, measure, show. The part that a fresh and a resumed run share."""
    fresh, _ = build(config) if start else (learner.team, None)
    console.print(f"measuring the untrained team on {len(held)} held-out questions ...")
    before = measure(config, fresh, held)
    with progress_bar(config, console, start) as on_step:
        train(
            config,
            learner,
            questions,
            log,
            start=start,
            on_step=on_step,
            on_alarm=lambda step, alarm: console.print(f"step {step}, warning: {alarm}"),
        )
    console.print("measuring the trained team ...")
    after = measure(config, learner.team, held)
    stages = {
        stage: {decoding: result.to_dict() for decoding, result in results.items()}
        for stage, results in (("before", before), ("after", after))
    }
    checkpoint.save_json(log.folder / "results.json", stages)
    for stage, results in (("before", before), ("after", after)):
        log.transcripts(stage, results["sampled"].transcripts)
    report.draw_curve(
        read_metrics(log.folder), stages["before"], stages["after"], log.folder / "curve.png"
    )
    title = f"{config.game.task}, {len(held)} held-out questions"
    console.print(report.result_table(stages, title))
    old, new = before["sampled"].transcripts, after["sampled"].transcripts
    index = report.telling_question(old, new)
    console.print(report.before_and_after(old[index], new[index]))
    console.print(f"\nrun folder: {log.folder}    picture: {log.folder / 'curve.png'}")
    return stages


@contextmanager
def progress_bar(
    config: TrainConfig, console: Console, start: int
) -> Iterator[Callable[[int, Metrics], None]]:
    """Show step, score by turn, KL and the time left; yields the function to call after a step."""
    with Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("train", total=config.steps, completed=start, now="")

        def on_step(step: int, metrics: Metrics) -> None:
            scores = [value for name, value in metrics.items() if name.startswith("score/")]
            now = f"score by turn {' '.join(f'{x:.2f}' for x in scores)}  KL {metrics['kl']:.3f}"
            progress.update(task, completed=step, now=now)
            if not console.is_terminal:
                console.print(f"step {step:3d} / {config.steps}  {now}")

        yield on_step
