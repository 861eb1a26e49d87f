"""MAGRPO: policy gradient without a critic, which compares the joint returns of a node.

Liu et al., "LLM Collaboration with Multi-Agent Reinforcement Learning" (arXiv 2508.04652). Read
`train_step` top to bottom: grow trees, give credit, score tokens, update, log. At a node (a turn,
and what came before it) the agents sample several joint actions; each has one reward, for all
agents, and leads to a child node. The returns of a node are one group: the advantage is the same
for every agent and token. With one agent and one turn this is GRPO without scaling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from maporl_agents.advantages import (
    Baseline,
    Scale,
    group_advantages,
    preference_advantages,
)
from maporl_agents.algorithms import Scheme, StepWork
from maporl_agents.config import IACConfig, MAGRPOConfig, MAGRPOSettings, scheme_of
from maporl_agents.losses import Reduction
from maporl_agents.measure.step_metrics import (
    Metrics,
    counts_of,
    experience_metrics,
    mean_of,
    rollout_metrics,
)
from maporl_agents.models.team import Team
from maporl_agents.trees.branches import branches, first_new_turns
from maporl_agents.trees.joint_returns import Node, action_returns, joint_returns
from maporl_agents.trees.sample_tree import TreeNode, grow_trees
from maporl_agents.types import Experience, Rollout, TokenBatch
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.gradient_accumulation import Counts, Loss
from maporl_agents.update.minibatch_epochs import learn_in_epochs
from maporl_agents.update.objective import Objective, message_kl
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.token_tables import token_tables
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question

__all__ = ["Node", "joint_returns", "train_step"]

COMPARISONS: dict[str, tuple[Baseline, Scale]] = {
    "mean": ("mean", "none"),
    "leave_one_out": ("leave_one_out", "none"),
    "standardised": ("mean", "std"),
}
REDUCTIONS: dict[str, Reduction] = {"sum": "constant", "sequence": "sequence", "token": "token"}


def train_step(
    learner: PolicyLearner,
    game: BatchedDebate,
    questions: Sequence[Question],
    config: MAGRPOConfig,
    *,
    seed: int,
) -> tuple[list[Rollout], Metrics]:
    """Grow one tree per question and improve every policy on it.

    Arguments as of `algorithms.TrainStep`; in `game` all agents speak at once.

    Returns:
        Every path through the trees as a rollout, and the metrics that
        docs/explanation/schemes/magrpo.md defines.
    """
    team, settings, sampling = learner.team, config.magrpo, config.sampling

    # Grow: at every node each agent samples a group; its joint actions are scored and continued.
    trees = grow_trees(
        team,
        game,
        questions,
        sampling,
        [settings.group_size] * game.num_turns,
        joining=settings.joining,
        seed=seed,
    )
    nodes = [node for root in trees for node in root.nodes()]

    # Credit: joint returns become one advantage per completion; what was not scored has none.
    rows, left_out = credit_rows(team, nodes, settings)
    batch = batch_of(team, rows)

    # Score tokens. Log-ratios, which preferences and a KL in the reward need, are known only now.
    experience = evaluate_tokens(
        team,
        batch,
        micro_tokens=settings.micro_tokens,
        temperature=sampling.temperature,
        sampled=True,
    )
    if needs_log_ratios(settings):
        rows = rows_by_log_ratios(team, nodes, experience, settings, sampling.temperature)
        experience = with_rewards(experience, torch.tensor([row.reward for row in rows]))

    # Update: once, or several times where the ratio corrects for it.
    loss = partial(loss_of, team=team, settings=settings, temperature=sampling.temperature)
    rate = learner.learning_rate
    updates, _ = learn_in_epochs(learner, experience, loss, settings, seed=seed)

    # Log.
    rollouts = [rollout for root in trees for rollout in branches(root)]
    new_from = [turn for root in trees for turn in first_new_turns(root)]
    metrics = rollout_metrics(rollouts, new_from) | token_metrics(experience) | mean_of(updates)
    metrics |= tree_metrics(nodes, rows, settings)
    return rollouts, metrics | counts_of(left_out, len(updates), rate)


def credit_rows(
    team: Team,
    nodes: Sequence[TreeNode],
    settings: MAGRPOSettings,
    advantages: Sequence[Sequence[float | None]] | None = None,
) -> tuple[list[Row], int]:
    """Return one row per completion that is learnt from, its `reward` the advantage.

    Also returns the number of completions all of whose joint actions went without a score. The
    advantages of joint actions are those of `action_advantages` unless given.
    """
    advantages = action_advantages(nodes, settings) if advantages is None else advantages
    rows: list[Row] = []
    left_out = 0
    for node, of_node in zip(nodes, advantages, strict=True):
        shares = completion_credit(node.actions, of_node, settings)
        for request, spoken, credit in zip(node.requests, node.completions, shares, strict=True):
            prompt, policy, agent = request.prompt, request.policy, request.agent
            if not team.trains(agent, node.turn):
                continue
            for completion, share in zip(spoken, credit, strict=True):
                if share is None:
                    left_out += 1
                    continue
                rows.append(Row(prompt, completion, policy, node.tree, node.turn, agent, share))
    return rows, left_out


def action_advantages(
    nodes: Sequence[TreeNode], settings: MAGRPOSettings
) -> list[list[float | None]]:
    """Return the advantage of every joint action, by node; None where it has no score.

    adv(g) = R(g) - mean over the node of R, or what `comparison` says; R by `joint_returns`.
    """
    scored = [[j for j, r in enumerate(node.rewards) if r is not None] for node in nodes]
    returns = [node_returns(node, settings) for node in nodes]
    # One number per scored joint action of all nodes, (S,), and the node it belongs to, (S,).
    flat = torch.tensor([r for each in returns for r in each], dtype=torch.float64)
    groups = torch.tensor([i for i, each in enumerate(returns) for _ in each], dtype=torch.long)
    if settings.comparison == "raw":
        compared = flat
    else:
        # Preferences need log-ratios and come later; until then a message has what "mean" gives.
        baseline, scale = COMPARISONS.get(settings.comparison, COMPARISONS["mean"])
        compared = group_advantages(flat, groups, baseline=baseline, scale=scale)
    left = iter(compared.tolist())
    found: list[list[float | None]] = [[None] * len(node.rewards) for node in nodes]
    for actions, row in zip(scored, found, strict=True):
        for j in actions:
            row[j] = next(left)
    return found


def completion_credit(
    actions: Sequence[Sequence[int]], advantages: Sequence[float | None], settings: MAGRPOSettings
) -> list[list[float | None]]:
    """Return the advantage of each completion from the joint actions that hold it, (A, G).

    Their mean, or their sum; None where none of them has a score. Aligned, each is in one.
    """
    width = max(max(action) for action in actions) + 1
    held: list[list[list[float]]] = [[[] for _ in range(width)] for _ in actions[0]]
    for action, advantage in zip(actions, advantages, strict=True):
        for speaker, sample in enumerate(action):
            if advantage is not None:
                held[speaker][sample].append(advantage)
    combine = fmean if settings.credit == "mean" else math.fsum
    return [[combine(each) if each else None for each in of_agent] for of_agent in held]


def node_returns(node: TreeNode, settings: MAGRPOSettings) -> list[float]:
    """Return the returns of a node's scored joint actions, which are compared with each other."""
    returns = action_returns(node, settings.turn_gamma)
    return [value for value in returns if value is not None]


