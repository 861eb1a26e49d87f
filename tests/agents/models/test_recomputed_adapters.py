"""Adapters under gradient checkpointing: the same gradients and scores, less that is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapter_cases import make_batch
from miniatures import load_team, stir
from peft import LoraConfig
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from maporl_agents.config import TeamConfig
from maporl_agents.models.gradient_checkpointing import enable_recompute
from maporl_agents.models.loading import load_model
from maporl_agents.models.lora import LoraBase
from maporl_agents.models.team import Team
from maporl_agents.types import TokenBatch
from maporl_agents.update.token_logprobs import score_tokens


def gradients(team: Team, batch: TokenBatch) -> dict[str, Tensor]:
    """Of a loss in which every policy and critic has a part, by parameter name."""
    scores = score_tokens(team, batch, temperature=0.9, with_values=True)
    weight = torch.linspace(-1, 1, scores.logprobs.numel()).view_as(scores.logprobs)
    (weight * (scores.logprobs + scores.values)).sum().backward()
    found = {
        f"{owner}/{name}": p
        for group in (team.trainable(), team.trainable_critics())
        for owner, named in group.items()
        for name, p in named.items()
    }
    return {name: p.grad for name, p in found.items() if p.grad is not None}


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"tuning": "full"}),
        pytest.param("gpt2", {"tuning": "full"}, marks=pytest.mark.thorough),
        pytest.param("llama", {"tuning": "lora"}, marks=pytest.mark.thorough),
        ("gpt2", {"tuning": "lora"}),
        ("llama", {"tuning": "lora", "critic": "adapter"}),
    ],
)
class TestGradientCheckpointing:
    def teams(self, checkpoint, family: str, settings: dict[str, object]) -> list[Team]:
        teams = [
            load_team(checkpoint(family), num_turns=2, gradient_checkpointing=on, **settings)
            for on in (False, True)
        ]
        for team in teams:
            stir(team)
        return teams

    @pytest.mark.thorough
    def test_gradients_are_the_same(self, checkpoint, family: str, settings) -> None:
        """Failure B7: on frozen inputs none is lost. Rows of both adapters run in one batch."""
        plain, saving = self.teams(checkpoint, family, settings)
        expected, found = (gradients(team, make_batch(team)) for team in (plain, saving))
        assert expected.keys() == found.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5, msg=name)
        assert all(gradient.any() for gradient in found.values())

    def test_it_is_active_although_models_are_in_eval_mode(
        self, checkpoint, family: str, settings
    ) -> None:
        """Failure B8: less is kept for the backward pass, and every layer runs twice."""
        kept, runs = [], []
        for team in self.teams(checkpoint, family, settings):
            sizes: list[int] = []

            def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
                sizes.append(tensor.numel())
                return tensor

            calls = count_attention_calls(team)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                scores = score_tokens(team, make_batch(team), temperature=1.0, with_values=True)
            kept.append(sum(sizes))
            (scores.logprobs.sum() + scores.values.sum()).backward()
            runs.append(len(calls))
            assert not any(base.model.training for base in team.bases)
        assert kept[1] < 0.7 * kept[0]
        assert runs[1] == 2 * runs[0] > 0

    def test_nothing_else_notices(self, checkpoint, family: str, settings) -> None:
        """Without a gradient nothing is recomputed; scores are bitwise the same."""
        plain, saving = self.teams(checkpoint, family, settings)
        calls = count_attention_calls(saving)
        with torch.no_grad():
            one, other = (
                score_tokens(team, make_batch(team), temperature=1.0, with_values=True)
                for team in (plain, saving)
            )
        assert torch.equal(one.logprobs, other.logprobs)
        assert torch.equal(one.values, other.values)
        for base in saving.bases:
            layers = [m for m in base.model.modules() if isinstance(m, GradientCheckpointingLayer)]
            assert layers
            assert not any(layer.training for layer in layers)
        assert calls


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_an_adapters_dropout_is_off(checkpoint, gradient_checkpointing: bool) -> None:
    """Failure A4: lora_dropout .5, and layers that are told to train so as to be recomputed."""
    model, chat = load_model(str(checkpoint("gpt2")), TeamConfig(device="cpu"))
    lora = LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
    base = LoraBase(model, chat, ["all"], lora, gradient_checkpointing=gradient_checkpointing)
    team = Team([base], sharing="one", num_agents=2, num_turns=2)
    stir(team)
    batch = make_batch(team)
    first, second = (score_tokens(team, batch, temperature=1.0).logprobs for _ in range(2))
    assert torch.equal(first, second)


def count_attention_calls(team: Team) -> list[str]:
    """Every run of a layer's attention from now on, by a module or by the lean forward pass."""
    calls: list[str] = []
    for base in team.bases:
        for name, module in base.model.named_modules():
            if name.endswith(("self_attn", ".attn")):
                module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for lean in [reader.lean for reader in base.readers if reader.lean]:
            run = lean._run

            def counted(*given: Any, run: Any = run) -> Tensor:
                calls.append("attention")
                return run(*given)

            lean._run = counted
    return calls


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear cannot recompute its layers"):
        enable_recompute(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
