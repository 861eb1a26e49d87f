"""Layers that are run again in the backward pass compute what they computed the first time."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from transformers import (
    BioGptConfig,
    BioGptForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    XGLMConfig,
    XGLMForCausalLM,
)

from maporl_agents.models.gradient_checkpointing import enable_recompute, recomputing

SMALL = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "dropout": 0.5}
OWN_NAMES = {"d_model": 16, "num_layers": 2, "attention_heads": 2, "ffn_dim": 32}
WITH_DROPOUT: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "opt": (OPTConfig, OPTForCausalLM, {"hidden_size": 16, "ffn_dim": 32}),
    "xglm": (XGLMConfig, XGLMForCausalLM, OWN_NAMES),
    "biogpt": (
        BioGptConfig,
        BioGptForCausalLM,
        {"hidden_size": 16, "intermediate_size": 32, "hidden_dropout_prob": 0.5},
    ),
    "llama": (
        LlamaConfig,
        LlamaForCausalLM,
        {"hidden_size": 16, "intermediate_size": 32, "attention_dropout": 0.5},
    ),
}


def make(family: str) -> PreTrainedModel:
    settings, model, own = WITH_DROPOUT[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model(settings(**SMALL | own)).eval()


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    ids = torch.arange(12)[None] % 50
    with recomputing(model):
        logits = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    logits.square().sum().backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"output": logits.detach()} | found


@pytest.mark.parametrize("family", WITH_DROPOUT)
def test_no_dropout_in_layers_that_are_run_again(family: str) -> None:
    """Some layers ask `self.training` themselves whether values are dropped."""
    plain, prepared = make(family), make(family)
    enable_recompute(prepared)
    expected, found = gradients(plain), gradients(prepared)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)
    assert not any(module.training for module in prepared.modules())


def note(runs: list[Any], layer: Any, _: Any) -> None:
    runs.append(layer)


def test_layers_are_run_again() -> None:
    """Else the test above would compare two plain passes; a copy of a model runs its own layers."""
    prepared = make("opt")
    enable_recompute(prepared)
    for model in (prepared, copy.deepcopy(prepared)):
        runs: list[Any] = []
        for layer in model.modules():
            if type(layer).__name__ == "OPTAttention":
                layer.register_forward_pre_hook(partial(note, runs))
        gradients(model)
        assert len(runs) == 4  # two layers, twice
        assert set(runs) <= set(model.modules())


def test_enabling_it_calls_no_deprecated_function(recwarn: pytest.WarningsRecorder) -> None:
    model = make("llama")
    enable_recompute(model)
    assert [one.message for one in recwarn if one.category is FutureWarning] == []