def needs_log_ratios(settings: MAGRPOSettings) -> bool:
    """Whether credit depends on the policies' distance from their reference."""
    return settings.comparison == "preferences" or (
        settings.kl_coef > 0 and settings.kl_place == "reward"
    )


def rows_by_log_ratios(
    team: Team,
    nodes: Sequence[TreeNode],
    experience: Experience,
    settings: MAGRPOSettings,
    temperature: float,
) -> list[Row]:
    """Return `credit_rows` by preferences, or for rewards less KL coefficient times joint KL.

    The KL (with "preferences" the log-ratio) of a joint action is the sum over its messages, each
    to the reference policy; that of an agent that is not trained is 0. The batch's rows are those
    of `credit_rows`, in its order.
    """
    prefers = settings.comparison == "preferences"
    of_rows = message_kl(
        team,
        experience.batch,
        experience.logprobs,
        experience.ref_logprobs,
        estimator="k1" if prefers else settings.kl_estimator,
        temperature=temperature,
        micro_tokens=settings.micro_tokens,
    )
    left = iter(of_rows.tolist())
    joint = {id(node): _joint_kl(team, node, left, settings) for node in nodes}
    if prefers:
        advantages = [_by_preference(node, joint[id(node)], settings) for node in nodes]
        return credit_rows(team, nodes, settings, advantages)[0]
    lessened = {
        id(node): [
            None if reward is None else reward - settings.kl_coef * kl
            for reward, kl in zip(node.rewards, joint[id(node)], strict=True)
        ]
        for node in nodes
    }
    below = [_with_rewards_of(node, lessened) for node in nodes]
    return credit_rows(team, below, settings)[0]


def _by_preference(
    node: TreeNode, log_ratios: Sequence[float], settings: MAGRPOSettings
) -> list[float | None]:
    """Return the advantages of a node's joint actions by pairs of them, None without a score."""
    returns = action_returns(node, settings.turn_gamma)
    scored = [j for j, value in enumerate(returns) if value is not None]
    found = preference_advantages(
        torch.tensor([returns[j] for j in scored], dtype=torch.float64),
        torch.tensor([log_ratios[j] for j in scored], dtype=torch.float64),
        beta=settings.preference_beta,
    )
    by_action = dict(zip(scored, found.tolist(), strict=True))
    return [by_action.get(j) for j in range(len(returns))]


