"""Rows of several adapters in one product are what peft computes row by row, and one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F

from maporl_agents.models import grouped_products
from maporl_agents.models.grouped_adapters import (
    AdapterRoute,
    grouped_linear,
    grouped_linears,
)
from maporl_agents.models.reference_policy import NO_ADAPTER

WIDTH = 5
"""Ids per text."""


class Block(nn.Module):
    """Layers as those of a transformer: three that read the same input, and one after them."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(16, 24)
        self.k = nn.Linear(16, 24, bias=False)
        self.v = nn.Linear(16, 24, bias=False)
        self.o = nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(F.silu(self.q(x)) * self.k(x) + self.v(x))


class Twins:
    """The same model twice: as peft runs it, and with grouped adapters.

    Args:
        adapters: name -> settings; ranks and scales are given in turn, targets are all.
        dtype: of the base; adapters are float32, or float64 if the base is.
    """

    def __init__(
        self,
        adapters: dict[str, dict[str, Any]],
        dtype: torch.dtype = torch.float32,
        model: Callable[[], nn.Module] = Block,
    ) -> None:
        torch.manual_seed(0)
        block = model().to(dtype).requires_grad_(False)
        self.peft = wrap(block, adapters)
        for name, p in self.peft.named_parameters():
            p.requires_grad_("lora" in name)
            if "lora" in name:
                nn.init.normal_(p, std=0.3)
        self.own = copy.deepcopy(self.peft)
        self.route = AdapterRoute(self.own)

    def by_peft(self, x: Tensor, names: Sequence[str], **kinds: Any) -> Tensor:
        return self.peft(x, adapter_names=list(names), **kinds)

    def grouped(self, x: Tensor, names: Sequence[str], width: int = WIDTH) -> Tensor:
        with self.route.through(self.route.grouped(names, width)):
            return self.own(x)


def wrap(block: nn.Module, adapters: dict[str, dict[str, Any]]) -> PeftModel:
    targets = ["q", "k", "v", "o"]
    configs = {
        name: LoraConfig(**{"target_modules": targets} | given) for name, given in adapters.items()
    }
    (first, config), *others = configs.items()
    wrapped = get_peft_model(block, config, adapter_name=first)
    for name, config in others:
        wrapped.add_adapter(name, config)
    return wrapped.eval()


def some(count: int) -> dict[str, dict[str, Any]]:
    """Adapters of different rank and scale, of which one scales by the root of its rank."""
    return {
        f"agent_{i}": {"r": 2 + i % 3, "lora_alpha": 4 + i, "use_rslora": i == 1}
        for i in range(count)
    }


def mixed(count: int, rows: int, *, together: bool) -> list[str]:
    """Adapters of so many rows, unequally often, and some rows without one."""
    names = [*(f"agent_{i}" for i in range(count)), NO_ADAPTER]
    chosen = torch.multinomial(
        torch.arange(1.0, count + 2),
        rows,
        replacement=True,
        generator=torch.Generator().manual_seed(count),
    )
    picked = chosen.sort().values if together else chosen
    return [names[i] for i in picked]


