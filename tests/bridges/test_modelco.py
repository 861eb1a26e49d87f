"""The product of experts writes what modelco's logit fusion writes, where that is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ABSENT = "needs modelco, without its pins: scripts/test_bridges.sh modelco"
pytest.importorskip("model_collaboration", reason=ABSENT)

QUESTIONS = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What both sides write about the same questions, by both models and by each alone."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from benchmarks.systems import fused_logits as compared

    team = compared.make_team(
        compared.TeamConfig(model=("tiny",), tuning="none"), num_agents=2, num_turns=1, seed=0
    )
    prompts = compared.prompts_of(compared.questions_of(compared.GAME, "test")[:QUESTIONS])
    models = compared.save_models(team, tmp_path_factory.mktemp("models"))

    def theirs(some: list[str], float32: bool = True) -> list[str]:
        told: Any = compared.theirs(Path(sys.executable), some, prompts, float32)
        return [text.strip() for text in told["texts"]]

    return {
        "ours": compared.ours(team, prompts)[0],
        "our model 0": compared.ours(team, prompts, compared.BOTH[:1])[0],
        "theirs": theirs(models),
        "theirs in bfloat16": theirs(models, float32=False),
        "their model 0": theirs(models[:1]),
        "their model 1": theirs(models[1:]),
    }


def test_both_write_the_same_words_as_many_of_them(written: dict[str, list[str]]) -> None:
    assert written["theirs"] == written["ours"]
    same = zip(written["theirs in bfloat16"], written["ours"], strict=True)
    assert sum(one == other for one, other in same) >= QUESTIONS - 1  # 8 bits of a logit


def test_each_model_alone_writes_others(written: dict[str, list[str]]) -> None:
    assert written["their model 0"] == written["our model 0"]
    for alone in ("their model 0", "their model 1"):
        same = zip(written[alone], written["ours"], strict=True)
        assert sum(one == other for one, other in same) < QUESTIONS
