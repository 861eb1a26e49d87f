"""MALT: the training data of a round, both fits, and the settings."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from made_trees import BY_HAND, bits, grown, sample
from miniatures import load_team, stir, weights

from maporl_agents.algorithms import malt
from maporl_agents.algorithms.malt import (
    as_batch,
    certainties,
    imitate,
    learn_from,
    prefer,
)
from maporl_agents.config import (
    EvalConfig,
    FitConfig,
    GameConfig,
    MALTConfig,
    MALTSettings,
    read_settings,
)
from maporl_agents.models.team import Team
from maporl_agents.records.data_stages import Stages
from maporl_agents.trees.preference_pairs import Example, Preference, sibling_pairs
from maporl_agents.trees.sample_tree import Steps
from maporl_agents.trees.tree_values import judge
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.preferences import Pairs, preference_step
from maporl_agents.update.reference_logprobs import reference_logprobs
from maporl_agents.update.token_logprobs import score_tokens


def kept(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of a file of a round."""
    return [json.loads(row) for row in (folder / name).read_text().splitlines()]


class TestLearnFrom:
    @pytest.mark.parametrize(
        ("options", "seats"),
        [
            # as counted above: generator 1, verifier 2 + 2, refiner 4 x 2
            ({}, {1: 4, 2: 8}),
            ({"prefer": ("generator", "verifier", "refiner")}, {0: 1, 1: 4, 2: 8}),
            ({"prefer": ("generator",)}, {0: 1}),
            ({"prefer": ()}, {}),
        ],
    )
    def test_only_the_roles_that_prefer_have_pairs(
        self, tmp_path: Path, options: dict[str, Any], seats: dict[int, int]
    ) -> None:
        data = learn_from(grown(BY_HAND), MALTSettings(**options), 0, Stages(tmp_path))
        assert Counter(row["seat"] for row in kept(tmp_path, "prefer.jsonl")) == seats
        assert Counter(pair.chosen.agent for pair in data.pairs) == seats

    def test_positive_messages_are_imitated_once(self, tmp_path: Path) -> None:
        """Above .5 lie one generation of 5/9, three verifications and the nine right leaves."""
        learn_from(grown(BY_HAND), MALTSettings(), 0, Stages(tmp_path))
        rows = kept(tmp_path, "imitate.jsonl")
        assert {row["times"] for row in rows} == {1}
        short = [tuple(row["path"]) for row in rows if len(row["path"]) < 3]
        assert sorted(short) == [(0, 0), (0, 1), (1,), (1, 0)]
        assert len(rows) - len(short) == 9

    @pytest.mark.parametrize(("number", "best"), [(0, [(1,)]), (1, []), (7, [])])
    def test_each_round_has_its_threshold_and_the_last_stays(
        self, tmp_path: Path, number: int, best: list[Steps]
    ) -> None:
        """The better generation is worth 5/9: above .5, and not above .6."""
        settings = MALTSettings(thresholds=(0.5, 0.6))
        data = learn_from(grown(BY_HAND), settings, number, Stages(tmp_path))
        found = [one.sample.path for one in data.examples]
        assert [path for path in found if len(path) == 1] == best

    def test_right_paths_are_imitated_as_often_as_they_led_there(self, tmp_path: Path) -> None:
        settings = MALTSettings(examples="right_paths")
        data = learn_from(grown(BY_HAND), settings, 0, Stages(tmp_path))
        rows = kept(tmp_path, "imitate.jsonl")
        times = {tuple(row["path"]): row["times"] for row in rows if len(row["path"]) < 3}
        assert times == {
            (0,): 4, (0, 0): 2, (0, 1): 2, (1,): 5, (1, 0): 3, (1, 1): 1, (1, 2): 1,
        }  # fmt: skip
        assert [one.times for one in data.examples] == [row["times"] for row in rows]


# --- The fits --------------------------------------------------------------------------------

FIT = FitConfig(learning_rate=1e-3, warmup_steps=0, epochs=2, batch_size=2)
SMALL = MALTConfig(malt=MALTSettings(imitation=FIT, preference=FIT))
OPTIONS: Any = {"beta": SMALL.malt.beta, "micro_tokens": FIT.micro_tokens}


