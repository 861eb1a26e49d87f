"""Values from sampling: what the critics say of the states that tokens were drawn from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from miniatures import Checkpoint, load_team, stir
from ppo_cases import CONFIG, QUESTIONS, TEMPERATURE, make_debates

from maporl_agents.models import generation
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.types import Rollout
from maporl_agents.update.batching import collate
from maporl_agents.update.token_logprobs import score_tokens

LIMITS = replace(CONFIG.sampling, agent_max_new_tokens=(7, 3))


def make_team(checkpoint: Checkpoint, **options: object) -> Team:
    team = load_team(checkpoint("llama"), num_turns=2, **options)
    stir(team)
    return team


def played(team: Team, *, with_values: bool = True) -> list[Rollout]:
    return play(team, make_debates(), QUESTIONS, LIMITS, seed=1, with_values=with_values)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"sharing": "one"}, {"train_agents": (1,)}, {"train_agents": (0,)}]
)
def test_equal_to_those_of_a_scoring_pass(
    checkpoint: Checkpoint, tuning: str, double: bool, options: dict[str, object]
) -> None:
    """1e-5 in float32, 1e-12 in float64; messages end at different tokens."""
    team = make_team(checkpoint, tuning=tuning, double=double, **options)
    rollouts = played(team)
    batch, _ = collate(team, rollouts)
    assert batch.sampled_values is not None
    assert len({len(c.ids) for rollout in rollouts for c in rollout.completions}) > 1
    with torch.no_grad():
        whole = score_tokens(team, batch, temperature=TEMPERATURE, with_values=True)
    assert whole.values[batch.mask].abs().min() > 0
    tolerance = 1e-12 if double else 1e-5
    torch.testing.assert_close(batch.sampled_values, whole.values, atol=tolerance, rtol=tolerance)


def test_values_do_not_depend_on_how_often_critics_are_called(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = make_team(checkpoint, double=True)
    once, _ = collate(team, played(team))
    monkeypatch.setattr(generation, "VALUED_AT_ONCE", 1)
    often, _ = collate(team, played(team))
    assert once.sampled_values is not None
    assert often.sampled_values is not None
    torch.testing.assert_close(often.sampled_values, once.sampled_values, atol=1e-12, rtol=1e-12)


def test_the_messages_are_those_without_values(checkpoint: Checkpoint) -> None:
    team = make_team(checkpoint)
    some, none = played(team), played(team, with_values=False)
    assert [[c.ids for c in r.completions] for r in some] == [
        [c.ids for c in r.completions] for r in none
    ]
    assert all(not c.values for r in none for c in r.completions)


def test_only_critics_of_trained_messages_are_asked(checkpoint: Checkpoint) -> None:
    team = make_team(checkpoint, train_turns="2")
    for rollout in played(team):
        for message, completion in zip(
            rollout.transcript.messages, rollout.completions, strict=True
        ):
            assert bool(completion.values) == (message.turn == 1)
            assert len(completion.values) in (0, len(completion.ids))


def test_critics_with_a_trunk_of_their_own_are_not_asked(checkpoint: Checkpoint) -> None:
    team = make_team(checkpoint, tuning="lora", critic="adapter")
    assert all(not c.values for rollout in played(team) for c in rollout.completions)