def _joint_kl(
    team: Team, node: TreeNode, left: Iterator[float], settings: MAGRPOSettings
) -> list[float]:
    """Return the KL of each joint action of a node, of its messages in `left`, in their order."""
    shares = completion_credit(node.actions, node.rewards, settings)
    kl = [
        [
            next(left) if team.trains(request.agent, node.turn) and share is not None else 0.0
            for share in of_speaker
        ]
        for request, of_speaker in zip(node.requests, shares, strict=True)
    ]  # (S, G)
    return [sum(row[g] for row, g in zip(kl, action, strict=True)) for action in node.actions]


def _with_rewards_of(node: TreeNode, rewards: Mapping[int, list[float | None]]) -> TreeNode:
    """Return a copy of a node and all below it with other rewards, by the id of each node."""
    children = [None if c is None else _with_rewards_of(c, rewards) for c in node.children]
    return replace(node, rewards=rewards[id(node)], children=children)


def with_rewards(experience: Experience, rewards: Tensor) -> Experience:
    """Return an experience whose messages have other advantages, (B,)."""
    batch = experience.batch
    new = rewards.to(batch.ids.device)
    advantages = torch.where(batch.mask, new[:, None].to(experience.advantages.dtype), 0.0)
    return replace(experience, batch=replace(batch, rewards=new), advantages=advantages)


def evaluate_tokens(
    team: Team, batch: TokenBatch, *, micro_tokens: int, temperature: float, sampled: bool = False
) -> Experience:
    """Return a batch as it is before the update, each token with the advantage of its message.

    `sampled` is that of `token_tables`.
    """
    tables = token_tables(
        team, batch, temperature=temperature, micro_tokens=micro_tokens, sampled=sampled
    )
    advantages = torch.where(batch.mask, batch.rewards[:, None].to(tables.values.dtype), 0.0)
    nothing = tables.values  # all 0: there are no critics
    own, reference, told = tables.logprobs, tables.ref_logprobs, (tables.rescored, tables.fault)
    return Experience(batch, own, reference, nothing, advantages, nothing, *told)


def objective_of(settings: MAGRPOSettings) -> Objective:
    """Return what is minimised: without the ratio -1/N sum of adv * log pi(completion)."""
    return Objective(
        REDUCTIONS[settings.length],  # "sum": no length in the denominator
        ratio=settings.ratio,
        clip_coef=math.inf if settings.clip_coef is None else settings.clip_coef,
        kl_coef=settings.kl_coef if settings.kl_place == "loss" else 0.0,
        kl_estimator=settings.kl_estimator,
        entropy_coef=settings.entropy_coef,
    )


def loss_of(
    part: Experience,
    counts: Counts,
    *,
    team: Team,
    settings: MAGRPOSettings,
    temperature: float,
) -> Loss:
    """Return the sum over policies of their losses on a micro-batch, and statistics of each."""
    objective = objective_of(settings)
    return objective.loss(objective.score(team, part.batch, temperature), part, counts)


def token_metrics(experience: Experience) -> Metrics:
    """Return `experience_metrics` without the metrics of critics and of single rewards."""
    metrics = experience_metrics(experience)
    return {k: v for k, v in metrics.items() if k not in ("explained_variance", "zero_spread")}


def tree_metrics(
    nodes: Sequence[TreeNode], rows: Sequence[Row], settings: MAGRPOSettings
) -> Metrics:
    """Return metrics of trees: returns of the roots, sizes, and nodes with equal returns."""
    compared = [node_returns(node, settings) for node in nodes]
    flat = [not each or math.isclose(min(each), max(each), abs_tol=1e-9) for each in compared]
    returns = [
        fmean(each) for node, each in zip(nodes, compared, strict=True) if node.turn == 0 and each
    ]
    spoken = [
        completion for node in nodes for of_agent in node.completions for completion in of_agent
    ]
    metrics: dict[str, Any] = {
        "nodes": len(nodes),
        "zero_spread": sum(flat) / len(flat),
        **({"advantage": fmean([abs(row.reward) for row in rows])} if rows else {}),
        "answers": len(spoken),
        "tokens": sum(len(one.ids) for one in spoken),
    }
    return metrics | ({"joint_return": fmean(returns)} if returns else {})


def check(config: MAGRPOConfig | IACConfig, game: BatchedDebate) -> None:
    """Raise ValueError for protocols without joint answers."""
    if not game.game.protocol.simultaneous:
        raise ValueError(
            f"game.protocol={config.game.protocol!r}: {scheme_of(config)} rewards joint "
            "scores, which need a protocol in which all agents speak at once, such as 'joint' or "
            "'debate'"
        )


def work(config: MAGRPOConfig) -> StepWork:
    """Return the work of a step: a tree per question, G or G^A joint actions at each node."""
    settings = config.magrpo
    joined = 1 if settings.joining == "aligned" else config.game.num_agents
    return StepWork(
        settings.micro_tokens,
        epochs=settings.epochs,
        minibatches=settings.minibatches,
        group_size=settings.group_size,
        branching=settings.group_size**joined,
    )


SCHEME = Scheme(
    settings=MAGRPOConfig,
    check=check,
    learner=lambda config, team: PolicyLearner(team, config.magrpo, config.steps),
    train_step=train_step,
    work=work,
)