def close(found: Tensor, expected: Tensor) -> None:
    bound = {torch.float32: 2e-6, torch.float64: 1e-12}[expected.dtype]
    torch.testing.assert_close(
        found, expected, atol=bound * float(expected.detach().abs().max()), rtol=0
    )


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """The format of adapters is the default one: peft makes float32 of shorter bases alone."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("together", [True, False])
class TestEqualsPeft:
    def test_without_gradients(self, dtype: torch.dtype, count: int, together: bool) -> None:
        """Few rows go through stacked matrices, many do not; a layer gets texts or their ids."""
        twins = Twins(some(count), dtype)
        for rows, width in ((7, WIDTH), (50, WIDTH), (50, 2), (7, 1)):
            names = mixed(count, rows, together=together)
            x = torch.randn(rows, width, 16)
            with torch.no_grad():
                expected = twins.by_peft(x, names)
                close(twins.grouped(x, names, width), expected)
                flat = twins.grouped(x.flatten(0, 1), names, width)
                close(flat, expected.flatten(0, 1))

    def test_gradients(self, dtype: torch.dtype, count: int, together: bool) -> None:
        """Of the input and of every adapter, also one whose rows are few or none."""
        twins = Twins(some(count), dtype)
        names = mixed(count, 12, together=together)
        inputs = [torch.randn(12, WIDTH, 16, generator=torch.Generator().manual_seed(1))] * 2
        inputs = [x.clone().requires_grad_() for x in inputs]
        outputs = [twins.by_peft(inputs[0], names), twins.grouped(inputs[1], names)]
        close(outputs[1], outputs[0])
        weight = torch.linspace(-1, 1, outputs[0].numel()).view_as(outputs[0])
        for y in outputs:
            (weight * y.square()).sum().backward()
        close(inputs[1].grad, inputs[0].grad)
        expected, found = (dict(m.named_parameters()) for m in (twins.peft, twins.own))
        for name, p in expected.items():
            if p.grad is None:
                assert found[name].grad is None
            else:
                close(found[name].grad, p.grad)

    def test_each_adapter_alone(self, dtype: torch.dtype, count: int, together: bool) -> None:
        """Not only peft's way of mixing rows: also one adapter at a time, without mixing."""
        twins = Twins(some(count), dtype)
        names = mixed(count, 12, together=together)
        x = torch.randn(12, WIDTH, 16)
        with torch.no_grad():
            found = twins.grouped(x, names)
            for row, name in enumerate(names):
                if name == NO_ADAPTER:
                    with twins.peft.disable_adapter():
                        expected = twins.peft(x[row])
                else:
                    twins.peft.set_adapter(name)
                    expected = twins.peft(x[row])
                close(found[row], expected)


