"""One critic for all agents, which reads the joint history, in MAPoRL and IAC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_trees import SAMPLING, asked, joint_debates
from miniatures import Checkpoint, load_team, make_rollout, stir, weights

from maporl_agents.algorithms import iac, maporl
from maporl_agents.config import IACConfig, IACSettings, PPOConfig, TeamConfig, TrainConfig
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.text.hidden_reference import REFERENCE, with_reference
from maporl_agents.types import Rollout
from maporl_agents.update.batching import batch_of, collate
from maporl_agents.update.joint_history import joint_histories
from maporl_agents.update.optimiser import PolicyLearner, PPOLearner
from maporl_agents.update.token_logprobs import critic_values, score_tokens


def central_team(checkpoint: Checkpoint, **options: Any) -> Team:
    given: dict[str, Any] = {"critic": "central", "num_turns": 2, **options}
    return load_team(checkpoint("llama"), **given)


def played_by_hand(team: Team, rounds: tuple[int, ...]) -> Rollout:
    """Return a debate of two turns and two agents; prompts and ids tell the messages apart."""
    prompts = [(1, 10), (1, 11), (1, 10, 20, 21, 2), (1, 11, 20, 21, 2)]
    ids = [(20,), (21,), (22, 5), (23,)]
    rollout = make_rollout(team, prompts, ids, rewards=np.array([[1.0, 0.0], [0.5, 1.0]]))
    return replace(rollout, rounds=rounds)


def test_the_joint_history_holds_what_everybody_was_told_and_said_before(
    checkpoint: Checkpoint,
) -> None:
    team = central_team(checkpoint)
    at_once = joint_histories(team, played_by_hand(team, (0, 0, 1, 1)))
    assert at_once == [(1, 10, 1, 11)] * 2 + [(1, 10, 1, 11, 20, 21)] * 2
    one_by_one = joint_histories(team, played_by_hand(team, (0, 1, 2, 3)))
    # Agent 1's prompt holds what agent 0 wrote first: no part of the state before that message.
    told = (1, 10, 1, 11)
    assert one_by_one == [(1, 10), (*told, 20), (*told, 20, 21), (*told, 20, 21, 22, 5)]


def test_equal_prompts_stand_once(checkpoint: Checkpoint) -> None:
    team = central_team(checkpoint)
    rollout = replace(played_by_hand(team, (0, 0, 1, 1)), prompts=((1, 10),) * 4)
    assert joint_histories(team, rollout)[3] == (1, 10, 20, 21)


def test_the_oldest_messages_go_where_the_window_ends(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = central_team(checkpoint)
    monkeypatch.setattr("maporl_agents.update.joint_history.window_of", lambda model: 7)
    found = joint_histories(team, played_by_hand(team, (0, 0, 1, 1)))
    assert found[2] == (1, 10, 1, 11, 21)  # two tokens of its own
    assert found[3] == (1, 10, 1, 11, 20, 21)


def test_a_privileged_critic_reads_the_reference_before_all_else(checkpoint: Checkpoint) -> None:
    plain, informed = central_team(checkpoint), central_team(checkpoint, critic="privileged")
    secret = "three apples"
    assert (plain.privileged, informed.privileged) == (False, True)
    for team in (plain, informed):
        rollout = played_by_hand(team, (0, 0, 1, 1))
        question = replace(rollout.transcript.question, hidden=secret)
        asked = replace(rollout, transcript=replace(rollout.transcript, question=question))
        found, before = joint_histories(team, asked), joint_histories(team, rollout)
        if team is plain:
            assert found == before
            continue
        chat = team.bases[0].chat
        told = tuple(chat.encode(REFERENCE.format(reference=secret)))
        assert len(told) > 5
        assert found == [with_reference(chat, one, secret) for one in before]
        assert [len(one) for one in found] == [len(told) + len(one) for one in before]
        batch, _ = collate(team, [asked])
        assert batch.prompts == rollout.prompts  # the policies read what they read
        assert batch.joint_histories == tuple(found)


def test_the_reference_counts_into_the_window(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = central_team(checkpoint, critic="privileged")
    told = len(team.bases[0].chat.encode(REFERENCE.format(reference="three apples")))
    monkeypatch.setattr("maporl_agents.update.joint_history.window_of", lambda model: 7 + told)
    rollout = played_by_hand(team, (0, 0, 1, 1))
    question = replace(rollout.transcript.question, hidden="three apples")
    asked = replace(rollout, transcript=replace(rollout.transcript, question=question))
    assert len(joint_histories(team, asked)[2]) == told + 5


def test_unknown_rounds_are_refused(checkpoint: Checkpoint) -> None:
    team = central_team(checkpoint)
    with pytest.raises(ValueError, match="needs the round of each message"):
        collate(team, [played_by_hand(team, ())])
    assert joint_histories(load_team(checkpoint("llama")), played_by_hand(team, ())) == [()] * 4


def test_agents_who_speak_at_once_share_the_value_of_their_state(checkpoint: Checkpoint) -> None:
    """By the model's own forward pass: the state after the joint history, read by the head."""
    team = central_team(checkpoint, double=True)
    stir(team)
    team.refresh()
    batch, _ = collate(team, [played_by_hand(team, (0, 0, 1, 1))])
    values = critic_values(team, batch)
    assert torch.equal(values[::2, 0], values[1::2, 0])
    assert batch.joint_histories is not None
    base = team.bases[0]
    for row, history in enumerate(batch.joint_histories):
        ids = torch.tensor([[*history, *batch.ids[row][batch.mask[row]].tolist()]])
        states = base.reference(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        expected = team.critics["central"](states[len(history) - 1 : -1])
        torch.testing.assert_close(values[row][batch.mask[row]], expected, atol=1e-9, rtol=1e-9)
    again = score_tokens(team, batch, temperature=1.0, with_values=True).values
    torch.testing.assert_close(again, values, atol=1e-12, rtol=1e-12)


def test_the_value_does_not_depend_on_the_message_itself(checkpoint: Checkpoint) -> None:
    team = central_team(checkpoint)
    stir(team)
    team.refresh()
    rollout = played_by_hand(team, (0, 0, 1, 1))
    other = list(rollout.completions)
    other[0] = replace(other[0], ids=(7,))
    changed = replace(rollout, completions=tuple(other))
    before, after = (
        critic_values(team, collate(team, [one])[0])[:, 0] for one in (rollout, changed)
    )
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2:], after[2:])


