"""Merged adapters: their change is exactly the mean, or the sum, of the changes of a team's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from miniatures import load_team, stir
from peft import PeftModel
from transformers import AutoModelForCausalLM

from maporl_agents.mixtures.merged_adapters import merge, weights_of

BOTH = ("agent_0", "agent_1")


def change(base: str, adapter: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight, by plain peft."""
    model = AutoModelForCausalLM.from_pretrained(base)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    after = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return {name: p.detach() - before[name] for name, p in after.named_parameters()}


@pytest.mark.parametrize(
    ("how", "coefficient", "weight"),
    [
        ("uniform", 1.0, 0.5),
        pytest.param("task_arithmetic", 1.0, 1.0, marks=pytest.mark.thorough),
        ("task_arithmetic", -0.3, -0.3),
    ],
)
def test_changes_are_added_exactly(
    checkpoint, tmp_path: Path, how, coefficient: float, weight: float
) -> None:
    base = checkpoint("llama")
    team = load_team(base, tuning="lora", num_turns=1)
    stir(team)
    team.save(tmp_path)
    parts = [tmp_path / "policies" / name for name in BOTH]
    merged = merge(parts, tmp_path / "merged", how=how, coefficient=coefficient)
    one, two = (change(str(base), part) for part in parts)
    found = change(str(base), merged)
    assert any(found[name].abs().max() > 1e-3 for name in found)
    for name in found:
        torch.testing.assert_close(
            found[name], weight * (one[name] + two[name]), atol=1e-5, rtol=1e-4
        )
    again = load_team(base, tuning="lora", num_turns=1, start_from=(str(merged),))
    ids = torch.tensor([5, 6, 7])
    with torch.no_grad():
        logits = again.bases[0].plain_logits(ids, "agent_0")
        model = AutoModelForCausalLM.from_pretrained(str(base))
        plain = PeftModel.from_pretrained(model, str(merged))(ids[None]).logits[0]
    torch.testing.assert_close(logits, plain[:, : logits.shape[1]], atol=1e-4, rtol=1e-4)


def test_what_cannot_be_merged_is_one_sentence(checkpoint, tmp_path: Path) -> None:
    teams = [
        load_team(checkpoint(family), tuning="lora", num_turns=1) for family in ("llama", "gpt2")
    ]
    for place, team in enumerate(teams):
        team.save(tmp_path / str(place))
    own, other = (tmp_path / str(place) / "policies" / "agent_0" for place in (0, 1))
    with pytest.raises(ValueError, match="at least two adapters, not 1"):
        merge([own], tmp_path / "m")
    with pytest.raises(ValueError, match="different bases"):
        merge([own, other], tmp_path / "m")
    with pytest.raises(FileExistsError, match="name a new folder"):
        merge([own, own], tmp_path)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("how", "coefficient", "complaint"),
    [
        ("mean", 1.0, "choose one of uniform, task_arithmetic"),
        ("uniform", 0.5, "a mean has no coefficient"),
        ("task_arithmetic", float("nan"), "finite"),
    ],
)
def test_wrong_ways_are_refused(how, coefficient: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        weights_of(how, 2, coefficient)
