"""Whether a processor computes in the number format of a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from maporl_agents.config import TeamConfig

BF16 = ("avx512_bf16", "amx_bf16", "avx10_2")
"""Capabilities of x86 processors by which they compute in bfloat16."""


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
