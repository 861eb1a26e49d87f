"""Mixed precision: the dtype a model computes in, and float32 master weights of what is trained.

A step of an optimiser is often smaller than the last digit of a bfloat16 or float16 weight and
would be lost; in float16 Adam's eps of 1e-8 is 0 besides. So a float32 copy of every such weight is
trained, and the model computes with that copy rounded to its own format (Micikevicius et al.,
arXiv 1710.03740). The gradient of each backward pass is added to the copies' in float32. There is
no autocast and no loss scaling: a model has one dtype, that of the settings.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from maporl_agents.config import TeamConfig

Pairs = Mapping[str, tuple[nn.Parameter, nn.Parameter]]
"""Name of a 16-bit weight -> (the model's parameter, its float32 copy)."""


BF16 = ("avx512_bf16", "amx_bf16", "avx10_2")
"""Capabilities of x86 processors by which they compute in bfloat16."""


def dtype_of(name: str) -> torch.dtype:
    """Return the dtype that the settings call float32, bfloat16 or float16."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


class MasterWeights:
    """The float32 copies of a model's trained 16-bit weights; empty for a float32 model.

    Args:
        pairs: as `pairs_of` returns them.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        for own, master in pairs.values():
            own.register_post_accumulate_grad_hook(partial(_hand_over, master))

    def __deepcopy__(self, memo: dict[int, Any]) -> MasterWeights:
        """Return a copy with hooks of its own: a parameter is copied without its hooks."""
        return MasterWeights(copy.deepcopy(self._pairs, memo))

    def of(self, name: str, own: nn.Parameter) -> nn.Parameter:
        """Return the tensor that the optimiser updates for a parameter: its copy, or itself."""
        return self._pairs[name][1] if name in self._pairs else own

    @torch.no_grad()
    def round(self) -> None:
        """Round the copies into the model."""
        for own, master in self._pairs.values():
            own.copy_(master)


def pairs_of(model: nn.Module) -> Pairs:
    """Return every parameter below float32 that has a gradient, with a new float32 copy of it."""
    return {
        name: (own, nn.Parameter(own.detach().float()))
        for name, own in model.named_parameters()
        if own.requires_grad and torch.finfo(own.dtype).bits < 32
    }


def _hand_over(master: nn.Parameter, own: Tensor) -> None:
    """Add a new gradient to that of the copy."""
    assert own.grad is not None
    gradient, own.grad = own.grad.float(), None
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)


def slow_arithmetic(config: TeamConfig) -> list[str]:
    """Return advice, one sentence or none, for weights that the processor only emulates."""
    on_cpu = config.device == "cpu" or (
        config.device == "auto" and not torch.cuda.is_available() and config.device_map != "auto"
    )
    if config.dtype == "float32" or not on_cpu or computes(config.dtype, _capabilities()):
        return []
    return [
        f"this processor has no arithmetic for {config.dtype}, which is then slower than float32 "
        "(seen: a quarter of the tokens per second): leave out --team.dtype"
    ]


def computes(dtype: str, capabilities: Mapping[str, Any]) -> bool:
    """Return whether a processor computes in `dtype`; True where that is not known."""
    if not str(capabilities.get("architecture", "")).startswith("x86"):
        return True
    if dtype == "float16":
        return bool(capabilities.get("avx512_fp16") or capabilities.get("amx_fp16"))
    return any(capabilities.get(name) for name in BF16)


def _capabilities() -> Mapping[str, Any]:
    ask = getattr(torch.cpu, "get_capabilities", None)
    return {} if ask is None else ask()
