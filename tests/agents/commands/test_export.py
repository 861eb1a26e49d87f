"""Exported policies, loaded with transformers or peft alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from miniatures import stir
from peft import PeftModel
from small_runs import SMALL, maporl
from transformers import AutoModelForCausalLM, AutoTokenizer

from maporl_agents.config import TeamConfig
from maporl_agents.records.run_log import RunLog
from maporl_agents.training import experiment


def saved_run(folder: Path, **team: object) -> tuple[Path, experiment.PPOLearner]:
    """Save a run whose weights are those of a trained one: moved, everywhere."""
    config = replace(SMALL, team=replace(TeamConfig(device="cpu"), **team))  # type: ignore[arg-type]
    _, learner = experiment.build(config)
    stir(learner.team)
    with RunLog.create(folder, config):
        experiment.save_checkpoint(folder, 1, learner)
    return folder, learner


@torch.no_grad()
def own_logits(learner: experiment.PPOLearner, policy: str, ids: torch.Tensor) -> torch.Tensor:
    """What the team itself computes for one policy."""
    base = learner.team.base_of(policy)
    columns = torch.arange(ids.shape[1])[None]
    return base.logits(base.hidden(ids, torch.ones_like(ids), columns, [policy]))


IDS = torch.tensor([[5, 9, 2, 7, 7, 1]])


@pytest.mark.parametrize(("tuning", "merge"), [("full", False), ("full", True), ("lora", True)])
def test_exported_models_load_with_transformers_alone(
    tmp_path: Path, tuning: str, merge: bool
) -> None:
    run, learner = saved_run(tmp_path / "run", tuning=tuning)
    flags = ("--merge",) if merge else ()
    assert maporl("export", run, "--to", tmp_path / "out", *flags) == 0
    for policy in ("agent_0", "agent_1"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / policy)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / policy)
        expected = own_logits(learner, policy, IDS)
        with torch.no_grad():
            logits = model(IDS).logits[..., : expected.shape[-1]]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert len(tokenizer) == expected.shape[-1]


def test_exported_adapters_load_with_peft_alone(tmp_path: Path) -> None:
    run, learner = saved_run(tmp_path / "run", tuning="lora")
    assert maporl("export", run, "--to", tmp_path / "out") == 0
    for seat, policy in enumerate(("agent_0", "agent_1")):
        from maporl_agents import tiny

        base = AutoModelForCausalLM.from_pretrained(tiny.checkpoint(seat))
        with torch.no_grad():
            bare = base(IDS).logits
            model = PeftModel.from_pretrained(base, tmp_path / "out" / policy).eval()
            expected = own_logits(learner, policy, IDS)
            logits = model(IDS).logits[..., : expected.shape[-1]]
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        assert (bare[..., : expected.shape[-1]] - expected).abs().max() > 0.1, "the adapter acts"


def test_an_export_replaces_nothing_and_is_whole_or_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = saved_run(tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert maporl("export", run, "--to", tmp_path / "out") == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert maporl("export", tmp_path, "--to", tmp_path / "new") == 2
    assert "is no run" in capsys.readouterr().err
    with RunLog.create(tmp_path / "unsaved", SMALL):
        pass
    assert maporl("export", tmp_path / "unsaved", "--to", tmp_path / "new") == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