@pytest.mark.parametrize("piece", [7, 10_000])
@pytest.mark.parametrize("gradient", [False, True])
def test_adapters_in_float32_on_a_shorter_base(
    gradient: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are computed in float32 and rounded once, as by peft, before they are added.

    The rows that are converted at once change nothing but the order of sums.
    """
    monkeypatch.setattr(grouped_products, "PIECE", piece)
    twins = Twins(some(3), torch.bfloat16)
    assert next(iter(twins.own.parameters())).dtype == torch.bfloat16
    names = mixed(3, 9, together=True)
    x = torch.randn(9, WIDTH, 16).bfloat16().requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        expected, found = twins.by_peft(x, names), twins.grouped(x, names)
    assert found.dtype == torch.bfloat16
    assert (found != expected).float().mean() < 0.05  # float32 sums in another order
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    if gradient:
        for y in (expected, found):
            (y.float() ** 2).mean().backward()
        pairs = zip(twins.own.parameters(), twins.peft.parameters(), strict=True)
        for own, other in pairs:
            assert (own.grad is None) == (other.grad is None)
            if own.grad is not None and other.grad is not None:
                assert own.grad.dtype == torch.float32
                torch.testing.assert_close(own.grad, other.grad, atol=0.02, rtol=0.05)


class Halved(nn.Linear):
    """A linear layer with a forward pass of its own, as a quantised one has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class HalvedBlock(Block):
    """The same with such layers."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (Halved(16, 24) for _ in range(3))
        self.o = Halved(24, 16)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("rows", [6, 60])
def test_a_base_with_a_forward_pass_of_its_own(gradient: bool, rows: int) -> None:
    twins = Twins(some(3), model=HalvedBlock)
    names = mixed(3, rows, together=False)
    x = torch.randn(rows, 1, 16, requires_grad=gradient)
    with torch.set_grad_enabled(gradient):
        expected, found = twins.by_peft(x, names), twins.grouped(x, names, 1)
    close(found, expected)
    if gradient:
        ours, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected))
        close(ours, theirs)


@pytest.mark.parametrize("gradient", [False, True])
def test_an_adapter_that_a_layer_does_not_have(gradient: bool) -> None:
    """Adapters may have different targets; on some layers no row has any."""
    twins = Twins(
        {"agent_0": {"target_modules": ["q"]}, "agent_1": {"target_modules": ["q", "o"]}}
        | {"agent_2": {"target_modules": ["k"]}}
    )
    x = torch.randn(4, WIDTH, 16)
    for names in (["agent_0", "agent_1", "agent_2", NO_ADAPTER], ["agent_0", "agent_0"]):
        with torch.set_grad_enabled(gradient):
            close(twins.grouped(x[: len(names)], names), twins.by_peft(x[: len(names)], names))


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("rows", [6, 60])
def test_layers_that_read_the_same_input(gradient: bool, rows: int) -> None:
    """Together they give what each gives alone; plain layers are called."""
    twins = Twins(some(3))
    names = [f"agent_{row * 3 // rows}" for row in range(rows)]
    x = torch.randn(rows, WIDTH, 16)
    block = twins.own.base_model.model
    layers = [block.q, block.k, block.v]
    with torch.set_grad_enabled(gradient), twins.route.through(twins.route.grouped(names, WIDTH)):
        found = grouped_linears(layers, x)
        expected = [layer(x) for layer in layers]
        for one, other in zip(found, expected, strict=True):
            close(one, other)
        if gradient:
            parameters = [p for layer in layers for p in layer.parameters() if p.requires_grad]
            ours, theirs = (
                torch.autograd.grad(sum(y.square().sum() for y in outputs), parameters)
                for outputs in (found, expected)
            )
            for one, other in zip(ours, theirs, strict=True):
                close(one, other)
    plain = nn.Linear(16, 3)
    assert torch.equal(grouped_linear(plain, x), plain(x))
    assert torch.equal(grouped_linears([block.q], x)[0], block.q(x))


class TestKeptMatrices:
    """Those of decoding are made once, and never older than the adapters."""

    def test_they_follow_the_adapters(self) -> None:
        twins = Twins(some(3))
        names = mixed(3, 6, together=True)
        x = torch.randn(6, 1, 16)
        with torch.no_grad():
            twins.grouped(x[:2], ["agent_1", NO_ADAPTER], 1)
            close(twins.grouped(x, names, 1), twins.by_peft(x, names))
            kept = dict(twins.route.stacks)
            twins.grouped(x[:4], names[:4], 1)
            assert twins.route.stacks == kept != {}
            for model in (twins.own, twins.peft):
                for name, p in model.named_parameters():
                    if "agent_1" in name:
                        p.mul_(1.5)
            close(twins.grouped(x, names, 1), twins.by_peft(x, names))
            for model in (twins.own, twins.peft):
                for name, p in model.named_parameters():
                    if "agent_1" in name:
                        p.data.mul_(0.5)  # as an optimiser outside of torch would
            twins.route.forget()
            close(twins.grouped(x, names, 1), twins.by_peft(x, names))

    @pytest.mark.parametrize("rows", [6, 60])
    def test_they_are_freed_by_a_pass_with_gradients(self, rows: int) -> None:
        """Of the same rows, for which nothing is left that cannot be differentiated."""
        twins = Twins(some(3))
        names = mixed(3, rows, together=False)
        x = torch.randn(rows, 1, 16)
        with torch.inference_mode():
            close(twins.grouped(x, names, 1), twins.by_peft(x, names))
        assert bool(twins.route.stacks) == (rows == 6)
        twins.grouped(x, names, 1).sum().backward()
        assert not twins.route.stacks


def test_an_input_of_other_rows_is_refused() -> None:
    twins = Twins(some(2))
    with pytest.raises(ValueError, match="7 rows for 2 texts of 5 ids"):
        twins.grouped(torch.randn(7, 16), ["agent_0", "agent_1"])


class Embedded(nn.Module):
    """A layer that peft cannot run grouped, before one that can be."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Embedding(9, 16)
        self.k = nn.Linear(16, 24)
        self.v = nn.Linear(24, 16)

    def forward(self, ids: Tensor) -> Tensor:
        return self.v(self.k(self.q(ids)))


@pytest.mark.parametrize("settings", [{}, {"lora_bias": True, "target_modules": ["k", "v"]}])
@pytest.mark.parametrize("gradient", [False, True])
def test_other_kinds_of_layers_keep_to_peft(settings: dict[str, Any], gradient: bool) -> None:
    adapters = {
        "agent_0": {"target_modules": ["q", "k"]} | settings,
        "agent_1": {"target_modules": ["q", "v"]} | settings,
    }
    twins = Twins(adapters, model=Embedded)
    ids = torch.arange(15).view(3, 5) % 9
    names = ["agent_1", "agent_0", NO_ADAPTER]
    with torch.set_grad_enabled(gradient):
        expected = twins.by_peft(ids, names)
        close(twins.grouped(ids, names), expected)
        close(twins.grouped(ids.flatten(), names), expected.flatten(0, 1))


def test_outside_of_a_route_it_is_peft() -> None:
    twins = Twins(some(2))
    x = torch.randn(3, WIDTH, 16)
    assert torch.equal(twins.own(x), twins.peft(x))
    with twins.own.disable_adapter(), twins.peft.disable_adapter():
        assert torch.equal(twins.own(x), twins.peft(x))
