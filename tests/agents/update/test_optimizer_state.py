"""The state of an optimiser by parameter name: bitwise back, and refused where it does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from maporl_agents.records import checkpoint_folder

OPTIMIZERS: dict[str, Callable[[list], torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.9), eps=1e-5),
    "adamw amsgrad": lambda groups: torch.optim.AdamW(groups, lr=0.1, amsgrad=True),
    "adam fused": lambda groups: torch.optim.Adam(groups, lr=0.1, fused=True),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "sgd momentum": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.1, centered=True, momentum=0.5),
}


class Job:
    """A small model in training: two groups, a schedule, one parameter without gradient."""

    def __init__(self, kind: str, *, backwards: bool = False) -> None:
        made = torch.Generator().manual_seed(1)
        shapes = {
            "policy.weight": (3, 4),
            "policy.bias": (3,),
            "value.weight": (1, 3),
            "idle": (2,),
        }
        self.parameters = {
            name: nn.Parameter(torch.randn(shape, generator=made)) for name, shape in shapes.items()
        }
        policy = [self.parameters[n] for n in ("policy.weight", "policy.bias", "idle")]
        groups = [
            {"params": policy[::-1] if backwards else policy},
            {"params": [self.parameters["value.weight"]], "lr": 0.3},
        ]
        self.optimizer = OPTIMIZERS[kind](groups)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda n: 1 / (1 + n))
        self.names = {parameter: name for name, parameter in self.parameters.items()}

    def step(self, number: int) -> None:
        p = self.parameters
        x = torch.randn(4, generator=torch.Generator().manual_seed(number))
        hidden = torch.tanh(p["policy.weight"] @ x + p["policy.bias"])
        self.optimizer.zero_grad()
        (p["value.weight"] @ hidden - 1).square().sum().backward()
        self.optimizer.step()
        self.schedule.step()

    def bits(self) -> list[bytes]:
        tensors, state = checkpoint_folder.optimizer_state(self.optimizer, self.names)
        numbers = [*self.parameters.values(), *(tensors[key] for key in sorted(tensors))]
        rates = [[group["settings"] for group in state["groups"]], self.schedule.state_dict()]
        return [one.detach().numpy().tobytes() for one in numbers] + [json.dumps(rates).encode()]

    def save(self, folder: Path) -> None:
        tensors, state = checkpoint_folder.optimizer_state(self.optimizer, self.names)
        checkpoint_folder.save_tensors(folder / "optimizer.safetensors", tensors)
        checkpoint_folder.save_tensors(folder / "weights.safetensors", self.parameters)
        saved = {"optimizer": state, "schedule": self.schedule.state_dict()}
        checkpoint_folder.save_json(folder / "optimizer.json", saved)

    def load(self, folder: Path) -> None:
        state = checkpoint_folder.load_json(folder / "optimizer.json")
        tensors = checkpoint_folder.load_tensors(folder / "optimizer.safetensors")
        checkpoint_folder.load_optimizer_state(
            self.optimizer, self.names, tensors, state["optimizer"]
        )
        self.schedule.load_state_dict(state["schedule"])
        for name, value in checkpoint_folder.load_tensors(folder / "weights.safetensors").items():
            self.parameters[name].data.copy_(value)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_bitwise(tmp_path: Path, kind: str, backwards: bool) -> None:
    """E2: cut before every step, also where the parameters come in another order."""
    whole = Job(kind)
    for cut in range(4):
        folder = checkpoint_folder.save(tmp_path, cut, whole.save)
        before = whole.bits()
        whole.step(cut)
        resumed = Job(kind, backwards=backwards)
        resumed.step(99)  # it holds something else by then
        resumed.load(folder)
        assert resumed.bits() == before
        resumed.step(cut)
        assert resumed.bits() == whole.bits() != before


def test_settings_become_the_saved_ones() -> None:
    saved, fresh = Job("adamw"), Job("adamw amsgrad")
    saved.step(0)
    checkpoint_folder.load_optimizer_state(
        fresh.optimizer,
        fresh.names,
        *checkpoint_folder.optimizer_state(saved.optimizer, saved.names),
    )
    first, second = fresh.optimizer.param_groups
    assert first["betas"] == (0.8, 0.9)
    assert (first["lr"], second["lr"]) == (0.05, 0.15)  # 0.1 and 0.3, halved by the schedule
    assert first["amsgrad"] is False


def test_names_may_be_given_by_id() -> None:
    job = Job("adamw")
    job.step(0)
    by_id = {id(parameter): name for parameter, name in job.names.items()}
    tensors, state = checkpoint_folder.optimizer_state(job.optimizer, by_id)
    same_tensors, same_state = checkpoint_folder.optimizer_state(job.optimizer, job.names)
    assert state == same_state
    assert set(tensors) == set(same_tensors)
    assert "policy.weight/exp_avg" in tensors
    assert not any(key.startswith("idle/") for key in tensors)


def test_the_saved_state_is_a_copy() -> None:
    job = Job("adamw")
    job.step(0)
    tensors, state = checkpoint_folder.optimizer_state(job.optimizer, job.names)
    before = tensors["policy.bias/exp_avg"].clone()
    job.step(1)
    assert torch.equal(tensors["policy.bias/exp_avg"], before)
    checkpoint_folder.load_optimizer_state(job.optimizer, job.names, tensors, state)
    job.step(1)
    assert torch.equal(tensors["policy.bias/exp_avg"], before)


def rename(state: dict, tensors: dict) -> None:
    state["groups"][0]["parameters"][0] = "other.weight"
    state["parameters"]["other.weight"] = state["parameters"].pop("policy.weight")
    for key in [key for key in tensors if key.startswith("policy.weight/")]:
        tensors[key.replace("policy", "other")] = tensors.pop(key)


MISFITS: dict[str, tuple[Callable[[dict, dict], object], str]] = {
    "name": (rename, "policy.weight is new in group 0; other.weight is gone from group 0"),
    "shape": (
        lambda s, t: s["parameters"]["policy.bias"].update(shape=[4]),
        r"policy.bias has shape \[3\], saved \[4\]",
    ),
    "moment's shape": (
        lambda s, t: t.update({"policy.bias/exp_avg": torch.zeros(1)}),
        r"policy.bias/exp_avg has shape \[1\], not \[3\]",
    ),
    "moment missing": (lambda s, t: t.pop("policy.bias/exp_avg"), "bias/exp_avg is missing"),
    "moment too many": (lambda s, t: t.update(more=torch.zeros(1)), "more is unknown"),
    "kind": (lambda s, t: s.update(kind="SGD"), "it is of SGD, the optimizer is AdamW"),
    "groups": (lambda s, t: s["groups"].pop(), "it has 1 parameter groups, the optimizer 2"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_state_that_does_not_fit_is_named_and_changes_nothing(misfit: str) -> None:
    job, other = Job("adamw"), Job("adamw")
    job.step(0)
    other.step(5)
    tensors, state = checkpoint_folder.optimizer_state(other.optimizer, other.names)
    change, says = MISFITS[misfit]
    change(state, tensors)
    before = job.bits()
    with pytest.raises(ValueError, match=says):
        checkpoint_folder.load_optimizer_state(job.optimizer, job.names, tensors, state)
    assert job.bits() == before


def test_every_parameter_needs_a_name_of_its_own() -> None:
    job = Job("adamw")
    with pytest.raises(ValueError, match=r"shape \(3, 4\) in the optimizer has no name"):
        checkpoint_folder.optimizer_state(job.optimizer, {})
    with pytest.raises(ValueError, match="Two parameters in the optimizer are named 'x'"):
        checkpoint_folder.optimizer_state(job.optimizer, dict.fromkeys(job.names, "x"))


def test_a_setting_that_json_cannot_hold_is_refused() -> None:
    job = Job("adamw")
    job.optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    with pytest.raises(ValueError, match="optimizer, lr is a Tensor"):
        checkpoint_folder.optimizer_state(job.optimizer, job.names)
