"""Small verifiers and answers for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from maporl_agents.verifier.config import VerifierConfig
from maporl_agents.verifier.model import LearnedVerifier
from maporl_env.prompts import Template
from maporl_env.types import Question
from maporl_env.verifiers import Scorer

QUESTION = Question("q", "how much is 2 + 2 ?", "4")


TEXTS = ["\\boxed{4}", "\\boxed{5}", "", "it is a rather long answer \\boxed{4}"]


TUNINGS = ("lora", "full")


def make(folder: Path, tuning: str = "lora", **settings: Any) -> LearnedVerifier:
    config = VerifierConfig(str(folder), tuning=tuning, device="cpu", **settings)  # type: ignore[arg-type]
    return LearnedVerifier(config, Template())


def stir(verifier: LearnedVerifier, scale: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in verifier.trainable().values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def scores(verifier: LearnedVerifier, texts: Sequence[str] = TEXTS) -> list[float]:
    found = Scorer(verifier).score([QUESTION] * len(texts), texts)
    assert None not in found
    return [score for score in found if score is not None]
