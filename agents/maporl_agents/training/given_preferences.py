"""Preference pairs from a file, learnt by DPO before anything is rewarded.

The file has a pair per line in TRL's conversational format, with the agent and turn whose policy
learns it, as `maporl watch` writes it:

    {"prompt": [{"role": ..., "content": ...}], "chosen": [{"role": "assistant", "content": ...}],
     "rejected": [{"role": "assistant", "content": ...}], "agent": 0, "turn": 0}

Texts become tokens as foreign text does: no control token comes out of them. Both texts of a pair
get an end token, unless `chosen_cut` or `rejected_cut` says that a limit cut them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch

from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.team import Team
from maporl_agents.training.given_lines import given_lines
from maporl_agents.types import Completion, StopReason
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.preferences import Pairs, preference_step
from maporl_agents.update.reference_logprobs import reference_logprobs
from maporl_env.types import Segment

ROLES: dict[str, Literal["system", "user", "own"]] = {
    "system": "system",
    "user": "user",
    "assistant": "own",
}


def pairs_of_file(team: Team, path: Path) -> tuple[list[Row], int]:
    """Return two rows per pair of a trained agent and turn, chosen first, and the number of pairs.

    Raises:
        ValueError: the file cannot be read, is empty, or a line is no pair; names the line.
    """
    episodes = count()
    found = given_lines(
        path,
        lambda pair: list(_rows_of(team, pair, next(episodes))),
        setting="warmup.preferences",
        kind="preference pair",
        writer="`maporl watch`",
    )
    return [row for _, rows in found for row in rows], len(found)


def _rows_of(team: Team, pair: Any, episode: int) -> Iterator[Row]:
    """Yield the rows of a pair: none if its agent is not trained in its turn."""
    place = pair["agent"], pair["turn"]
    for name, index in zip(("agent", "turn"), place, strict=True):
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise ValueError(f"{name} is {index!r}, but it counts from 0")
    sides = [_side(pair, name) for name in ("chosen", "rejected")]
    if sides[0] == sides[1]:
        raise ValueError("chosen and rejected are the same")
    segments: list[Segment] = [(ROLES[one["role"]], _text(one)) for one in pair["prompt"]]
    if not any(text for _, text in segments):
        raise ValueError("the prompt is empty")
    agent, turn = place
    policy = team.policy(agent, turn)
    if not team.trains(agent, turn):
        return
    chat = team.base_of(policy).chat
    own = [chat.message_ids(text) for role, text in segments if role == "own"]
    prompt = chat.prompt_ids(tuple(segments), own)
    for text, cut in sides:
        ids = chat.message_ids(text, cut=cut)
        if not ids:
            raise ValueError("a text is empty")
        stop = StopReason.LENGTH if cut else StopReason.EOS
        said = Completion(ids, (0.0,) * len(ids), text, stop)
        yield Row(prompt, said, policy, episode, turn, agent, 0.0)


def _side(pair: Any, name: str) -> tuple[str, bool]:
    """Return the text of one side, and whether its end is missing."""
    [message] = pair[name]
    if message["role"] != "assistant":
        raise ValueError(f"{name} is by {message['role']!r}, not by the assistant")
    return _text(message), bool(pair.get(f"{name}_cut", False))


def _text(message: Any) -> str:
    if not isinstance(message["content"], str):
        raise TypeError("a content is no text")
    return str(message["content"])


def prefer(
    team: Team,
    rows: Sequence[Row],
    learner_of: Callable[[], PolicyLearner],
    deal: Callable[[int], Iterator[torch.Tensor]],
    *,
    updates: int,
    beta: float,
    micro_tokens: int,
    temperature: float,
) -> Iterator[tuple[str, Metrics]]:
    """Learn pairs by DPO, one policy after the other; yield policy and metrics of each update.

    The reference is the team as it is before the first update.

    Args:
        team: that learns.
        rows: two per pair, as of `pairs_of_file`.
        learner_of: returns a fresh optimiser, one for each policy.
        deal: yields the places of the pairs of each update, given how many there are.
        updates: of each policy.
        beta: strength of the DPO loss.
        micro_tokens: the largest number of tokens in one pass.
        temperature: of the log-probabilities.
    """
    batch = batch_of(team, rows)
    reference = reference_logprobs(team, batch, micro_tokens, temperature)
    whole = Pairs(batch, reference, torch.ones(len(rows) // 2, device=batch.ids.device))
    for policy, members in batch.by_policy():
        firsts, learner = members[::2], learner_of()
        deals = deal(len(firsts))
        for _ in range(updates):
            chosen = firsts[next(deals).to(firsts.device)]
            part = whole.select(torch.stack([chosen, chosen + 1], dim=1).flatten())
            metrics = preference_step(
                learner, part, beta=beta, micro_tokens=micro_tokens, temperature=temperature
            )
            learner.schedule.step()
            yield policy, metrics
