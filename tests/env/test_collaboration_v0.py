"""The collaboration game: official tests, rules by hand, exact solutions, and learners."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import math
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import (
    api_test,
    max_cycles_test,
    parallel_api_test,
    parallel_seed_test,
    render_test,
    seed_test,
    state_test,
)
from pettingzoo.utils.conversions import aec_to_parallel, parallel_to_aec

from maporl_env import collaboration_v0
from maporl_env.bridges.collaboration import LoneCollaboration
from maporl_env.collaboration_v0 import Rules, best_response, logit_equilibrium, outcome

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_turns": 10, "threshold": 14},
    {"num_turns": 1, "threshold": 1, "timing": "same"},
    {"num_turns": 3, "threshold": 99, "r_col": -1, "r_ind": 0, "r_syn": 2.5},
]


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -- the official tests -------------------------------------------------------------------------


def converted(**options: Any) -> Any:
    return aec_to_parallel(collaboration_v0.env(**options))


def converted_back(**options: Any) -> Any:
    return parallel_to_aec(collaboration_v0.parallel_env(**options))


@pytest.mark.parametrize("options", SETTINGS)
def test_official_tests(options: dict[str, Any]) -> None:
    for make in (collaboration_v0.env, collaboration_v0.raw_env, converted_back):
        api_test(make(**options), num_cycles=30)
    for make in (collaboration_v0.parallel_env, converted):
        parallel_api_test(make(**options), num_cycles=30)
    seed_test(lambda: collaboration_v0.env(**options), num_cycles=10)
    parallel_seed_test(lambda: collaboration_v0.parallel_env(**options), num_cycles=10)
    state_test(collaboration_v0.env(**options), collaboration_v0.parallel_env(**options))


def test_official_max_cycles_and_render(capsys: pytest.CaptureFixture[str]) -> None:
    max_cycles_test(collaboration_v0)
    render_test(collaboration_v0.env)
    assert "Turn 1: agent_0" in capsys.readouterr().out


def test_made_by_name() -> None:
    for api in ("aec", "parallel"):
        env = pettingzoo.make(api, "maporl/collaboration-v0", num_turns=4, threshold=3)
        assert env.max_cycles == 4
        assert env.possible_agents == ["agent_0", "agent_1"]
    check_env(gymnasium.make("maporl/Collaboration-v0", partner=0.6, num_turns=3).unwrapped)


# -- the rules ----------------------------------------------------------------------------------


def play(script: list[tuple[int, int]], **options: Any) -> list[tuple[float, float]]:
    env = collaboration_v0.parallel_env(num_turns=len(script), **options)
    env.reset()
    paid = []
    for first, second in script:
        _, rewards, *_ = env.step({"agent_0": first, "agent_1": second})
        paid.append((rewards["agent_0"], rewards["agent_1"]))
    return paid


def test_payments_by_hand() -> None:
    script = [(0, 0), (1, 0), (0, 1), (0, 1), (0, 0)]  # counts before: 0, 0, 1, 2, 3
    plain = [(0.4, 0.4), (0.2, 0.4), (0.4, 0.2)]
    assert play(script) == [*plain, (1, 1), (1, 1)]
    assert play(script, timing="same") == [*plain[:2], (1, 1), (1, 1), (1, 1)]
    assert play(script, threshold=4) == [*plain, (0.4, 0.2), (0.4, 0.4)]
    assert play(script, threshold=1, r_col=-2, r_ind=0, r_syn=5) == [
        (0, 0), (-2, 0), (5, 5), (5, 5), (5, 5),
    ]  # fmt: skip


def test_observations_infos_and_the_end() -> None:
    env = collaboration_v0.parallel_env(num_turns=2, threshold=4)
    observations, infos = env.reset()
    assert observations["agent_0"].tolist() == observations["agent_1"].tolist() == [1, 1, 0]
    observations, _, ended, _, infos = env.step({"agent_0": 1, "agent_1": 0})
    assert observations["agent_1"].tolist() == [0.5, 0.75, 0]
    assert infos["agent_0"] == {"turn": 1, "collaborations": 1, "synergy": False}
    assert not any(ended.values())
    observations, _, ended, cut, infos = env.step({"agent_0": 1, "agent_1": 1})
    assert observations["agent_0"].tolist() == [0, 0.25, 0]
    assert infos["agent_0"]["collaborations"] == 3
    assert all(ended.values())
    assert not any(cut.values())
    assert env.agents == []


def test_the_choice_of_one_is_hidden_from_the_other_until_the_turn_is_over() -> None:
    env = collaboration_v0.env()
    env.reset()
    before = env.observe("agent_1")
    env.step(1)
    assert (env.observe("agent_1") == before).all()
    assert (env.state() == before).all()
    env.step(1)
    assert env.observe("agent_1").tolist() == [0.5, 0, 1]


@pytest.mark.parametrize("timing", ["next", "same"])
def test_both_interfaces_pay_alike(timing: str) -> None:
    options: dict[str, Any] = {"num_turns": 4, "threshold": 3, "timing": timing}
    for script in itertools.product(range(4), repeat=4):
        pairs = [divmod(choice, 2) for choice in script]
        paid = np.sum(play(pairs, threshold=3, timing=timing), axis=0)
        env = collaboration_v0.env(**options)
        env.reset()
        totals = dict.fromkeys(env.agents, 0.0)
        actions = iter([action for pair in pairs for action in pair])
        for agent in env.agent_iter():
            _, reward, ended, *_ = env.last()
            totals[agent] += reward
            env.step(None if ended else next(actions))
        assert list(totals.values()) == pytest.approx(paid)


def test_starting_in_another_state() -> None:
    env = collaboration_v0.parallel_env(num_turns=3, threshold=3)
    observations, infos = env.reset(options={"turn": 2, "collaborations": 4, "unknown": object()})
    assert observations["agent_0"].tolist() == pytest.approx([1 / 3, 0, 1])
    assert infos["agent_0"] == {"turn": 2, "collaborations": 3, "synergy": True}
    assert env.step({"agent_0": 0, "agent_1": 1})[1] == {"agent_0": 1, "agent_1": 1}
    assert env.agents == []
    assert env.reset()[1]["agent_0"]["turn"] == 0


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"num_agents": 3}, TypeError, "unknown option 'num_agents': choose one of num_turns"),
        ({"num_turns": 0}, ValueError, "num_turns must be an integer of at least 1, not 0"),
        ({"max_cycles": 0}, ValueError, "num_turns must be an integer"),
        ({"threshold": 1.5}, ValueError, "threshold must be an integer"),
        ({"r_col": 0.4}, ValueError, "r_col=0.4 must be below r_ind=0.4"),
        ({"r_syn": math.nan}, ValueError, "r_syn must be a finite number"),
        ({"timing": "now"}, ValueError, "unknown timing 'now': choose one of next, same"),
        ({"render_mode": "video"}, ValueError, "choose one of None, human, ansi, rgb_array"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], complaint: str) -> None:
    for make in (collaboration_v0.env, collaboration_v0.parallel_env, LoneCollaboration):
        with pytest.raises(error, match=complaint):
            make(**options)


@pytest.mark.parametrize("action", [None, 2, -1, 0.0, "1", np.array([1])])
def test_a_wrong_action_changes_nothing(action: Any) -> None:
    aec, parallel, lone = (
        collaboration_v0.raw_env(),
        collaboration_v0.parallel_env(),
        LoneCollaboration(),
    )
    aec.reset()
    aec.step(1)
    lone.reset(seed=0)
    parallel.reset()
    for env, given in (
        (aec, action),
        (lone, action),
        (parallel, {"agent_0": 1, "agent_1": action}),
        (parallel, {"agent_0": 1}),
        (parallel, {"agent_0": 1, "agent_1": 1, "agent_2": 1}),
    ):
        before = pickle.dumps(env)
        with pytest.raises(ValueError, match=r"must be 0 \(alone\)|a dict with exactly agent_0"):
            env.step(given)
        assert pickle.dumps(env) == before


@pytest.mark.parametrize(
    "options",
    [
        {"turn": 2},
        {"turn": -1},
        {"turn": 0.5},
        {"collaborations": 1},
        {"turn": 1, "collaborations": 3},
    ],
)
def test_a_wrong_start_changes_nothing(options: dict[str, Any]) -> None:
    env = collaboration_v0.raw_env()
    env.reset()
    env.step(1)
    before = pickle.dumps(env)
    with pytest.raises(ValueError, match="must be an integer"):
        env.reset(options=options)
    assert pickle.dumps(env) == before


def test_calls_in_the_wrong_order() -> None:
    envs: list[Any] = [collaboration_v0.parallel_env(), collaboration_v0.raw_env()]
    for env in [*envs, LoneCollaboration()]:
        with pytest.raises(ResetNeeded, match="call reset first"):
            env.step(1)
    with pytest.raises(ResetNeeded, match="call reset first"):
        collaboration_v0.raw_env().state()
    with pytest.raises(ValueError, match="no agent 'agent_2': choose one of agent_0, agent_1"):
        collaboration_v0.raw_env().observe("agent_2")


# -- copies and pictures ------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5])
def test_copies_continue_alike(duplicate: Callable[[Any], Any], steps: int) -> None:
    env = collaboration_v0.raw_env()
    env.reset()

    def go(one: Any, number: int) -> str:
        told = []
        for step in range(number):
            if not one.agents:
                one.reset()
            told.append(one.last())
            one.step(None if one.terminations[one.agent_selection] else step % 3 % 2)
        return repr(told)

    go(env, steps)
    assert go(duplicate(env), 9) == go(env, 9)


def test_rendering(capsys: pytest.CaptureFixture[str]) -> None:
    shown: dict[str, Any] = {}
    for mode in ("ansi", "rgb_array", "human"):
        env = collaboration_v0.parallel_env(render_mode=mode)
        env.reset()
        env.step({"agent_0": 1, "agent_1": 1})
        env.step({"agent_0": 0, "agent_1": 1})
        shown[mode] = env.render()
    text = (
        "Turn 1: agent_0 collaborates, agent_1 collaborates; paid 0.2, 0.2\n"
        "Turn 2: agent_0 alone, agent_1 collaborates; paid 1, 1 (synergy)\n"
    )
    assert shown["ansi"] == text
    assert shown["human"] is None
    assert capsys.readouterr().out == text  # each turn once
    picture = shown["rgb_array"]
    assert picture.dtype == np.uint8
    orange, blue, green, white = (214, 120, 60), (50, 110, 190), (60, 160, 80), (255, 255, 255)
    cells = picture[12::24, 12::24]  # the middles: agents and synergy down, turns across
    assert cells.tolist() == np.array([[blue, orange], [blue, blue], [white, green]]).tolist()
    with pytest.warns(UserWarning, match="nothing to render"):
        collaboration_v0.parallel_env().render()


# -- exact solutions ----------------------------------------------------------------------------


@pytest.mark.parametrize(("r_col", "r_ind", "r_syn"), [(0.2, 0.4, 1.0), (0, 0.3, 0.7), (-1, 1, 9)])
@pytest.mark.parametrize("p", np.linspace(0, 1, 11))
def test_observation_1(r_col: float, r_ind: float, r_syn: float, p: float) -> None:
    """Collaborate iff (r_syn - r_ind) p >= r_ind - r_col: T = 2, K = 2, synergy from next turn."""
    found = best_response(p, r_col=r_col, r_ind=r_ind, r_syn=r_syn)
    gain = (r_syn - r_ind) * p - (r_ind - r_col)
    assert found.policy[0, 0] == (0.5 if abs(gain) < 1e-9 else float(gain > 0))
    assert found.policy[1, 0] == found.policy[1, 1] == 0  # nothing left to be gained
    # Alone twice, or collaborate first and then be paid r_syn if the partner did too.
    assert found.values[0, 0] == pytest.approx(2 * r_ind + max(gain, 0))


def test_observation_1_does_not_hold_with_threshold_1() -> None:
    # There the partner alone brings synergy: r_col + r_syn against r_ind + p r_syn + (1-p) r_ind,
    # so collaborate iff (1 - p) (r_syn - r_ind) >= r_ind - r_col, here iff p <= 2/3.
    for p in (0.1, 0.3, 0.6, 0.7, 0.9):
        assert best_response(p, threshold=1).policy[0, 0] == (p <= 2 / 3)
    assert best_response(1 / 3, threshold=2).policy[0, 0] == 0.5  # the tie of Observation 1


@pytest.mark.parametrize(("r_col", "r_ind"), [(0.2, 0.4), (0.0, 0.25), (0.1, 0.15)])
def test_two_who_learn_together_switch_where_they_should(r_col: float, r_ind: float) -> None:
    """The joint solution of the two-turn game changes at r_syn = 3 r_ind - 2 r_col (here .8)."""
    switch = 3 * r_ind - 2 * r_col
    for tau in (0.0, 1e-4):
        for r_syn, expected in ((switch - 0.01, 0.0), (switch + 0.01, 1.0)):
            found = logit_equilibrium(r_col=r_col, r_ind=r_ind, r_syn=r_syn, tau=tau)
            assert found.policy[0, 0] == pytest.approx(expected, abs=1e-9)
    assert logit_equilibrium(r_col=r_col, r_ind=r_ind, r_syn=switch, tau=0).policy[0, 0] == 0.5


def test_the_last_turn_by_hand() -> None:
    found = logit_equilibrium(tau=0.1)
    # Without synergy the gap is .2 - .4: sigmoid(-2); value .1 log(e^2 + e^4). With it: a coin.
    assert found.policy[1, 0] == pytest.approx(1 / (1 + math.exp(2)))
    assert found.values[1, 0] == pytest.approx(0.1 * math.log(math.exp(2) + math.exp(4)))
    assert found.policy[1, 2] == 0.5
    assert found.values[1, 2] == pytest.approx(1 + 0.1 * math.log(2))
    assert (found.values[2] == 0).all()


def slow_values(rules: Rules, policy: Any, partner: Any, tau: float) -> float:
    """A slow twin: sum over every course of the game, weighted by its probability."""
    total = 0.0
    for course in itertools.product(range(4), repeat=rules.num_turns):
        chance, paid, count = 1.0, 0.0, 0
        for t, choice in enumerate(course):
            a, b = divmod(choice, 2)
            k = min(count, rules.threshold)
            p, q = policy[t][k], partner[t][k]
            chance *= (p if a else 1 - p) * (q if b else 1 - q)
            met = count + (a + b if rules.timing == "same" else 0) >= rules.threshold
            paid += rules.r_syn if met else (rules.r_col if a else rules.r_ind)
            paid -= tau * math.log(p if a else 1 - p) if tau and chance else 0.0
            count += a + b
        total += chance * paid
    return total


@pytest.mark.parametrize("timing", ["next", "same"])
@pytest.mark.parametrize("threshold", [1, 2, 3, 5])
@pytest.mark.parametrize("tau", [0.05, 0.3])
def test_no_policy_does_better_than_the_equilibrium(
    timing: str, threshold: int, tau: float
) -> None:
    options: dict[str, Any] = {"num_turns": 4, "threshold": threshold, "timing": timing}
    found = logit_equilibrium(tau=tau, **options)
    answer = best_response(found.policy, tau=tau, **options)
    assert answer.policy == pytest.approx(found.policy, abs=1e-9)
    assert answer.values == pytest.approx(found.values, abs=1e-9)
    value = slow_values(found.rules, found.policy, found.policy, tau)
    assert found.values[0, 0] == pytest.approx(value)
    rng = np.random.default_rng(threshold)
    for _ in range(5):
        other = np.clip(found.policy + rng.normal(0, 0.2, found.policy.shape), 0.01, 0.99)
        assert slow_values(found.rules, other, found.policy, tau) <= value + 1e-12


@pytest.mark.parametrize("r_syn", [0.5, 0.7, 0.9, 1.5])
@pytest.mark.parametrize("tau", [0.02, 0.1])
def test_the_equilibrium_is_the_one_that_growing_certainty_leads_to(
    r_syn: float, tau: float
) -> None:
    """From p = 1/2, where precision (1 / tau) is 0, the first turn is followed in small steps."""
    found = logit_equilibrium(tau=tau, r_syn=r_syn)
    none, one, both = found.values[1]
    # Alone against alone: .2 - .4 + V(1) - V(0). Each gap as in the table of the two-turn game.
    alone, together = one - none - 0.2, both - one - 0.2
    p = 0.5
    for precision in [*np.linspace(0, 1 / tau, 500), *[1 / tau] * 200]:
        gap = (1 - p) * alone + p * together
        p += 0.5 * (1 / (1 + math.exp(-gap * precision)) - p)
    assert found.policy[0, 0] == pytest.approx(p, abs=1e-9)


def test_exact_best_responses_beat_every_pure_policy() -> None:
    options: dict[str, Any] = {"num_turns": 2, "threshold": 3, "timing": "same"}
    for p in (0.2, 0.5, 0.8):
        found = best_response(p, **options)
        returns = [
            outcome(np.array(bits, float).reshape(2, 4), p, **options).expected_return
            for bits in itertools.product((0, 1), repeat=8)
        ]
        assert found.values[0, 0] == pytest.approx(max(returns))
        assert found.outcome.expected_return == pytest.approx(max(returns))


def test_alone_nobody_learns_to_collaborate_together_both_do() -> None:
    """The paper's figure: T = 10 and 20, partners of .5, .6, .7, tau .1; threshold 1.4 T."""
    for rules in ({"num_turns": 10, "threshold": 14}, {"num_turns": 20, "threshold": 28}):
        together = logit_equilibrium(**rules).outcome.rates
        assert together[0] > 0.98
        assert together.mean() > 0.8
        for p in (0.5, 0.6, 0.7):
            alone = best_response(p, tau=0.1, **rules).outcome.rates
            assert alone.max() < 0.15


