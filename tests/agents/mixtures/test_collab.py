"""Collab: the published example, the guarantee on random trees, and decoding with real models."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from miniatures import load_team, stir

from maporl_agents.config import Sampling
from maporl_agents.mixtures.collab import (
    Collab,
    Proposal,
    Rollouts,
    best,
    critic_values,
    kl_to_reference,
)
from maporl_agents.models.team import Team
from maporl_agents.play.speak import speak
from maporl_agents.types import Request

BOTH = ("agent_0", "agent_1")
ASKED = [Request("agent_0", prompt, 0, d) for d, prompt in enumerate([(5, 6, 7), (9, 8), (20,)])]


def make_team(checkpoint, tuning: str = "lora") -> Team:
    team = load_team(checkpoint("llama"), num_turns=1, tuning=tuning)
    stir(team)
    for base in team.bases:
        base.chat.stop_ids = frozenset(range(0, base.vocab_size, 4))
    return team


# -- a tree of tokens, whose leaves have rewards --------------------------------------------------


class Tree:
    """Policies (K, nodes of a depth, tokens) by depth, and a reward per leaf; values are exact."""

    def __init__(self, policies: list[np.ndarray], rewards: np.ndarray) -> None:
        self.policies, self.rewards = policies, rewards
        self.tokens = policies[0].shape[2]

    def value(self, policy: int, path: tuple[int, ...]) -> float:
        """Expected reward if the policy goes on alone after a path."""
        if len(path) == len(self.policies):
            return float(self.rewards[path])
        return float(
            sum(
                p * self.value(policy, (*path, z))
                for z, p in enumerate(self.policies[len(path)][policy, self.node(path)])
            )
        )

    def node(self, path: tuple[int, ...]) -> int:
        return int(np.ravel_multi_index(path, (self.tokens,) * len(path))) if path else 0

    def decode(self, path: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Write greedily by value from a path on, all tokens proposed, alpha 0."""
        while len(path) < len(self.policies):
            q = [
                [self.value(k, (*path, z)) for z in range(self.tokens)]
                for k in range(len(self.policies[0]))
            ]
            _, token = best(torch.tensor([q]), torch.zeros(1, len(q)), 0.0)
            path = (*path, int(token))
        return path


def test_the_worked_example() -> None:
    first = np.array([[[0.9, 0.1]], [[0.3, 0.7]]])
    second = np.array([[[0.2, 0.8], [0.5, 0.5]], [[0.5, 0.5], [0.1, 0.9]]])
    tree = Tree([first, second], np.array([[1, 0], [0, 0.9]]))
    assert [tree.value(0, (z,)) for z in (0, 1)] == pytest.approx([0.20, 0.45])
    assert [tree.value(1, (z,)) for z in (0, 1)] == pytest.approx([0.50, 0.81])
    assert [tree.value(k, ()) for k in (0, 1)] == pytest.approx([0.225, 0.717])
    assert tree.decode() == (1, 1)
    assert tree.rewards[tree.decode()] == pytest.approx(0.90)


def test_no_prefix_is_worth_less_than_the_best_policy() -> None:
    """300 random trees of depth 3, 3 tokens, 2 policies: never below, and far above on average."""
    generator = np.random.default_rng(0)
    gains = []
    for _ in range(300):
        policies = [generator.dirichlet(np.ones(3), size=(2, 3**depth)) for depth in range(3)]
        tree = Tree(policies, generator.normal(scale=2.0, size=(3, 3, 3)))
        for depth in range(3):
            for path in product(range(3), repeat=depth):
                written = tree.rewards[tree.decode(path)]
                alone = max(tree.value(k, path) for k in range(2))
                assert written >= alone - 1e-9
                gains += [written - alone] if not path else []
    assert np.mean(gains) > 0.5


def test_one_policy_without_kl_takes_the_best_of_its_tokens() -> None:
    who, which = best(torch.tensor([[[0.1, 0.7, 0.2]]]), torch.tensor([[5.0]]), 0.0)
    assert (who.tolist(), which.tolist()) == ([0], [1])


