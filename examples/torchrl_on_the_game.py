"""TorchRL on the collaboration game: two agents learn together by IPPO or MAPPO.

    python examples/torchrl_on_the_game.py                 # pip install 'maporl[torchrl]'
    python examples/torchrl_on_the_game.py --centralised   # MAPPO: the critic sees both agents

The game comes in through TorchRL's own `PettingZooWrapper`, which puts agent_0 and agent_1 into one
group "agent". Both share a network. Five turns, and four collaborations bring the synergy: two who
collaborate until then earn 3.4 each, two who never do 2.0, which is less than chance earns (2.23).
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import PettingZooWrapper
from torchrl.modules import MultiAgentMLP, ProbabilisticActor
from torchrl.objectives import ClipPPOLoss, ValueEstimators

from maporl_env import collaboration_v0

RULES: dict[str, Any] = {"num_turns": 5, "threshold": 4}
GROUP = "agent"
STEPS, BATCHES, EPOCHS, MINIBATCH = 500, 10, 4, 125


def make_networks(centralised_critic: bool) -> tuple[Any, Any]:
    """Return the actor, which each agent asks for itself, and the critic."""

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
    """Return PPO's loss, whose keys are those of the group."""
    loss = ClipPPOLoss(actor, critic, entropy_coeff=0.01, normalize_advantage=True)
    keys = ("reward", "action", "done", "terminated", "advantage", "value_target")
    loss.set_keys(
        value=(GROUP, "state_value"),
        sample_log_prob=(GROUP, "action_log_prob"),
        **{key: (GROUP, key) for key in keys},
    )
    loss.make_value_estimator(ValueEstimators.GAE, gamma=1.0, lmbda=0.95)
    return loss


def learn(env: Any, actor: Any, critic: Any) -> list[Any]:
    """Train on every batch of a Parallel environment; return what it paid in each, (STEPS, 2)."""
    wrapped = PettingZooWrapper(env, categorical_actions=True)
    batches = Collector(wrapped, actor, frames_per_batch=STEPS, total_frames=STEPS * BATCHES)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--centralised", action="store_true", help="MAPPO instead of IPPO")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    actor, critic = make_networks(args.centralised)
    paid = learn(collaboration_v0.parallel_env(**RULES), actor, critic)
    print("return of an agent per game, batch by batch (of 3.4 at best)")
    print(*(f"{RULES['num_turns'] * batch.mean():.2f}" for batch in paid))


if __name__ == "__main__":
    main()
