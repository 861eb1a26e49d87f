"""Verifiers learn to tell right from wrong, and are measured."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from verifier_cases import QUESTION, TEXTS

from maporl_agents import tiny
from maporl_agents.verifier.config import FitConfig, VerifierConfig
from maporl_agents.verifier.data import Example
from maporl_agents.verifier.evaluation import (
    NUDGES,
    draw_reliability,
    evaluate_verifier,
    quality_table,
)
from maporl_agents.verifier.model import LearnedVerifier
from maporl_agents.verifier.training import fit
from maporl_env.tasks import shopping
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey


def shopping_examples(number: int, seed: int) -> list[Example]:
    """Right and wrong bills about six items whose prices agent 0 knows."""
    rng = random.Random(seed)
    items = shopping.known_items(0)[:6]
    examples = []
    for _ in range(number):
        first, second = rng.sample(items, 2)
        asked = Question("", f"Mia buys 1 {first} and 1 {second} . how much ?", "0")
        prices = (shopping.PRICES[first], shopping.PRICES[second])
        wrong = (rng.choice([p for p in range(1, 13) if p != prices[0]]), prices[1])
        for given in (prices, wrong):
            examples.append(Example(asked, shopping.solution((1, 1), given), given == prices))
    return examples


@pytest.mark.slow
def test_it_learns_to_tell_right_from_wrong() -> None:
    config = VerifierConfig(str(tiny.checkpoint(0)), tuning="full", device="cpu")
    verifier = LearnedVerifier(config, shopping.TEMPLATE)
    fit(verifier, shopping_examples(400, 0), FitConfig(steps=80, rows_per_step=32))
    report = evaluate_verifier(verifier, shopping_examples(100, 1))
    assert report.balanced.within_question_auc is not None
    assert report.balanced.within_question_auc > 0.9


# --- Measuring -------------------------------------------------------------------


def test_the_answer_key_is_a_perfect_verifier() -> None:
    examples = [
        Example(Question(name, name, "4"), text, text == "\\boxed{4}")
        for name in "abc"
        for text in ("\\boxed{4}", "\\boxed{5}", "no")
    ]
    report = evaluate_verifier(AnswerKey(), examples)
    assert (report.sampled.answers, report.balanced.answers) == (9, 6)
    assert report.sampled.share_right == pytest.approx(1 / 3)
    for result in (report.sampled, report.balanced):
        assert (result.auc, result.within_question_auc, result.calibration_error) == (1, 1, 0)
    assert report.nudges == dict.fromkeys(NUDGES, 0.0)
    json.dumps(report.to_dict(), allow_nan=False)


def test_nudges_show_what_a_verifier_can_be_fooled_with() -> None:
    def gullible(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        return [0.75 if "certain" in text else 0.25 for text in texts]

    asked = Question("q", "q", "4")
    examples = [Example(asked, "4", True), Example(asked, "5", False)]
    shifts = evaluate_verifier(gullible, examples).nudges
    assert shifts == {"flattery": 0.5, "twice": 0.0, "padding": 0.0}


def test_answers_without_a_score_are_counted_and_left_out() -> None:
    def picky(questions: Sequence[Question], texts: Sequence[str]) -> list[float | None]:
        return [None if text == "skip" else 0.5 for text in texts]

    asked = Question("q", "q", "4")
    examples = [Example(asked, t, t == "4") for t in ("4", "5", "skip", "skip")]
    report = evaluate_verifier(picky, examples)
    assert (report.sampled.answers, report.unscored) == (2, {"no score": 2})
    with pytest.raises(ValueError, match="no question has both"):
        evaluate_verifier(picky, examples[1:])
    with pytest.raises(ValueError, match="none of 2 answers has a score"):
        evaluate_verifier(picky, examples[2:])


def test_reports_are_drawn_and_printed(tmp_path: Path) -> None:
    examples = [Example(QUESTION, text, "4" in text) for text in TEXTS]
    reports = {"key": evaluate_verifier(AnswerKey(), examples)}
    draw_reliability(reports, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert quality_table(reports).row_count == 3
