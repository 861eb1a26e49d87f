"""GRPO and its relatives for debates: rewards compared in groups of debates of one question.

Shao et al., "DeepSeekMath" (arXiv 2402.03300), with the message of an agent in a turn in the place
of the completion. Read `train_step` top to bottom: play, collate, score tokens, advantages, update,
log. Every question is debated G times. The rewards are those of MAPoRL (what the environment pays a
message); a message's advantage is its reward compared with those of its group, the same for all of
its tokens. What is compared, how, and in which objective is a `config.grpo.Variant`. With one agent
and one turn the default is GRPO.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maporl_agents.advantages import Baseline, group_advantages, running_advantages
from maporl_agents.algorithms import Scheme, StepWork, require_paid
from maporl_agents.config import GRPOConfig, GRPOSettings, Sampling, Variant
from maporl_agents.losses import Reduction
from maporl_agents.measure.step_metrics import (
    Metrics,
    counts_of,
    experience_metrics,
    mean_of,
    rollout_metrics,
)
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import Playable, play
from maporl_agents.play.speak import Engine
from maporl_agents.records.storage import CheckpointError
from maporl_agents.types import Experience, Rollout, TokenBatch
from maporl_agents.update.batching import collate
from maporl_agents.update.gradient_accumulation import Counts, Loss
from maporl_agents.update.minibatch_epochs import learn_in_epochs
from maporl_agents.update.objective import Objective, kl_of_rewards
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.token_tables import token_tables
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question

REDUCTIONS: dict[str, Reduction] = {
    "sequence": "sequence",
    "token": "token",
    "constant": "constant",
    "sum": "constant",
}
IN_GROUP: dict[str, Baseline] = {
    "mean": "mean",
    "leave_one_out": "leave_one_out",
    "maximum": "maximum",
}
"""Baselines that are statistics of the group itself; the others are subtracted before."""


def train_step(
    learner: GRPOLearner,
    game: Playable,
    questions: Sequence[Question],
    config: GRPOConfig,
    *,
    seed: int,
    rollouts: list[Rollout] | None = None,
) -> tuple[list[Rollout], Metrics]:
    """Play a group of debates per question and improve every policy on them.

    Args:
        learner: team, optimiser and running baselines; updated in place.
        game: the environment.
        questions: one group of debates each.
        config: the settings of the run.
        seed: names this step's random streams.
        rollouts: groups of debates that were played ahead; None to play them now.

    Returns:
        The rollouts, those of a question one after the other, and the metrics
        (docs/explanation/schemes/grpo.md).

    Raises:
        FloatingPointError: the loss or a gradient is not finite, and parameters stay as they are;
            or a parameter is not after the step.
    """
    team, settings, sampling = learner.team, config.grpo, config.sampling

    # Play: each question is debated G times, and once more greedily where that is the baseline.
    if rollouts is None:
        rollouts = play_step(team, game, questions, config, seed=seed)
    greedy = greedy_debates(team, game, questions, sampling, settings.chosen())
    return rollouts, learn(learner, rollouts, greedy, config, seed=seed)


def learn(
    learner: GRPOLearner,
    rollouts: Sequence[Rollout],
    greedy: Sequence[Rollout],
    config: GRPOConfig,
    *,
    seed: int,
) -> Metrics:
    """Improve every policy on groups of debates; return the metrics.

    Args:
        learner: as for `train_step`.
        rollouts: `group_size` of each question, one question after the other.
        greedy: a greedy debate of each question, where that is the baseline; else none.
        config: the settings of the run.
        seed: names this step's random streams.
    """
    team, settings, sampling = learner.team, config.grpo, config.sampling

    # Collate: one row per message that has a reward (and a baseline to compare it with).
    batch, left_out = collate(team, rollouts)
    batch = with_baseline(batch, greedy, settings.group_size)

    # Score tokens, then compare rewards: every token of a message has the advantage of the message.
    experience = evaluate_tokens(learner, batch, settings, sampling.temperature)

    # Update: passes over the batch in minibatches of whole debates.
    objective = objective_of(settings, sampling, team.num_agents)
    loss = partial(loss_of, team=team, objective=objective, temperature=sampling.temperature)
    rate = learner.learning_rate
    updates, _ = learn_in_epochs(learner, experience, loss, settings, seed=seed)

    # Log.
    metrics = rollout_metrics(rollouts) | experience_metrics(experience) | mean_of(updates)
    metrics |= group_metrics(experience, settings)
    metrics.pop("explained_variance", None)  # there is no critic
    return metrics | counts_of(left_out, len(updates), rate)


def play_step(
    team: Team,
    game: Playable,
    questions: Sequence[Question],
    config: GRPOConfig,
    *,
    seed: int,
    engine: Engine | None = None,
) -> list[Rollout]:
    """Return a group of debates per question; see `algorithms.Scheme.play`."""
    copies = [question for question in questions for _ in range(config.grpo.group_size)]
    game = with_room(game, len(copies))
    return play(team, game, copies, config.sampling, seed=seed, engine=engine)


def with_room(game: Playable, count: int) -> Playable:
    """Return the environment, or one of the same game in which `count` debates have room."""
    if isinstance(game, BatchedDebate) and game.batch_size < count:
        return BatchedDebate(game.game, count)
    return game


def greedy_debates(
    team: Team, game: Playable, questions: Sequence[Question], sampling: Sampling, chosen: Variant
) -> list[Rollout]:
    """Return one greedy debate per question, the baseline of ReMax; none for other baselines."""
    if chosen.baseline != "greedy":
        return []
    return play(team, game, questions, sampling.greedy(), seed=0)


def with_baseline(batch: TokenBatch, greedy: Sequence[Rollout], group_size: int) -> TokenBatch:
    """Return the batch with the rewards of greedy debates subtracted; as it is without any.

    A message is compared with that of the same turn and agent; where that has no score, the row is
    left out.
    """
    if not greedy:
        return batch
    places = zip(
        (batch.episodes // group_size).tolist(),
        batch.turns.tolist(),
        batch.agents.tolist(),
        strict=True,
    )
    usual = [
        float(greedy[question].rewards[turn, seat]) if greedy[question].scored[turn, seat] else None
        for question, turn, seat in places
    ]
    rows = [row for row, baseline in enumerate(usual) if baseline is not None]
    known = [baseline for baseline in usual if baseline is not None]
    kept = batch.select(rows)
    return replace(kept, rewards=kept.rewards - kept.rewards.new_tensor(known))


def evaluate_tokens(
    learner: GRPOLearner, batch: TokenBatch, settings: GRPOSettings, temperature: float
) -> Experience:
    """Score a batch under policy and reference policy; return it with its advantages.

    With `kl_place="reward"` the KL of a message, the sum over its tokens, comes off its reward
    before rewards are compared.
    """
    team, chosen = learner.team, settings.chosen()
    tables = token_tables(
        team, batch, temperature=temperature, micro_tokens=settings.micro_tokens, sampled=True
    )
    rewards = batch.rewards.to(tables.logprobs.dtype)
    kl = kl_of_rewards(
        team, batch, tables, chosen, temperature=temperature, micro_tokens=settings.micro_tokens
    )
    if kl is not None:
        rewards = rewards - kl
    of_messages = learner.advantages(rewards, batch)
    advantages = torch.where(batch.mask, of_messages[:, None], 0.0)
    nothing = tables.values  # all 0: there are no critics
    told = tables.rescored, tables.fault
    return Experience(
        batch, tables.logprobs, tables.ref_logprobs, nothing, advantages, nothing, *told
    )


def group_ids(batch: TokenBatch, settings: GRPOSettings) -> Tensor:
    """Return the group of every message, (B,): of its question, and of its agent and turn or not.

    Debates come question by question, `group_size` of each.
    """
    keys = {"question": (), "agent": (batch.agents,), "message": (batch.agents, batch.turns)}
    question = batch.episodes // settings.group_size
    places = torch.stack([question, *keys[settings.chosen().groups]], 1)  # (B, 1 to 3)
    groups: Tensor = torch.unique(places, dim=0, return_inverse=True)[1]
    return groups


def objective_of(settings: GRPOSettings, sampling: Sampling, num_agents: int) -> Objective:
    """Return what is minimised."""
    chosen = settings.chosen()
    limit = max(sampling.limit_of(agent) for agent in range(num_agents))
    return Objective(
        REDUCTIONS[chosen.length],
        max_tokens=limit if chosen.length == "constant" else 1,
        surrogate=chosen.surrogate,
        clip_coef=chosen.clip_coef,
        clip_high=chosen.clip_high,
        kl_coef=chosen.kl_coef if chosen.kl_place == "loss" else 0.0,
        kl_estimator=chosen.kl_estimator,
        entropy_coef=settings.entropy_coef,
    )


def loss_of(
    part: Experience, counts: Counts, *, team: Team, objective: Objective, temperature: float
) -> Loss:
    """Return the sum over policies of their losses on a micro-batch, and statistics of each."""
    return objective.loss(objective.score(team, part.batch, temperature), part, counts)


def group_metrics(experience: Experience, settings: GRPOSettings) -> Metrics:
    """Return the mean size of advantages, and the share of groups without any spread."""
    batch = experience.batch
    if not len(batch):
        return {}
    of_messages = experience.advantages[:, 0]  # every message has a first token
    metrics = {"advantage": float(of_messages.abs().mean())}
    if settings.chosen().baseline in IN_GROUP:
        group = group_ids(batch, settings)  # 0, 1, ...
        largest = of_messages.new_zeros(int(group.max()) + 1)
        largest = largest.scatter_reduce(0, group, of_messages.abs(), "amax")
        metrics["zero_spread"] = float((largest == 0).double().mean())
    return metrics


class GRPOLearner(PolicyLearner):
    """The learner of GRPO: policies under one AdamW, and running baselines of the agents' rewards.

    Args:
        team: the team that is trained.
        settings: of GRPO.
        steps: steps of the whole run; the schedule ends there.

    Attributes:
        baselines: by agent, with baseline "role", 0 at first; else empty.
    """

    def __init__(self, team: Team, settings: GRPOSettings, steps: int) -> None:
        super().__init__(team, settings, steps)
        self.settings = settings
        roles = range(team.num_agents if settings.chosen().baseline == "role" else 0)
        self.baselines: dict[str, float] = {f"agent_{agent}": 0.0 for agent in roles}

    def advantages(self, rewards: Tensor, batch: TokenBatch) -> Tensor:
        """Return the advantage of every message, (B,), and move the running baselines on."""
        chosen = self.settings.chosen()
        if chosen.baseline == "role":
            return self._against_role(rewards, batch)
        baseline: Baseline = IN_GROUP.get(chosen.baseline, "none")
        groups = group_ids(batch, self.settings)
        return group_advantages(rewards, groups, baseline=baseline, scale=chosen.scale)

    def _against_role(self, rewards: Tensor, batch: TokenBatch) -> Tensor:
        """Return rewards less the running mean of the agent's rewards, debate by debate.

        A debate moves the baseline of an agent once, by the mean reward of its messages.
        """
        places = torch.stack([batch.episodes, batch.agents], 1)
        pairs, member = torch.unique(places, dim=0, return_inverse=True)  # in the order of debates
        sizes = torch.bincount(member, minlength=len(pairs)).to(rewards.dtype)
        means = torch.zeros_like(sizes).index_add(0, member, rewards) / sizes
        roles = [f"agent_{agent}" for agent in pairs[:, 1].tolist()]
        beyond, self.baselines = running_advantages(
            means, roles, self.baselines, decay=self.settings.role_decay
        )
        return rewards - (means - beyond)[member]

    def controls(self) -> dict[str, Any]:
        """Return the running baselines, ready for JSON."""
        return {"baselines": dict(self.baselines)}

    def restore(self, controls: dict[str, Any]) -> None:
        """Restore what `controls` returned.

        Raises:
            CheckpointError: a baseline is no finite number.
        """
        baselines = {str(role): float(value) for role, value in controls["baselines"].items()}
        if not all(map(math.isfinite, baselines.values())):
            raise CheckpointError(f"a running baseline is not a finite number: {baselines}")
        self.baselines = baselines


def check(config: GRPOConfig, game: BatchedDebate) -> None:
    """Raise ValueError where a message may have no counterpart in the greedy debate.

    And where an agent is trained that the protocol never pays.
    """
    require_paid(config, game)
    if config.grpo.chosen().baseline == "greedy" and config.sampling.lag:
        raise ValueError(
            "baseline='greedy' plays debates by the weights of now while the next step is played "
            "by sampling.lag=1: choose sampling.lag=0 or another baseline"
        )
    if config.grpo.chosen().baseline == "greedy" and config.game.stop != "fixed":
        raise ValueError(
            f"baseline='greedy' compares each message with that of the same turn of a greedy "
            f"debate, which may end earlier with game.stop={config.game.stop!r}: choose "
            "game.stop='fixed' or another baseline"
        )


def work(config: GRPOConfig) -> StepWork:
    """Return the work of a step: G debates per question."""
    settings, chosen = config.grpo, config.grpo.chosen()
    left_out = {
        "the greedy debates of the baseline": chosen.baseline == "greedy",
        "the reference policy in every update": chosen.kl_coef > 0
        and chosen.kl_estimator == "exact",
    }
    named = " and ".join(what for what, here in left_out.items() if here)
    return StepWork(
        settings.micro_tokens,
        epochs=settings.epochs,
        minibatches=settings.minibatches,
        copies=settings.group_size,
        note=f"It leaves out {named}" if named else "",
    )


SCHEME = Scheme(
    settings=GRPOConfig,
    check=check,
    learner=lambda config, team: GRPOLearner(team, config.grpo, config.steps),
    train_step=train_step,
    play=play_step,
    work=work,
)
