"""SWEET-RL: a critic that knows the answer tells an agent which of its turns were good.

Zhou et al. (arXiv 2503.15478). An agent talks with a user who alone knows a reference, and only its
last message is scored. A second model, the critic, reads the reference too: it learns from pairs of
dialogues which turns lead to good ends. Then the agent, which does not read the reference, is
compared on several messages after each prefix, and DPO raises what the critic prefers. The critic
is a policy of the team behind its two agents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from maporl_agents.algorithms import Scheme
from maporl_agents.algorithms.grpo import with_room
from maporl_agents.config import SweetConfig, SweetSettings
from maporl_agents.measure.step_metrics import Metrics, mean_of, rollout_metrics
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.play.speak import speak
from maporl_agents.seeding import seed_of
from maporl_agents.text.hidden_reference import with_reference
from maporl_agents.types import Completion, Request, Rollout
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.preferences import Pairs, preference_step
from maporl_agents.update.reference_logprobs import reference_logprobs
from maporl_agents.update.turn_critic import (
    EpisodePairs,
    critic_step,
    halves,
    turn_advantages,
)
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question

AGENT, CRITIC = 0, 2
"""Indices: of the agent in the game, and of the critic behind the agents of the game."""


def train_step(
    learner: PolicyLearner,
    game: BatchedDebate,
    questions: Sequence[Question],
    config: SweetConfig,
    *,
    seed: int,
) -> tuple[list[Rollout], Metrics]:
    """Play, teach the critic, and raise the messages that it prefers.

    Arguments as of `algorithms.TrainStep`; each question has a group of dialogues.

    Returns:
        The rollouts, those of a question one after the other, and the metrics
        (docs/explanation/schemes/sweet_rl.md).

    Raises:
        FloatingPointError: a loss or a gradient is not finite; or a parameter after the step.
    """
    team, settings, sampling = learner.team, config.sweet_rl, config.sampling

    # Play: a group of dialogues of each question.
    copies = [question for question in questions for _ in range(settings.group_size)]
    rollouts = play(team, with_room(game, len(copies)), copies, sampling, seed=seed)
    metrics = rollout_metrics(rollouts)
    rate = learner.learning_rate

    # The critic: the best dialogue of a group is better than each that has a lower score.
    pairs = episode_pairs(rollouts, settings.group_size)
    taught = episodes_as_read(team, rollouts, pairs, config)
    updates = [
        critic_step(learner, taught.select(rows), settings, temperature=sampling.temperature)
        for _ in range(settings.critic_epochs)
        for rows in in_batches(taught.batch.episodes, settings.batch_size, seed)
    ]
    metrics |= mean_of(updates)

    # The agent: several messages after each prefix, ranked by the critic; then DPO.
    chosen, spread = preferred_messages(team, rollouts, config, seed=seed)
    steps = [
        preference_step(
            learner,
            chosen.select(rows),
            beta=settings.beta,
            micro_tokens=settings.micro_tokens,
            temperature=sampling.temperature,
            nll_coef=settings.nll_coef,
        )
        for rows in in_batches(chosen.batch.episodes, settings.batch_size, seed)
    ]
    metrics |= mean_of(steps)
    if updates or steps:
        learner.schedule.step()
    return rollouts, metrics | {
        "critic/pairs": float(len(pairs)),
        "critic/spread": spread,
        "updates": len(updates) + len(steps),
        "learning_rate": rate,
    }


def episode_pairs(rollouts: Sequence[Rollout], group: int) -> list[tuple[int, int]]:
    """Return (better, worse) dialogues, as indices: the first best of a group, and each worse one.

    A dialogue on which the verifier failed is in no pair.
    """
    pairs = []
    for start in range(0, len(rollouts), group):
        scores = {i: score_of(rollouts[i]) for i in range(start, min(start + group, len(rollouts)))}
        known = {place: score for place, score in scores.items() if score is not None}
        if not known:
            continue
        best = max(known, key=lambda place: known[place])
        pairs += [(best, place) for place, score in known.items() if score < known[best]]
    return pairs


def score_of(rollout: Rollout) -> float | None:
    """Return the score of a dialogue: that of its last message."""
    return rollout.transcript.messages[-1].score


def own_messages(rollout: Rollout) -> Iterator[tuple[Request, Completion]]:
    """Yield what the agent was asked for, and what it wrote, message by message."""
    agent = rollout.transcript.agents[AGENT]
    for message, prompt, completion, policy in rollout.spoken():
        if message.agent == agent:
            yield Request(policy, prompt, AGENT, 0, None, message.turn), completion


def critic_row(
    team: Team,
    question: Question,
    request: Request,
    said: Completion,
    episode: int,
    settings: SweetSettings,
) -> Row:
    """Return a message of the agent as the critic reads it."""
    policy = team.policy(CRITIC, request.turn)
    reference = question.hidden if settings.privileged else ""
    prompt = with_reference(team.base_of(policy).chat, request.prompt, reference)
    return Row(prompt, said, policy, episode, request.turn, CRITIC, 0.0)


def episodes_as_read(
    team: Team,
    rollouts: Sequence[Rollout],
    pairs: Sequence[tuple[int, int]],
    config: SweetConfig,
) -> EpisodePairs:
    """Return the agent's messages of pairs of dialogues, as the critic reads them."""
    rows, chosen = [], []
    for pair, both in enumerate(pairs):
        for side, dialogue in enumerate(both):
            rollout = rollouts[dialogue]
            for asked, said in own_messages(rollout):
                question = rollout.transcript.question
                rows.append(critic_row(team, question, asked, said, pair, config.sweet_rl))
                chosen.append(side == 0)
    batch = batch_of(team, rows)
    before = reference_logprobs(
        team, batch, config.sweet_rl.micro_tokens, config.sampling.temperature, reference=True
    )
    better = torch.tensor(chosen, dtype=torch.bool, device=batch.ids.device)
    return EpisodePairs(batch, before, better)


