"""SmolLM2 in 4 and 8 bits on the CPU, from training by way of evaluation to an export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from small_runs import maporl
from transformers import AutoModelForCausalLM

from maporl_agents.records.run_log import read_metrics
from maporl_env.types import Question

pytest.importorskip("bitsandbytes", reason="the extra 'quant' is not installed")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1800)]

FLAGS = (
    *("--recipe", "smollm2-notes", "--name", "run", "--steps", 2, "--questions-per-step", 2),
    *("--eval.questions", 2, "--eval.questions-before", 2, "--checkpoint-every", 2),
    *("--game.verifier", f"{__file__}:by_length"),  # of 8 answers not one may be right
)


def by_length(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
    """Score messages differently, whatever they say."""
    return [len(text) % 5 / 4 for text in texts]


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_rounded_model_is_trained_evaluated_and_exported(
    kind: str, smollm2: Path, tmp_path: Path
) -> None:
    assert maporl("train", *FLAGS, "--runs", tmp_path, "--team.quantization", kind) == 0
    run = tmp_path / "run"
    steps = read_metrics(run)
    assert len(steps) == 2
    assert all(step["updates"] > 0 for step in steps)

    out = tmp_path / "eval.json"
    assert maporl("eval", "--run", run, "--limit", 2, "--out", out) == 0
    assert json.loads(out.read_text())["finished"]

    assert maporl("export", run, "--to", tmp_path / "adapter") == 0
    (folder,) = (path for path in (tmp_path / "adapter").iterdir() if path.is_dir())
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = model(ids).logits
        after = PeftModel.from_pretrained(model, folder)(ids).logits
    assert after.isfinite().all()
    assert (after - before).abs().max() > 1e-4  # the adapter was trained, and says something
