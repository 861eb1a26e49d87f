"""ReAd's critic as a network: it converges to the exact values of a game and of a chain."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from strange_games import chains

from maporl_agents.revision.subset_network import Features, Regression, SubsetNetwork, fit
from maporl_env.revision.features import hashed_words, one_hot
from maporl_env.revision.values import Step, subset_values

Q = [[4.0, 0.0], [1.0, 2.0]]
MU = [[0.5, 0.5], [[0.5, 0.5], [0.25, 0.75]]]
GAME = Features(2, lambda state: [1.0], 1, one_hot(2), 2)


def games(count: int, seed: int = 0) -> list[list[Step]]:
    """The worked game played by mu."""
    noise, found = random.Random(seed), []
    for _ in range(count):
        one = int(noise.random() < MU[0][1])  # type: ignore[operator]
        two = int(noise.random() < MU[1][one][1])  # type: ignore[index]
        found.append([Step("s", (one, two), Q[one][two])])
    return found


@pytest.mark.thorough
def test_the_values_of_the_matrix_game_are_learnt() -> None:
    critic = SubsetNetwork(GAME, hidden=32)
    fit(critic, games(4_000), Regression(epochs=6, batch_size=64, learning_rate=3e-3))
    exact, advantages = subset_values(Q, MU)
    assert critic.q("s") == pytest.approx(float(exact[0]), abs=0.1)
    for one in (0, 1):
        assert critic.q("s", (one,)) == pytest.approx(float(exact[1][one]), abs=0.12)
        for two in (0, 1):
            assert critic.q("s", (one, two)) == pytest.approx(Q[one][two], abs=0.12)
            own = critic.local_advantage("s", (one, two))
            assert own == pytest.approx(float(advantages[1][one][two]), abs=0.2)
    both = [critic.local_advantage("s", actions) for actions in ((0,), (0, 1))]
    assert critic.joint_advantage("s", (0, 1)) == pytest.approx(sum(both), abs=1e-5)  # type: ignore[arg-type]


@pytest.mark.thorough
def test_the_values_of_a_chain_are_learnt() -> None:
    """V(2) = .5 / (1 - .5 g), V(s) = .5 g V(s + 1) / (1 - .5 g), and Q(s, wait) = g V(s)."""
    gamma = 0.8
    features = Features(
        1, one_hot(3), 3, lambda action: [float(action == "go"), float(action == "wait")], 2
    )
    critic = SubsetNetwork(features, hidden=32)
    how = Regression(gamma, epochs=4, batch_size=64, learning_rate=3e-3)
    fit(critic, chains(2_500), how)
    value = 0.5 / (1 - 0.5 * gamma)
    for state in (2, 1, 0):
        assert critic.q(state) == pytest.approx(value, abs=0.03)
        assert critic.q(state, ("wait",)) == pytest.approx(gamma * value, abs=0.04)
        by_wait = critic.q(state, ("go",)) - critic.q(state, ("wait",)) / gamma
        assert critic.joint_advantage(state, ("go",)) == pytest.approx(by_wait, abs=0.06)
        value = 0.5 * gamma * value / (1 - 0.5 * gamma)


def test_rows_hold_the_state_and_the_given_actions() -> None:
    features = Features(2, lambda state: [state, 9.0], 2, one_hot(2), 2)
    rows = features.prefixes(7, (1, None))
    assert rows.tolist() == [
        [7, 9, 0, 0, 0, 0, 0, 0],
        [7, 9, 1, 0, 1, 0, 0, 0],
        [7, 9, 1, 0, 1, 1, 0, 0],
    ]


def test_texts_can_be_states_and_actions() -> None:
    words = hashed_words(32)
    critic = SubsetNetwork(Features(1, words, 32, words, 32), hidden=16)
    episodes = [
        [Step("the door is shut", (said,), float(said == "open it"))]
        for said in ("open it", "leave it") * 20
    ]
    errors = fit(critic, episodes, Regression(epochs=12, batch_size=8, learning_rate=1e-2))
    assert errors[-1] < errors[0]
    good, bad = (
        critic.local_advantage("the door is shut", (said,)) for said in ("open it", "leave it")
    )
    assert good > 0.3 > -0.3 > bad  # type: ignore[operator]
    assert not hashed_words(8)("").any()
    assert np.isfinite(words("\ud800 " * 50_000)).all()


def test_a_seed_names_the_critic_and_global_random_numbers_stay() -> None:
    state = torch.random.get_rng_state()
    found = []
    for seed in (0, 0, 1):
        critic = SubsetNetwork(GAME, hidden=8, seed=seed)
        fit(critic, games(20), Regression(epochs=1, seed=seed))
        found.append(critic.q("s", (0, 1)))
    assert found[0] == found[1] != found[2]
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_critic_is_saved_and_loaded_as_any_module() -> None:
    critic, other = SubsetNetwork(GAME, hidden=8), SubsetNetwork(GAME, hidden=8, seed=5)
    fit(critic, games(20), Regression(epochs=1))
    other.load_state_dict(critic.state_dict())
    assert other.q("s", (1,)) == critic.q("s", (1,))


@pytest.mark.parametrize(
    ("act", "complaint"),
    [
        (lambda: Regression(epochs=0), "at least 1"),
        (lambda: Regression(learning_rate=float("nan")), "learning_rate must be above 0"),
        (lambda: fit(SubsetNetwork(GAME), []), "at least one turn"),
        (lambda: fit(SubsetNetwork(GAME), games(1), Regression(gamma=2.0)), "gamma must lie"),
        (lambda: SubsetNetwork(GAME).q("s", (0, 1, 0)), "3 actions were given for 2 agents"),
        (lambda: SubsetNetwork(GAME).q("s", (2,)), "not one of the 2 actions"),
        (
            lambda: SubsetNetwork(Features(1, lambda s: [float("nan")], 1, one_hot(2), 2)).q("s"),
            "features of a state must be 1 finite numbers",
        ),
        (lambda: fit(SubsetNetwork(GAME), [[Step("s", (0, 0), float("inf"))]]), "finite numbers"),
        (lambda: hashed_words(0), "size must be at least 1"),
    ],
)
def test_bad_input_is_one_sentence(act: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        act()