@pytest.fixture
def team(checkpoint) -> Team:
    return load_team(checkpoint("llama"), num_agents=3, num_turns=1)


def moved(before: dict[str, torch.Tensor], team: Team) -> set[str]:
    return {policy for policy, now in weights(team).items() if not torch.equal(now, before[policy])}


def preferences(role: int, count: int = 3) -> list[Preference]:
    """Return pairs of one role, each with another pair of messages."""
    prefix = (0,) * role
    return [
        Preference(
            sample((*prefix, 0), tree=i, ids=(8 + i, 9, 10)),
            sample((*prefix, 1), tree=i, ids=(20 + i, 21)),
            1.0,
            1 / 3,
        )
        for i in range(count)
    ]


class TestImitate:
    def test_it_learns_its_examples_and_moves_nobody_else(self, team: Team) -> None:
        before = weights(team)
        examples = [Example(sample((0, i), tree=i, ids=(8 + i, 9, 10)), 1.0) for i in range(4)]
        metrics = imitate(team, examples, SMALL, seed=0)
        assert moved(before, team) == {"agent_1"}
        assert metrics["updates/agent_1"] == 4  # 2 passes over 4 messages, 2 at a time
        assert metrics["nll/agent_1/last"] < metrics["nll/agent_1/first"]

    def test_roles_are_adapters_of_their_own_on_one_base(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), num_agents=3, num_turns=1, tuning="lora")
        assert len(team.bases) == 1
        assert len(weights(team)) == 3
        for seat in range(3):
            before = weights(team)
            said = [sample((0,) * (seat + 1), ids=(8, 9, 10 + i)) for i in range(2)]
            imitate(team, [Example(one, 1.0) for one in said], SMALL, seed=0)
            assert moved(before, team) == {f"agent_{seat}"}

    def test_a_message_counts_as_often_as_it_is_given(self, team: Team) -> None:
        once = [Example(sample((0,), tree=i, ids=(8, 9)), 1.0) for i in range(3)]
        thrice = [Example(sample((0,), ids=(8, 9)), 1.0, times=3)]
        counts = [
            imitate(load, given, SMALL, seed=0)["updates/agent_0"]
            for load, given in ((team, once), (team, thrice))
        ]
        assert counts == [4, 4]  # ceil(3 / 2) updates, twice

    def test_without_examples_nothing_happens(self, team: Team) -> None:
        before = weights(team)
        assert imitate(team, [], SMALL, seed=0) == {}
        assert prefer(team, [], SMALL, seed=0) == {}
        assert moved(before, team) == set()

    def test_a_role_that_is_not_trained_learns_nothing(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), num_agents=3, num_turns=1, train_agents=(1, 2))
        generator = replace(sample((0,)), policy=team.policy(0, 0))
        assert imitate(team, [Example(generator, 1.0)], SMALL, seed=0) == {}
        good, bad = (replace(generator, path=(i,)) for i in range(2))
        assert prefer(team, [Preference(good, bad, 1.0, 0.0)], SMALL, seed=0) == {}


