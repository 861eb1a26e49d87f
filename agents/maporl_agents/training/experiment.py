"""One training run from start to end: measure, train, measure again, draw.

`run` is what ``maporl train`` does; `loop` goes step by step, and calls the run's scheme for each.
`resume` goes on with a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from maporl_agents import distributed
from maporl_agents.algorithms import scheme_for
from maporl_agents.config import RunConfig, TeamConfig, Use, learning_rate_flags, with_extra
from maporl_agents.config.effects import refuse_without_effect
from maporl_agents.measure.evaluate import EVAL_BATCH, Evaluation, evaluate
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.measure.vote_of_passes import vote_of_passes
from maporl_agents.models.fsdp import shard_bases
from maporl_agents.models.loading import Load, make_team
from maporl_agents.models.parallel_bases import share_cores
from maporl_agents.models.team import Team
from maporl_agents.play.model_defaults import with_model_defaults
from maporl_agents.play.partners import partners_of, require_untrained
from maporl_agents.records import checkpoint_folder, questions_record
from maporl_agents.records.loggers import require_loggers
from maporl_agents.records.run_log import RunLog
from maporl_agents.seeding import seed_of
from maporl_agents.training import before as before_training
from maporl_agents.training import loop
from maporl_agents.training.before import Before
from maporl_agents.training.checkpointing import load_checkpoint, load_weights, save_checkpoint
from maporl_agents.training.first_folder import add_loggers, log_of
from maporl_agents.training.loop import Interrupted, interruptible
from maporl_agents.training.make_game import (
    LoadedGame,
    make_game,
    with_whole_names,
)
from maporl_agents.training.progress import evaluation_progress, progress_bar
from maporl_agents.training.run_questions import (
    asked_before,
    fitting_parts,
    held_out,
    parts_of,
    require_references,
    save_given_questions,
)
from maporl_agents.training.same_start import require_same_start, require_same_weights
from maporl_agents.training.saved_run import read_config, spoken
from maporl_agents.training.shown import show_beginning, show_results, show_seconds, warn
from maporl_agents.training.validation import (
    BEST,
    Validation,
    chosen_checkpoint,
    validation_slice,
)
from maporl_agents.training.warmup import require_given, warm_up
from maporl_agents.update.optimiser import PolicyLearner, PPOLearner
from maporl_env.tasks import Task
from maporl_env.types import Question, Transcript

__all__ = [
    "EVAL_BATCH",
    "Interrupted",
    "Metrics",
    "PPOLearner",
    "asked_before",
    "build",
    "held_out",
    "load_checkpoint",
    "load_team",
    "measure",
    "read_config",
    "run",
    "save_checkpoint",
    "train",
]


def train(
    config: RunConfig,
    learner: PolicyLearner,
    questions: Sequence[Question],
    log: RunLog,
    game: LoadedGame | None = None,
    **hooks: Any,
) -> None:
    """Train as the settings' scheme does; `hooks` are those of `loop.train`.

    The game is made from the settings if it is not given.

    Raises:
        FloatingPointError: something became infinite or not a number; names the flags to try.
    """
    try:
        played, count = config.training_game()
        debates = (game or make_game(config.game)).debates(count, num_turns=played.num_turns)
        loop.train(config, learner, debates, questions, log, **hooks)
    except FloatingPointError as error:
        flags = " or ".join(learning_rate_flags(config))
        raise FloatingPointError(f"{error} ({flags})") from error


def measure(
    config: RunConfig,
    team: Team,
    questions: Sequence[Question],
    game: LoadedGame | None = None,
    on_part: Callable[[str, Sequence[Transcript]], None] = lambda decoding, transcripts: None,
) -> dict[str, Evaluation]:
    """Evaluate a team sampled, greedy if wished and, where passes vote, by their vote.

    The game is made from the settings if it is not given. `on_part` is told the debates of each
    part as they are over: "sampled" or "greedy", and the transcripts.
    """
    game = game or make_game(config.game)
    debates = game.debates(min(EVAL_BATCH * distributed.count(), len(questions)))
    results = {
        name: evaluate(
            *(team, debates, questions, config.sampling),
            seed=config.eval.seed,
            greedy=greedy,
            on_part=partial(on_part, name),
        )
        for name, greedy in (("sampled", False), ("greedy", True))[: 1 + config.eval.greedy]
    }
    if (passes := config.eval.passes) > 1:
        results["passes"] = vote_of_passes(
            team, debates, questions, config.sampling, passes=passes, seed=config.eval.seed
        )
    return results


def build(
    config: RunConfig,
    load: Load | None = None,
    *,
    kept: RunConfig | None = None,
    game: LoadedGame | None = None,
) -> tuple[Team, PolicyLearner]:
    """Return a fresh team and its learner.

    Args:
        config: the settings.
        load: where models come from, as for `make_team`.
        kept: settings of a run folder, which may hold some that do nothing.
        game: the game of the settings; made, and so checked, if it is not given.

    Raises:
        ValueError: the settings do not make a game, contradict each other, or hold one that would
            do nothing and is not `kept`.
    """
    game = game or make_game(config.game)
    scheme = scheme_for(config)
    scheme.check(config, game.debates(1))
    refuse_without_effect(config, kept)
    require_untrained(config.team, config.game.num_agents)
    team = make_team(
        with_extra(config.team, config.game.num_agents, scheme.extra_policies),
        num_agents=config.game.num_agents + scheme.extra_policies,
        num_turns=config.game.num_turns,
        seed=seed_of(config.seed, "team"),
        load=load,
        critics=scheme.critics,
    )
    team.partners = partners_of(config.team.partners, config.game.num_agents)
    require_same_weights(team)
    if config.team.shard_base:
        shard_bases(team)
    if team.bases[0].device.type == "cpu":
        share_cores(sum(any(base.trainable(p) for p in base.policies) for base in team.bases))
    return team, scheme.learner(config, team)


def serving_of(team: Team, config: RunConfig, folder: Path) -> AbstractContextManager[None]:
    """Return the block in which the servers of the settings, if there are any, write messages."""
    if config.sampling.engine == "local":
        return nullcontext()
    from maporl_agents.play.vllm_engine import serving  # with peft, slow to import

    return serving(team, config.sampling, folder)


def run(
    config: RunConfig,
    folder: Path,
    console: Console,
    *,
    overwrite: bool = False,
    log_to: Sequence[str] = (),
    task: Task | None = None,
) -> dict[str, Any]:
    """Carry out a whole run in a fresh folder; return its results (also in ``results.json``).

    `task` is that of the settings, if it was read; `log_to` are names of `loggers.LOGGERS`.
    """
    require_loggers(log_to)
    sampling, told = with_model_defaults(config.sampling, config.team.model)
    config = replace(config, game=with_whole_names(config.game), sampling=sampling)
    game = make_game(config.game, task)
    parts = parts_of(config, game)
    require_references(config, parts)
    known = questions_record.note(parts)  # reads them: before anything is made
    require_same_start(config, known)
    if told:
        console.print(told)
    team, learner = build(config, game=game)
    require_given(config, game, team)
    parts, noted = fitting_parts(config, game, team, parts, known)
    create = partial(RunLog.create, folder, config, overwrite=overwrite)
    with serving_of(team, config, folder), log_of(create, folder, config) as log:
        if distributed.is_first():
            checkpoint_folder.save_json(folder / questions_record.FILE, noted)
            save_given_questions(config, folder)
        add_loggers(log, config, log_to)
        distributed.begin(str(folder))
        return finish(config, game, learner, parts, noted, log, console, start=0)


def load_team(
    folder: Path, use: Use | Literal[""] = "", placed: TeamConfig | None = None
) -> tuple[RunConfig, Team]:
    """Return the settings and the trained team of a run: of its best checkpoint, or the last.

    `use` says which, "" for what the settings say; `placed` are other settings of the team.
    """
    config = read_config(folder)
    speaking = replace(spoken(config), team=placed or config.team)
    team, learner = build(speaking, kept=speaking)
    best = chosen_checkpoint(folder, use or config.eval.use)
    if best is not None and best.parent.name == BEST:
        load_weights(best, team)
    else:
        load_checkpoint(folder, learner)
    return config, team


def finish(
    config: RunConfig,
    game: LoadedGame,
    learner: PolicyLearner,
    parts: questions_record.Parts,
    noted: Mapping[str, Any],
    log: RunLog,
    console: Console,
    *,
    start: int,
) -> dict[str, Any]:
    """Measure, train, measure, show. The part that a fresh and a resumed run share."""
    questions, held = parts["training"], parts["held-out"]
    few = asked_before(config, held)
    which = show_beginning(config, questions, noted, console)
    before = _untrained(config, game, learner, few, log, console, which, start)
    warn(console, before.transcripts)
    slice_, why = validation_slice(config, game, learner.team, held)
    if why:
        console.print(why, soft_wrap=True)
    if told := warm_up(config, learner, game, questions, log):
        console.print(told, soft_wrap=True)
    with progress_bar(config, console, start) as (on_step, on_score):
        validation = Validation(config, game, learner.team, log, slice_, on_score)
        validation.begin(start)
        if not validation.exhausted:
            train(
                config,
                learner,
                questions,
                log,
                game,
                start=start,
                on_step=on_step,
                on_alarm=lambda step, alarm: console.print(f"step {step}, warning: {alarm}"),
                on_checkpoint=validation.goes_on,
            )
    if distributed.is_first():
        show_seconds(log, console)
    if told := validation.take_best():
        console.print(told, soft_wrap=True)
    after = _measured(config, game, learner.team, held, log, console, "after", which, config.steps)
    stages = {
        "before": before.results,
        "after": {decoding: result.to_dict() for decoding, result in after.items()},
    }
    if distributed.is_first():
        debates = before.transcripts, after["sampled"].transcripts
        warnings = noted.get("warnings", ())
        show_results(config, stages, *debates, which, warnings, log, console)
    return stages


def _untrained(
    config: RunConfig,
    game: LoadedGame,
    learner: PolicyLearner,
    questions: Sequence[Question],
    log: RunLog,
    console: Console,
    which: str,
    start: int,
) -> Before:
    """Return the results of the untrained team: measured once, then read from the run folder."""
    if (known := before_training.read(log.folder, config, questions)) is not None:
        return known
    team = learner.team  # or one that is gone before training takes its memory
    if start or distributed.first(lambda: checkpoint_folder.latest(log.folder / "checkpoints")):
        team, _ = build(config, kept=config, game=game)
    measured = _measured(config, game, team, questions, log, console, "before", which, start)
    before = Before.of(measured)
    before_training.save(log, config, questions, before)
    return before


def _measured(
    config: RunConfig,
    game: LoadedGame,
    team: Team,
    questions: Sequence[Question],
    log: RunLog,
    console: Console,
    stage: str,
    which: str,
    step: int,
) -> dict[str, Evaluation]:
    """Measure the team of a stage; the sampled debates are written as they are over."""
    kind = "untrained" if stage == "before" else "trained"
    console.print(f"measuring the {kind} team on {len(questions):,} {which} ...")
    written = False

    def on_part(decoding: str, transcripts: Sequence[Transcript]) -> None:
        nonlocal written
        shown(len(transcripts))
        if decoding == "sampled":
            log.transcripts(stage, transcripts, replace=not written)
            written = True

    rounds = len(questions) * (1 + config.eval.greedy)
    with evaluation_progress(rounds, console) as shown, interruptible(step):
        return measure(config, team, questions, game, on_part)
