"""Every scheme with every protocol: one step of training, or a refusal that says why.

The table of docs/explanation/pairs.md is this table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from miniatures import load_team, stir

from maporl_agents.algorithms import Scheme, scheme_for
from maporl_agents.config import (
    CONFIGS,
    FitConfig,
    GRPOSettings,
    IACSettings,
    MAGRPOSettings,
    MALTSettings,
    PPOConfig,
    RunConfig,
    Sampling,
    SweetSettings,
    TeamConfig,
    with_extra,
)
from maporl_agents.models.team import Team
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.protocols import PROTOCOLS
from maporl_env.types import Question

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "pairs.md"
AGENTS = {"self_correction": 1, "pipeline": 3, "dialogue": 2, "teams_and_judge": 3}
TURNS = {"pipeline": 1, "retrieve": 1, "lessons": 3}
TRAINED = {"leader": (1,), "dialogue": (0,)}
"""Agents that the protocol pays, where these are not all."""
WHY = {
    "magrpo": "need a protocol in which all agents speak at once",
    "iac": "need a protocol in which all agents speak at once",
    "malt": "malt plays game.protocol='pipeline'",
    "sweet_rl": "sweet_rl trains the agent of game.protocol='dialogue'",
    "mlpo": "mlpo trains the leader of game.protocol='leader'",
}
SMALL: dict[str, Any] = {
    "ppo": PPOConfig(minibatches=1),
    "grpo": GRPOSettings(group_size=2, minibatches=1),
    "magrpo": MAGRPOSettings(group_size=2),
    "iac": IACSettings(),
    "sweet_rl": SweetSettings(group_size=2, actions=2),
    "malt": MALTSettings(branching=2, imitation=FitConfig(batch_size=4)),
}


def by_length(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    return [min(len(text), 40) / 40 for text in responses]


def settings_of(scheme: str, protocol: str) -> RunConfig:
    """Return small settings of a scheme with a protocol."""
    config = CONFIGS[scheme]()
    agents = AGENTS.get(protocol, 2)
    game = replace(
        config.game, protocol=protocol, num_agents=agents, num_turns=TURNS.get(protocol, 2)
    )
    trained = TRAINED.get(protocol, ()) if scheme != "mlpo" else (agents - 1,)
    given: dict[str, Any] = {
        "game": game,
        "steps": 3,
        "team": TeamConfig(train_agents=trained),
        "sampling": Sampling(max_new_tokens=4),
    }
    return replace(config, **given | {k: v for k, v in SMALL.items() if hasattr(config, k)})


def made(
    config: RunConfig, checkpoint: Any, extra: int, *, trains: bool
) -> tuple[Team, BatchedDebate]:
    """Return a random team and the game, of training where the pair is trained."""
    game = config.training_game()[0] if trains else config.game
    team = load_team(
        checkpoint("llama"),
        num_agents=game.num_agents + extra,
        num_turns=game.num_turns,
        critic=config.team.critic,
        train_agents=with_extra(config.team, game.num_agents, extra).train_agents,
    )
    stir(team)
    options = DebateConfig(
        task="shopping",
        protocol=game.protocol,
        num_agents=game.num_agents,
        num_turns=game.num_turns,
        verifier=by_length,
    )
    return team, BatchedDebate(options, 4)


def in_table() -> dict[tuple[str, str], str]:
    """Return "yes" or "no" of each (protocol, scheme) of the page."""
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    head = re.search(r"^\| protocol \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert head is not None
    schemes = [cell.strip().strip("`") for cell in head[1].split("|")]
    return {(row[0], s): cell for row in rows for s, cell in zip(schemes, row[1:], strict=True)}


def test_the_page_has_every_pair() -> None:
    assert set(in_table()) == {(p, s) for p in PROTOCOLS for s in CONFIGS}
    assert set(in_table().values()) == {"yes", "no"}


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", list(CONFIGS))
@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_a_pair_is_trained_or_refused_with_the_reason(
    checkpoint: Any, protocol: str, scheme: str
) -> None:
    config = settings_of(scheme, protocol)
    found = scheme_for(config)
    trains = in_table()[protocol, scheme] == "yes"
    team, game = made(config, checkpoint, found.extra_policies, trains=trains)
    if not trains:
        with pytest.raises(ValueError, match=re.escape(WHY[scheme])):
            found.check(config, game)
        return
    found.check(config, game)
    learner = found.learner(config, team)
    questions = game.game.questions[:2]
    before = weights_of(team)
    if scheme == "malt":  # whose steps sample, imitate and prefer, through the files of a run
        return
    check_step(found, learner, team, game, questions, config, before)


@pytest.mark.thorough
@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_ppo_with_a_critic_that_reads_the_reference_goes_with_every_protocol(
    checkpoint: Any, protocol: str
) -> None:
    config = settings_of("maporl", protocol)
    config = replace(config, team=replace(config.team, critic="privileged"))
    found = scheme_for(config)
    team, game = made(config, checkpoint, found.extra_policies, trains=True)
    assert team.privileged
    found.check(config, game)
    questions = [replace(one, hidden="the price is two") for one in game.game.questions[:2]]
    learner = found.learner(config, team)
    check_step(found, learner, team, game, questions, config, weights_of(team))


def weights_of(team: Team) -> dict[tuple[str, str], torch.Tensor]:
    """Return a copy of all trained weights, by policy and name."""
    trained = team.trainable().items()
    return {(policy, n): p.detach().clone() for policy, named in trained for n, p in named.items()}


def check_step(
    found: Scheme,
    learner: Any,
    team: Team,
    game: BatchedDebate,
    questions: Sequence[Question],
    config: RunConfig,
    before: dict[tuple[str, str], torch.Tensor],
) -> None:
    """Take a step, whose metrics must be finite and which must move some weight."""
    rollouts, metrics = found.train_step(learner, game, questions, config, seed=1)
    assert all(map(math.isfinite, metrics.values()))
    assert rollouts
    after = {(p, n): w for p, named in team.trainable().items() for n, w in named.items()}
    assert any(not torch.equal(before[place], after[place]) for place in before)
