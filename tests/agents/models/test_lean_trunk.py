"""The lean forward pass equals transformers' own modules, and takes only what it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lean_cases import TAKEN, YARN, batch, lean_of, make_model
from torch import Tensor, nn
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedModel

from maporl_agents.models.gradient_checkpointing import enable_recompute, recomputing
from maporl_agents.models.lean_trunk import lean_trunk
from maporl_agents.models.trunk import NewIds, read

LEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "sliding window": ("Mistral", {"sliding_window": 8}),
    "sliding layers": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "partial rotary": ("Phi", {"partial_rotary_factor": 0.5}),
    "partial rotary, yarn": ("Llama", {"rope_parameters": YARN | {"partial_rotary_factor": 0.5}}),
    "angles of the text's length": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "soft-capped attention": ("Gemma2", {"head_dim": 12}),
    "another activation": ("Llama", {"hidden_act": "gelu"}),
    "experts": ("Mixtral", {"num_local_experts": 2, "sliding_window": None}),
    "eager attention": ("Llama", {"attn_implementation": "eager"}),
    "scaled residuals": ("Granite", {}),
}

Read = Callable[..., Tensor]


def own(model: PreTrainedModel) -> Read:
    """Return the way transformers reads."""
    return lambda new, *cache: read(model, *new, *cache)


@pytest.fixture(params=TAKEN)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    name, settings = TAKEN[request.param]
    return make_model(name, **settings)


@pytest.mark.parametrize(
    ("dtype", "apart"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["32", "64"]
)
@torch.no_grad()
def test_states(model: PreTrainedModel, dtype: torch.dtype, apart: float) -> None:
    model = model.to(dtype)
    for padding in ("none", "right", "left", "holes"):
        ids, attention, positions = batch(padding)
        expected = read(model, ids, attention, positions)
        found = lean_of(model).read(NewIds(ids, attention, positions))
        assert found.isfinite().all()
        real = attention.bool()
        torch.testing.assert_close(found[real], expected[real], atol=apart, rtol=apart)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_states_of_short_numbers(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Both ways are as far from float32 as rounding explains."""
    ids, attention, positions = batch("left")
    real = attention.bool()
    exact = read(model, ids, attention, positions)[real]
    model = model.to(dtype)
    expected = read(model, ids, attention, positions)[real]
    found = lean_of(model).read(NewIds(ids, attention, positions))[real]
    assert found.dtype == dtype
    off = (expected.float() - exact).abs().mean()
    assert (found.float() - exact).abs().mean() < 1.5 * off


def written(reads: Read) -> list[Tensor]:
    """Return the last states of prompts, of two tokens after each, and of two read together.

    Two of the rows are dropped on the way.
    """
    ids, attention, positions = batch("left")
    cache = DynamicCache()
    states = [reads(NewIds(ids, attention, positions), cache)[:, -1]]
    position = positions[:, -1:] + 1
    for step in range(2):
        attention = torch.cat([attention, torch.ones_like(attention[:, :1])], 1)
        ids = (ids[:, -1:] + step) % 49 + 1
        states.append(reads(NewIds(ids, attention, position), cache)[:, -1])
        position = position + 1
        keep = torch.arange(len(ids))[: 4 - step] if step else torch.tensor([3, 0, 1])
        cache.reorder_cache(keep)
        ids, attention, position = ids[keep], attention[keep], position[keep]
    attention = torch.cat([attention, attention.new_tensor([[1, 1], [0, 1], [1, 1]])], 1)
    position = torch.cat([position, position + 1], 1)
    position[1, 1] -= 1
    ids = torch.cat([ids, ids], 1)
    states.append(reads(NewIds(ids, attention, position), cache)[:, -1])
    return states


@pytest.mark.parametrize(
    ("dtype", "apart"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["32", "64"]
)
@torch.no_grad()
def test_states_after_a_cache(model: PreTrainedModel, dtype: torch.dtype, apart: float) -> None:
    model = model.to(dtype)
    found, expected = written(lean_of(model).read), written(own(model))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=apart, rtol=apart)


