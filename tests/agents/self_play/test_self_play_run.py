"""Runs of self-play: resumed as if uncut, refused in a sentence, and learning."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_runs import cut_and_resumed, maporl

from maporl_agents.config import GRPOConfig, Sampling, SelfPlayConfig, TeamConfig
from maporl_agents.models.team import Team
from maporl_agents.play.speak import requests, speak
from maporl_agents.records.run_log import read_metrics
from maporl_agents.self_play import run as self_play
from maporl_agents.training.experiment import load_team
from maporl_env import takeaway_v0
from maporl_env.batched import Prompt
from maporl_env.takeaway_v0 import move_of, value, worst_values

FLAGS = (
    *("--scheme", "grpo", "--self-play.game", "takeaway", "--team.model", "tiny-sharing"),
    *("--team.sharing", "one", "--sampling.max-new-tokens", 2, "--steps", 5, "--name", "x"),
    *("--questions-per-step", 3, "--grpo.group-size", 2, "--checkpoint-every", 2),
    *("--self-play.every", 1, "--self-play.pool", 3, "--self-play.games-measured", 8),
    *("--self-play.opponents", "rating"),
)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a run that do not depend on time."""
    names = ["metrics.jsonl", "results.json", "config.json", "transcripts/games.jsonl"]
    found = {name: (folder / name).read_bytes() for name in names}
    for path in sorted((folder / "pool").glob("step-*/**/*.safetensors")):
        found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.mark.thorough
@pytest.mark.usefixtures("work_folder")
def test_a_run_that_was_killed_goes_on_as_if_uncut(monkeypatch, capsys) -> None:
    """Killed in step 4 of 5, behind the checkpoint of step 2: the pool is that of the whole run."""
    assert maporl("train", *FLAGS, "--runs", "whole") == 0
    assert cut_and_resumed(monkeypatch, FLAGS, killed_in=4) == [0, 1, 2, 3, 2, 3, 4]
    whole, cut = files_of(Path("whole/x")), files_of(Path("cut/x"))
    assert cut == whole
    pool = {Path(name).parts[1] for name in whole if name.startswith("pool")}
    assert pool == {"step-000000", "step-000004", "step-000005"}
    assert "against the untrained team" in capsys.readouterr().out
    rows = read_metrics(Path("whole/x"))
    assert rows[0]["self_play/opponent"] == 0
    assert {row["self_play/opponent"] for row in rows} <= {0, 1, 2, 3, 4}
    # The team of such a run is loaded as any other, and `train` does not take one for another.
    assert load_team(Path("whole/x"))[1].num_agents == 2
    assert maporl("train", *FLAGS, "--runs", "whole", "--overwrite", "--steps", 2) == 0
    assert not Path("whole/x/pool/step-000004").exists()


def not_zero_sum() -> Any:
    game = takeaway_v0.raw_env(stones=(1, 1))
    step = game.step

    def generous(action: Any) -> None:
        step(action)
        game.rewards = dict.fromkeys(game.rewards, 1.0)

    game.step = generous
    return game


def small(seed: int = 0, **options: Any) -> GRPOConfig:
    base = GRPOConfig()
    played = SelfPlayConfig(**{"game": "takeaway", "every": 5} | options)
    return replace(
        base,
        seed=seed,
        steps=40,
        team=TeamConfig(model=("tiny-sharing",), sharing="one"),
        sampling=Sampling(max_new_tokens=2),
        self_play=played,
    )


@pytest.mark.thorough
def test_games_that_are_not_zero_sum_are_refused(tmp_path: Path) -> None:
    config = replace(small(game=f"{__name__}:not_zero_sum"), steps=1, questions_per_step=1)
    with pytest.raises(ValueError, match="do not add up to 0: self-play is for zero-sum games"):
        self_play.run(config, tmp_path / "x", Console(quiet=True))


@pytest.mark.parametrize("flag", ["--self-play.game", "--game.env"])
def test_plans_of_games_are_refused_in_a_sentence(flag: str, capsys) -> None:
    assert maporl("plan", flag, "takeaway") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"plans are of debates, and {flag} takeaway is another game" in said


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (("--self-play.game", "chess"), "unknown game 'chess'"),
        (("--self-play.turns", 3), "self_play.game is empty"),
        (("--self-play.game", "takeaway", "--game.history", "last"), "is about debates"),
        (("--self-play.game", "takeaway", "--scheme", "magrpo"), "learns by maporl or grpo"),
        (("--self-play.game", "takeaway", "--self-play.pool", 1), "pool must be at least 2"),
        (("--self-play.game", "takeaway", "--self-play.gamma", 2), "gamma must be in"),
    ],
)
@pytest.mark.usefixtures("work_folder")
def test_mistakes_are_one_sentence(flags: tuple[Any, ...], match: str, capsys) -> None:
    assert maporl("train", *flags) == 2
    error = capsys.readouterr().err
    assert match in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


# --- Learning ------------------------------------------------------------------------


def strategy_of(
    team: Team, config: GRPOConfig, draws: int = 40
) -> Callable[[int], dict[Any, float]]:
    """Return the shares of the moves that a team draws on each heap of 1 to 12 stones."""
    game = takeaway_v0.raw_env()
    prompts = []
    for heap in range(1, 13):
        game.reset(options={"stones": heap})
        text = str(game.observe("player_0"))
        prompts += [
            Prompt(len(prompts) + i, "player_0", 0, 0, (("user", text),), text)
            for i in range(draws)
        ]
    said = speak(team, requests(team, prompts, [()] * len(prompts)), config.sampling, 5)
    moves = [move_of(one.text) for one in said]
    tables = [Counter(moves[i : i + draws]) for i in range(0, len(moves), draws)]
    return lambda heap: {move: count / draws for move, count in tables[heap - 1].items()}


def exploitability(team: Team, config: GRPOConfig) -> float:
    """Return what the best response gains on heaps of 4 to 12 stones over exact play; 0 to 2."""
    strategy = strategy_of(team, config)
    lost = []
    for stones in range(4, 13):
        moving, waiting = worst_values(strategy, stones)
        lost += [value(stones) - moving, -value(stones) - waiting]
    return sum(lost) / len(lost)


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_to_win(tmp_path: Path, seed: int) -> None:
    """40 steps of 64 games with GRPO against the pool.

    Measured for seeds 0 to 2: scores .895, .865, .865; exploitability .908 to .778, .775, .772;
    about 10 CPU-s each.
    """
    config = small(seed)
    before = exploitability(self_play._team(config), config)
    results = self_play.run(config, tmp_path / "x", Console(quiet=True))
    after = exploitability(load_team(tmp_path / "x")[1], config)
    score = results["against_untrained"]["score"]
    print(f"seed {seed}: {score}, exploitability {before:.3f} to {after:.3f}")
    assert json.loads((tmp_path / "x" / "results.json").read_text()) == results
    assert score["mean"] > 0.7  # the control, another copy of the untrained team, has .5
    assert after < before - 0.05
    assert results["rating"] > 50
