"""Models on several devices: which tensors meet, with pretended devices on one processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from miniatures import load_team, stir
from ppo_cases import PPO, make_batch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from maporl_agents.algorithms import maporl
from maporl_agents.config import TeamConfig
from maporl_agents.models.devices import agent_devices
from maporl_agents.models.team import Team
from maporl_agents.update import batching, reference_logprobs, token_logprobs
from maporl_agents.update.optimiser import PPOLearner
from maporl_agents.update.reference_logprobs import reference_and_kl
from maporl_agents.update.token_logprobs import score_tokens

TWO = ("cpu", "cpu:0")
"""Two names of one device: each has copies of the models of its own, the reference included."""
HOME = "home"
"""The pretended device of the batch."""


class Places(TorchDispatchMode):
    """Every tensor is on a pretended device; an operator on two of them fails, as with real ones.

    Results are where their inputs are. Tensors that came before, and single numbers, are nowhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.moves = 0

    def put(self, tensor: Tensor, place: object) -> Tensor:
        self.of[tensor] = place
        return tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        met = {self.of[x] for x in given if x in self.of and x.dim()}
        assert len(met) < 2, f"{func} on {met}"
        found = func(*args, **(kwargs or {}))
        if met:
            [place] = met
            tree_map(lambda x: isinstance(x, Tensor) and self.put(x, place), found)
        return found


class Move(torch.autograd.Function):
    """A copy on another pretended device; its gradient goes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: Places, place: object) -> Tensor:
        ctx.places, ctx.back = places, places.of.get(tensor)
        places.moves += 1
        places.of.pop(tensor, None)
        copied = tensor.clone()
        if ctx.back is not None:
            places.put(tensor, ctx.back)
        return places.put(copied, place)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0]
        ctx.places.of.pop(gradient, None)
        back = gradient.clone()
        return (back if ctx.back is None else ctx.places.put(back, ctx.back)), None, None


@contextmanager
def placed(team: Team, batch: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """Put each base on a device of its own, and the batch on another one."""
    places = Places()
    number = {id(base): index for index, base in enumerate(team.bases)}
    current: list[object] = []
    part_of = token_logprobs.part_on_base

    def part(team: Team, batch: Any, rows: Tensor) -> Any:
        current[:] = [number[id(team.base_of(batch.policies[int(rows[0])]))]]
        return part_of(team, batch, rows)

    def to_base(tensor: Tensor, _device: object) -> Tensor:
        return Move.apply(tensor, places, current[0])

    def anywhere(tensor: Tensor, _device: object) -> Tensor:
        return Move.apply(tensor, places, spreading[0] if spreading else current[0])

    spreading: list[object] = []
    spread = token_logprobs.table_of

    def home(*given: Any) -> Tensor:
        spreading[:] = [HOME]
        found = spread(*given)
        spreading.clear()
        return found

    for module in (token_logprobs, reference_logprobs):
        monkeypatch.setattr(module, "part_on_base", part)
        monkeypatch.setattr(module, "table_of", home)
    monkeypatch.setattr(token_logprobs, "moved", anywhere)
    monkeypatch.setattr(batching, "moved", to_base)
    with places:
        for base in team.bases:
            owned = [*base.model.parameters(), *base.model.buffers()]
            owned += [*base.reference.parameters()] if hasattr(base, "reference") else []
            for tensor in owned:
                places.put(tensor, number[id(base)])
        for agent, turn in sorted(team._trained):
            base = team.base_of(team.policy(agent, turn))
            for tensor in team.critics[team.critic(agent, turn)].parameters():
                places.put(tensor, number[id(base)])
        for name in ("ids", "mask", "sampled_logprobs", "rewards", "prompt_ids", "ranks"):
            places.put(getattr(batch, name), HOME)
        yield places


def test_scoring_moves_each_row_to_its_base_and_back(
    checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers and gradients are those of one device, and no operator mixes two."""
    team = load_team(checkpoint("llama"), num_turns=2, devices=TWO)
    stir(team)
    assert len(team.bases) == 2
    batch = make_batch(team)

    def loss_and_gradients() -> tuple[Tensor, list[Tensor | None]]:
        scores = score_tokens(team, batch, temperature=0.8, with_values=True, with_entropy=True)
        loss = (scores.logprobs + scores.values).sum()
        owned = [p for one in team.trainable().values() for p in one.values()]
        owned += [p for one in team.trainable_critics().values() for p in one.values()]
        return loss.detach(), list(torch.autograd.grad(loss, owned, allow_unused=True))

    expected, kl = loss_and_gradients(), reference_and_kl(team, batch, temperature=0.8)
    with placed(team, batch, monkeypatch) as places:
        found, other_kl = loss_and_gradients(), reference_and_kl(team, batch, temperature=0.8)
        assert places.moves > 10
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(other_kl, kl)


def test_the_pretence_finds_a_forgotten_move(checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    team = load_team(checkpoint("llama"), num_turns=2, devices=TWO)
    batch = make_batch(team)
    with placed(team, batch, monkeypatch):
        monkeypatch.setattr(token_logprobs, "on_device", lambda part, _: part)
        with pytest.raises(AssertionError, match="home"):
            score_tokens(team, batch, temperature=1.0)


def test_a_base_for_every_model_and_device(checkpoint) -> None:
    """With adapters, too, each device that agents name has a base of its own."""
    one = load_team(checkpoint("llama"), num_turns=1, tuning="lora", devices=("cpu",))
    two = load_team(checkpoint("llama"), num_turns=1, tuning="lora", devices=("cpu", "cpu:0"))
    assert [base.policies for base in one.bases] == [("agent_0", "agent_1")]
    assert [base.policies for base in two.bases] == [("agent_0",), ("agent_1",)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"devices": ("cpu",) * 3}, "names 3 devices for 2 agents"),
        ({"devices": ("cpu", "cpu:0"), "sharing": "one"}, "have one policy"),
    ],
)
def test_devices_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        agent_devices(TeamConfig(**settings), 2)


def test_a_device_is_placed_or_spread() -> None:
    with pytest.raises(ValueError, match="choose one of the two"):
        TeamConfig(devices=("cpu",), device_map="auto", tuning="lora")
    assert agent_devices(TeamConfig(device="cpu"), 2) == ["cpu", "cpu"]
    assert agent_devices(TeamConfig(devices=("cpu", "meta")), 2) == ["cpu", "meta"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator beside the CPU")
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_step_with_one_agent_on_the_accelerator(checkpoint, tuning: str) -> None:
    from ppo_cases import one_step

    metrics = []
    for devices in (("cpu", "cpu"), ("cpu", "cuda:0"), ("cuda:0", "cpu")):
        team = load_team(checkpoint("llama"), num_turns=2, tuning=tuning, devices=devices)
        assert [base.device.type for base in team.bases] == [
            name.partition(":")[0] for name in dict.fromkeys(devices)
        ]
        metrics.append(one_step(PPOLearner(team, PPO, 3)))
    for found in metrics[1:]:
        assert found["kl"] == pytest.approx(metrics[0]["kl"], abs=1e-3)
    assert maporl is not None