def gradients(model: PreTrainedModel, reads: Read, padding: str) -> dict[str, Tensor]:
    """Return the gradients of the trunk's weights, of a weighted sum of all real states."""
    ids, attention, positions = batch(padding)
    states = reads(NewIds(ids, attention, positions))[attention.bool()]
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    with recomputing(model):
        (states * weights.to(states.dtype)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    length = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        off = (found[name] - gradient).norm()
        if gradient.dtype == torch.float64:
            assert off < 1e-12 * gradient.norm(), name
        else:
            assert off < 1e-6 * length, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["32", "64"])
def test_gradients(model: PreTrainedModel, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    for padding in ("right", "left"):
        found = gradients(model, lean_of(model).read, padding)
        assert len(found) > 10
        assert_same_gradients(found, gradients(model, own(model), padding))


def test_gradients_of_recomputed_layers() -> None:
    """Gradient checkpointing: each layer runs twice, and nothing else changes."""
    model = make_model("Qwen3")
    lean = lean_of(model)
    kept = gradients(model, lean.read, "left")
    enable_recompute(model)
    runs: list[int] = []
    for layer in model.model.layers:
        layer.mlp.up_proj.register_forward_hook(lambda *_: runs.append(1))

    def reads(new: NewIds) -> Tensor:
        with recomputing(model):
            return lean.read(new)

    assert_same_gradients(gradients(model, reads, "left"), kept)
    assert len(runs) == 4


@torch.no_grad()
def test_with_and_without_a_gradient_the_same_states() -> None:
    """To the last bit: an update's first ratio is exactly 1."""
    model = make_model("Qwen3")
    given = batch("left")
    with torch.enable_grad():
        graded = lean_of(model).read(given)
    assert graded.requires_grad
    assert torch.equal(lean_of(model).read(given), graded.detach())


def test_weights_are_read_anew() -> None:
    """A step of an optimiser is seen, and no weight is held twice."""
    model = make_model("Qwen2")
    lean = lean_of(model)
    given = batch("right")
    before = lean.read(given)
    before[batch("right")[1].bool()].square().sum().backward()
    torch.optim.SGD(model.parameters(), 1e-4).step()
    after = lean.read(given)
    assert not torch.allclose(before, after)
    real = given[1].bool()
    torch.testing.assert_close(after[real], read(model, *given)[real], atol=1e-5, rtol=1e-5)


def test_layers_are_called() -> None:
    """A linear layer of any class is asked for its own result."""

    class Doubled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.inner(x)

    model = make_model("Llama")
    layer = model.model.layers[0].mlp
    layer.up_proj = Doubled(layer.up_proj)
    given = batch("none")
    found = lean_of(model).read(given)
    torch.testing.assert_close(found, read(model, *given), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", LEFT)
def test_what_is_not_taken(case: str) -> None:
    name, settings = LEFT[case]
    shape = {"head_dim": 12, "num_key_value_heads": 4, "rms_norm_eps": 1e-6}
    assert lean_trunk(make_model(name, **shape | settings)) is None


def test_what_is_changed_is_not_taken() -> None:
    """Hooks, replaced modules and subclasses may compute anything."""

    class Other(LlamaForCausalLM):
        pass

    def hooked(model: Any) -> None:
        model.model.layers[1].register_forward_hook(lambda *_: None)

    def replaced(model: Any) -> None:
        model.model.norm = nn.LayerNorm(48)

    def patched(model: Any) -> None:
        attention = model.model.layers[0].self_attn
        attention.forward = attention.forward

    def scaled(model: Any) -> None:
        model.model.layers[0].self_attn.scaling = 1.0

    for change in (hooked, replaced, patched, scaled):
        model = make_model("Llama")
        assert lean_trunk(model) is not None
        change(model)
        assert lean_trunk(model) is None, change.__name__
    assert lean_trunk(Other(make_model("Llama").config)) is None
