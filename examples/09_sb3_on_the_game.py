r"""Stable-Baselines3 on the collaboration game: what a lone learner finds, beside what is best.

    python examples/09_sb3_on_the_game.py        # half a minute; needs: pip install 'maporl[sb3]'

You learn: that the environments are ordinary Gymnasium environments, and why the paper trains
agents together. One PPO learner plays the two-agent game of the paper's section 2 with a partner
who does not learn. Whether to collaborate depends on that partner, not on the learner: the
exact best response says so, PPO finds it, and two agents in equilibrium do better than both.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import gymnasium

import maporl_env  # noqa: F401  registers the environments
from maporl_env.collaboration_v0 import best_response, logit_equilibrium

RULES: dict[str, Any] = {"num_turns": 2, "threshold": 2, "r_syn": 2.0}


def learn(partner: float, steps: int, seed: int) -> tuple[float, float]:
    """Return the learner's rate of collaboration in the first turn, and its mean return."""
    from stable_baselines3 import PPO

    env = gymnasium.make("maporl/Collaboration-v0", partner=partner, **RULES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about GPUs that a network this small does not need
        settings: dict[str, Any] = {
            "n_steps": 256,
            "batch_size": 64,
            "learning_rate": 3e-3,
            "gamma": 1.0,
        }
        learner = PPO("MlpPolicy", env, seed=seed, device="cpu", **settings)
        learner.learn(steps)

    collaborated = total = 0.0
    games = 300
    for game in range(games):
        observation, info = env.reset(seed=seed + 1 if game == 0 else None)
        over = False
        while not over:
            action = int(learner.predict(observation, deterministic=True)[0])
            collaborated += action if info["turn"] == 0 else 0
            observation, reward, over, _, info = env.step(action)
            total += float(reward)
    return collaborated / games, total / games


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6000, help="turns played while learning")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    print("collaborates in the first turn / mean return\n")
    for partner in (0.05, 0.7):
        rate, mean = learn(partner, args.steps, args.seed)
        best = best_response(partner, **RULES)
        print(f"partner collaborates with probability {partner}:")
        print(f"  PPO after {args.steps} turns   {rate:.2f} / {mean:.3f}")
        print(
            f"  exact best response   {best.policy[0, 0]:.2f} / {best.outcome.expected_return:.3f}"
        )

    both = logit_equilibrium(tau=0.0, **RULES)
    print("two who reckon with each other (exact):")
    print(f"  the equilibrium       {both.policy[0, 0]:.2f} / {both.outcome.expected_return:.3f}")


if __name__ == "__main__":
    main()
