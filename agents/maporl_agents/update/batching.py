"""Rollouts to tensors: `collate` makes the `TokenBatch`.

`micro_batches` divides it, or a minibatch of it (`minibatch_epochs`), into passes through the
models; that changes memory and time, never a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import chain, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maporl_agents import distributed
from maporl_agents.models.packed_texts import common
from maporl_agents.models.team import Team
from maporl_agents.tensor_checks import moved
from maporl_agents.types import Completion, Rollout, TokenBatch, TokenIds
from maporl_agents.update.joint_history import joint_histories
from maporl_agents.update.layout import in_order, nest, pack, texts_of


class Row(NamedTuple):
    """One message on its way into a `TokenBatch`; the fields are those of the batch."""

    prompt: TokenIds
    completion: Completion
    policy: str
    episode: int
    turn: int
    agent: int
    reward: float
    joint_history: TokenIds = ()


def collate(team: Team, rollouts: Sequence[Rollout]) -> tuple[TokenBatch, int]:
    """Return a row per scored message of a trained agent and turn, and the number of unscored ones.

    A message on which the verifier failed has no reward and gives no row. It is counted, whether or
    not its agent and turn are trained. A message that no score is credited to by the rules of the
    protocol gives no row either, and is not counted.

    A draft of a message that gives a row gives one too. Its reward is 0, as a wrong answer's, and a
    central critic reads the same before it.
    """
    rows: list[Row] = []
    left_out = 0
    for episode, rollout in enumerate(rollouts):
        indices = {name: index for index, name in enumerate(rollout.transcript.agents)}
        spoken = zip(rollout.spoken(), joint_histories(team, rollout), strict=True)
        for (message, prompt, completion, policy), joint in spoken:
            agent, turn = indices[message.agent], message.turn
            if not rollout.scored[turn, agent]:
                left_out += message.scored and message.paid
                continue
            if not team.trains(agent, turn):
                continue
            reward = float(rollout.rewards[turn, agent])
            for draft in rollout.drafts:
                asked = draft.request
                if (asked.turn, asked.agent) == (turn, agent):
                    place = (episode, turn, agent)
                    rows.append(Row(asked.prompt, draft.completion, policy, *place, 0.0, joint))
            rows.append(Row(prompt, completion, policy, episode, turn, agent, reward, joint))
    return batch_of(team, rows), left_out


def batch_of(team: Team, rows: Sequence[Row]) -> TokenBatch:
    """Return messages as tensors, on the device of the team's first base."""
    device = team.bases[0].device
    completions = [row.completion for row in rows]
    kept = tuple(one.kept for one in completions)
    places = torch.tensor([(row.episode, row.turn, row.agent) for row in rows], dtype=torch.long)
    episodes, turns, agents = places.reshape(-1, 3).unbind(1)  # (B,) each, also where B = 0
    lengths = torch.tensor([len(completion.ids) for completion in completions], dtype=torch.long)
    width = int(lengths.max()) if completions else 0
    dtype = torch.float64 if team.bases[0].model.dtype == torch.float64 else torch.float32
    # (B, L), 0 outside the mask.
    logprobs = _pad([completion.logprobs for completion in completions], width, dtype)
    values = _pad([completion.values for completion in completions], width, dtype)
    written = torch.arange(width) < lengths[:, None]  # (B, L)
    results = _results(completions, written)
    return TokenBatch(
        prompts=tuple(row.prompt for row in rows),
        ids=_pad([completion.ids for completion in completions], width, torch.long).to(device),
        mask=(written if results is None else written & ~results).to(device),
        sampled_logprobs=logprobs.to(device),
        policies=tuple(row.policy for row in rows),
        critics=tuple(team.critic(row.agent, row.turn) for row in rows),
        agents=agents.to(device),
        turns=turns.to(device),
        episodes=episodes.to(device),
        rewards=torch.tensor([row.reward for row in rows], dtype=torch.float32, device=device),
        sampled_values=values.to(device) if all(one.values for one in completions) else None,
        kept=kept if any(kept) else None,
        joint_histories=tuple(row.joint_history for row in rows) if team.central else None,
        served=any(one.served for one in completions),
        results=None if results is None else results.to(device),
    )


def _results(completions: Sequence[Completion], like: Tensor) -> Tensor | None:
    """Return which tokens are of tools' results, (B, L) bool as `like`; None if none is."""
    if not any(one.results for one in completions):
        return None
    found = torch.zeros_like(like)
    for row, one in zip(found, completions, strict=True):
        for start, end in one.results:
            row[start:end] = True
    return found


