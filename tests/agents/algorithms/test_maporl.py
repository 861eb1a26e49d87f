"""The update: against an independent PPO, in pieces, under faults."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from miniatures import load_team, make_double, make_rollout, stir
from torch import Tensor

from maporl_agents.algorithms.maporl import (
    evaluate_tokens,
    train_step,
    update,
)
from maporl_agents.config import PPOConfig, Sampling, TrainConfig
from maporl_agents.measure.step_metrics import experience_metrics, mean_of, sums_of
from maporl_agents.models.bases import FullBase
from maporl_agents.models.team import Team
from maporl_agents.play.questions import questions_of_step
from maporl_agents.types import Experience
from maporl_agents.update.batching import collate
from maporl_agents.update.optimiser import Learner, learning_rate_factor
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

PPO = PPOConfig(
    learning_rate=1e-2,
    critic_learning_rate=3e-2,
    warmup_steps=0,
    epochs=2,
    minibatches=1,
    kl_coef=0.05,
    critic_coef=0.3,
    gae_lambda=0.9,
    token_gamma=0.97,
    max_grad_norm=0.5,
)
QUESTIONS = [Question(f"q/{i}", f"how much is {i} and three ?", str(i + 3)) for i in range(3)]
SAMPLING = Sampling(max_new_tokens=4, temperature=0.8)


def make_learner(checkpoint, *, ppo: PPOConfig = PPO, family: str = "llama", **settings) -> Learner:
    team = load_team(checkpoint(family), **settings)
    stir(team)
    return Learner(team, ppo, steps=10)


def make_debates(**options: object) -> BatchedDebate:
    return BatchedDebate(DebateConfig(task=QUESTIONS, num_agents=2, **options), 4)  # type: ignore[arg-type]


def make_experience(learner: Learner, episodes: int = 4) -> Experience:
    """Hand-made debates of two agents and two turns, rewards of both signs."""
    rollouts = []
    for e in range(episodes):
        first = [(5, 6, 7 + e), (9, 8, e)]
        said = [(11, 12 + e), (13,)]
        heard = [(*first[0], *said[0], 40, 41), (*first[1], *said[1], 42)]
        rewards = np.array([[1.0, -e], [0.5 * e, 2.0]])
        ids = [*said, (14, 15, 0), tuple(range(20, 22 + e))]
        rollouts.append(make_rollout(learner.team, [*first, *heard], ids, rewards=rewards))
    batch, _ = collate(learner.team, rollouts)
    return evaluate_tokens(learner.team, batch, learner.ppo, 0.8)


def mean_by_hand(x: Tensor, mask: Tensor, reduction: str) -> float:
    """Mean over tokens, or over rows of the mean over their tokens."""
    rows = [row[real].tolist() for row, real in zip(x, mask, strict=True)]
    if reduction == "sequence":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    return sum(map(sum, rows)) / sum(map(len, rows))


def weights_of(team: Team) -> list[Tensor]:
    named = [p for one in team.trainable().values() for p in one.values()]
    return [p.detach().clone() for p in (*named, *team.critics.parameters())]


def gradients_of(learner: Learner, experience: Experience) -> list[Tensor]:
    """The gradients that `update` would clip and apply."""
    found: list[Tensor] = []

    def keep() -> dict[str, float]:
        for p in learner.parameter_names():
            found.append(torch.zeros_like(p) if p.grad is None else p.grad.clone())
        learner.optimizer.zero_grad()
        return {}

    learner.apply_gradients = keep  # type: ignore[method-assign]
    try:
        update(learner, experience, 0.8)
    finally:
        del learner.apply_gradients
    return found


class PlainPPO:
    """PPO for one agent and one turn, with loops from the papers: what ours is held against.

    Schulman et al. 2017 with the token reward of Ziegler et al. 2019; AdamW without decay.
    """

    def __init__(self, base: FullBase, critic: torch.nn.Module, ppo: PPOConfig) -> None:
        self.model = copy.deepcopy(base.model)
        self.reference = copy.deepcopy(base.reference)
        self.critic = copy.deepcopy(critic)
        self.vocab_size = base.vocab_size
        self.ppo = ppo
        self.moments: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self.steps = 0

    def read(self, model, prompt, ids, temperature: float) -> tuple[list[Tensor], list[Tensor]]:
        """Log-probability of each token, and the critic's value before it."""
        whole = torch.tensor([[*prompt, *ids]])
        output = model(input_ids=whole, output_hidden_states=True)
        logprobs, values = [], []
        for x, token in enumerate(ids):
            place = len(prompt) + x - 1
            logits = output.logits[0, place, : self.vocab_size] / temperature
            logprobs.append(logits[token] - logits.logsumexp(0))
            values.append(self.critic(output.hidden_states[-1][0, place]))
        return logprobs, values

    def advantages(self, rewards: list[float], values: list[float]) -> list[float]:
        result, running = [0.0] * len(rewards), 0.0
        for x in reversed(range(len(rewards))):
            following = values[x + 1] if x + 1 < len(values) else 0.0
            delta = rewards[x] + self.ppo.token_gamma * following - values[x]
            running = delta + self.ppo.token_gamma * self.ppo.gae_lambda * running
            result[x] = running
        return result

    @torch.no_grad()
    def prepare(self, rows, temperature: float) -> None:
        self.rows, self.temperature = rows, temperature
        self.old, self.targets, self.weights = [], [], []
        for prompt, ids, reward in rows:
            logprobs, values = self.read(self.model, prompt, ids, temperature)
            reference, _ = self.read(self.reference, prompt, ids, temperature)
            paid = [
                -self.ppo.kl_coef * float(lp - ref)
                for lp, ref in zip(logprobs, reference, strict=True)
            ]
            paid[-1] += reward
            numbers = [float(v) for v in values]
            gains = self.advantages(paid, numbers)
            self.old.append(logprobs)
            self.targets.append([g + v for g, v in zip(gains, numbers, strict=True)])
            self.weights.append(gains)
        flat = [g for row in self.weights for g in row]
        mean = sum(flat) / len(flat)
        deviation = math.sqrt(sum((g - mean) ** 2 for g in flat) / (len(flat) - 1))
        self.weights = [[(g - mean) / deviation for g in row] for row in self.weights]

    def losses(self) -> tuple[Tensor, Tensor]:
        policy, value, count = torch.zeros(()).double(), torch.zeros(()).double(), 0
        for (prompt, ids, _), old, gains, targets in zip(
            self.rows, self.old, self.weights, self.targets, strict=True
        ):
            logprobs, values = self.read(self.model, prompt, ids, self.temperature)
            for x in range(len(ids)):
                ratio = (logprobs[x] - old[x]).exp()
                low, high = 1 - self.ppo.clip_coef, 1 + self.ppo.clip_coef
                policy = policy - torch.minimum(ratio * gains[x], ratio.clamp(low, high) * gains[x])
                value = value + 0.5 * (values[x] - targets[x]) ** 2
                count += 1
        return policy / count, value / count

    def step(self, factor: float) -> tuple[list[Tensor], Tensor, Tensor]:
        """One update; returns the gradients before clipping and the two losses."""
        policy, value = self.losses()
        groups = [
            (list(self.model.parameters()), self.ppo.learning_rate),
            (list(self.critic.parameters()), self.ppo.critic_learning_rate),
        ]
        everything = [p for group, _ in groups for p in group]
        gradients = torch.autograd.grad(policy + self.ppo.critic_coef * value, everything)
        by_weight = dict(zip(everything, gradients, strict=True))
        self.steps += 1
        for group, rate in groups:
            norm = math.sqrt(sum(float((by_weight[p] ** 2).sum()) for p in group))
            clip = min(1.0, self.ppo.max_grad_norm / (norm + 1e-6))
            for p in group:
                self.adam(p, by_weight[p] * clip, rate * factor)
        return list(gradients), policy.detach(), value.detach()

    @torch.no_grad()
    def adam(self, p: Tensor, gradient: Tensor, rate: float) -> None:
        first, second = self.moments.get(p, (torch.zeros_like(p), torch.zeros_like(p)))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        self.moments[p] = (first, second)
        unbiased = second / (1 - 0.999**self.steps)
        p -= rate * (first / (1 - 0.9**self.steps)) / (unbiased.sqrt() + 1e-8)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_with_one_agent_and_one_turn_it_is_ppo(checkpoint, family: str) -> None:
    """Same losses, gradients and weights as an independent PPO over three updates; fp64, 1e-10."""
    team = load_team(checkpoint(family), num_agents=1, num_turns=1)
    stir(team, scale=0.02)
    make_double(team)
    learner = Learner(team, PPO, steps=10)
    rows = [
        ((5, 6, 7), (11, 12, 0), 1.0),
        ((9, 8), (13,), -0.5),
        ((7,) * 6, (14, 15, 16, 17), 0.25),
    ]
    rollouts = [
        make_rollout(team, [prompt], [ids], rewards=np.array([[reward]]))
        for prompt, ids, reward in rows
    ]
    batch, _ = collate(team, rollouts)
    [base] = team.bases
    assert isinstance(base, FullBase)
    plain = PlainPPO(base, team.critics["agent_0_turn_0"], PPO)

    experience = evaluate_tokens(team, batch, PPO, 0.8)
    plain.prepare(rows, 0.8)
    for epoch in range(3):
        mine = gradients_of(learner, experience)
        metrics = update(learner, experience, 0.8)
        gradients, policy, value = plain.step(learning_rate_factor(0, 0, 10))
        for one, other in zip(mine, gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
        assert metrics["loss/policy"] == pytest.approx(float(policy), abs=1e-10)
        assert metrics["loss/value"] == pytest.approx(float(value), abs=1e-10)
        weights = [*plain.model.parameters(), *plain.critic.parameters()]
        for one, other in zip(weights_of(team), weights, strict=True):
            torch.testing.assert_close(one, other.detach(), atol=1e-10, rtol=1e-10)
        assert (metrics["clip_frac"] > 0) == (epoch > 0)  # the comparison reached the clip


class TestPieces:
    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_the_size_of_the_pieces_changes_no_gradient(self, checkpoint, tuning: str) -> None:
        """Failure A20: 1, 2 or all debates at once; unequal lengths; 1e-6."""
        learner = make_learner(checkpoint, tuning=tuning)
        experience = make_experience(learner)
        whole = gradients_of(learner, experience)
        assert any(g.any() for g in whole)
        for size in (1, 2):
            learner.ppo = replace(PPO, micro_episodes=size)
            for one, other in zip(gradients_of(learner, experience), whole, strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)

    @pytest.mark.parametrize("reduction", ["token", "sequence"])
    def test_the_reduction_is_that_of_the_whole_minibatch(self, checkpoint, reduction: str) -> None:
        """By hand, messages of 2, 1, 3 and more tokens; however they are cut into pieces."""
        ppo = replace(PPO, reduction=reduction, entropy_coef=0.1, critic_coef=0.7)
        learner = make_learner(checkpoint, ppo=ppo)
        experience = make_experience(learner)
        batch, paid = experience.batch, experience.advantages
        errors = (experience.values - experience.returns).square() / 2
        policy, value = (
            [mean_by_hand(x[rows], batch.mask[rows], reduction) for _, rows in batch.by_policy()]
            for x in (-paid, errors)
        )
        whole = gradients_of(learner, experience)
        for size in (1, 2, 64):
            learner.ppo = replace(ppo, micro_episodes=size)
            for one, other in zip(gradients_of(learner, experience), whole, strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
        metrics = update(learner, experience, 0.8)  # at ratio 1 the surrogate is the advantage
        assert metrics["loss/policy"] == pytest.approx(sum(policy) / 2, abs=1e-6)
        assert metrics["loss/value"] == pytest.approx(sum(value) / 2, rel=1e-5)

    def test_nor_the_scores_nor_what_is_logged(self, checkpoint) -> None:
        """Failure A31: the logged loss is the loss, however it was added up."""
        logged, scored = [], []
        for size in (64, 1):
            learner = make_learner(checkpoint, ppo=replace(PPO, micro_episodes=size))
            experience = make_experience(learner)
            scored.append(experience)
            logged.append(update(learner, experience, 0.8))
        assert logged[0] == pytest.approx(logged[1], abs=1e-5)
        for name in ("logprobs", "ref_logprobs", "values", "advantages", "returns"):
            first, second = (getattr(experience, name) for experience in scored)
            torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)

    def test_the_first_update_starts_at_ratio_one(self, checkpoint) -> None:
        """Bitwise, the minibatch having the shape that was scored."""
        learner = make_learner(checkpoint)
        metrics = update(learner, make_experience(learner), 0.8)
        assert metrics["clip_frac"] == 0
        assert metrics["approx_kl"] == 0

    @pytest.mark.parametrize("tuning", ["full", "lora"])  # a base each; both on one base
    def test_each_agent_speaks_with_its_own_weight(self, checkpoint, tuning: str) -> None:
        """A policy's loss is a mean over its own tokens: rows of another do not slow it."""
        learner = make_learner(checkpoint, tuning=tuning)
        experience = make_experience(learner)
        alone = experience.select(torch.tensor([i for i in range(16) if i % 2 == 0]))
        both, one = (gradients_of(learner, part) for part in (experience, alone))
        names = list(learner.parameter_names().values())
        own = [i for i, name in enumerate(names) if name.startswith("agent_0/")]
        assert own
        for i in own:
            torch.testing.assert_close(both[i], one[i], atol=1e-6, rtol=1e-4)

    def test_advantages_are_white_per_turn_and_agent(self, checkpoint) -> None:
        learner = make_learner(checkpoint)
        experience = make_experience(learner)
        for _, rows in experience.batch.by_message():
            real = experience.advantages[rows][experience.batch.mask[rows]]
            assert real.mean() == pytest.approx(0, abs=1e-5)
            assert real.std() == pytest.approx(1, abs=1e-4)
        assert not experience.advantages[~experience.batch.mask].any()


class TestFaults:
    """Failure A30: nothing that is not finite reaches a weight."""

    def check(self, learner: Learner, before: list[Tensor]) -> None:
        assert all(map(torch.equal, weights_of(learner.team), before))
        assert all(p.grad is None for p in learner.parameter_names())

    @pytest.mark.parametrize("place", [0, -1])
    def test_nan_in_the_loss(self, checkpoint, place: int) -> None:
        """In the first or the last piece: no part of a gradient is left behind."""
        learner = make_learner(checkpoint, ppo=replace(PPO, micro_episodes=1))
        experience = make_experience(learner)
        before = weights_of(learner.team)
        experience.advantages[place][experience.batch.mask[place]] = float("nan")
        with pytest.raises(FloatingPointError, match=r"loss became nan.*not made"):
            update(learner, experience, 0.8)
        self.check(learner, before)

    @pytest.mark.parametrize("where", ["policy", "critic"])
    def test_an_infinite_gradient_of_a_finite_loss(self, checkpoint, where: str) -> None:
        learner = make_learner(checkpoint)
        experience = make_experience(learner)
        before = weights_of(learner.team)
        named = learner.team.trainable()["agent_1"]
        owner = named if where == "policy" else dict(learner.team.critics.named_parameters())
        next(iter(owner.values())).register_hook(lambda gradient: gradient * float("inf"))
        with pytest.raises(FloatingPointError, match="gradient"):
            update(learner, experience, 0.8)
        self.check(learner, before)

    def test_an_update_after_a_refused_one_is_as_if_it_had_not_been(self, checkpoint) -> None:
        after = []
        for spoil in (False, True):
            learner = make_learner(checkpoint, ppo=replace(PPO, micro_episodes=1))
            experience = make_experience(learner)
            if spoil:
                bad = copy.deepcopy(experience)
                bad.advantages[-1] = float("nan")
                with pytest.raises(FloatingPointError):
                    update(learner, bad, 0.8)
            update(learner, experience, 0.8)
            after.append(weights_of(learner.team))
        assert all(map(torch.equal, *after))

    def test_a_step_without_any_score_changes_nothing_and_says_so(self, checkpoint) -> None:
        def verifier(questions, responses):
            raise RuntimeError("out of order")

        learner = make_learner(checkpoint)
        before = weights_of(learner.team)
        debates = make_debates(num_turns=2, verifier=verifier)
        rollouts, metrics = train_step(
            learner, debates, QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1
        )
        self.check(learner, before)
        assert metrics["unscored_messages"] == 12
        assert metrics["updates"] == 0
        assert all(math.isfinite(value) for value in metrics.values())
        assert len(rollouts) == 3

    def test_messages_without_a_score_carry_no_loss(self, checkpoint) -> None:
        """The rest is learnt as if they had not been written."""

        def verifier(questions, responses):
            return [float("nan") if q.id == "q/1" else 1.0 for q in questions]

        learner = make_learner(checkpoint)
        debates = make_debates(num_turns=2, verifier=verifier)
        _, metrics = train_step(learner, debates, QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1)
        assert metrics["unscored_messages"] == 4
        assert metrics["updates"] == 2
        assert all(math.isfinite(value) for value in metrics.values())

    def test_a_single_token_is_enough(self, checkpoint) -> None:
        learner = make_learner(checkpoint)
        rollout = make_rollout(
            learner.team,
            [(5,), (6,)],
            [(7,), (8,)],
            rewards=np.ones((1, 2)),
            scored=np.array([[True, False]]),
        )
        batch, _ = collate(learner.team, [rollout])
        experience = evaluate_tokens(learner.team, batch, PPO, 0.8)
        metrics = experience_metrics(experience) | update(learner, experience, 0.8)
        assert all(math.isfinite(value) for value in metrics.values())


class TestStep:
    def test_every_policy_and_critic_moves_and_no_reference(self, checkpoint) -> None:
        learner = make_learner(checkpoint, num_turns=2)
        rate = learner.optimizer.param_groups[0]["lr"]
        reference = [p.clone() for base in learner.team.bases for p in base.reference.parameters()]
        before = weights_of(learner.team)
        _, metrics = train_step(
            learner, make_debates(num_turns=2), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1
        )
        changed = [
            name
            for name, old, new in zip(
                learner.parameter_names().values(), before, weights_of(learner.team), strict=True
            )
            if not torch.equal(old, new)
        ]
        assert len(changed) == len(before)
        after = [p for base in learner.team.bases for p in base.reference.parameters()]
        assert all(map(torch.equal, reference, after))
        assert metrics["sampler_mismatch"] < 1e-5
        assert metrics["updates"] == 2
        assert metrics["learning_rate"] == rate, "that of this step, not of the next"

    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_equal_seeds_give_equal_weights(self, checkpoint, tuning: str) -> None:
        runs = []
        for seed in (1, 1, 2):
            learner = make_learner(checkpoint, tuning=tuning, num_turns=2)
            train_step(
                learner,
                make_debates(num_turns=2),
                QUESTIONS,
                TrainConfig(sampling=SAMPLING),
                seed=seed,
            )
            runs.append(weights_of(learner.team))
        assert all(map(torch.equal, runs[0], runs[1]))
        assert not all(map(torch.equal, runs[0], runs[2]))

    def test_the_global_random_state_is_not_touched(self, checkpoint) -> None:
        learner = make_learner(checkpoint)
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
        train_step(
            learner, make_debates(num_turns=2), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1
        )
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[2])

    def test_rewards_raise_what_earned_them(self, checkpoint) -> None:
        """The sign: a message that is paid more than its like gains on it."""
        ppo = replace(PPO, kl_coef=0.0, learning_rate=1e-3)
        learner = make_learner(checkpoint, ppo=ppo, num_turns=1)
        rollouts = [
            make_rollout(learner.team, [(5, 6)] * 2, [(said,)] * 2, rewards=np.full((1, 2), paid))
            for said, paid in ((7, 1.0), (8, 0.0))
        ]
        batch, _ = collate(learner.team, rollouts)
        experience = evaluate_tokens(learner.team, batch, learner.ppo, 0.8)
        update(learner, experience, 0.8)
        after = evaluate_tokens(learner.team, batch, learner.ppo, 0.8)
        change = (after.logprobs - experience.logprobs)[:, 0]
        assert (change[:2] > change[2:]).all()

    def test_kl_is_zero_at_first(self, checkpoint) -> None:
        for tuning in ("full", "lora"):
            learner = Learner(load_team(checkpoint("llama"), tuning=tuning), PPO, steps=2)
            assert experience_metrics(make_experience(learner))["kl"] == 0


