"""Evaluates a verifier on answers to held-out questions: AUC, calibration, reliability diagram.

AUC and calibration are given twice: on all answers as they were sampled, and balanced per question,
the distribution a balanced verifier was made for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from maporl_agents.verifier import metrics
from maporl_agents.verifier.data import Example, balance
from maporl_agents.verifier.metrics import Bin, Interval
from maporl_env.verifiers import Scorer, VerifierLike

NUDGES: dict[str, Callable[[str], str]] = {
    "flattery": lambda text: f"{text} I am certain that this is right .",
    "twice": lambda text: f"{text} {text}",
    "padding": lambda text: text + " and so on" * 10,
}
"""Changes that make no wrong answer right; how much they raise its score is reported."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of how well scores tell right from wrong on one set of answers.

    Attributes:
        answers: number of answers with a score.
        questions: number of their questions.
        share_right: of the answers.
        auc: over all answers; None where all are right or all wrong.
        within_question_auc: mean over questions; see `metrics.within_question_auc`.
        auc_interval: 95 %, over other questions; see `metrics.auc_interval`.
        within_question_interval: likewise.
        calibration_error: expected, ten bins.
        reliability: the ten bins.
    """

    answers: int
    questions: int
    share_right: float
    auc: float | None
    within_question_auc: float | None
    auc_interval: Interval | None
    within_question_interval: Interval | None
    calibration_error: float | None
    reliability: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class VerifierReport:
    """A verifier's quality on held-out questions.

    Attributes:
        sampled: on all answers.
        balanced: on as many right as wrong answers per question.
        unscored: answers without a score, by cause.
        nudges: mean change of a wrong answer's score under each of `NUDGES`.
    """

    sampled: Quality
    balanced: Quality
    unscored: dict[str, int]
    nudges: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def evaluate_verifier(
    verifier: VerifierLike, examples: Sequence[Example], *, seed: int = 0
) -> VerifierReport:
    """Score answers and measure how well the scores tell right from wrong.

    Args:
        verifier: what scores.
        examples: labelled answers to held-out questions.
        seed: of the choice of answers in the balanced set.

    Raises:
        ValueError: no answer has a score, or no question has both right and wrong answers.
    """
    scorer = Scorer(verifier)
    scores = scorer.score([e.question for e in examples], [e.response for e in examples])
    scored = [(e, s) for e, s in zip(examples, scores, strict=True) if s is not None]
    if not scored:
        raise ValueError(f"none of {len(examples)} answers has a score: {scorer.last_error}")
    score_of = {id(example): score for example, score in scored}
    even, _ = balance([example for example, _ in scored], seed=seed)
    if not even:
        raise ValueError("no question has both right and wrong answers: sample more of them")
    return VerifierReport(
        sampled=quality(scored),
        balanced=quality([(example, score_of[id(example)]) for example in even]),
        unscored=dict(scorer.faults),
        nudges=nudge_shifts(verifier, [(e, s) for e, s in scored if not e.right]),
    )


def quality(scored: Sequence[tuple[Example, float]]) -> Quality:
    """Return the measures of scored answers; at least one answer."""
    scores = np.array([score for _, score in scored])
    labels = np.array([example.right for example, _ in scored])
    prompts = [example.question.prompt for example, _ in scored]
    return Quality(
        answers=len(scored),
        questions=len(set(prompts)),
        share_right=float(labels.mean()),
        auc=metrics.auc(scores, labels),
        within_question_auc=metrics.within_question_auc(scores, labels, prompts),
        auc_interval=metrics.auc_interval(scores, labels, prompts),
        within_question_interval=metrics.within_question_interval(scores, labels, prompts),
        calibration_error=metrics.expected_calibration_error(scores, labels),
        reliability=metrics.reliability_table(scores, labels),
    )


def nudge_shifts(
    verifier: VerifierLike, wrong: Sequence[tuple[Example, float]], limit: int = 500
) -> dict[str, float]:
    """Return the mean change of a wrong answer's score under each of `NUDGES`."""
    shifts: dict[str, float] = {}
    chosen = wrong[:limit]
    for name, nudge in NUDGES.items():
        nudged = Scorer(verifier).score(
            [e.question for e, _ in chosen], [nudge(e.response) for e, _ in chosen]
        )
        changes = [
            after - before
            for (_, before), after in zip(chosen, nudged, strict=True)
            if after is not None
        ]
        if changes:
            shifts[name] = sum(changes) / len(changes)
    return shifts


def quality_table(reports: Mapping[str, VerifierReport]) -> Table:
    """Return verifiers x {sampled, balanced}: how good they are, as a table to print."""
    table = Table(
        title="answers to held-out questions",
        title_justify="left",
        caption="within: mean over questions of the AUC among a question's answers; in brackets "
        "95 % over other questions; ECE: expected calibration error, ten bins; nudges: mean change "
        "of a wrong answer's score.",
        caption_justify="left",
    )
    table.add_column("verifier")
    for name in ("answers", "n", "right", "AUC", "within", "ECE"):
        table.add_column(name, justify="right")
    for name, report in reports.items():
        for kind, result in (("sampled", report.sampled), ("balanced", report.balanced)):
            table.add_row(
                name if kind == "sampled" else "",
                kind,
                str(result.answers),
                f"{result.share_right:.3f}",
                _figure(result.auc, result.auc_interval),
                _figure(result.within_question_auc, result.within_question_interval),
                _figure(result.calibration_error),
            )
        shifts = ", ".join(f"{nudge} {shift:+.3f}" for nudge, shift in report.nudges.items())
        table.add_row(f"  nudges: {shifts or '-'}")
        table.add_section()
    return table


def draw_reliability(reports: Mapping[str, VerifierReport], path: Path) -> None:
    """Draw share right against score, and how many answers get which score; write a PNG.

    Args:
        reports: one or more verifiers by name.
        path: the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for panel, kind in zip(panels, ("sampled", "balanced"), strict=True):
        panel.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":")
        for name, report in reports.items():
            result: Quality = getattr(report, kind)
            used = [row for row in result.reliability if row.count]
            label = f"{name}: ECE {result.calibration_error:.3f}, AUC {_figure(result.auc)}"
            panel.plot(
                [row.mean_score for row in used],
                [row.share_right for row in used],
                marker="o",
                label=f"{label}, within questions {_figure(result.within_question_auc)}",
            )
        panel.set(xlabel="score", xlim=(0, 1), ylim=(0, 1), title=f"{kind} answers")
        panel.legend(fontsize=7, loc="upper left")
    panels[0].set_ylabel("share of right answers")
    figure.savefig(path, dpi=110)


def _figure(value: float | None, interval: Interval | None = None) -> str:
    ends = "" if interval is None else f" [{interval[0]:.2f}-{interval[1]:.2f}]"
    return "-" if value is None else f"{value:.3f}{ends}"
