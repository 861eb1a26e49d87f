"""ReAd: values of ordered subsets, the trap of the product of optima, and proposals that return."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from strange_games import chains

from maporl_env.revision.revise import Threshold, Try, act_in_order, act_jointly, revise
from maporl_env.revision.values import (
    Step,
    SubsetValues,
    discounted_returns,
    subset_values,
    tilted,
)

Q = [[4.0, 0.0], [1.0, 2.0]]
MU = [[0.5, 0.5], [[0.5, 0.5], [0.25, 0.75]]]


def test_the_worked_game() -> None:
    values, advantages = subset_values(Q, MU)
    assert float(values[0]) == 1.875
    assert advantages[0].tolist() == [0.125, -0.125]
    assert advantages[1].tolist() == [[2.0, -2.0], [-0.75, 0.25]]
    joint = np.array(Q) - values[0]
    assert np.abs(joint - (advantages[0][:, None] + advantages[1])).max() == 0  # decomposition
    for policy, advantage in zip(MU, advantages, strict=True):
        assert np.abs((np.array(policy) * advantage).sum(-1)).max() < 1e-15  # mean under mu


@pytest.mark.parametrize("agents", [1, 2, 3])
def test_the_joint_advantage_is_the_sum_of_the_local_ones(agents: int) -> None:
    generator = np.random.default_rng(agents)
    shape = (3, 2, 4)[:agents]
    policies = [generator.dirichlet(np.ones(shape[i]), size=shape[:i]) for i in range(agents)]
    q = generator.normal(size=shape)
    values, advantages = subset_values(q, policies)
    total = sum(a.reshape(a.shape + (1,) * (agents - a.ndim)) for a in advantages)
    np.testing.assert_allclose(q - values[0], np.broadcast_to(total, shape), atol=1e-12)


def test_the_product_of_the_agents_optima_is_not_the_joint_optimum() -> None:
    """At beta 1, with the values worked out by hand."""
    values, (first, second) = subset_values(Q, MU)
    joint_mu = np.array(MU[0])[:, None] * np.array(MU[1])
    flat, _ = tilted(joint_mu.ravel(), (np.array(Q) - values[0]).ravel(), 1.0)
    joint = flat.reshape(2, 2)
    np.testing.assert_allclose(joint, [[0.8024, 0.0147], [0.0200, 0.1629]], atol=5e-5)
    own_first, _ = tilted(MU[0], first, 1.0)
    own_second, normaliser = tilted(MU[1], second, 1.0)
    product = own_first[:, None] * own_second
    np.testing.assert_allclose(product, [[0.5521, 0.0101], [0.0478, 0.3900]], atol=5e-5)
    np.testing.assert_allclose(normaliser, [3.7622, 1.0811], atol=5e-5)
    weighted = own_first * normaliser
    restored = (weighted / weighted.sum())[:, None] * own_second
    np.testing.assert_allclose(restored, joint, atol=1e-15)


def episodes(count: int, seed: int = 0) -> SubsetValues:
    """A critic that saw the worked game played by mu."""
    noise, values = random.Random(seed), SubsetValues()
    for _ in range(count):
        one = noise.random() < MU[0][1]
        two = noise.random() < MU[1][one][1]  # type: ignore[index]
        values.add([Step("s", (int(one), int(two)), Q[one][two])])
    return values


def test_monte_carlo_values_converge_to_the_exact_ones() -> None:
    values = episodes(20_000)
    exact, advantages = subset_values(Q, MU)
    assert values.q("s") == pytest.approx(float(exact[0]), abs=0.03)
    for one in (0, 1):
        assert values.q("s", (one,)) == pytest.approx(float(exact[1][one]), abs=0.04)
        assert values.local_advantage("s", (one,)) == pytest.approx(advantages[0][one], abs=0.05)
        for two in (0, 1):
            assert values.q("s", (one, two)) == Q[one][two]
    both = values.local_advantage("s", (0,)), values.local_advantage("s", (0, 1))
    assert values.joint_advantage("s", (0, 1)) == pytest.approx(sum(both))  # type: ignore[arg-type]


def test_waiting_stands_for_the_value_of_a_state() -> None:
    """On a chain where WAIT changes nothing and pays 0: Q(s, wait) = gamma V(s)."""
    gamma, values = 0.8, SubsetValues(0.8)
    for steps in chains(6_000):
        values.add(steps)
    for state in (0, 1, 2):
        waiting, value = values.q(state, ("wait",)), values.q(state)
        assert waiting == pytest.approx(gamma * value, rel=0.05)  # type: ignore[operator]
        by_wait = values.q(state, ("go",)) - waiting / gamma  # type: ignore[operator]
        assert values.joint_advantage(state, ("go",)) == pytest.approx(by_wait, abs=0.03)


def test_returns_are_discounted() -> None:
    assert discounted_returns([1.0, 0.0, 4.0], 0.5).tolist() == [2.0, 2.0, 4.0]


def saying(*proposals: str) -> tuple[list[Sequence[Try]], object]:
    """A stub that proposes given words in turn, and what it was told each time."""
    told: list[Sequence[Try]] = []

    def propose(tries: Sequence[Try]) -> str:
        told.append(tries)
        return proposals[min(len(told), len(proposals)) - 1]

    return told, propose


SCORES = {"bad": -1.0, "fair": 0.3, "good": 1.0}


def test_two_bad_proposals_and_a_good_one_take_three_calls() -> None:
    told, propose = saying("bad", "bad", "good")
    found = revise(propose, SCORES.get, Threshold(0.4), lambda: "mu")  # type: ignore[arg-type]
    assert (found.committed, found.fell_back) == ("good", False)
    assert [one.threshold for one in found.tries] == [0.8, 0.4, 0.2]
    assert [len(tries) for tries in told] == [0, 1, 2]
    assert told[2][0] == Try("bad", -1.0, 0.8)


def test_a_fair_proposal_passes_once_the_threshold_has_fallen() -> None:
    _, propose = saying("fair")
    found = revise(propose, SCORES.get, Threshold(0.4), lambda: "mu")  # type: ignore[arg-type]
    assert [one.threshold for one in found.tries] == [0.8, 0.4, 0.2]
    assert found.committed == "fair"


def test_without_a_good_proposal_the_policy_itself_acts() -> None:
    _, propose = saying("bad")
    found = revise(propose, SCORES.get, Threshold(0.4, tries=4), lambda: "mu")  # type: ignore[arg-type]
    assert (found.committed, found.fell_back, len(found.tries)) == ("mu", True, 4)


def test_what_the_critic_does_not_know_never_passes() -> None:
    _, propose = saying("unknown", "good")
    found = revise(propose, SCORES.get, Threshold(0.0), lambda: "mu")  # type: ignore[arg-type]
    assert [one.score for one in found.tries] == [None, 1.0]


def test_filtered_actions_of_the_worked_game_are_worth_four() -> None:
    """Proposals by mu, filtered by the critic: 4.0, where mu alone is worth 1.875."""
    values, noise = episodes(2_000), random.Random(3)

    def by_mu(agent: int, before: tuple[object, ...]) -> int:
        chances = MU[0] if agent == 0 else MU[1][before[0]]  # type: ignore[index,call-overload]
        return int(noise.random() < chances[1])  # type: ignore[operator]

    total = 0.0
    for _ in range(50):
        found = act_in_order(
            "s", 2, lambda a, b, tries: by_mu(a, b), values, Threshold(0.0, 50), by_mu
        )
        one, two = (revision.committed for revision in found)
        total += Q[one][two]  # type: ignore[index]
    assert total / 50 == 4.0


def test_an_agent_sees_what_was_fixed_and_nobody_elses_tries() -> None:
    values, seen = episodes(500), []

    def propose(agent: int, before: tuple[object, ...], tries: Sequence[Try]) -> int:
        seen.append((agent, before, tuple(one.proposal for one in tries)))
        return 1 if agent == 0 and not tries else 0

    found = act_in_order("s", 2, propose, values, Threshold(0.0), lambda a, b: 0)
    assert seen == [(0, (), ()), (0, (), (1,)), (1, (0,), ())]
    assert [one.committed for one in found] == [0, 0]


def test_a_joint_plan_is_filtered_by_the_joint_advantage() -> None:
    values, plans = episodes(500), iter([(1, 0), (0, 1), (0, 0)])
    found = act_jointly("s", lambda tries: next(plans), values, Threshold(1.0), lambda: (1, 1))
    assert found.committed == (0, 0)
    assert [one.threshold for one in found.tries] == [2.0, 1.0, 0.5]


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="gamma must lie"):
        discounted_returns([1.0], 1.5)
    with pytest.raises(ValueError, match="finite numbers, one per turn"):
        SubsetValues().add([Step("s", ("a",), float("nan"))])
    with pytest.raises(ValueError, match="at least one"):
        SubsetValues().local_advantage("s", ())
    with pytest.raises(ValueError, match="needs a policy of shape"):
        subset_values(Q, MU[:1])
    with pytest.raises(ValueError, match="add up to 1"):
        subset_values(Q, [[0.5, 0.6], MU[1]])
    with pytest.raises(ValueError, match="beta must be above 0"):
        tilted([1.0], [0.0], 0.0)
    with pytest.raises(ValueError, match="alpha"):
        Threshold(-1.0)
    with pytest.raises(ValueError, match="tries must be at least 1"):
        Threshold(1.0, 0)
    assert SubsetValues().joint_advantage("s", ("a",)) is None
