"""Settings of a learned verifier: saved beside its weights, and flags of ``maporl verifier train``.

Under each field: its meaning, unit or range, and where the default comes from (see `config`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maporl_agents.config import Quantization, TeamConfig


@dataclass(frozen=True)
class VerifierConfig:
    """The base model, adapter and precision of a verifier."""

    model: str = "tiny"
    """Base: "tiny", a folder, or a Hugging Face hub name; best of the family of the agents'."""
    tuning: Literal["lora", "full"] = "lora"
    """An adapter on the frozen base, or all its weights."""
    lora_rank: int = 16
    """Rank of the adapter. Paper: 16."""
    lora_alpha: int = 32
    """Scale of the adapter (alpha / rank)."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the base's weights; the head is float32."""
    device: str = "auto"
    """ "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU if there is one."""
    quantization: Quantization = "none"
    """Keep the base's linear layers in 4 ("nf4": QLoRA) or 8 bits ("int8"), by bitsandbytes; needs
    "lora"."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, slower."""

    def __post_init__(self) -> None:
        if self.tuning not in ("lora", "full"):
            raise ValueError(f"unknown tuning {self.tuning!r}: choose one of lora, full")
        self.team()

    def require_acting(self) -> None:
        """Raise ValueError for settings that would do nothing in training.

        They may stand in verifiers that are made already.
        """
        usual = VerifierConfig()
        for name in ("lora_rank", "lora_alpha"):
            if self.tuning == "full" and getattr(self, name) != getattr(usual, name):
                raise ValueError(
                    f"{name}={getattr(self, name)} would do nothing: tuning='full' has no adapter"
                )

    def team(self) -> TeamConfig:
        """Return the settings that say how the base is loaded; ValueError if they do not fit."""
        return TeamConfig(
            tuning=self.tuning,
            dtype=self.dtype,
            device=self.device,
            quantization=self.quantization,
            gradient_checkpointing=self.gradient_checkpointing,
        )


@dataclass(frozen=True)
class FitConfig:
    """Settings for training a verifier."""

    steps: int = 1000
    """Optimiser steps."""
    rows_per_step: int = 64
    """Answers per step."""
    rows_at_once: int = 64
    """The most answers in one forward pass; changes memory, not the result."""
    learning_rate: float = 2e-3
    """Of adapter or model: AdamW, warm-up over 5 % of the steps, then linear to 0. Measured on the
    tiny model; LoRA on a large one wants about 1e-4."""
    head_learning_rate: float = 5e-3
    """Of the head, same schedule."""
    weight_decay: float = 0.01
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Gradient clip."""
    seed: int = 0
    """Names the order of the answers and the first weights."""

    def __post_init__(self) -> None:
        for name in ("steps", "rows_per_step", "rows_at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