def test_the_critic_trains_no_policy(checkpoint: Checkpoint) -> None:
    team = central_team(checkpoint)
    batch, _ = collate(team, [played_by_hand(team, (0, 0, 1, 1))])
    stir(team)
    team.refresh()
    score_tokens(team, batch, temperature=1.0, with_values=True).values.sum().backward()
    owned = [p for named in team.trainable().values() for p in named.values()]
    assert all(p.grad is None or not p.grad.any() for p in owned)
    critics = team.trainable_critics()
    assert list(critics) == ["central"]
    assert all(p.grad is not None and p.grad.any() for p in critics["central"].values())


def steps(team: Team, scheme: str, count: int = 1, **options: Any) -> list[dict[str, float]]:
    """Take training steps on made-up questions; return their metrics."""
    game = joint_debates(2, **options)
    if scheme == "maporl":
        ppo = PPOConfig(minibatches=1, critic_learning_rate=2e-2, warmup_steps=0)
        learner = PPOLearner(team, ppo, count)
        config = TrainConfig(sampling=SAMPLING, ppo=ppo)
        return [maporl.train_step(learner, game, asked(2), config, seed=s)[1] for s in range(count)]
    settings = IACSettings(critic_learning_rate=2e-2, warmup_steps=0, learning_rate=1e-5)
    own = PolicyLearner(team, settings, count, critic_learning_rate=2e-2)
    joint = IACConfig(sampling=SAMPLING, iac=settings)
    return [iac.train_step(own, game, asked(2), joint, seed=s)[1] for s in range(count)]


@pytest.mark.thorough
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("scheme", ["maporl", "iac"])
def test_both_schemes_train_it(checkpoint: Checkpoint, scheme: str, tuning: str) -> None:
    team = central_team(checkpoint, tuning=tuning)
    before = weights(team)
    head = {name: p.detach().clone() for name, p in team.trainable_critics()["central"].items()}
    [metrics] = steps(team, scheme)
    assert metrics["updates"] == 1
    after = team.trainable_critics()["central"]
    assert any(not torch.equal(head[name], p) for name, p in after.items())
    assert any(not torch.equal(before[name], one) for name, one in weights(team).items())


@pytest.mark.thorough
def test_it_learns_what_to_expect(checkpoint: Checkpoint) -> None:
    """Every turn pays .4 and there is no discount: V = .8 before the first turn, then .4."""
    team = central_team(checkpoint)
    steps(team, "iac", 60, verifier=lambda _, texts: [0.4] * len(texts))
    game = joint_debates(2, verifier=lambda _, texts: [0.4] * len(texts))
    rows, _ = iac.scored_rows(team, play(team, game, asked(4), SAMPLING, seed=99), 1.0)
    batch = batch_of(team, rows)
    values = critic_values(team, batch)[:, 0].detach()
    assert values[batch.turns == 0].mean() == pytest.approx(0.8, abs=0.1)
    assert values[batch.turns == 1].mean() == pytest.approx(0.4, abs=0.1)


def test_it_is_saved_and_read(checkpoint: Checkpoint, tmp_path: Path) -> None:
    team, other = central_team(checkpoint), central_team(checkpoint)
    stir(team)
    team.refresh()
    team.save(tmp_path)
    other.load(tmp_path)
    for name, parameter in team.trainable_critics()["central"].items():
        assert torch.equal(parameter, other.trainable_critics()["central"][name])


def test_several_models_are_refused() -> None:
    with pytest.raises(ValueError, match="critic='central' reads the token ids of all agents"):
        TeamConfig(model=("tiny", "tiny-sharing"), critic="central")
    TeamConfig(model=("tiny", "tiny"), critic="central")
    with pytest.raises(ValueError, match="reads all messages on one device"):
        TeamConfig(model=("tiny", "tiny"), critic="central", devices=("cuda:0", "cuda:1"))