def preferred_messages(
    team: Team, rollouts: Sequence[Rollout], config: SweetConfig, *, seed: int
) -> tuple[Pairs, float]:
    """Sample messages after every prefix of the dialogues, and pair them by the critic's advantage.

    The agent writes without the reference, the critic reads with it.

    Returns:
        The pairs, and the mean over prefixes of the spread of advantages, in nats per token.
    """
    settings, sampling = config.sweet_rl, config.sampling
    asked = [
        (rollout.transcript.question, request)
        for rollout in rollouts
        for request, _ in own_messages(rollout)
    ]
    tries = [
        (question, replace(request, debate=number * settings.actions + action))
        for number, (question, request) in enumerate(asked)
        for action in range(settings.actions)
    ]
    said = speak(team, [one for _, one in tries], sampling, seed_of(seed, "actions"))
    judged = batch_of(
        team,
        [
            critic_row(team, question, request, one, 0, settings)
            for (question, request), one in zip(tries, said, strict=True)
        ],
    )
    worth = turn_advantages(team, judged, settings.micro_tokens, sampling.temperature)
    by_prefix = worth.view(-1, settings.actions).tolist()
    rows: list[Row] = []
    for number, advantages in enumerate(by_prefix):
        for both in halves(advantages, settings.pairs):
            pair = len(rows) // 2
            for action in both:
                request = asked[number][1]
                one = said[number * settings.actions + action]
                rows.append(
                    Row(request.prompt, one, request.policy, pair, request.turn, AGENT, 0.0)
                )
    batch = batch_of(team, rows)
    before = reference_logprobs(
        team, batch, settings.micro_tokens, sampling.temperature, reference=True
    )
    spread = float(worth.view(-1, settings.actions).std(1, correction=0).mean())
    return Pairs(batch, before, torch.ones(len(rows) // 2, device=batch.ids.device)), spread


def in_batches(episodes: torch.Tensor, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield the rows of `size` pairs at a time, in random order; rows of a pair are in order."""
    generator = torch.Generator().manual_seed(seed_of(seed, "pairs"))
    names = episodes.unique().cpu()
    for some in names[torch.randperm(len(names), generator=generator)].split(size):
        if len(some):
            yield torch.isin(episodes, some.to(episodes.device)).nonzero()[:, 0]


def check(config: SweetConfig, game: BatchedDebate) -> None:
    """Raise ValueError unless the agent of a dialogue is trained, and it alone."""
    if config.game.protocol != "dialogue":
        raise ValueError(
            f"sweet_rl trains the agent of game.protocol='dialogue', not of "
            f"{config.game.protocol!r}: grpo trains the agents of any protocol"
        )
    trained = config.team.train_agents or (0, 1)
    if tuple(trained) != (AGENT,):
        raise ValueError(
            f"sweet_rl trains the agent alone, and team.train_agents={trained} names the user: set "
            "--team.train-agents 0"
        )


SCHEME = Scheme(
    settings=SweetConfig,
    check=check,
    learner=lambda config, team: PolicyLearner(team, config.sweet_rl, config.steps),
    train_step=train_step,
    extra_policies=1,
)