def test_the_kl_decides_who_is_preferred_and_not_what() -> None:
    worth = torch.tensor([[[0.5, 0.9], [0.8, 0.1]]], dtype=torch.float64)
    kl = torch.tensor([[0.4, 0.1]], dtype=torch.float64)
    assert [int(x) for x in best(worth, kl, 0.0)] == [0, 1]
    assert [int(x) for x in best(worth, kl, 1.0)] == [1, 0]


def test_equal_proposals_go_to_the_first_policy() -> None:
    assert [int(x) for x in best(torch.ones(1, 3, 2), torch.zeros(1, 3), 1.0)] == [0, 0]


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        best(torch.tensor([[[math.nan, 1.0]]]), torch.zeros(1, 1), 0.0)


def test_the_kl_is_that_of_the_closed_form() -> None:
    own, ref = torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]).log(), torch.tensor([[0.9, 0.1]]).log()
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    torch.testing.assert_close(kl_to_reference(own, ref), torch.tensor([[expected, 0.0]]))


# -- with models ----------------------------------------------------------------------------------


def reward_of(ids: tuple[int, ...]) -> float:
    """A reward of made-up shape: it depends on every token."""
    return math.sin(sum((place + 1) * token for place, token in enumerate(ids)))


class Exact:
    """Q of messages of at most two tokens after one prompt, over the whole vocabulary.

    Attributes:
        first: chances of the first token by policy, (V,) each.
        worth: value after the first token by policy, (V,) each.
    """

    def __init__(self, team: Team, prompt: tuple[int, ...]) -> None:
        self.first, self.worth = {}, {}
        for policy in BOTH:
            base = team.base_of(policy)
            size, stops = base.vocab_size, base.chat.stop_ids
            ids = torch.tensor([(*prompt, z) for z in range(size)])
            places = torch.arange(ids.shape[1]).expand(ids.shape)
            with torch.no_grad():
                states = base.hidden(ids, torch.ones_like(ids), places, [policy] * size)
                chances = base.logits(states).double().softmax(-1)  # (V, P + 1, V)
            rewards = torch.tensor([[reward_of((z, x)) for x in range(size)] for z in range(size)])
            ended = torch.tensor([reward_of((z,)) for z in range(size)]).double()
            stopped = torch.tensor([z in stops for z in range(size)])
            self.first[policy] = chances[0, -2]
            self.worth[policy] = torch.where(
                stopped, ended, (chances[:, -1] * rewards.double()).sum(-1)
            )

    def __call__(
        self, team: Team, proposed: list[Proposal], sampling: Sampling, seed: int
    ) -> list[float]:
        return [
            reward_of(one.ids) if len(one.ids) == 2 else float(self.worth[one.policy][one.ids[0]])
            for one in proposed
        ]

    def alone(self, policy: str) -> float:
        return float((self.first[policy] * self.worth[policy]).sum())


@pytest.mark.thorough
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_real_models_write_at_least_what_the_best_of_them_is_worth(checkpoint, tuning) -> None:
    team = make_team(checkpoint, tuning)
    exact = Exact(team, ASKED[0].prompt)
    everything = Collab(BOTH, exact, proposals=10**6)
    [written] = speak(team, ASKED[:1], Sampling(max_new_tokens=2), 0, engine=everything)
    assert reward_of(written.ids) >= max(exact.alone(policy) for policy in BOTH)
    assert written.ids[0] == int(torch.stack(list(exact.worth.values())).max(0).values.argmax())