class TestPrefer:
    def test_the_reference_is_the_team_as_it_comes_in(self, team: Team) -> None:
        """Not the base: after imitation moved the policy, the first loss is still log 2."""
        stir(team)
        one_update = replace(FIT, epochs=1, batch_size=8)
        config = replace(SMALL, malt=replace(SMALL.malt, preference=one_update))
        metrics = prefer(team, preferences(1), config, seed=0)
        assert metrics["preference_loss/agent_1/first"] == pytest.approx(math.log(2), abs=1e-6)
        assert metrics["preference_margin/agent_1/first"] == pytest.approx(0, abs=1e-5)

    def test_it_turns_to_the_chosen_and_moves_nobody_else(self, team: Team) -> None:
        before = weights(team)
        config = replace(SMALL, malt=replace(SMALL.malt, preference=replace(FIT, epochs=4)))
        metrics = prefer(team, preferences(2), config, seed=0)
        assert moved(before, team) == {"agent_2"}
        assert metrics["preference_loss/agent_2/last"] < metrics["preference_loss/agent_2/first"]
        assert metrics["preference_accuracy/agent_2/last"] == 1

    def test_the_step_by_hand(self, team: Team) -> None:
        stir(team)
        pairs = pairs_of(team, preferences(1), labels="soft")
        logprobs = reference_logprobs(team, pairs.batch, FIT.micro_tokens, 0.7)
        shifted = pairs._replace(reference=logprobs - torch.tensor([1.0, 0, 0, 2.0, 0.5, 0.25]))
        # log-ratios: chosen 1, 0, .5, rejected 0, 2, .25; margins .2 x (1, -2, .25)
        metrics = preference_step(PolicyLearner(team, FIT, 1), shifted, **OPTIONS, temperature=0.7)
        p = 1 / (1 + math.exp(-(1 - 1 / 3)))
        losses = [
            p * math.log(1 + math.exp(-z)) + (1 - p) * math.log(1 + math.exp(z))
            for z in (0.2, -0.4, 0.05)
        ]
        assert metrics["preference_loss"] == pytest.approx(sum(losses) / 3, abs=1e-5)
        assert metrics["preference_accuracy"] == pytest.approx(2 / 3)
        assert metrics["preference_margin"] == pytest.approx(-0.15 / 3, abs=1e-5)
        assert metrics["chosen_gain"] == pytest.approx(0.5, abs=1e-5)

    @pytest.mark.parametrize("labels", ["hard", "soft"])
    @pytest.mark.parametrize("beta", [0.2, 0.7])
    def test_labels_and_beta_reach_the_loss(
        self, team: Team, monkeypatch: pytest.MonkeyPatch, labels: Any, beta: float
    ) -> None:
        """The reference is moved so that the log-ratios are known: 1 and -.5, 2 and 3."""
        pairs = preferences(1, count=2)  # values 1 and 1/3
        gains = torch.tensor([1.0, -0.5, 2.0, 3.0])

        def shifted(*given: Any) -> torch.Tensor:
            return reference_logprobs(*given) - gains

        monkeypatch.setattr(malt, "reference_logprobs", shifted)
        fit = replace(FIT, epochs=1, batch_size=2)
        settings = MALTSettings(preference=fit, labels=labels, beta=beta)
        metrics = prefer(team, pairs, replace(SMALL, malt=settings), seed=0)
        p = 1.0 if labels == "hard" else 1 / (1 + math.exp(-2 / 3))
        losses = [
            p * math.log(1 + math.exp(-z)) + (1 - p) * math.log(1 + math.exp(z))
            for z in (1.5 * beta, -beta)
        ]
        found = metrics["preference_loss/agent_1/first"]
        assert found == pytest.approx(sum(losses) / 2, abs=1e-5)
        margin = metrics["preference_margin/agent_1/first"]
        assert margin == pytest.approx(0.25 * beta, abs=1e-5)

    def test_the_reference_is_as_precise_as_the_team(self, checkpoint) -> None:
        """In double precision a pair's log-ratio is 0 before its update, not 1e-7."""
        team = load_team(checkpoint("llama"), num_agents=3, num_turns=1, double=True)
        pairs = pairs_of(team, preferences(1))
        assert pairs.reference.dtype == torch.float64
        with torch.no_grad():
            summed = score_tokens(team, pairs.batch, temperature=1.0).logprobs.sum(1)
        assert torch.allclose(summed, pairs.reference, atol=1e-12)

    def test_micro_batches_change_nothing(self, checkpoint) -> None:
        found = []
        for micro_tokens in (1, 8192):
            team = load_team(checkpoint("llama"), num_agents=3, num_turns=1, double=True)
            fit = replace(FIT, micro_tokens=micro_tokens, batch_size=3)
            config = replace(SMALL, malt=replace(SMALL.malt, preference=fit))
            prefer(team, preferences(1), config, seed=0)
            found.append(weights(team)["agent_1"])
        assert torch.allclose(*found, atol=1e-6)

    def test_hard_and_soft_labels(self) -> None:
        pairs = preferences(1)
        assert certainties(pairs, "hard").tolist() == [1.0] * 3
        assert certainties(pairs, "soft").tolist() == pytest.approx(
            [1 / (1 + math.exp(-2 / 3))] * 3
        )

    def test_an_infinite_loss_changes_nothing(self, team: Team) -> None:
        pairs = pairs_of(team, preferences(1))
        broken = pairs._replace(reference=torch.full((6,), math.nan))
        before = weights(team)
        learner = PolicyLearner(team, FIT, 1)
        with pytest.raises(FloatingPointError, match="the loss"):
            preference_step(learner, broken, **OPTIONS, temperature=1.0)
        assert moved(before, team) == set()
        assert all(p.grad is None for group in learner.trained.values() for p in group)


