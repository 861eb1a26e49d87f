"""Learners, debates and hand-made experience on which PPO is tested."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from miniatures import load_team, make_rollout, stir
from torch import Tensor

from maporl_agents.algorithms import maporl
from maporl_agents.algorithms.maporl import evaluate_tokens
from maporl_agents.config import PPOConfig, Sampling, TrainConfig
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.team import Team
from maporl_agents.types import Experience, TokenBatch
from maporl_agents.update.batching import collate
from maporl_agents.update.gradient_accumulation import accumulate, apply
from maporl_agents.update.optimiser import PPOLearner
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

PPO = PPOConfig(
    learning_rate=1e-2,
    critic_learning_rate=3e-2,
    warmup_steps=0,
    epochs=2,
    minibatches=1,
    kl_coef=0.3,
    critic_coef=0.3,
    gae_lambda=0.9,
    token_gamma=0.97,
    max_grad_norm=0.5,
)
QUESTIONS = [Question(f"q/{i}", f"how much is {i} and three ?", str(i + 3)) for i in range(4)]
TEMPERATURE = 0.8
CONFIG = TrainConfig(sampling=Sampling(max_new_tokens=4, temperature=TEMPERATURE))


def by_length(_questions: object, texts: list[str]) -> list[float]:
    """Score the texts of random models differently."""
    return [len(text) % 3 / 2 for text in texts]


def make_debates(**options: object) -> BatchedDebate:
    """Return debates of two agents and two turns, unless `options` say otherwise."""
    given = {"num_agents": 2, "num_turns": 2, "verifier": by_length, **options}
    return BatchedDebate(DebateConfig(task=QUESTIONS, **given), 4)  # type: ignore[arg-type]


def make_learner(
    checkpoint: Callable[..., Path], ppo: PPOConfig = PPO, *, num_turns: int = 2, **settings: object
) -> PPOLearner:
    """Return a learner of ten steps whose policies have left their reference."""
    team = load_team(checkpoint("llama"), num_turns=num_turns, **settings)
    stir(team)
    return PPOLearner(team, ppo, steps=10)


def one_step(learner: PPOLearner, seed: int = 1, **options: object) -> Metrics:
    """Take one training step on `QUESTIONS` in `make_debates`; return its metrics."""
    return maporl.train_step(learner, make_debates(**options), QUESTIONS, CONFIG, seed=seed)[1]


def make_batch(team: Team, episodes: int = 4) -> TokenBatch:
    """Return hand-made debates of two agents and two turns, with rewards of both signs."""
    rollouts = []
    for e in range(episodes):
        first = [(5, 6, 7 + e), (9, 8, e)]
        said = [(11, 12 + e), (13,)]
        heard = [(*first[0], *said[0], 40, 41), (*first[1], *said[1], 42)]
        ids = [*said, (14, 15, 0), tuple(range(20, 22 + e))]
        rewards = np.array([[1.0, -e], [0.5 * e, 2.0]])
        rollouts.append(make_rollout(team, [*first, *heard], ids, rewards=rewards))
    return collate(team, rollouts)[0]


def make_experience(learner: PPOLearner, episodes: int = 4) -> Experience:
    """Return the debates of `make_batch` with their advantages."""
    batch = make_batch(learner.team, episodes)
    return evaluate_tokens(learner.team, batch, learner.ppo, TEMPERATURE)


def gradients_of(learner: PPOLearner, experience: Experience) -> list[Tensor]:
    """Return the gradients that `one_update` would clip and apply."""
    loss = partial(maporl.loss_of, learner, temperature=TEMPERATURE)
    accumulate(experience, loss, learner.ppo.micro_tokens)
    found = [
        torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learner.parameter_names()
    ]
    learner.optimizer.zero_grad()
    return found


def parameters_of(learner: PPOLearner) -> list[Tensor]:
    """Return a copy of every trained weight, those of policies before those of critics."""
    return [p.detach().clone() for p in learner.parameter_names()]


def one_update(learner: PPOLearner, experience: Experience, temperature: float) -> Metrics:
    """Take one optimiser step on the whole experience, as one minibatch."""
    loss = partial(maporl.loss_of, learner, temperature=temperature)
    return apply(learner, experience, loss, micro_tokens=learner.ppo.micro_tokens)
