"""MAPoRL's update with one agent and one turn, against an independent PPO."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from miniatures import load_team, make_double, make_rollout, stir
from ppo_cases import PPO, TEMPERATURE, gradients_of, one_update, parameters_of
from torch import Tensor

from maporl_agents.algorithms.maporl import evaluate_tokens
from maporl_agents.config import PPOConfig
from maporl_agents.models.bases import FullBase
from maporl_agents.update.batching import collate
from maporl_agents.update.optimiser import PPOLearner, learning_rate_factor


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
    learner = PPOLearner(team, PPO, steps=10)
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
        metrics = one_update(learner, experience, TEMPERATURE)
        gradients, policy, value = plain.step(learning_rate_factor(0, 0, 10))
        for one, other in zip(mine, gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
        assert metrics["loss/policy"] == pytest.approx(float(policy), abs=1e-10)
        assert metrics["loss/value"] == pytest.approx(float(value), abs=1e-10)
        weights = [*plain.model.parameters(), *plain.critic.parameters()]
        for one, other in zip(parameters_of(learner), weights, strict=True):
            torch.testing.assert_close(one, other.detach(), atol=1e-10, rtol=1e-10)
        assert (metrics["clip_frac"] > 0) == (epoch > 0)  # the comparison reached the clip
