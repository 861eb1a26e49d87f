r"""A debate by hand: observations, messages, and the reward of every message.

    python examples/01_debate_by_hand.py           # one second
    python examples/01_debate_by_hand.py --you     # you are agent_1: type your answers

You learn: the loop of the environment, that no agent reads a message of the same turn, and how the
influence-aware reward of a message is computed from the scores of its own and all later turns.
"""

from __future__ import annotations

import argparse

from maporl_env import debate_v0
from maporl_env.types import Question

GAMMA = 0.3
QUESTION = Question("pens", "Mia buys 3 pens and 2 hats. How much does she pay?", answer="34")
SCRIPT = {
    "agent_0": [
        r"A pen is 6, a hat may be 7: \boxed{32}",
        r"A hat is 8, thank you: \boxed{34}",
        r"\boxed{34}",
    ],
    "agent_1": [
        r"A hat is 8, a pen may be 5: \boxed{31}",
        r"I stay with it: \boxed{31}",
        r"You are right about the pens, \boxed{34}",
    ],
}


def heading(text: str) -> None:
    print(f"\n--- {text} " + "-" * (76 - len(text)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--you", action="store_true", help="type the messages of agent_1")
    args = parser.parse_args()

    env = debate_v0.parallel_env(task=[QUESTION], num_agents=2, num_turns=3, gamma=GAMMA)
    observations, infos = env.reset(seed=0)
    scores: list[list[float]] = []
    while env.agents:
        turn = len(scores)
        if turn < 2:  # later observations only grow
            heading(f"agent_1 reads before turn {turn + 1}")
            print(observations["agent_1"])
        messages = {agent: SCRIPT[agent][turn] for agent in env.agents}
        if args.you:
            messages["agent_1"] = input("you> ")
        observations, rewards, _, _, infos = env.step(messages)
        heading(f"turn {turn + 1} is over")
        for agent, text in messages.items():
            print(f"{agent} (score {infos[agent]['verifier_score']:.0f}): {text}")
        scores.append([float(infos[agent]["verifier_score"]) for agent in messages])

    heading("the rewards of the messages")
    print("           " + "".join(f"  turn {t + 1}" for t in range(3)) + "     sum = the reward")
    for agent, info in infos.items():
        row = "".join(f"{reward:8.3f}" for reward in info["turn_rewards"])
        print(f"{agent:10}{row}{rewards[agent]:8.3f}")

    first, *later = scores
    means = [sum(row) / 2 for row in later]
    print("\nThe first message of agent_0: its own score, then what the team makes of it,")
    print(
        f"({first[0]:.0f} + {GAMMA} * {means[0]} + {GAMMA**2:.2f} * {means[1]})"
        f" / (1 + {GAMMA} + {GAMMA**2:.2f})"
        f" = {(first[0] + GAMMA * means[0] + GAMMA**2 * means[1]) / (1 + GAMMA + GAMMA**2):.3f}"
    )
    print("It was wrong and still has a reward: it named the price of a pen.")


if __name__ == "__main__":
    main()
