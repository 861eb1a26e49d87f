"""Results of tools in training: read by the models, and without any loss or count."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from miniatures import stir, weights
from ppo_cases import PPO, QUESTIONS
from torch import Tensor

from maporl_agents import config as settings
from maporl_agents.advantages import gae, token_rewards
from maporl_agents.algorithms import grpo, iac, magrpo, maporl
from maporl_agents.losses import policy_loss, value_loss
from maporl_agents.models.team import Team
from maporl_agents.training.given_messages import given_rows
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import batch_of, collate, micro_batches
from maporl_agents.update.optimiser import PolicyLearner, PPOLearner
from maporl_agents.update.token_logprobs import score_tokens
from maporl_agents.update.token_tables import token_tables

from .tool_cases import SAMPLING, debates_with, played, team_of


@pytest.fixture(scope="module")
def team(checkpoint) -> Team:
    return team_of(checkpoint("llama", templated=True))


@pytest.fixture(scope="module")
def batch(team: Team) -> TokenBatch:
    made, _ = collate(team, played(team))
    assert made.results is not None
    assert made.results.any(1).sum() > 5
    return made


def one_by_one(team: Team, batch: TokenBatch) -> Tensor:
    """Return the log-probability of every written token, each row read alone, (B, L)."""
    found = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row, text in enumerate(batch.texts()):
        base = team.base_of(batch.policies[row])
        ids, start = torch.tensor([text]), len(batch.prompts[row])
        places = torch.arange(len(text))[None]
        states = base.hidden(ids, torch.ones_like(ids), places, [batch.policies[row]])[0]
        logprobs = base.logits(states[start - 1 : -1]).log_softmax(-1)
        found[row, : len(text) - start] = logprobs.gather(1, ids[0, start:, None])[:, 0]
    return found


def test_results_stand_in_the_text_and_not_in_the_mask(batch: TokenBatch) -> None:
    assert batch.results is not None
    assert not (batch.mask & batch.results).any()
    lengths = batch.written.sum(1)
    columns = torch.arange(batch.mask.shape[1])
    assert torch.equal(batch.written, columns < lengths[:, None])
    assert not batch.sampled_logprobs[~batch.mask].any()
    assert batch.mask[:, 0].all()


def test_own_tokens_are_scored_behind_the_results_before_them(
    team: Team, batch: TokenBatch
) -> None:
    """By the sampler, by the trainer, and by reading each whole row alone."""
    with torch.no_grad():
        wanted = torch.where(batch.mask, one_by_one(team, batch), 0.0)
        scores = score_tokens(team, batch, temperature=1.0, with_values=True, with_entropy=True)
    torch.testing.assert_close(scores.logprobs, wanted, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(batch.sampled_logprobs, wanted, atol=1e-9, rtol=1e-9)
    for table in (scores.logprobs, scores.values, scores.entropy):
        assert not table[~batch.mask].any()
        assert table[batch.mask].all()


@pytest.mark.parametrize("cut", [{"top_k": 5}, {"top_p": 0.9}])
def test_truncated_tokens_are_scored_over_their_own_sets(team: Team, cut: dict[str, float]) -> None:
    batch, _ = collate(team, played(team, replace(SAMPLING, **cut)))
    assert batch.results is not None
    with torch.no_grad():
        scores = score_tokens(team, batch, temperature=1.0)
    torch.testing.assert_close(scores.logprobs, batch.sampled_logprobs, atol=1e-9, rtol=1e-9)


def test_the_sampler_s_numbers_are_taken_and_checked(team: Team) -> None:
    rollouts = played(team, seed=2)
    batch, _ = collate(team, rollouts)
    tables = token_tables(team, batch, temperature=1.0, micro_tokens=400, sampled=True)
    assert tables.fault == 0
    assert not tables.logprobs[~batch.mask].any()
    assert not tables.ref_logprobs[~batch.mask].any()


OPTIONS = [
    {"reduction": "token"},
    {"reduction": "sequence"},
    {"reduction": "constant", "max_tokens": 9},
    {"surrogate": "gspo", "reduction": "sequence"},
    {"surrogate": "cispo"},
]


def gradients(team: Team, loss: Tensor) -> list[Tensor]:
    parameters = [p for named in team.trainable().values() for p in named.values()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_gradient_is_that_of_the_text_without_the_losses_of_results(
    team: Team, batch: TokenBatch, options: dict[str, object]
) -> None:
    """The twin reads each row alone, scores every written token, and drops those of results."""
    generator = torch.Generator().manual_seed(3)
    shape = batch.mask.shape
    advantages = torch.randn(shape, generator=generator, dtype=torch.float64)
    old = batch.sampled_logprobs + 0.1 * torch.randn(shape, generator=generator).double()
    rest = {"advantages": advantages, "mask": batch.mask, "clip_coef": 0.2} | options
    scores = score_tokens(team, batch, temperature=1.0)
    own, _ = policy_loss(scores.logprobs, old, **rest)
    alone = one_by_one(team, batch)
    kept = [row[mask] for row, mask in zip(alone, batch.mask, strict=True)]
    width = max(map(len, kept))

    def squeezed(rows: list[Tensor]) -> Tensor:
        return torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])

    def short(table: Tensor) -> Tensor:
        return squeezed([row[mask] for row, mask in zip(table, batch.mask, strict=True)])

    mask = short(batch.mask.double()) > 0
    rest |= {"advantages": short(advantages), "mask": mask}
    twin, _ = policy_loss(squeezed(kept), short(old), **rest)
    torch.testing.assert_close(own, twin, atol=1e-12, rtol=1e-9)
    found = gradients(team, own)
    assert max(float(one.abs().max()) for one in found) > 1e-3
    for one, other in zip(found, gradients(team, twin), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_results_have_no_part_in_a_loss_whatever_stands_there(batch: TokenBatch) -> None:
    mask = batch.mask
    old = torch.where(mask, batch.sampled_logprobs, math.nan)
    logprobs = torch.where(mask, batch.sampled_logprobs + 0.1, math.inf).requires_grad_()
    loss, _ = policy_loss(logprobs, old, torch.ones_like(old), mask, clip_coef=0.2)
    loss = loss + value_loss(logprobs, old, torch.zeros_like(old), mask)
    [gradient] = torch.autograd.grad(loss, [logprobs])
    assert torch.isfinite(loss)
    assert not gradient[~mask].any()
    assert gradient[mask].all()


def test_credit_flows_past_results_as_if_they_were_not_there() -> None:
    """Own tokens before a result have the value of the next own token as their next value."""
    own = torch.tensor([[1, 1, 0, 0, 0, 1, 1, 0]], dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(1, 8, generator=generator, dtype=torch.float64)
    logprobs, reference = torch.randn(2, 1, 8, generator=generator, dtype=torch.float64)
    score = torch.tensor([2.0], dtype=torch.float64)
    rewards = token_rewards(logprobs, reference, own, score, kl_coef=0.3)
    assert rewards[0, 6] == pytest.approx(2.0 - 0.3 * float(logprobs[0, 6] - reference[0, 6]))
    advantages, returns = gae(rewards, values, own, gamma=0.9, lam=0.8)
    whole = torch.ones(1, 4, dtype=torch.bool)
    squeezed = [table[own][None] for table in (rewards, values)]
    wanted = gae(*squeezed, whole, gamma=0.9, lam=0.8)
    assert torch.equal(advantages[own][None], wanted[0])
    assert torch.equal(returns[own][None], wanted[1])
    assert not advantages[~own].any()


def test_passes_and_selections_keep_the_results(team: Team, batch: TokenBatch) -> None:
    for packed in (False, True):
        rows = torch.cat(list(micro_batches(batch, 120, packed=packed)))
        assert sorted(rows.tolist()) == list(range(len(batch)))
    assert batch.results is not None
    last = int(batch.results.any(1).nonzero()[-1])
    one = batch.select([last])
    assert one.texts() == [batch.texts()[last]]
    assert one.results is not None
    assert one.results.sum() == batch.results[last].sum()


def test_imitation_of_given_messages_leaves_out_their_results(team: Team) -> None:
    rollouts = played(team, seed=4)
    transcripts = [rollout.transcript for rollout in rollouts]
    rows = given_rows(team, debates_with(), transcripts)
    messages = [m for transcript in transcripts for m in transcript.messages]
    chat = team.bases[0].chat
    called = 0
    for message, row in zip(messages, rows, strict=True):
        assert row.completion.text == message.text
        assert len(row.completion.results) == len(message.results)
        for (start, end), (_, text) in zip(row.completion.results, message.results, strict=True):
            assert chat.decode(row.completion.ids[start:end]) == text
            called += 1
    assert called > 3
    assert batch_of(team, rows).results is not None


def stepped(team: Team, scheme: str) -> dict[str, float]:
    """Take one step of a scheme with tools; return its metrics."""
    game = debates_with(verifier=lambda q, texts: [len(text) % 5 / 4 for text in texts])
    if scheme == "maporl":
        config = settings.TrainConfig(sampling=SAMPLING, ppo=PPO)
        return maporl.train_step(PPOLearner(team, PPO, 4), game, QUESTIONS, config, seed=1)[1]
    if scheme == "grpo":
        groups = settings.GRPOSettings(group_size=2, minibatches=1)
        config = settings.GRPOConfig(sampling=SAMPLING, grpo=groups)
        learner = grpo.GRPOLearner(team, groups, 4)
        return grpo.train_step(learner, game, QUESTIONS, config, seed=1)[1]
    if scheme == "magrpo":
        config = settings.MAGRPOConfig(
            sampling=SAMPLING, magrpo=settings.MAGRPOSettings(group_size=2)
        )
        learner = PolicyLearner(team, config.magrpo, 4)
        return magrpo.train_step(learner, game, QUESTIONS, config, seed=1)[1]
    config = settings.IACConfig(sampling=SAMPLING, iac=settings.IACSettings())
    learner = iac.SCHEME.learner(config, team)
    return iac.train_step(learner, game, QUESTIONS, config, seed=1)[1]


@pytest.mark.parametrize("scheme", ["maporl", "grpo", "magrpo", "iac"])
def test_every_scheme_learns_from_messages_with_results(checkpoint, scheme: str) -> None:
    """A step runs, sampler and trainer agree, and the weights move."""
    team = team_of(checkpoint("llama", templated=True))
    before = weights(team)
    metrics = stepped(team, scheme)
    assert metrics["tool_calls/turn_1"] > 0.2
    assert metrics["sampler_mismatch"] < 1e-9
    assert metrics["length/turn_1"] <= SAMPLING.max_new_tokens
    assert all(math.isfinite(value) for value in metrics.values())
    assert any(not torch.equal(x, before[name]) for name, x in weights(team).items())


def test_a_central_critic_reads_results_too(checkpoint) -> None:
    team = team_of(checkpoint("llama", templated=True), critic="central")
    stir(team)
    assert stepped(team, "maporl")["tool_calls/turn_1"] > 0.2
