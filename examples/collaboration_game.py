"""An agent alone does not learn to collaborate, two do: the game of the paper's section 2.

    python examples/collaboration_game.py              # draws runs/collaboration.png; a minute
    python examples/collaboration_game.py --shuffle    # where the last turn does not come first

For a lone learner with a fixed partner, and for two who learn together, the game is solved exactly
(lines), and tabular learners find out by playing it (dots).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from maporl_env import collaboration_v0 as game
from maporl_env.collaboration.equilibrium import Outcome

TAU = 0.1
LINES = {"two learners": None, "alone, p = .5": 0.5, "alone, p = .6": 0.6, "alone, p = .7": 0.7}


class SoftQ:
    """A table of action values; collaborates with probability sigmoid((q[1] - q[0]) / tau)."""

    def __init__(self, num_turns: int, threshold: int) -> None:
        self.q = np.zeros((num_turns, threshold + 1, 2)).tolist()
        self.visits = np.zeros((num_turns, threshold + 1, 2), dtype=int).tolist()
        self.value = np.zeros((num_turns + 1, threshold + 1)).tolist()  # 0 after the end

    def probability(self, turn: int, count: int) -> float:
        alone, together = self.q[turn][count]
        return (1 + math.tanh((together - alone) / (2 * TAU))) / 2

    def update(self, turn: int, count: int, action: int, target: float) -> None:
        q, visits = self.q[turn][count], self.visits[turn][count]
        if not any(visits):  # a new state: no preference yet
            q[:] = [self.value[turn + 1][count]] * 2
        visits[action] += 1
        q[action] += (10 + visits[action]) ** -0.7 * (target - q[action])
        entropy_bonus = TAU * math.log1p(math.exp(-abs(q[1] - q[0]) / TAU))
        self.value[turn][count] = max(q) + entropy_bonus  # tau log(e^(q0 / tau) + e^(q1 / tau))


def learn(partner: float | None, plays: int, seed: int, shuffle: bool, **rules: int) -> Outcome:
    """Explore from random states; without a fixed partner the partner uses the same table."""
    rng, table, env = np.random.default_rng(seed), SoftQ(**rules), game.parallel_env(**rules)
    turns = np.arange(plays)[::-1] * rules["num_turns"] // plays  # the last turn comes first ...
    for turn in map(int, rng.permutation(turns) if shuffle else turns):  # ... or not
        count = int(rng.integers(min(2 * turn, rules["threshold"]) + 1))
        env.reset(options={"turn": turn, "collaborations": count})
        chance = table.probability(turn, count) if partner is None else partner
        action, answer = int(rng.integers(2)), int(rng.random() < chance)
        _, rewards, _, _, infos = env.step({"agent_0": action, "agent_1": answer})
        later = table.value[turn + 1][infos["agent_0"]["collaborations"]]
        table.update(turn, count, action, rewards["agent_0"] + later)
    policy = (1 + np.tanh(np.diff(table.q)[..., 0] / (2 * TAU))) / 2
    return game.outcome(policy, policy if partner is None else partner, **rules)


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shuffle", action="store_true", help="learn the turns in no order")
    parser.add_argument("--out", type=Path, default=Path("runs", "collaboration.png"))
    args = parser.parse_args()
    shuffle, out = args.shuffle, args.out

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for panel, turns in zip(figure.subplots(1, 2, sharey=True), (10, 20), strict=True):
        rules = {"num_turns": turns, "threshold": 7 * turns // 5}
        for color, (name, p) in enumerate(LINES.items()):
            lone = p is not None and game.best_response(p, tau=TAU, **rules)
            exact = (lone or game.logit_equilibrium(tau=TAU, **rules)).outcome.rates
            found = learn(p, plays=3_000 * turns, seed=0, shuffle=shuffle, **rules).rates
            print(f"T={turns}, {name}: {exact.mean():.3f}, off {abs(found - exact).max():.3f}")
            numbers = range(1, turns + 1)
            panel.plot(numbers, exact, color=f"C{color}", label=name)
            panel.plot(numbers, found, "o", ms=4, color=f"C{color}")
        panel.set(xlabel="turn", ylim=(0, 1.02), title=f"collaboration rate, T = {turns}")
        panel.set_xticks([1, *range(turns // 5, turns + 1, turns // 5)])
        panel.legend(loc="center left")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
