r"""Scripted agents and voting: the gain of a team that does not learn.

    python examples/05_scripted_agents_and_voting.py               # three seconds
    python examples/05_scripted_agents_and_voting.py --reliability 0.45

You learn: to let any Python function debate, what a majority gains over its members, that
copies of one model gain nothing, and why a rise over the turns is no sign of reasoning: agents that
merely join the majority rise as well. It is the least that a trained team has to beat.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from math import comb

import numpy as np

from maporl_agents.measure.debate_stats import turn_stats
from maporl_env.bridges.speakers import play
from maporl_env.types import Question
from maporl_env.voting import majority

SUM = re.compile(r"(\d+) \+ (\d+)")
BOX = re.compile(r"\\boxed\{(\d+)\}")


class Follower:
    """Adds up, right with a given probability; from the second turn on it joins the majority."""

    def __init__(self, reliability: float, seed: int) -> None:
        self.reliability = reliability
        self.rng = np.random.default_rng(seed)

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        return [rf"\boxed{{{self.answer(prompt)}}}" for prompt in prompts]

    def answer(self, prompt: str) -> int:
        if votes := BOX.findall(prompt):  # what everybody said, its own answer included
            return int(majority(votes)[0])
        a, b = map(int, SUM.findall(prompt)[0])
        return a + b if self.rng.random() < self.reliability else a + b + 1


def condorcet(agents: int, reliability: float) -> float:
    """Return the probability that more than half of the independent agents are right."""
    p, q, majorities = reliability, 1 - reliability, range(agents // 2 + 1, agents + 1)
    return sum(comb(agents, k) * p**k * q ** (agents - k) for k in majorities)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reliability", type=float, default=0.65, help="of one agent, 0 to 1")
    parser.add_argument("--questions", type=int, default=500)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    pairs = rng.integers(1, 50, size=(args.questions, 2)).tolist()
    questions = [Question(f"{i}", f"{a} + {b} = ?", str(a + b)) for i, (a, b) in enumerate(pairs)]

    print(f"each agent is right with probability {args.reliability}; {args.questions} questions\n")
    print("team                     turn 1: agents  vote  (theory)   turn 2: agents  vote")
    for number in (1, 3, 5, 9):
        for copies in (False, True) if number > 1 else (False,):
            seeds = [7 if copies else agent for agent in range(number)]
            team = [Follower(args.reliability, seed) for seed in seeds]
            first, second = turn_stats(play(team, questions, num_turns=2).transcripts)
            name = f"{number} {'copies of one' if copies else 'independent'}"
            theory = condorcet(1 if copies else number, args.reliability)
            print(
                f"{name:24} {first.mean_accuracy:14.3f} {first.vote:6.3f} {theory:7.3f}"
                f" {second.mean_accuracy:17.3f} {second.vote:6.3f}"
            )
    print("\nIn turn 2 the agents are as good as their vote was, and the vote has gained nothing.")


if __name__ == "__main__":
    main()
