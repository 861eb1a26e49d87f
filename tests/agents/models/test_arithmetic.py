"""Advice against weights that a processor only emulates."""

from __future__ import annotations

import warnings

import pytest

from maporl_agents.config import TeamConfig
from maporl_agents.models import arithmetic
from maporl_agents.models.arithmetic import computes, slow_arithmetic
from maporl_agents.models.loading import make_team


@pytest.mark.parametrize(
    ("dtype", "found", "able"),
    [
        ("bfloat16", {"architecture": "x86_64", "avx512_bf16": False}, False),
        ("bfloat16", {"architecture": "x86_64", "avx512_bf16": True}, True),
        ("bfloat16", {"architecture": "x86_64", "amx_bf16": True}, True),
        ("float16", {"architecture": "x86_64", "avx512_bf16": True}, False),
        ("float16", {"architecture": "x86_64", "avx512_fp16": True}, True),
        ("bfloat16", {"architecture": "aarch64"}, True),
        ("bfloat16", {}, True),
    ],
)
def test_a_processor_computes_in_what_it_has(dtype: str, found: dict, able: bool) -> None:
    assert computes(dtype, found) is able


def test_the_advice_names_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "_capabilities", lambda: {"architecture": "x86_64"})
    [advice] = slow_arithmetic(TeamConfig(dtype="bfloat16", device="cpu"))
    assert "no arithmetic for bfloat16" in advice
    assert "leave out --team.dtype" in advice
    assert slow_arithmetic(TeamConfig(device="cpu")) == []
    assert slow_arithmetic(TeamConfig(dtype="bfloat16", device="cuda")) == []


def test_adapters_are_made_without_a_notice_of_another_library() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        config = TeamConfig(tuning="lora", gradient_checkpointing=True)
        make_team(config, num_agents=2, num_turns=2, seed=0)
