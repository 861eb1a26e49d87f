"""TorchRL: IPPO and MAPPO learn in the collaboration game, by `examples/torchrl_on_the_game.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchrl", reason="needs the extra torchrl")

import torch
from arena import RULES, Ledger, assert_learnt, example
from tensordict import TensorDict
from torchrl.envs import PettingZooWrapper, check_env_specs

from maporl_env import collaboration_v0

EXAMPLE = example("torchrl_on_the_game")
GROUP = EXAMPLE.GROUP


@pytest.fixture(autouse=True)
def _generator() -> Iterator[None]:
    with torch.random.fork_rng():  # TorchRL draws from the process-global generator
        torch.manual_seed(0)
        yield


def test_the_example_plays_the_game_of_these_tests() -> None:
    assert EXAMPLE.RULES == RULES


@pytest.mark.parametrize(("name", "centralised_critic"), [("IPPO", False), ("MAPPO", True)])
def test_it_learns_and_sees_every_reward(name: str, centralised_critic: bool) -> None:
    ledger = Ledger()
    actor, critic = EXAMPLE.make_networks(centralised_critic)
    paid = np.concatenate(EXAMPLE.learn(ledger, actor, critic))
    assert paid == pytest.approx(ledger.table()[: len(paid)])

    def act(seen: np.ndarray) -> Any:
        data = TensorDict({GROUP: {"observation": torch.from_numpy(seen)}}, [len(seen)])
        return actor(data)[GROUP, "action"]

    with torch.no_grad():
        assert_learnt(f"TorchRL {name}", act)


@pytest.mark.parametrize("api", ["parallel", "aec"])
def test_its_own_check_of_the_environment(api: str) -> None:
    make = collaboration_v0.parallel_env if api == "parallel" else collaboration_v0.env
    check_env_specs(PettingZooWrapper(make(), return_state=True, use_mask=api == "aec"))
