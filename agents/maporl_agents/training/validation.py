"""The best checkpoint of a run: measured on a validation slice, kept, and chosen again later.

At each checkpoint the team answers the same questions of the split "validation", sampled. The team
with the best vote of the last turn (of equal ones the later) is kept in the run's folder `best`,
and what is measured is in validation.jsonl. No question that a result is shown on takes part.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maporl_agents import distributed
from maporl_agents.config import RunConfig, Use
from maporl_agents.measure.evaluate import EVAL_BATCH, Evaluation, evaluate
from maporl_agents.models.team import Team
from maporl_agents.play.questions import questions_of_step
from maporl_agents.play.window_check import NoneFits, fitting
from maporl_agents.records import checkpoint_folder
from maporl_agents.records.log_lines import log_lines
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.training.checkpointing import load_weights
from maporl_agents.training.loop import interruptible
from maporl_agents.training.make_game import LoadedGame
from maporl_env.types import Question

BEST = "best"
"""In a run's folder: the checkpoint that did best on the validation slice, without optimiser."""
FILE = "validation.jsonl"
SPLIT = "validation"


def chosen_checkpoint(folder: Path, use: Use) -> Path | None:
    """Return the checkpoint of a run that is used: if wished and there is one, the best.

    Raises:
        CheckpointError: there are checkpoints, but none is whole.
    """
    best = checkpoint_folder.latest(folder / BEST) if use == "best" else None
    return checkpoint_folder.latest(folder / "checkpoints") if best is None else best


def curve_of(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of a run's steps, with the score on the validation slice where measured.

    It is "validation" in the rows of those steps.
    """
    scores = {row["step"]: row["score"] for row, _ in log_lines(folder / FILE)}
    return [
        row | ({"validation": scores[row["step"]]} if row["step"] in scores else {})
        for row in read_metrics(folder)
    ]


def validation_slice(
    config: RunConfig, game: LoadedGame, team: Team, held: Sequence[Question]
) -> tuple[list[Question], str]:
    """Return the questions that checkpoints are compared on, and why there are none.

    Args:
        config: of the run.
        game: its game.
        team: whose window they have to fit.
        held: the questions that results are shown on, which are left out.
    """
    count = min(config.eval.validation_questions, config.eval.questions)
    first = config.eval.every or config.checkpoint_every
    if config.eval.use == "last" or config.steps <= first or not count:
        return [], ""
    task, last = game.task, "the last checkpoint is used, not the best"
    if SPLIT not in task.splits:
        return [], (
            f"task {task.name!r} has no validation questions, so {last}: give some rows the split "
            "'validation'"
        )
    shown = {question.words for question in held}
    split = game.questions(SPLIT)
    drawn = questions_of_step(split, 0, min(len(split), count + len(held)), 0)
    questions = [question for question in drawn if question.words not in shown][:count]
    if config.game.long_questions != "keep" and questions:
        try:
            parts, _ = fitting(
                team, game.config, config.sampling, {SPLIT: questions}, choice="leave_out"
            )
            questions = list(parts[SPLIT])
        except NoneFits:
            questions = []
    if not questions:
        return [], (
            f"all validation questions of task {task.name!r} are measured on or too long, so {last}"
        )
    return questions, ""


@dataclass
class Validation:
    """Compares the checkpoints of one run. Made by `experiment`, called by `loop.train`.

    Attributes:
        config: of the run.
        game: its game.
        team: that is trained.
        log: its folder.
        questions: the validation slice; without any nothing is measured or kept.
        on_score: told the score of each step that is measured.
    """

    config: RunConfig
    game: LoadedGame
    team: Team
    log: RunLog
    questions: Sequence[Question]
    on_score: Callable[[int, float], None] = lambda step, score: None

    @property
    def folder(self) -> Path:
        """Where the best checkpoint is kept."""
        return self.log.folder / BEST

    def begin(self, start: int) -> None:
        """Take up the comparison of a run of which `start` steps are done, with its team of then.

        A best checkpoint of a later step belongs to steps that are made anew, and is dropped.
        """
        if (kept := self._kept()) is not None and (kept > start or not self.questions):
            distributed.first(lambda: shutil.rmtree(self.folder))
        scheduled = self.config.validates_after(start)
        if start and scheduled and self.questions and start not in self._scores():
            self.compare(start)
        elif start in self._scores() and self._kept() is None:
            self._keep(start)

    def goes_on(self, step: int) -> bool:
        """Measure the team where that is due after a step; return whether training goes on."""
        if self.config.validates_after(step):
            self.compare(step)
        return not self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether `eval.patience` measurements in a row were none better than the best."""
        scores = list(self._scores().values())
        if not (self.questions and scores and self.config.eval.patience):
            return False
        since = len(scores) - 1 - scores.index(max(scores))
        return since >= self.config.eval.patience

    def compare(self, step: int) -> None:
        """Measure the team after a step, and keep it if none before was better.

        Raises:
            Interrupted: a signal came; the checkpoint is measured when the run is resumed.
        """
        if not self.questions:
            return
        with interruptible(step):
            debates = self.game.debates(min(EVAL_BATCH, len(self.questions)))
            result = evaluate(
                self.team,
                debates,
                self.questions,
                self.config.sampling,
                seed=self.config.eval.seed,
            )
        score, kept = self._score(result), self._kept()
        # Kept before it is noted: a run that is killed between the two measures once more.
        if kept is None or score >= self._scores().get(kept, float("-inf")):
            self._keep(step)
        self.log.beside("validation", {"score": score, "questions": len(self.questions)})
        self.on_score(step, score)

    def take_best(self) -> str:
        """Give the team the weights of the best checkpoint; return what is used, in words."""
        if (kept := self._kept()) is None:
            return ""
        if kept != self.config.steps:
            load_weights(self.folder / f"step-{kept:06d}", self.team)
        scores = ", ".join(f"{score:.3f} (step {step})" for step, score in self._scores().items())
        return (
            f"{len(self.questions):,} validation questions: {scores}; the team of step {kept} is "
            "used, as --eval.use best says"
        )

    def _score(self, result: Evaluation) -> float:
        """Return the vote of the last turn; the verifier's score where there is no key."""
        last = result.turns[-1]
        by_key = self.game.task.make_verifier is None
        return last.vote if by_key or last.score is None else last.score

    def _keep(self, step: int) -> None:
        distributed.first(lambda: checkpoint_folder.save(self.folder, step, self.team.save, keep=1))

    def _kept(self) -> int | None:
        found = distributed.first(lambda: checkpoint_folder.latest(self.folder))
        return None if found is None else checkpoint_folder.step_of(found)

    def _scores(self) -> dict[int, float]:
        def read() -> list[dict[str, Any]]:
            return [row for row, _ in log_lines(self.log.folder / FILE)]

        return {row["step"]: row["score"] for row in distributed.first(read)}