def _pad(rows: Sequence[Sequence[float]], width: int, dtype: torch.dtype) -> Tensor:
    padded = torch.zeros(len(rows), width, dtype=dtype)
    ends = torch.tensor([len(row) for row in rows], dtype=torch.long)[:, None]
    numbers = list(chain.from_iterable(rows))
    # A mask selects row by row, which is the order of `numbers`: one copy for all rows.
    padded[torch.arange(width) < ends] = torch.tensor(numbers, dtype=dtype)
    return padded


def on_device(batch: TokenBatch, device: torch.device) -> TokenBatch:
    """Return a batch on the device of the base that reads it."""
    tensors: dict[str, Any] = {
        field.name: moved(value, device)
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    return replace(batch, **tensors)


def rows_by_base(team: Team, batch: TokenBatch) -> list[Tensor]:
    """Return the rows of each base that has any: parts of the batch that share no parameters."""
    device = batch.ids.device
    parts = [
        torch.tensor([i for i, p in enumerate(batch.policies) if p in base.policies], device=device)
        for base in team.bases
    ]
    return [rows for rows in parts if len(rows)]


def micro_batches(
    batch: TokenBatch, tokens: int, *, whole_episodes: bool = False, packed: bool = False
) -> Iterator[Tensor]:
    """Yield rows in passes of at most `tokens` tokens, padding included, the largest first.

    The rows of one conversation, which are read in one sequence, stay together; one that is longer
    than `tokens` goes alone. Within a pass rows are in order.

    Args:
        batch: the messages.
        tokens: the most tokens in a pass: sequences x longest.
        whole_episodes: keep all rows of an episode together, such as those of a pair.
        packed: the base reads packed texts (`Base.reads_packed`): no padding, and what rows of a
            policy begin with counts once.
    """
    if not len(batch):
        return
    texts = texts_of(batch)
    hosts, leaders = nest(texts, batch.policies)
    labels = batch.episodes.tolist() if whole_episodes else hosts.tolist()
    if packed:
        for rows in in_order(batch.texts(), batch.policies, labels, tokens):
            yield torch.tensor(sorted(rows), device=batch.ids.device)
        return
    lengths = texts.lengths[leaders].tolist()
    members: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        members.setdefault(label, []).append(row)
    host_of = hosts.tolist()
    sizes = []  # (sequences, tokens of the longest) of each group of rows that stays together
    for rows in members.values():
        read = [lengths[host] for host in {host_of[row] for row in rows}]
        sizes.append((len(read), max(read)))
    of_unit = list(members.values())
    for chosen in pack(sizes, tokens):
        rows = sorted(row for unit in chosen for row in of_unit[unit])
        yield torch.tensor(rows, device=batch.ids.device)


def rows_of_rank(batch: TokenBatch, *, whole_episodes: bool = False) -> Tensor:
    """Return the rows that this rank reads, in order; ranks read about equally many ids.

    The rows of an agent in a debate stay together, since they begin alike and are read once; with
    `whole_episodes` all rows of a debate.
    """
    agents = [0] * len(batch) if whole_episodes else batch.agents.tolist()
    members: dict[tuple[int, int], list[int]] = {}
    for row, unit in enumerate(zip(batch.episodes.tolist(), agents, strict=True)):
        members.setdefault(unit, []).append(row)
    texts = batch.texts()
    sizes = [_ids_to_read([texts[row] for row in rows]) for rows in members.values()]
    own = [
        rows
        for rows, owner in zip(members.values(), distributed.deal(sizes), strict=True)
        if owner == distributed.rank()
    ]
    return torch.tensor(sorted(chain.from_iterable(own)), dtype=torch.long, device=batch.ids.device)


def _ids_to_read(texts: Sequence[TokenIds]) -> int:
    """Return the number of ids of texts of which those that begin alike are read once."""
    ordered = sorted(texts)
    again = sum(common(one, after) for one, after in pairwise(ordered))
    return sum(map(len, ordered)) - again


def rows_of(batch: TokenBatch, episodes: Tensor) -> Tensor:
    """Return the rows that belong to the given debates, in order."""
    return torch.isin(batch.episodes, episodes.to(batch.episodes.device)).nonzero()[:, 0]
