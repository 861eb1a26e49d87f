"""TorchRL: IPPO and MAPPO learn in the collaboration game through its own PettingZoo wrapper."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchrl", reason="needs the extra torchrl")

import torch
from arena import Ledger, assert_learnt
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import PettingZooWrapper, check_env_specs
from torchrl.modules import MultiAgentMLP, ProbabilisticActor
from torchrl.objectives import ClipPPOLoss, ValueEstimators

from maporl_env import collaboration_v0

GROUP = "agent"  # TorchRL puts agent_0 and agent_1 into one group of this name
STEPS, BATCHES, EPOCHS, MINIBATCH = 500, 10, 4, 125


@pytest.fixture(autouse=True)
def _generator() -> Iterator[None]:
    with torch.random.fork_rng():  # TorchRL draws from the process-global generator
        torch.manual_seed(0)
        yield


def make_networks(centralised_critic: bool) -> tuple[Any, Any]:
    def mlp(outputs: int, centralised: bool) -> Any:
        return MultiAgentMLP(
            n_agent_inputs=3, n_agent_outputs=outputs, n_agents=2, centralized=centralised,
            share_params=True, depth=1, num_cells=32,
        )  # fmt: skip

    seen = (GROUP, "observation")
    logits = TensorDictModule(mlp(2, False), [seen], [(GROUP, "logits")])
    actor = ProbabilisticActor(
        logits,
        in_keys=[(GROUP, "logits")],
        out_keys=[(GROUP, "action")],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
        log_prob_key=(GROUP, "action_log_prob"),
    )
    return actor, TensorDictModule(mlp(1, centralised_critic), [seen], [(GROUP, "state_value")])


def make_loss(actor: Any, critic: Any) -> Any:
    loss = ClipPPOLoss(actor, critic, entropy_coeff=0.01, normalize_advantage=True)
    keys = ("reward", "action", "done", "terminated", "advantage", "value_target")
    loss.set_keys(
        value=(GROUP, "state_value"),
        sample_log_prob=(GROUP, "action_log_prob"),
        **{key: (GROUP, key) for key in keys},
    )
    loss.make_value_estimator(ValueEstimators.GAE, gamma=1.0, lmbda=0.95)
    return loss


def learn(actor: Any, critic: Any, batches: Any) -> list[Any]:
    """Train on every batch; return what the agents were paid in it, (STEPS, 2)."""
    loss = make_loss(actor, critic)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    paid = []
    for batch in batches:
        paid.append(batch["next", GROUP, "reward"].squeeze(-1).numpy())
        with torch.no_grad():
            loss.value_estimator(
                batch,
                params=loss.critic_network_params,
                target_params=loss.target_critic_network_params,
            )
        for _ in range(EPOCHS):
            for rows in torch.randperm(STEPS).split(MINIBATCH):
                parts = loss(batch[rows])
                total = parts["loss_objective"] + parts["loss_critic"] + parts["loss_entropy"]
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
    return paid


@pytest.mark.parametrize(("name", "centralised_critic"), [("IPPO", False), ("MAPPO", True)])
def test_it_learns_and_sees_every_reward(name: str, centralised_critic: bool) -> None:
    ledger = Ledger()
    actor, critic = make_networks(centralised_critic)
    collector = Collector(
        PettingZooWrapper(ledger, categorical_actions=True),
        actor,
        frames_per_batch=STEPS,
        total_frames=STEPS * BATCHES,
    )
    paid = np.concatenate(learn(actor, critic, collector))
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
