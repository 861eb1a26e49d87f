"""IAC: deltas by hand, critics that read before their agent speaks, the loss written out, a run."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from miniatures import Checkpoint, cut_in_the_second_step, load_team, make_double, stir
from rich.console import Console
from small_runs import SIZES

from maporl_agents.algorithms import iac, magrpo
from maporl_agents.algorithms.iac import first_tokens, train_step, value_after, values_of
from maporl_agents.config import (
    IACConfig,
    IACSettings,
    JointGameConfig,
    MAGRPOConfig,
    MAGRPOSettings,
    Sampling,
    read_settings,
)
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.records.run_log import read_metrics
from maporl_agents.training import experiment
from maporl_agents.training.resume import resume
from maporl_agents.types import Completion, Rollout, StopReason
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.token_logprobs import score_tokens
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

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
    after = value_after(batch, values, 0.5)
    assert after.tolist() == pytest.approx([0.2, 0.3, 0, 0, 0])
    deltas = batch.rewards + after - values
    expected = [0.2 + 0.2 - 0.1, 0.2 + 0.3 - 0.3, 0.8 - 0.4, 0.8 - 0.6, 0.3 - 0.9]
    assert deltas.tolist() == pytest.approx(expected)


def paying(*scores: float | None) -> BatchedDebate:
    """Debates whose turns are paid this and then that, whatever is said in them."""
    left = iter(scores)
    return debates(lambda _, texts: [next(left)] * len(texts), len(scores))


def test_the_metric_reward_is_what_turns_were_paid(checkpoint: Checkpoint) -> None:
    """Neither what the debate's own credit says, nor 0 for a turn without a score."""
    team = load_team(checkpoint("llama"), num_turns=2)
    learner = learner_of(team)
    for scores, reward in (((0.2, 0.6), 0.4), ((0.2, None), 0.2)):
        _, metrics = train_step(
            learner, paying(*scores), asked(2), IACConfig(sampling=SHORT, iac=SETTINGS), seed=0
        )
        assert metrics["reward"] == pytest.approx(reward)


def test_the_first_step_logs_the_rate_of_its_own_update(checkpoint: Checkpoint) -> None:
    learner = learner_of(load_team(checkpoint("llama"), num_turns=2))
    rate = learner.optimizer.param_groups[0]["lr"]
    _, metrics = train_step(
        learner, paying(0.2, 0.6), asked(2), IACConfig(sampling=SHORT, iac=SETTINGS), seed=0
    )
    assert metrics["learning_rate"] == rate != learner.optimizer.param_groups[0]["lr"]


def paid_rows(team: Team, scores: Sequence[float | None]) -> tuple[list[Row], int]:
    """Play one debate; return its rows by agent and turn, gamma .5, and how many are left out."""
    rollouts = play(team, paying(*scores), asked(1), SHORT, seed=0)
    rows, left_out = iac.scored_rows(team, rollouts, 0.5)
    return sorted(rows, key=lambda row: (row.agent, row.turn)), left_out


