"""What all processes of a run must have in common, checked before they work together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import maporl_agents
import maporl_env
from maporl_agents import distributed
from maporl_agents.algorithms import scheme_for
from maporl_agents.config import RunConfig
from maporl_agents.config.effects import leaves
from maporl_agents.models.team import Team

LIBRARIES = ("torch", "transformers", "peft", "numpy")
VALUES = 64
"""Values of each weight that are compared: its first ones."""


def require_same_start(config: RunConfig, questions: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that all ranks have the same code, settings and questions, and each a debate to play.

    Args:
        config: settings of the run.
        questions: number and hash of its questions, by part.

    Raises:
        ValueError: one of these differs, there are more ranks than debates in a step, or the
            settings ask for what several ranks cannot do.
    """
    if distributed.count() == 1:
        return
    facts = {f"code ({package.__name__})": _code(package) for package in PACKAGES}
    facts |= {f"version of {name}": version(name) for name in LIBRARIES}
    facts |= {f"setting {name}": repr(value) for name, value in leaves(config)}
    facts |= {f"{part} questions": str(noted["sha256"]) for part, noted in questions.items()}
    distributed.require_same(facts)
    debates = debates_of_step(config)
    if distributed.count() > debates:
        raise ValueError(
            f"{distributed.count()} processes for {debates} debates in a step: start at most "
            f"{debates}, or raise --questions-per-step"
        )
    if config.sampling.lag:
        raise ValueError(
            "sampling.lag=1 plays in the background, where ranks cannot exchange debates: choose "
            "sampling.lag=0, or one process"
        )


def require_same_weights(team: Team) -> None:
    """Check that all ranks have loaded the same base models.

    Raises:
        ValueError: the weights of one differ.
    """
    if distributed.count() > 1:
        distributed.require_same(
            {f"weights of base {i}": _beginnings(base.model) for i, base in enumerate(team.bases)}
        )


def debates_of_step(config: RunConfig) -> int:
    """Return the number of debates, or of trees, that a step plays."""
    scheme, (_, questions) = scheme_for(config), config.training_game()
    return questions * (scheme.work(config).copies if scheme.work else 1)


PACKAGES = (maporl_env, maporl_agents)


def _code(package: Any) -> str:
    """Return a digest of a package's source files."""
    root = Path(package.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def _beginnings(model: torch.nn.Module) -> str:
    """Return a digest of the first values of every weight of a model."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        first = weight.detach().reshape(-1)[:VALUES].cpu()
        digest.update(name.encode() + first.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