def test_outcomes_are_those_of_play() -> None:
    rules: dict[str, Any] = {"num_turns": 5, "threshold": 4}
    found = best_response(0.4, tau=0.3, **rules)
    env = LoneCollaboration(0.4, **rules)
    rng = np.random.default_rng(0)
    returns, joined = [], np.zeros(5)
    for episode in range(3000):
        _, info = env.reset(seed=0 if episode == 0 else None)
        total, over = 0.0, False
        while not over:
            turn, count = int(info["turn"]), int(info["collaborations"])
            action = int(rng.random() < found.policy[turn, count])
            joined[turn] += action
            _, reward, over, _, info = env.step(action)
            total += reward
        returns.append(total)
    exact, error = found.outcome, float(np.std(returns)) / math.sqrt(len(returns))
    assert np.mean(returns) == pytest.approx(exact.expected_return, abs=4 * error)
    assert joined / len(returns) == pytest.approx(exact.rates, abs=4 * 0.5 / math.sqrt(3000))
    assert exact.reach.sum(axis=1) == pytest.approx(np.ones(6))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: logit_equilibrium(tau=-1), "tau must be a finite number of at least 0"),
        (lambda: logit_equilibrium(tau=math.nan), "tau must be"),
        (lambda: logit_equilibrium(num_turns=0), "num_turns must be"),
        (lambda: best_response(1.1), "partner must hold probabilities"),
        (lambda: best_response([0.1, 0.2]), r"a number or of shape \(2, 3\), not \(2,\)"),
        (lambda: outcome(math.nan, 0.5), "policy must hold probabilities"),
        (lambda: LoneCollaboration(partner=2), "partner must hold probabilities"),
    ],
)
def test_wrong_questions(call: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        call()


# -- learners -----------------------------------------------------------------------------------


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
    assert (tmp_path / "collaboration.png").read_bytes().startswith(b"\x89PNG")
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


# -- the page -----------------------------------------------------------------------------------


def test_the_rule_sheet_and_the_page() -> None:
    sheet = collaboration_v0.__doc__ or ""
    for part in ("## Rules", "## Observation", "## Rewards", "## Version history", "* v0"):
        assert part in sheet
    page = (ROOT / "docs" / "explanation" / "collaboration.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(snippets) >= 3
    names: dict[str, Any] = {"__name__": "snippets"}
    for snippet in snippets:
        exec(
            compile(snippet, "docs/explanation/collaboration.md", "exec", dont_inherit=True), names
        )


def test_the_table_of_the_page() -> None:
    page = (ROOT / "docs" / "explanation" / "collaboration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) == 5
    for threshold, cells in rows:
        rules: dict[str, Any] = {"num_turns": 10, "threshold": int(threshold)}
        lone = [best_response(p, tau=0.1, **rules) for p in (0.5, 0.6, 0.7)]
        for cell, found in zip(
            cells.split(" | "), [logit_equilibrium(**rules), *lone], strict=True
        ):
            end = found.outcome
            exact = (end.rates[0], end.reach[-1, -1], end.expected_return)
            assert [float(part) for part in cell.split("/")] == pytest.approx(exact, abs=0.0051)
