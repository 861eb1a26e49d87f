"""The preference pairs of a watched debate in TRL: `datasets` loads them, its DPO learns them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed: pip install 'maporl[trl]'")
pytest.importorskip("datasets", reason="comes with maporl[trl]")

import datasets
import trl
from transformers import AutoModelForCausalLM, AutoTokenizer
from watch_cases import approve_all, decide, open_slots, scripts, session_of


@pytest.mark.thorough
def test_dpo_of_trl_learns_the_file(tmp_path: Path, checkpoint: Any) -> None:
    """Loss log 2 at the first step, as the model is its own reference; all pairs are read."""
    with session_of(tmp_path / "w", scripts()) as session:
        first, second = open_slots(session, 2)
        decide(session, first, "edit", text="better \\boxed{4}")
        decide(session, second, "send_back", note="no")
        approve_all(session)
    file = str(tmp_path / "w" / "preferences.jsonl")
    pairs = datasets.load_dataset("json", data_files=file, cache_dir=str(tmp_path / "cache"))
    pairs = pairs["train"]
    assert len(pairs) == 4
    assert pairs[0]["chosen"] == [{"role": "assistant", "content": "better \\boxed{4}"}]
    assert trl.data_utils.is_conversational(pairs[0])
    folder = checkpoint("llama", templated=True)
    settings = trl.DPOConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=2,
        per_device_train_batch_size=2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    trainer = trl.DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        args=settings,
        train_dataset=pairs,
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert len(losses) == 2