def test_rollouts_are_ends_of_the_same_policy_and_are_scored_whole(checkpoint) -> None:
    """With a reward for one id, the rate of rollouts that hold it is the value."""
    team = make_team(checkpoint)
    seen: list[tuple[Request, str]] = []

    def score(requests: Any, texts: Any) -> list[float | None]:
        seen.extend(zip(requests, texts, strict=True))
        return [float(len(text)) for text in texts]

    limits = Sampling(max_new_tokens=3)
    stop = min(team.bases[0].chat.stop_ids)
    proposed = [
        Proposal(ASKED[0], "agent_0", (5,)),
        Proposal(ASKED[0], "agent_1", (5, stop)),
        Proposal(ASKED[1], "agent_1", (5, 6, 7)),
    ]
    found = Rollouts(score, number=4)(team, proposed, limits, 0)
    by_request = [sum(r.debate == d for r, _ in seen) for d in (0, 1)]
    assert by_request == [5, 1]  # four rollouts; messages that have ended are scored as they are
    chat = team.bases[0].chat
    assert found[1:] == [len(chat.shown_text((5, stop))), len(chat.shown_text((5, 6, 7)))]
    assert all(text.startswith(chat.shown_text((5,)).strip()) for r, text in seen if r.debate == 0)
    assert Rollouts(score, number=4)(team, proposed, limits, 0) == found
    assert Rollouts(score, number=4)(team, proposed, limits, 1)[0] != found[0]


def test_a_rollout_without_a_score_counts_for_nothing(checkpoint) -> None:
    team = make_team(checkpoint)
    given = iter([None, 0.5, 0.7, None, None, None])
    value = Rollouts(lambda requests, texts: [next(given) for _ in texts], number=3)
    proposed = [Proposal(ASKED[0], "agent_0", (5,)), Proposal(ASKED[0], "agent_1", (5,))]
    assert value(team, proposed, Sampling(max_new_tokens=3), 0) == [pytest.approx(0.6), 0.0]


def test_a_score_that_fails_is_one_sentence(checkpoint) -> None:
    team = make_team(checkpoint)
    proposed = [Proposal(ASKED[0], "agent_0", (5,))]

    def broken(requests, texts):
        raise OSError("connection\nreset")

    with pytest.raises(RuntimeError, match=r"failed on 1 messages: OSError: connection reset; "):
        Rollouts(broken)(team, proposed, Sampling(max_new_tokens=3), 0)
    with pytest.raises(ValueError, match="gave 0 values for 1 messages"):
        Rollouts(lambda requests, texts: [])(team, proposed, Sampling(max_new_tokens=3), 0)


def test_values_of_critics_are_those_of_the_sampler(checkpoint) -> None:
    team = make_team(checkpoint)
    proposed = [Proposal(ASKED[0], policy, (5, token)) for policy in BOTH for token in (6, 7)]
    found = critic_values(team, proposed, Sampling(max_new_tokens=4), 0)
    head = team.critics[team.critic(0, 0)]
    base = team.bases[0]
    for one, value in zip(proposed, found, strict=True):
        ids = torch.tensor([(*one.request.prompt, *one.ids)])
        ones, places = torch.ones_like(ids), torch.arange(ids.shape[1])[None]
        with torch.no_grad():
            state = base.hidden(ids, ones, places, [one.policy])[:, -1]
            assert value == pytest.approx(float(head(state)), abs=1e-5)
    central = load_team(checkpoint("llama"), num_turns=1, tuning="lora", critic="central")
    with pytest.raises(ValueError, match="no critics"):
        critic_values(central, proposed, Sampling(), 0)


def test_a_large_alpha_follows_the_reference(checkpoint) -> None:
    """The KL of the reference to itself is 0, so that nothing else is written."""
    team = make_team(checkpoint)
    value = Rollouts(lambda requests, texts: [0.0 for _ in texts])
    engine = Collab(BOTH, value, proposals=3, alpha=1e6, reference="agent_1")
    [own] = engine(team, ASKED[:1], Sampling(max_new_tokens=3, temperature=0.0), 0)
    greedy = Collab(("agent_1",), value, proposals=1)
    assert own.ids == greedy(team, ASKED[:1], Sampling(max_new_tokens=3, temperature=0.0), 0)[0].ids


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"policies": ()}, "at least one policy"),
        ({"proposals": 0}, "proposals must be at least 1"),
        ({"alpha": -1.0}, "alpha must be a finite number"),
        ({"alpha": math.inf}, "alpha must be a finite number"),
        ({"alpha": 0.5}, "name one"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Collab(**{"policies": BOTH, "value": lambda *given: [], **settings})
