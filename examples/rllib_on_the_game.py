"""RLlib on the collaboration game: two agents learn together by independent PPO.

    python examples/rllib_on_the_game.py        # a minute or two; pip install 'maporl[rllib]'

The game comes in through RLlib's own `ParallelPettingZooEnv`; each agent has a policy of its own.
Five turns, and four collaborations bring the synergy: two who collaborate until then earn 3.4 each,
two who never do 2.0, which is less than chance earns (2.23). Everything runs in this process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env

from maporl_env import collaboration_v0

RULES: dict[str, Any] = {"num_turns": 5, "threshold": 4}
AGENTS = ("agent_0", "agent_1")
STEPS, ITERATIONS = 800, 7


def make_game() -> Any:
    """Return the game in PettingZoo's Parallel interface."""
    return collaboration_v0.parallel_env(**RULES)


def make_config(make_env: Callable[[], Any], seen: list[list[float]], seed: int = 0) -> PPOConfig:
    """Return the settings of PPO; `seen` gets what each game paid its agents while learning."""

    def on_sample_end(*, samples: list[Any], **_: Any) -> None:
        for episode in samples:
            parts = [episode.agent_episodes.get(agent) for agent in AGENTS]
            seen.append([float(np.sum(part.get_rewards())) if part else 0.0 for part in parts])

    register_env("collaboration", lambda _: ParallelPettingZooEnv(make_env()))
    return (
        PPOConfig()
        .environment("collaboration", disable_env_checking=True)  # its check would play
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .callbacks(on_sample_end=on_sample_end)
        .multi_agent(policies=set(AGENTS), policy_mapping_fn=lambda agent, *_, **__: agent)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[32]))
        .training(
            train_batch_size=STEPS,
            minibatch_size=200,
            num_epochs=5,
            lr=3e-3,
            gamma=1.0,
            lambda_=0.95,
            entropy_coeff=0.01,
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    seen: list[list[float]] = []
    learner = make_config(make_game, seen, args.seed).build_algo()
    print("return of an agent per game, iteration by iteration (of 3.4 at best)")
    for _ in range(ITERATIONS):
        before = len(seen)
        learner.train()
        print(f"{np.mean(seen[before:]):.2f}", flush=True)
    learner.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