def test_the_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    rates = [learning_rate_factor(step, 3, 13) for step in range(14)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[8] == pytest.approx(0.1 + 0.9 * 0.5)  # half of the ten steps of decay are left
    assert rates[13] == pytest.approx(0.1)
    assert learning_rate_factor(99, 3, 13) == pytest.approx(0.1)
    assert learning_rate_factor(0, 0, 1) == 1


def test_the_schedule_reaches_every_group(checkpoint) -> None:
    """Failure A12."""
    learner = make_learner(checkpoint, ppo=replace(PPO, warmup_steps=1))
    rates = [group["lr"] for group in learner.optimizer.param_groups]
    assert rates == pytest.approx([0.5e-2, 0.5e-2, 1.5e-2])
    declared = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    assert declared == {id(p) for p in learner.parameter_names()}


class TestQuestions:
    def test_every_pass_asks_each_question_once_in_a_new_order(self) -> None:
        asked = [q for step in range(6) for q in questions_of_step(QUESTIONS, step, 2, seed=1)]
        passes = [tuple(q.id for q in asked[i : i + 3]) for i in range(0, 12, 3)]
        assert all(sorted(one) == ["q/0", "q/1", "q/2"] for one in passes)
        assert len(set(passes)) > 1

    def test_a_step_is_a_function_of_its_number(self) -> None:
        assert questions_of_step(QUESTIONS, 4, 2, seed=1) == questions_of_step(
            QUESTIONS, 4, 2, seed=1
        )
        many = QUESTIONS * 10
        assert questions_of_step(many, 0, 30, seed=1) != questions_of_step(many, 0, 30, seed=2)


def test_metrics_of_policies_add_up() -> None:
    parts = [{"a": {"x": 1.0}, "b": {"x": 5.0}}, {"a": {"x": 2.0}}]
    assert sums_of(parts) == [{"x": 3.0}, {"x": 5.0}]
    assert mean_of([{"x": 1.0}, {"x": 3.0, "y": 4.0}]) == {"x": 2.0, "y": 4.0}
