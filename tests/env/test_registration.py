"""Names in the registries; and all environments where PettingZoo has no registry."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import pettingzoo
import pytest

from maporl_env import registration

NEW = hasattr(pettingzoo, "register")
OLD_PETTINGZOO = """
import pettingzoo
for name in ("make", "register", "spec", "aec_registry", "parallel_registry"):
    vars(pettingzoo).pop(name, None)
import gymnasium
import maporl_env
from maporl_env import collaboration_v0, debate_v0, takeaway_v0
for made in (debate_v0.env(), collaboration_v0.env(), takeaway_v0.env()):
    made.reset(seed=0)
    made.observe(made.agent_selection)
debate_v0.parallel_env().reset(seed=0)
for name in ("maporl/Debate-v0", "maporl/TokenDebate-v0", "maporl/Collaboration-v0"):
    gymnasium.spec(name)
assert not hasattr(pettingzoo, "register")
print("all made")
"""


@pytest.mark.skipif(not NEW, reason="PettingZoo before 1.27 has no registry")
def test_every_environment_is_registered_once() -> None:
    registration.register_all()
    names = (registration.PETTINGZOO_ID, registration.GAME_ID)
    assert {*names, registration.TAKEAWAY_ID} <= set(pettingzoo.aec_registry)
    assert set(names) <= set(pettingzoo.parallel_registry)
    assert registration.TAKEAWAY_ID not in pettingzoo.parallel_registry  # players move in turn


def test_gymnasium_knows_its_names() -> None:
    for name in (registration.GYMNASIUM_ID, registration.TOKEN_ID, registration.LONE_GAME_ID):
        assert gymnasium.spec(name).id == name


@pytest.mark.thorough
def test_without_a_registry_of_pettingzoo_all_else_works() -> None:
    """As with 1.24 to 1.26, which AgileRL asks for; in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", OLD_PETTINGZOO], capture_output=True, text=True, check=False
    )
    assert done.stdout == "all made\n", done.stderr
