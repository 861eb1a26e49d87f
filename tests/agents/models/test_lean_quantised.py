"""Quantised bases are read by the lean forward pass, which computes what their modules compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from miniatures import stir, tables_and_gradients

from maporl_agents.config import Sampling, TeamConfig
from maporl_agents.models.bases import Base
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.types import Rollout
from maporl_agents.update.batching import collate
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig
from maporl_env.types import Question

pytest.importorskip("bitsandbytes", reason="the extra 'quant' is not installed")

QUESTIONS = [
    Question("q/0", "how much is two and three ?", "5"),
    Question("q/1", "how many apples are left when one of eight has been eaten ?", "7"),
]


def quantised(folder: Path, kind: str) -> Team:
    config = TeamConfig(
        model=(str(folder),),
        quantization=kind,  # type: ignore[arg-type]
        tuning="lora",
        device="cpu",
    )
    team = make_team(config, num_agents=2, num_turns=2, seed=0)
    stir(team)
    return team


def by_modules(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transformers and peft run the trunk from now on."""
    for base in team.bases:
        for reader in base.readers:
            assert reader.lean is not None
            monkeypatch.setattr(reader, "lean", None)


def played(team: Team) -> list[Rollout]:
    debate = DebateConfig(task=QUESTIONS, num_agents=2, num_turns=2)
    debates = BatchedDebate(debate, len(QUESTIONS))
    return play(team, debates, QUESTIONS, Sampling(max_new_tokens=6), seed=3)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_messages_tables_and_gradients_are_those_of_the_modules(
    native: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Packed texts, padded ones, and the modules of transformers, peft and bitsandbytes."""
    team = quantised(native("llama", 64), kind)
    assert all(base.reads_packed for base in team.bases)
    rollouts = played(team)
    batch = collate(team, rollouts)[0]
    found = {"packed": tables_and_gradients(team, batch)}
    monkeypatch.setattr(Base, "reads_packed", False)
    found["padded"] = tables_and_gradients(team, batch)
    by_modules(team, monkeypatch)
    tables, grads = tables_and_gradients(team, batch)
    for way, (own_tables, own_grads) in found.items():
        for one, other in zip(own_tables, tables, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5, msg=way)
        assert own_grads.keys() == grads.keys()
        length = torch.stack([grad.norm() for grad in grads.values()]).norm()
        for name, grad in grads.items():  # single precision: bitsandbytes has no other
            assert (own_grads[name] - grad).norm() < 1e-5 * length, (way, name)
    again = played(team)
    for one, other in zip(rollouts, again, strict=True):
        assert [said.ids for said in one.completions] == [said.ids for said in other.completions]
        for said, same in zip(one.completions, other.completions, strict=True):
            assert said.logprobs == pytest.approx(same.logprobs, rel=1e-5, abs=3e-5)
