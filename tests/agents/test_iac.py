"""IAC: deltas by hand, critics that read before their agent speaks, the loss written out, a run."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from miniatures import load_team, stir
from rich.console import Console

from maporl_agents import experiment
from maporl_agents.algorithms import iac, magrpo
from maporl_agents.algorithms.iac import first_tokens, train_step, value_after, values_of
from maporl_agents.batching import Row, batch_of
from maporl_agents.config import (
    EvalConfig,
    IACConfig,
    IACSettings,
    JointGameConfig,
    MAGRPOSettings,
    Sampling,
    read_settings,
)
from maporl_agents.learner import PolicyLearner
from maporl_agents.rollout import play
from maporl_agents.runlog import read_metrics
from maporl_agents.scoring import score_tokens
from maporl_agents.team import Team
from maporl_agents.types import Completion, StopReason
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

Checkpoint = Callable[..., Path]
SHORT = Sampling(max_new_tokens=4)
SETTINGS = IACSettings(turn_gamma=0.5)


def message(ids: Sequence[int]) -> Completion:
    return Completion(tuple(ids), (-1.0,) * len(ids), "", StopReason.EOS)


def row(episode: int, turn: int, seat: int, reward: float, ids: Sequence[int] = (4, 5)) -> Row:
    prompt = tuple(range(1, 3 + 2 * turn + seat))
    return Row(prompt, message(ids), f"agent_{seat}", episode, turn, seat, reward)


def debates(score: Any, num_turns: int = 2) -> BatchedDebate:
    config = DebateConfig(
        task="shopping", protocol="joint", num_agents=2, num_turns=num_turns, verifier=score
    )
    return BatchedDebate(config, 8)


def asked(count: int) -> list[Question]:
    return [Question(f"q{i}", f"how much is {i} ?", "1") for i in range(count)]


def test_deltas_by_hand(checkpoint: Checkpoint) -> None:
    """Rewards .2 then .8, gamma .5: r + gamma V' - V, with V' the same agent's next turn."""
    team = load_team(checkpoint("llama"), num_turns=2)
    rows = [row(0, 0, 0, 0.2), row(0, 0, 1, 0.2), row(0, 1, 0, 0.8), row(0, 1, 1, 0.8),
            row(1, 0, 1, 0.3)]  # fmt: skip
    batch = batch_of(team, rows)
    values = torch.tensor([0.1, 0.3, 0.4, 0.6, 0.9])
    after = value_after(batch, values)
    assert after.tolist() == pytest.approx([0.4, 0.6, 0, 0, 0])
    deltas = batch.rewards + 0.5 * after - values
    expected = [0.2 + 0.2 - 0.1, 0.2 + 0.3 - 0.3, 0.8 - 0.4, 0.8 - 0.6, 0.3 - 0.9]
    assert deltas.tolist() == pytest.approx(expected)


def test_a_critic_reads_what_its_agent_read_and_not_what_it_says(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=2)
    stir(team)  # fresh critics say 0
    batch = batch_of(team, [row(0, 0, 0, 0, ids) for ids in ((4, 5, 6), (7,))])
    same = values_of(team, batch, SETTINGS, 1.0)
    assert float(same[0]) == pytest.approx(float(same[1]), abs=1e-6)
    batch = batch_of(team, [row(0, 0, 0, 0), row(0, 1, 0, 0)])
    other = values_of(team, batch, SETTINGS, 1.0)
    assert float(other[0]) == pytest.approx(float(same[0]), abs=1e-6)
    assert float(other[0]) != float(other[1])
    pieces = values_of(team, batch, replace(SETTINGS, micro_episodes=1), 1.0)
    assert torch.allclose(pieces, other, atol=1e-6)