def test_each_turn_is_paid_its_own_reward(checkpoint: Checkpoint) -> None:
    rows, left_out = paid_rows(load_team(checkpoint("llama"), num_turns=2), (0.2, 0.8))
    assert [(row.agent, row.turn) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [row.reward for row in rows] == pytest.approx([0.2, 0.8] * 2)
    assert left_out == 0


@pytest.mark.parametrize("scores", [(0.2, None), (None, 0.8)])
def test_one_unscored_turn_leaves_out_its_debate(
    checkpoint: Checkpoint, scores: tuple[float | None, ...]
) -> None:
    team = load_team(checkpoint("llama"), num_turns=2)
    assert paid_rows(team, scores) == ([], 4)


@pytest.mark.parametrize(
    ("turns", "scores", "rewards", "after"),
    [
        ("1", (0.2, 0.8), [0.2 + 0.5 * 0.8], [0]),
        ("1", (0.2, 0.4, 0.8), [0.2 + 0.5 * 0.4 + 0.25 * 0.8], [0]),
        ("1,3", (0.2, 0.4, 0.8), [0.2 + 0.5 * 0.4, 0.8], [0.25 * 0.6, 0]),
        ("1,2", (0.2, 0.4, 0.8), [0.2, 0.4 + 0.5 * 0.8], [0.5 * 0.6, 0]),
        (">=2", (0.2, 0.4, 0.8), [0.4, 0.8], [0.5 * 0.6, 0]),
    ],
)
def test_untrained_turns_pay_the_trained_turn_before_them(
    checkpoint: Checkpoint,
    turns: str,
    scores: tuple[float, ...],
    rewards: list[float],
    after: list[float],
) -> None:
    """By hand, gamma .5: V is .3 where an agent is first trained and .6 in its next such turn."""
    team = load_team(checkpoint("llama"), num_turns=len(scores), train_turns=turns)
    rows, _ = paid_rows(team, scores)
    assert [row.reward for row in rows] == pytest.approx(rewards * 2)
    values = torch.tensor([0.3, 0.6][: len(rewards)] * 2)
    assert value_after(batch_of(team, rows), values, 0.5).tolist() == pytest.approx(after * 2)


def by_hand(rollouts: Sequence[Rollout], team: Team) -> list[Row]:
    """Return the trained messages with their deltas, gamma .5, backwards through each debate."""
    rows: list[Row] = []
    for episode, rollout in enumerate(rollouts):
        transcript = rollout.transcript
        for seat, agent in enumerate(transcript.agents):
            owed = 0.0  # what is to come: paid rewards, and from the next trained turn on its V
            for i in reversed(range(len(transcript.messages))):
                message = transcript.messages[i]
                if message.agent != agent:
                    continue
                owed = float(message.score or 0) + 0.5 * owed
                if team.trains(seat, message.turn):
                    said = (rollout.prompts[i], rollout.completions[i], rollout.policies[i])
                    row = Row(*said, episode, message.turn, seat, 0.0)
                    value = float(values_of(team, batch_of(team, [row]), SETTINGS, 1.0)[0])
                    rows.append(row._replace(reward=owed - value))
                    owed = value
    return rows


@torch.no_grad()
def likelihoods(team: Team, rows: Sequence[Row]) -> torch.Tensor:
    return score_tokens(team, batch_of(team, rows), temperature=1.0).logprobs.sum(1)


@pytest.mark.parametrize("turns", ["all", "1,3"])
def test_what_came_better_than_expected_becomes_likelier(
    checkpoint: Checkpoint, turns: str
) -> None:
    """Ascent: the sum over messages of delta times change of log-likelihood is above 0."""
    team = load_team(checkpoint("llama"), num_turns=3, train_turns=turns)
    stir(team)
    settings = replace(SETTINGS, learning_rate=1e-3, critic_coef=0.0, warmup_steps=0)
    learner, before = learner_of(team, settings), copy.deepcopy(team)
    game = debates(lambda _, texts: [text.count("e") / max(1, len(text)) for text in texts], 3)
    rollouts, metrics = train_step(
        learner, game, asked(4), IACConfig(sampling=SHORT, iac=settings), seed=0
    )
    rows = by_hand(rollouts, before)
    assert len({row.reward for row in rows}) > 2
    assert metrics["advantage"] == pytest.approx(fmean(abs(row.reward) for row in rows), rel=1e-4)
    deltas = torch.tensor([row.reward for row in rows])
    assert float((deltas * (likelihoods(team, rows) - likelihoods(before, rows))).sum()) > 0


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
    pieces = values_of(team, batch, replace(SETTINGS, micro_tokens=1), 1.0)
    assert torch.allclose(pieces, other, atol=1e-6)
    make_double(team)
    precise = values_of(team, batch, SETTINGS, 1.0)
    assert precise.dtype == torch.float64
    assert not torch.equal(precise, precise.float().double())


def test_the_loss_written_out(checkpoint: Checkpoint) -> None:
    """Policy: -mean of delta * log pi(message). Critic: coef * mean of (V - target)^2 / 2."""
    team = load_team(checkpoint("llama"), num_turns=2, double=True)
    stir(team)
    rows = [row(0, 0, 0, 0.2, (4, 5, 6)), row(0, 1, 0, 0.8, (7,)), row(0, 0, 1, 0.2, (8, 9))]
    batch = batch_of(team, rows)
    values, targets = torch.tensor([0.1, 0.5, 0.3]).double(), torch.tensor([0.6, 0.8, 0.2]).double()
    part = iac.with_critics(
        magrpo.evaluate_tokens(
            team, replace(batch, rewards=targets - values), micro_tokens=8192, temperature=1.0
        ),
        values,
        targets,
    )
    counts = {"agent_0": (4, 2), "agent_1": (2, 1)}
    total, _ = iac.loss_of(
        part,
        counts,
        team=team,
        settings=IACSettings(critic_coef=0.25),
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
    train_step(learner, lengths, asked(4), IACConfig(sampling=SHORT, iac=SETTINGS), seed=0)
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


@pytest.mark.thorough
def test_critics_learn_what_to_expect(checkpoint: Checkpoint) -> None:
    """Every turn pays .4 and gamma is .5: V = .4 + .5 * .4 = .6 before the first turn, then .4."""
    team = load_team(checkpoint("llama"), num_turns=2)
    settings = replace(SETTINGS, learning_rate=1e-5, critic_learning_rate=2e-2, warmup_steps=0)
    learner, game = learner_of(team, settings, 60), debates(lambda _, texts: [0.4] * len(texts))
    for step in range(60):
        _, metrics = train_step(
            learner, game, asked(4), IACConfig(sampling=SHORT, iac=settings), seed=step
        )
    rows, _ = iac.scored_rows(team, play(team, game, asked(4), SHORT, seed=99), 0.5)
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
    _, metrics = train_step(
        learner_of(team), debates(broken), asked(2), IACConfig(sampling=SHORT, iac=SETTINGS), seed=0
    )
    assert (metrics["unscored_messages"], metrics["updates"]) == (8, 0)
    assert all(torch.equal(now, before[name]) for name, now in everything(team).items())


# --- Settings and a run --------------------------------------------------------------------

SMALL = replace(
    IACConfig(**SIZES),
    steps=2,
    questions_per_step=8,
    sampling=Sampling(max_new_tokens=24),
    game=JointGameConfig(num_turns=2),
)


@pytest.mark.thorough
def test_a_run_is_kept_read_back_and_continued_bitwise(tmp_path: Path) -> None:
    quiet = Console(file=io.StringIO())
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    experiment.run(SMALL, whole, quiet)
    config, team = experiment.load_team(whole, "last")
    assert config == SMALL

    with cut_in_the_second_step():
        experiment.run(SMALL, cut, quiet)
    first = everything(experiment.load_team(cut, "last")[1])
    assert len(read_metrics(cut)) == 1
    resume(cut, quiet)
    same = everything(experiment.load_team(cut, "last")[1])
    for name, now in everything(team).items():
        assert torch.equal(now, same[name])
        assert not torch.equal(now, first[name])
    assert read_metrics(whole) == read_metrics(cut)
    for one in read_metrics(whole):
        assert one["grad_norm/agent_0"] > 0  # each step learns something
        assert {"explained_variance", "score/turn_2", "loss/value"} <= set(one)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"game": JointGameConfig(gamma=0.3)}, "iac.turn_gamma discounts it"),
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


@pytest.mark.parametrize("config", [IACConfig(), MAGRPOConfig()])
@pytest.mark.parametrize("protocol", ["sequential", "pipeline"])
def test_agents_that_speak_one_after_another_are_refused_before_a_model_is_loaded(
    config: IACConfig | MAGRPOConfig, protocol: str
) -> None:
    def load(*_: Any) -> Any:
        pytest.fail("loaded")

    game = replace(config.game, protocol=protocol, num_agents=3)
    with pytest.raises(ValueError, match=f"{protocol}.*all agents speak at once"):
        experiment.build(replace(config, game=game), load)


def test_settings_survive_json_and_stand_on_the_page() -> None:
    assert read_settings(asdict(SMALL)) == SMALL
    page = (
        Path(__file__).parents[3] / "docs" / "explanation" / "schemes" / "magrpo.md"
    ).read_text()
    own = {field.name for field in fields(IACSettings)} - {
        field.name for field in fields(MAGRPOSettings)
    }
    assert [name for name in sorted(own) if f"`{name}`" not in page] == []
