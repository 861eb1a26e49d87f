"""Reports of two scripted teams, scored once."""

from __future__ import annotations

import pytest

from maporl_env.benchmark import Report, score, scripted_agents

from .cases import LONE


@pytest.fixture(scope="module")
def keep() -> Report:
    return score(scripted_agents("keep"), [LONE])


@pytest.fixture(scope="module")
def best() -> Report:
    return score(scripted_agents("best"), [LONE])
