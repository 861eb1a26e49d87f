"""Two games of TextArena, learnt by the built-in small model with a policy per agent.

    pip install 'maporl[train,textarena]'
    python benchmarks/outside_games.py runs/outside_games           # three seeds, 5 CPU-minutes
    python benchmarks/outside_games.py runs/outside_grpo --scheme grpo

Cooperative: PublicGoodsGame, one round, each paid the mean of all. Two players against each other:
IteratedTwoThirdsAverage, one round. Chance is a player whose words are drawn from the legal ones;
in the second game each trained policy also plays against it. A step is 32 games: with GRPO four
groups of eight, each group from one seed of the game; all else is the scheme's default.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from maporl_agents.bridges.outside import OutsideGames
from maporl_agents.bridges.outside_run import held_out_games, make_games, make_learner, run
from maporl_agents.config import GRPOConfig, RunConfig, TrainConfig
from maporl_agents.models.team import Team
from maporl_agents.play.speak import requests, speak
from maporl_agents.seeding import seed_of
from maporl_agents.training.checkpointing import load_checkpoint

GAMES = 400
SCHEMES: dict[str, RunConfig] = {
    "maporl": TrainConfig(questions_per_step=32),
    "grpo": GRPOConfig(questions_per_step=4),
}
Player = Callable[[str], str] | None
"""Words of a scripted player for what it reads; None for the policy of that agent."""


@dataclass(frozen=True)
class Study:
    """One game: its name for `--game.env`, messages per agent, and the number that is legal."""

    env: str
    turns: int
    most: int

    def config(self, scheme: str, name: str, seed: int, steps: int) -> RunConfig:
        usual = SCHEMES[scheme]
        return replace(
            usual,
            name=name,
            seed=seed,
            steps=steps,
            checkpoint_every=steps,
            game=replace(usual.game, env=self.env, num_turns=self.turns),
            sampling=replace(usual.sampling, max_new_tokens=1, temperature=4.0),
            eval=replace(usual.eval, questions=GAMES, greedy=False),
            team=replace(usual.team, device="cpu"),
        )


STUDIES = {
    "cooperative": Study(
        "textarena:PublicGoodsGame-v0,players=2,points=total_scores,num_rounds=1,"
        "communication_turns=1,together=true,scale=0.05",
        turns=4,
        most=20,
    ),
    "two players": Study(
        "textarena:IteratedTwoThirdsAverage-v0-train,num_rounds=1", turns=2, most=100
    ),
}


def mean_returns(
    config: RunConfig, team: Team | None, players: Sequence[Player], seed: int
) -> list[float]:
    """Return the mean return of each agent over held-out games."""
    games = make_games(config, 40)
    held = held_out_games(games, GAMES, seed)
    paid = []
    for first in range(0, GAMES, len(games.games)):
        games.reset(held[first : first + len(games.games)])
        _play(games, config, team, players, seed_of(seed, "part", first))
        paid.append(games.returns())
    means: list[float] = np.concatenate(paid).mean(axis=0).tolist()
    return means


def _play(
    games: OutsideGames,
    config: RunConfig,
    team: Team | None,
    players: Sequence[Player],
    seed: int,
) -> None:
    own: dict[tuple[int, int], list] = {}
    turn = 0
    while prompts := games.prompts():
        texts = {}
        learnt = [p for p in prompts if players[p.agent_index] is None]
        if learnt and team is not None:
            told = [own.setdefault((p.debate, p.agent_index), []) for p in learnt]
            asked = requests(team, learnt, told, first_debate=0, with_values=False)
            said = speak(team, asked, config.sampling, seed_of(seed, "sample", turn))
            for prompt, before, completion in zip(learnt, told, said, strict=True):
                before.append(completion.ids)
                texts[prompt.debate] = completion.text
        for prompt in prompts:
            scripted = players[prompt.agent_index]
            if scripted is not None:
                texts[prompt.debate] = scripted(prompt.text)
        games.step([texts[prompt.debate] for prompt in prompts])
        turn += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--only", choices=STUDIES)
    parser.add_argument("--scheme", choices=SCHEMES, default="maporl")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, object]] = {}
    for name, study in STUDIES.items():
        if args.only in (None, name):
            found[name] = _of_study(name, study, args)
            (args.folder / "outside_games.json").write_text(json.dumps(found, indent=1), "utf-8")


def _of_study(name: str, study: Study, args: argparse.Namespace) -> dict[str, object]:
    rng = np.random.default_rng(0)

    def chance(_: str) -> str:
        return str(rng.integers(study.most + 1))

    config = study.config(args.scheme, "chance", 0, args.steps)
    rows: dict[str, object] = {"chance": mean_returns(config, None, [chance, chance], 0)}
    print(f"{name}: chance {rows['chance']}", flush=True)
    for seed in args.seeds:
        config = study.config(args.scheme, f"{name.split()[0]}-{seed}", seed, args.steps)
        run(config, args.folder / config.name, Console(quiet=True), overwrite=True)
        untrained = make_learner(config)
        learner = make_learner(config)
        load_checkpoint(args.folder / config.name, learner)
        row: dict[str, list[float]] = {}
        for stage, team in (("before", untrained.team), ("after", learner.team)):
            row[stage] = mean_returns(config, team, [None, None], 0)
            row[f"{stage}, agent_0 against chance"] = mean_returns(config, team, [None, chance], 0)
            row[f"{stage}, agent_1 against chance"] = mean_returns(config, team, [chance, None], 0)
        rows[f"seed {seed}"] = row
        for what, means in row.items():
            print(f"{name}, seed {seed}, {what}: {means}", flush=True)
    return rows


if __name__ == "__main__":
    main()