def test_the_loss_written_out(checkpoint: Checkpoint) -> None:
    """Policy: -mean of delta * log pi(message). Critic: coef * mean of (V - target)^2 / 2."""
    team = load_team(checkpoint("llama"), num_turns=2, double=True)
    stir(team)
    rows = [row(0, 0, 0, 0.2, (4, 5, 6)), row(0, 1, 0, 0.8, (7,)), row(0, 0, 1, 0.2, (8, 9))]
    batch = batch_of(team, rows)
    values, targets = torch.tensor([0.1, 0.5, 0.3]).double(), torch.tensor([0.6, 0.8, 0.2]).double()
    usual = MAGRPOSettings()
    part = iac.with_critics(
        magrpo.evaluate_tokens(team, replace(batch, rewards=targets - values), usual, 1.0),
        values,
        targets,
    )
    counts = {"agent_0": (4, 2), "agent_1": (2, 1)}
    total, _ = iac.loss_of(
        part,
        counts,
        team=team,
        settings=IACSettings(critic_coef=0.25),
        usual=usual,
        temperature=1.0,
    )
    scores = score_tokens(team, batch, temperature=1.0, with_values=True)
    whole = torch.where(batch.mask, scores.logprobs, 0.0).sum(1)
    per_message = -(targets - values) * whole + 0.25 * (scores.values[:, 0] - targets) ** 2 / 2
    expected = per_message[:2].mean() + per_message[2]
    parameters = [p for named in team.trainable().values() for p in named.values()]
    parameters += [p for named in team.trainable_critics().values() for p in named.values()]
    ours, theirs = (
        torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for loss in (total, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, atol=1e-12)
    assert first_tokens(batch).sum() == 3


def test_an_agent_learns_from_its_own_messages_alone(checkpoint: Checkpoint) -> None:
    """Only agent 1 is trained: nothing of agent 0 moves, its critic included."""
    team = load_team(checkpoint("llama"), num_turns=2, train_agents=(1,))
    learner = learner_of(team)
    before = everything(team)
    lengths = debates(lambda _, texts: [min(1.0, len(text) / 50) for text in texts])
    train_step(learner, lengths, asked(4), SHORT, SETTINGS, seed=0)
    moved = {name for name, now in everything(team).items() if not torch.equal(now, before[name])}
    assert moved
    assert all("agent_1" in name for name in moved)


def learner_of(team: Team, settings: IACSettings = SETTINGS, steps: int = 10) -> PolicyLearner:
    rate = settings.critic_learning_rate
    return PolicyLearner(team, settings, steps, critic_learning_rate=rate)


def everything(team: Team) -> dict[str, torch.Tensor]:
    named = {f"policy {n}": x for n, x in team.trainable().items()}
    named |= {f"critic {n}": x for n, x in team.trainable_critics().items()}
    return {
        name: torch.cat([p.detach().flatten().clone() for p in own.values()])
        for name, own in named.items()
        if own
    }


def test_critics_learn_what_to_expect(checkpoint: Checkpoint) -> None:
    """Every turn pays .4 and gamma is .5: V = .4 + .5 * .4 = .6 before the first turn, then .4."""
    team = load_team(checkpoint("llama"), num_turns=2)
    settings = replace(SETTINGS, learning_rate=1e-5, critic_learning_rate=2e-2, warmup_steps=0)
    learner, game = learner_of(team, settings, 60), debates(lambda _, texts: [0.4] * len(texts))
    for step in range(60):
        _, metrics = train_step(learner, game, asked(4), SHORT, settings, seed=step)
    rows, _ = iac.scored_rows(team, play(team, game, asked(4), SHORT, seed=99))
    batch = batch_of(team, rows)
    values = values_of(team, batch, settings, 1.0)
    assert values[batch.turns == 0].mean() == pytest.approx(0.6, abs=0.05)
    assert values[batch.turns == 1].mean() == pytest.approx(0.4, abs=0.05)
    assert metrics["advantage"] < 0.1


def test_a_debate_with_an_unscored_turn_is_counted_and_teaches_nothing(
    checkpoint: Checkpoint,
) -> None:
    team = load_team(checkpoint("llama"), num_turns=2)

    def broken(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        raise RuntimeError("no")

    before = everything(team)
    _, metrics = train_step(learner_of(team), debates(broken), asked(2), SHORT, SETTINGS, seed=0)
    assert (metrics["unscored_messages"], metrics["updates"]) == (8, 0)
    assert all(torch.equal(now, before[name]) for name, now in everything(team).items())


# --- Settings and a run --------------------------------------------------------------------

SMALL = IACConfig(
    steps=2,
    questions_per_step=3,
    checkpoint_every=1,
    sampling=SHORT,
    eval=EvalConfig(questions=4),
    game=JointGameConfig(num_turns=2),
)


def test_a_run_is_kept_read_back_and_continued_bitwise(tmp_path: Path) -> None:
    quiet = Console(file=io.StringIO())
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    experiment.run(SMALL, whole, quiet)
    config, team = experiment.load_team(whole)
    assert config == SMALL
    experiment.run(replace(SMALL, steps=1), cut, quiet)
    # The schedule of a longer run is another one: the first step is that of one step.
    experiment.resume(cut, quiet, SMALL, force=True)
    again, other = tmp_path / "again", experiment.build(SMALL)[1]
    experiment.run(SMALL, again, quiet)
    same = everything(experiment.load_team(again)[1])
    assert all(torch.equal(now, same[name]) for name, now in everything(team).items())
    assert [one["step"] for one in read_metrics(cut)] == [1, 2]
    [first, _] = read_metrics(whole)
    assert {"explained_variance", "score/turn_2", "loss/value", "grad_norm/agent_1"} <= set(first)
    assert set(other.critics)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"game": JointGameConfig(gamma=0.3)}, "iac.turn_gamma discounts it"),
        ({"game": JointGameConfig(protocol="sequential")}, "all agents speak at once"),
    ],
)
def test_settings_that_contradict_the_scheme_are_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        experiment.build(replace(SMALL, **changes))
    for wrong in ({"turn_gamma": 2.0}, {"critic_coef": -1.0}, {"length": "long"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            IACSettings(**wrong)


def test_settings_survive_json_and_stand_on_the_page() -> None:
    assert read_settings(asdict(SMALL)) == SMALL
    page = (Path(__file__).parents[2] / "docs" / "schemes" / "magrpo.md").read_text()
    own = {field.name for field in fields(IACSettings)} - {
        field.name for field in fields(MAGRPOSettings)
    }
    assert [name for name in sorted(own) if f"`{name}`" not in page] == []