def pairs_of(team: Team, pairs: Sequence[Preference], labels: str = "hard") -> Pairs:
    said = [one for pair in pairs for one in (pair.chosen, pair.rejected)]
    batch = as_batch(team, said, [i // 2 for i in range(len(said))])
    reference = reference_logprobs(team, batch, FIT.micro_tokens, 1.0)
    return Pairs(batch, reference, certainties(pairs, labels))


def test_the_generator_is_left_alone_by_what_moves_the_verifier(team: Team) -> None:
    """One critique leads to the right answer: it is preferred, and only its role learns it."""
    judged = judge(grown([bits("000", "111"), bits("100", "100")]), 0.5)
    pairs = [pair for pair in sibling_pairs(judged) if pair.chosen.agent == 1]
    assert [(p.chosen.path, p.rejected.path) for p in pairs] == [((0, 1), (0, 0))]
    batch = as_batch(team, [pairs[0].chosen], [0])
    with torch.no_grad():
        first = score_tokens(team, batch, temperature=1.0).logprobs.sum()
    before = weights(team)
    prefer(team, pairs, SMALL, seed=0)
    with torch.no_grad():
        last = score_tokens(team, batch, temperature=1.0).logprobs.sum()
    assert last > first
    assert moved(before, team) == {"agent_1"}


def test_settings_survive_json_and_name_their_scheme() -> None:
    config = MALTConfig(malt=MALTSettings(thresholds=(0.3, 0.6), roles=("generator", "refiner")))
    again = read_settings(json.loads(json.dumps(asdict(config))))
    assert again == config
    assert type(again) is MALTConfig


def test_every_option_and_function_is_on_the_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "explanation" / "schemes" / "malt.md").read_text(
        encoding="utf-8"
    )
    assert [field.name for field in fields(MALTSettings) if f"`{field.name}`" not in page] == []
    table = page.split("## From equation to function")[1].split("##")[0]
    named = re.findall(r"`((?:\w+\.)+\w+)`", table)
    assert len(named) >= 10
    for name in named:
        module, _, function = name.rpartition(".")
        place = module if module.startswith("maporl_") else f"maporl_agents.{module}"
        assert callable(getattr(importlib.import_module(place), function)), name


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"roles": ()}, "roles must be different, and at least one"),
        ({"roles": ("refiner", "refiner")}, "roles must be different"),
        ({"roles": ("judge",)}, "unknown role 'judge': choose one of generator, verifier, refiner"),
        ({"prefer": ("judge",)}, "unknown role 'judge'"),
        ({"examples": "all"}, "unknown examples 'all': choose one of positive, right_paths"),
        ({"labels": "none"}, "unknown labels 'none'"),
        ({"branching": 0}, "branching must be at least 1, not 0"),
        ({"trees_per_file": 0}, "trees_per_file must be at least 1"),
        ({"thresholds": ()}, "thresholds must lie in"),
        ({"thresholds": (0.5, 1.0)}, "thresholds must lie in"),
        ({"beta": 0.0}, "beta must be a number above 0"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MALTSettings(**options)


def test_settings_that_contradict_each_other_are_refused() -> None:
    check = partial(malt.check, game=None)
    with pytest.raises(ValueError, match="an agent for each of its roles"):
        check(MALTConfig(game=GameConfig(protocol="pipeline", num_agents=3, num_turns=2)))
    with pytest.raises(ValueError, match="to leave roles out"):
        check(MALTConfig(game=GameConfig(protocol="debate", num_agents=3, num_turns=1)))
    with pytest.raises(ValueError, match="steps=4 must be a multiple of 3"):
        check(MALTConfig(steps=4))
    for name in ("epochs", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            FitConfig(**{name: 0})
    with pytest.raises(ValueError, match="passes must be at least 1"):
        EvalConfig(passes=0)
