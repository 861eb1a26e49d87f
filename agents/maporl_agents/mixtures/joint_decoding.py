"""Decoding by several policies together: each reads the same text, and one token goes on for all.

An owner of the choice, such as a product of experts, sees the next-token distributions of K
policies at once. Policies whose adapters share a base are read in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from maporl_agents.config import Sampling
from maporl_agents.models.bases import Base, window_of
from maporl_agents.models.caches.row_caches import BatchRows, batch_rows
from maporl_agents.models.generation import Row
from maporl_agents.models.lm_head import chunks
from maporl_agents.models.team import Team
from maporl_agents.play.limits import limit_of, stream_of
from maporl_agents.text.stop_conditions import stops_of
from maporl_agents.types import Completion, Request

READ_AT_ONCE = 2**23
"""Largest messages x policies x vocabulary whose log-probabilities are computed at a time."""


class Choice(NamedTuple):
    """The next token of N messages: ids, and their log-probabilities, (N,) each."""

    ids: Tensor
    logprobs: Tensor


Choose = Callable[[Sequence[int], Tensor], Choice]
"""Takes the indices of N messages and the policies' log-probabilities, (N, K, V)."""


@dataclass
class Draft:
    """A message that K policies write: one row each, whose ids are always the same."""

    rows: list[Row]

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids so far."""
        return tuple(self.rows[0].ids)


def drafts_of(
    team: Team, asked: Sequence[Request], policies: Sequence[str], sampling: Sampling, seed: int
) -> list[Draft]:
    """Return an empty draft per request.

    Args:
        team: the models.
        asked: N requests; their own policies are not asked.
        policies: K names.
        sampling: limits and stop texts.
        seed: names the random numbers of each message.

    Raises:
        ValueError: no policies, vocabularies that differ, a limit of thinking, or a message that
            does not fit a model's window.
    """
    require_one_vocabulary(team, policies)
    if sampling.max_thinking_tokens is not None:
        raise ValueError("sampling.max_thinking_tokens cannot be used where models write together")
    drafts = []
    for request in asked:
        limit, stops = limit_of(request, sampling), stops_of(request, sampling)
        stream = stream_of(request, seed)
        rows = [Row(request.prompt, policy, limit, stops, stream) for policy in policies]
        for row in rows:
            _require_room(team.base_of(row.policy), row)
        drafts.append(Draft(rows))
    return drafts


def _require_room(base: Base, row: Row) -> None:
    window = window_of(base.model)
    if not row.prompt:
        raise ValueError("a prompt has no tokens: a model needs at least one to continue")
    if window is not None and len(row.prompt) + row.limit > window:
        raise ValueError(
            f"a prompt of {len(row.prompt)} tokens and {row.limit} new ones do not fit the window "
            f"of {window} tokens of policy {row.policy!r}: lower max_new_tokens"
        )


def require_one_vocabulary(team: Team, policies: Sequence[str]) -> None:
    """Raise ValueError unless the policies have one vocabulary, in which an id is one text."""
    if not policies:
        raise ValueError("name at least one policy that takes part")
    first, *others = dict.fromkeys(team.base_of(policy) for policy in policies)
    for other in others:
        one, two = first.chat.tokenizer.get_vocab(), other.chat.tokenizer.get_vocab()
        if first.vocab_size != other.vocab_size or one != two:
            differing = len(set(one.items()) ^ set(two.items()))
            raise ValueError(
                f"the models of {', '.join(policies)} have different vocabularies ({differing:,} "
                "entries differ), so their distributions over tokens cannot be combined: choose "
                "models with one tokenizer"
            )


@torch.inference_mode()
def write_together(team: Team, drafts: Sequence[Draft], choose: Choose) -> list[Completion]:
    """Write all drafts to their ends; return one completion each.

    The log-probabilities of a completion are those that `choose` returns.

    Args:
        team: the models.
        drafts: N empty drafts of K policies each.
        choose: takes the indices of some drafts and what the K policies expect, (n, K, V) natural
            log-probabilities at temperature 1; returns the next token of each.
    """
    readers = _readers(team, drafts)
    alive = list(range(len(drafts)))
    for reader in readers:
        reader.begin()
    chat = team.base_of(drafts[0].rows[0].policy).chat if drafts else None
    while alive and chat is not None:
        chosen = _choices(readers, drafts, alive, choose)
        going = {}
        for index, token, logprob in zip(alive, *chosen, strict=True):
            goes = [row.add(token, logprob, chat) for row in drafts[index].rows]
            going[index] = goes[0]
        alive = [index for index in alive if going[index]]
        if alive:
            last = {index: drafts[index].rows[0].ids[-1] for index in alive}
            for reader in readers:
                reader.go_on(last)
    return [draft.rows[0].completion(chat) for draft in drafts if chat is not None]


def _choices(
    readers: Sequence[_Reader], drafts: Sequence[Draft], alive: Sequence[int], choose: Choose
) -> tuple[list[int], list[float]]:
    """Return the next id and its log-probability of each draft that is alive."""
    count = len(drafts[0].rows)
    ids: list[int] = []
    logprobs: list[float] = []
    size = count * readers[0].base.vocab_size
    for part in chunks(len(alive), size, READ_AT_ONCE):
        some = alive[part]
        seen: list[list[Tensor]] = [[torch.empty(0)] * count for _ in some]  # n x K of (V,)
        for reader in readers:
            reader.read_out(some, seen)
        device = readers[0].base.device
        table = torch.stack([torch.stack([x.to(device) for x in row]) for row in seen])  # (n, K, V)
        choice = choose(some, table)
        ids += choice.ids.tolist()
        logprobs += choice.logprobs.tolist()
    return ids, logprobs


class _Reader:
    """The rows of one base, of all drafts.

    Args:
        base: the model.
        owners: draft and place among its policies of each row.
        rows: the rows.
    """

    def __init__(self, base: Base, owners: Sequence[tuple[int, int]], rows: Sequence[Row]) -> None:
        self.base = base
        self.owners = owners
        self.batch: BatchRows = batch_rows(base, rows)
        self.hidden = torch.empty(0)

    def begin(self) -> None:
        """Read the prompts."""
        self.hidden = self.batch.read_prompts()

    def go_on(self, last: dict[int, int]) -> None:
        """Read the newest ids of the drafts that go on, and drop the others."""
        going = [self.owners[row][0] in last for row in self.batch.alive]
        if not all(going):
            self.batch.drop(going)
        ids = [last[self.owners[row][0]] for row in self.batch.alive]
        self.hidden = self.batch.read_next(torch.tensor(ids, device=self.base.device))

    def read_out(self, some: Sequence[int], seen: list[list[Tensor]]) -> None:
        """Write the log-probabilities (V,) of this base's policies into `seen`, by draft."""
        wanted = {index: place for place, index in enumerate(some)}
        found = [
            (place, *self.owners[row])
            for place, row in enumerate(self.batch.alive)
            if self.owners[row][0] in wanted
        ]
        if not found:
            return
        places = torch.tensor([place for place, _, _ in found], device=self.hidden.device)
        logits = self.base.logits(self.hidden[places]).float()
        for logprobs, (_, draft, policy) in zip(logits.log_softmax(-1), found, strict=True):
            seen[wanted[draft]][policy] = logprobs


def _readers(team: Team, drafts: Sequence[Draft]) -> list[_Reader]:
    """Return one reader per base, in the order of the team's bases."""
    found: dict[Base, tuple[list[tuple[int, int]], list[Row]]] = {}
    for index, draft in enumerate(drafts):
        for place, row in enumerate(draft.rows):
            owners, rows = found.setdefault(team.base_of(row.policy), ([], []))
            owners.append((index, place))
            rows.append(row)
    return [_Reader(base, *found[base]) for base in team.bases if base in found]
