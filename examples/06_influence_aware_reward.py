r"""The influence-aware reward: a message is rewarded for the scores that follow from it.

    python examples/06_influence_aware_reward.py        # draws runs/influence_reward.png; 2 s

You learn: what gamma weighs. Four debates of two agents are scored (1 right, 0 wrong), and the
reward of every message is shown for three values of gamma. With gamma = 0 a message is rewarded for
its own score alone; the larger gamma, the more the later scores of the team count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from maporl_env.rewards import influence_rewards

GAMMAS = (0.0, 0.3, 1.0)
STORIES = {  # scores, a row per turn: agent_0, agent_1
    "convinces": [[1, 0], [1, 1], [1, 1]],
    "is ignored": [[1, 0], [1, 0], [1, 0]],
    "misleads": [[0, 1], [0, 0], [0, 0]],
    "useful error": [[0, 0], [1, 1], [1, 1]],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("runs", "influence_reward.png"), help="the picture"
    )
    args = parser.parse_args()

    figure = Figure(figsize=(8, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(STORIES), len(GAMMAS) + 1)
    for row, (story, scores) in zip(panels, STORIES.items(), strict=True):
        tables = [np.array(scores, float)]
        tables += [influence_rewards(scores, gamma) for gamma in GAMMAS]
        titles = ["verifier scores", *(f"reward, gamma = {gamma}" for gamma in GAMMAS)]
        for panel, table, title in zip(row, tables, titles, strict=True):
            panel.imshow(table.T, vmin=0, vmax=1, cmap="RdYlGn")
            for turn, agent in np.ndindex(table.shape):
                panel.text(turn, agent, f"{table[turn, agent]:.2f}", ha="center", va="center")
            panel.set_xticks(range(3), ["turn 1", "turn 2", "turn 3"], fontsize=8)
            panel.set_yticks(range(2), ["agent_0", "agent_1"], fontsize=8)
            if row is panels[0]:
                panel.set_title(title, fontsize=10)
        row[0].set_ylabel(f"agent_0\n{story}", fontsize=10)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=90)

    print("reward of the first message of agent_0:\n")
    print(f"{'agent_0 ...':14}" + "".join(f"gamma={gamma:<6}" for gamma in GAMMAS))
    for story, scores in STORIES.items():
        rewards = [influence_rewards(scores, gamma)[0, 0] for gamma in GAMMAS]
        print(f"{story:14}" + "".join(f"{value:<12.3f}" for value in rewards))
    print(
        "\nWith gamma = 0 convincing others has no reward. With gamma = 1 a right answer that is"
        "\nignored gets no more reward than an error that brings the team on the way.\n"
    )
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
