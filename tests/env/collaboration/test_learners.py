"""Learners of the collaboration game find what the exact solutions predict."""

from __future__ import annotations

import importlib.util
import math
import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from maporl_env.collaboration_v0 import best_response, logit_equilibrium, outcome

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("warnings_are_errors")


@pytest.fixture(scope="module")
def example() -> Any:
    path = ROOT / "examples" / "collaboration_game.py"
    spec = importlib.util.spec_from_file_location("collaboration_game", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(2))
def test_tabular_learners_find_what_is_predicted(example: Any, seed: int) -> None:
    rules = {"num_turns": 5, "threshold": 7}
    for partner in (None, 0.5):
        found = example.learn(partner, plays=6000, seed=seed, shuffle=False, **rules).rates
        if partner is None:
            exact = logit_equilibrium(tau=example.TAU, **rules).outcome.rates
        else:
            exact = best_response(partner, tau=example.TAU, **rules).outcome.rates
        assert found == pytest.approx(exact, abs=0.04)


def test_two_learners_may_settle_on_acting_alone(example: Any) -> None:
    """In no order they learn to act alone before they can see what synergy later brings."""
    rules = {"num_turns": 10, "threshold": 14}
    found = example.learn(None, plays=8000, seed=0, shuffle=True, **rules).rates
    assert logit_equilibrium(**rules).outcome.rates[:5].min() > 0.95
    assert found[:5].max() < 0.5


@pytest.mark.parametrize("partner", [0.5, 0.7])
def test_lone_learners_do_not_mind_the_order(example: Any, partner: float) -> None:
    """The same game, the same number of plays: they come near their best response all the same."""
    rules = {"num_turns": 10, "threshold": 14}
    found = example.learn(partner, plays=8000, seed=0, shuffle=True, **rules).rates
    exact = best_response(partner, tau=example.TAU, **rules).outcome.rates
    assert found == pytest.approx(exact, abs=0.12)


@pytest.mark.slow
@pytest.mark.timeout(600)  # for a busy machine
def test_the_example_draws_what_it_says(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="needs the extra train").Figure
    drawn, save = [], figure.savefig
    monkeypatch.setattr(
        figure, "savefig", lambda self, *a, **o: (drawn.append(self), save(self, *a, **o))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["collaboration_game.py"])
    example.main()
    lines = capsys.readouterr().out.splitlines()
    told = [re.fullmatch(r"T=(10|20), (.+): (\.?[\d.]+), off ([\d.]+)", line) for line in lines]
    assert [line and line[2] for line in told] == [*example.LINES] * 2
    for line in filter(None, told):
        turns, partner = int(line[1]), example.LINES[line[2]]
        rules: dict[str, Any] = {"num_turns": turns, "threshold": 7 * turns // 5, "tau": 0.1}
        answer = logit_equilibrium(**rules) if partner is None else best_response(partner, **rules)
        assert float(line[3]) == pytest.approx(answer.outcome.rates.mean(), abs=6e-4)
        assert float(line[4]) < 0.02
    assert (tmp_path / "runs" / "collaboration.png").read_bytes().startswith(b"\x89PNG")
    for panel, turns in zip(drawn[0].axes, (10, 20), strict=True):
        assert [*panel.lines[0].get_xdata()] == [*range(1, turns + 1)]  # as the game counts them
        ticks = panel.get_xticks()
        assert ticks[0] == 1
        assert ticks[-1] == turns
        assert all(tick == int(tick) for tick in ticks)


@pytest.mark.slow  # importing torch takes most of it
@pytest.mark.parametrize(("partner", "first"), [(0.7, 1), (0.05, 0)])
def test_sb3_finds_the_best_response(partner: float, first: int) -> None:
    """PPO earns more than acting at random, by 3 standard errors, and chooses as it should."""
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    env = gymnasium.make("maporl/Collaboration-v0", partner=partner, r_syn=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner = stable_baselines3.PPO(
            "MlpPolicy", env, n_steps=256, batch_size=64, learning_rate=3e-3, gamma=1.0, seed=0
        )
        learner.learn(6000)
    exact = best_response(partner, r_syn=2.0)
    assert exact.policy[0, 0] == first
    chosen, returns = [], []
    for episode in range(300):
        observation, _ = env.reset(seed=1 if episode == 0 else None)
        total, over, acts = 0.0, False, []
        while not over:
            action = int(learner.predict(observation, deterministic=True)[0])
            observation, reward, over, _, _ = env.step(action)
            total += float(reward)
            acts.append(action)
        chosen.append(acts[0])
        returns.append(total)
    error = float(np.std(returns)) / math.sqrt(len(returns))
    assert set(chosen) == {first}
    random = outcome(0.5, partner, r_syn=2.0).expected_return
    assert np.mean(returns) > random + 3 * error
    assert np.mean(returns) == pytest.approx(exact.outcome.expected_return, abs=4 * error + 1e-9)
