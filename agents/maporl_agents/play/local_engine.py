"""The local engine: requests in, completions with log-probabilities out, by a team's own models.

Rows whose policies share a base model are sampled in one batch, token by token (`generation`),
behind what caches keep of their prompts. The other engine asks servers (`vllm_engine`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from maporl_agents.config import Sampling
from maporl_agents.models.bases import Base, window_of
from maporl_agents.models.caches.kept_caches import BaseCaches, KeptCaches
from maporl_agents.models.generation import Row, read_ids, write_rows
from maporl_agents.models.parallel_bases import side_by_side
from maporl_agents.models.team import Team
from maporl_agents.play.limits import limit_of, stream_of
from maporl_agents.text.stop_conditions import stops_of
from maporl_agents.types import Completion, Request, TokenIds

FEWEST_PROMPTS = 4
"""Number of different prompts from which on their common beginning is read by itself."""
SHORTEST_BEGINNING = 32
"""Ids of a common beginning that are worth a pass of their own."""


def complete(
    team: Team,
    asked: Sequence[Request],
    sampling: Sampling,
    seed: int,
    kept: KeptCaches | None = None,
) -> list[Completion]:
    """Draw one completion per request; requests whose policies share a base share their batches.

    A completion depends on its own request alone, up to the rounding of log-probabilities.

    Args:
        team: the models.
        asked: the requests, no two of one debate and agent.
        sampling: limits, temperature and truncation.
        seed: names the random numbers; equal arguments give equal completions.
        kept: caches of earlier calls; they change what is computed again, not the completions.

    Raises:
        ValueError: an unknown policy, an empty prompt, or one that leaves too little room in the
            model's window for `max_new_tokens`; or thoughts are limited that no model marks.
    """
    _require_marks(team, sampling)
    rows = [_row(request, sampling, seed) for request in asked]
    bases = [team.base_of(row.policy) for row in rows]
    rows_of = [
        [row for row, its_base in zip(rows, bases, strict=True) if its_base is base]
        for base in team.bases
    ]
    for base, own in zip(team.bases, rows_of, strict=True):
        _require_room(base, own)

    def write(index: int) -> None:
        base, own = team.bases[index], rows_of[index]
        caches = None if kept is None else kept.of(base)
        if caches is not None and own:
            _recall(base, own, caches)
        for start in range(0, len(own), sampling.max_rows):
            chunk = own[start : start + sampling.max_rows]
            write_rows(base, chunk, sampling.temperature, caches, team.critics, sampling.truncation)

    side_by_side(write, range(len(team.bases)))
    return [row.completion(base.chat) for row, base in zip(rows, bases, strict=True)]


def _recall(base: Base, rows: Sequence[Row], caches: BaseCaches) -> None:
    """Give rows what is kept of their prompts, and hold on to none of it."""
    readers = [base.weights_of(row.policy) for row in rows]
    for reader in dict.fromkeys(readers):
        alike = [row for row, its in zip(rows, readers, strict=True) if its == reader]
        _read_beginning(base, alike, caches)
    pasts = caches.take(readers, [row.prompt for row in rows])
    for row, past in zip(rows, pasts, strict=True):
        row.past = past


def _read_beginning(base: Base, rows: Sequence[Row], caches: BaseCaches) -> None:
    """Keep the beginning that all prompts of the same weights have in common, if it is long.

    Such as instructions and worked examples: it is then read once, and not with each prompt.
    """
    prompts = {row.prompt for row in rows}
    common = _beginning(min(prompts), max(prompts))  # in sorted order all others lie between
    if len(prompts) < FEWEST_PROMPTS or len(common) < SHORTEST_BEGINNING:
        return
    reader = base.weights_of(rows[0].policy)
    if not caches.holds(reader, common):
        caches.put(reader, common, read_ids(base, common, rows[0].policy))


def _beginning(one: TokenIds, other: TokenIds) -> TokenIds:
    """Return the ids with which both prompts begin."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(first for first, _ in same)


def sample(
    team: Team,
    prompts: Sequence[TokenIds],
    policies: Sequence[str],
    sampling: Sampling,
    seed: int,
    seats: Sequence[int] | None = None,
) -> list[Completion]:
    """Draw one completion for each prompt, as `complete` does for one request each.

    Args:
        team: the models.
        prompts: N tuples of ids; equal ones get completions of their own.
        policies: N names, the policy that continues each prompt.
        sampling: limits, temperature and truncation.
        seed: names the random numbers.
        seats: N agent indices, whose own limits and stop texts hold; None: all are agent 0.

    Raises:
        ValueError: as `complete`.
    """
    seats = [0] * len(prompts) if seats is None else seats
    given = zip(policies, prompts, seats, strict=True)
    asked = [
        Request(policy, prompt, seat, index) for index, (policy, prompt, seat) in enumerate(given)
    ]
    return complete(team, asked, sampling, seed)


def _row(request: Request, sampling: Sampling, seed: int) -> Row:
    return Row(
        request.prompt,
        request.policy,
        limit_of(request, sampling),
        stops_of(request, sampling),
        stream=stream_of(request, seed),
        critic=request.critic,
        thinking_limit=sampling.max_thinking_tokens,
        keep=request.keep,
    )


def _require_marks(team: Team, sampling: Sampling) -> None:
    """Raise ValueError if thoughts are limited and no chat template of the team has marks."""
    limit = sampling.max_thinking_tokens
    if limit is not None and not any(base.chat.thoughts for base in team.bases):
        raise ValueError(
            f"sampling.max_thinking_tokens={limit} limits thoughts, and no chat template of the "
            "team's models has marks for them, such as </think>: leave it out"
        )


def _require_room(base: Base, rows: Sequence[Row]) -> None:
    """Raise ValueError for a row without a prompt, or with too little room in the base's window."""
    window = window_of(base.model)
    for row in rows:
        length = len(row.prompt)
        if length == 0:
            raise ValueError("a prompt has no tokens: a model needs at least one to continue")
        if window is not None and length + row.limit > window:
            raise ValueError(
                f"a prompt of {length} tokens and {row.limit} new ones do not fit the window of "
                f"{window} tokens of {base.model.name_or_path or type(base.model).__name__!r}: "
                "lower max_new_tokens, take fewer agents or turns, set the debate's token_budget, "
                "or take a model with a longer window"
            )
