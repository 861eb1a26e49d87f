"""Generation of messages by one base model: sampling token by token, with a key-value cache.

One distribution is sampled, and it is the one that training scores: softmax(raw logits /
temperature), over the ids that truncation leaves (`truncation`). `row_caches` keeps what was read,
and drops rows that have ended. Each row has a stream of random numbers of its own, one number for
each of its tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maporl_agents.config import Truncation
from maporl_agents.models.bases import Base
from maporl_agents.models.caches.kept_caches import BaseCaches, Past, States
from maporl_agents.models.caches.row_caches import BatchRows, StoredRows, batch_rows
from maporl_agents.models.lm_head import chunks, temper
from maporl_agents.models.truncation import KeptSets, kept_mask, only
from maporl_agents.models.uniforms import draw, uniforms
from maporl_agents.phases import phase
from maporl_agents.text.chat import Chat
from maporl_agents.text.stop_conditions import stop_reason
from maporl_agents.types import Completion, KeptIds, StopReason, TokenIds

_READ_AT_ONCE = 2**23
"""Largest rows x vocabulary whose logits are computed at a time: 32 MiB of float32."""
_ID_BYTES = 4
VALUED_AT_ONCE = 2**23
"""Numbers of the states that wait for their values before the critics are called."""


@dataclass
class Row:
    """A prompt and the tokens sampled after it so far.

    `stream` names its random numbers; `past` is what of the prompt need not be read again; `values`
    are those of `critic` before each token, `kept` the ids each token was drawn from (int32), where
    there is truncation. `forced` are the ids by place that the limit of thinking wrote. `keep` says
    whether the cache of the row is kept when it ends.
    """

    prompt: TokenIds
    policy: str
    limit: int
    stops: tuple[str, ...]
    stream: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop: StopReason = StopReason.LENGTH
    past: Past | None = None
    critic: str | None = None
    values: list[float] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    thinking_limit: int | None = None
    forced: dict[int, int] = field(default_factory=dict)
    keep: bool = True

    def due(self, chat: Chat) -> int | None:
        """Return the id that must come next, since the limit of thinking is reached; or None."""
        if chat.thoughts is None or self.thinking_limit is None:
            return None
        closing, written = chat.thoughts.closing, len(self.forced)
        if written % len(closing):  # of the ids that end a thought, some are still to come
            return closing[written % len(closing)]
        over = len(self.ids) >= self.thinking_limit
        return closing[0] if over and chat.thoughts.thinking(self.ids) else None

    def add(self, token: int, logprob: float, chat: Chat) -> bool:
        """Append a sampled token; return whether another one may follow."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        reason = stop_reason(chat, self.ids, self.stops)
        if reason is None:
            return len(self.ids) < self.limit
        self.stop = reason
        return False

    def completion(self, chat: Chat) -> Completion:
        """Return the finished message with its token ids and log-probabilities."""
        return Completion(
            ids=tuple(self.ids),
            logprobs=tuple(self.logprobs),
            text=chat.shown_text(self.ids),
            stop=self.stop,
            values=tuple(self.values),
            kept=self._kept_ids(),
        )

    def _kept_ids(self) -> KeptIds | None:
        if not self.kept:
            return KeptIds.of_forced(self.forced, len(self.ids))
        counts = tuple(len(one) // _ID_BYTES for one in self.kept)
        return KeptIds(counts, b"".join(self.kept), tuple(self.forced))


def write_rows(
    base: Base,
    rows: Sequence[Row],
    temperature: float,
    kept: BaseCaches | None = None,
    critics: Mapping[str, nn.Module] | nn.ModuleDict | None = None,
    truncation: Truncation | None = None,
) -> None:
    """Sample every row until it ends by a stop token, a stop text or its limit.

    N rows are decoded in one batch; rows that end are dropped from it, and from the cache.

    Args:
        base: the model.
        rows: N rows without sampled tokens.
        temperature: 0 takes the most probable token.
        kept: takes the caches of rows that end.
        critics: value heads by name, of which rows name theirs. Those with a trunk of their own are
            not asked.
        truncation: leaves out improbable ids; None draws from the whole vocabulary.
    """
    drawing = Drawing(temperature, truncation if temperature else None)
    heads = {} if base.critics or critics is None else dict(critics.items())
    with _without_gradient(base):
        batch = batch_rows(base, rows)
        states = _States(rows, heads)
        noise = _noise(rows, temperature, base.device)
        with phase("play/prefill"):
            hidden = batch.read_prompts()  # (N, H)
        with phase("play/decode"):
            _decode(base, rows, batch, hidden, drawing, noise, kept, states)
            states.value()


def read_ids(base: Base, ids: TokenIds, policy: str) -> States:
    """Return the keys and values of some ids; for bases that pack rows (`Base.packs`)."""
    with _without_gradient(base):
        batch = StoredRows(base, [Row(ids, policy, limit=1, stops=(), stream=0)])
        with phase("play/prefill"):
            batch.read_prompts()
        return batch.states(0)


def _without_gradient(base: Base) -> AbstractContextManager[Any]:
    """Return the mode of sampling: gathered layers of a sharded base are used with gradient too."""
    return torch.no_grad() if base.sharded else torch.inference_mode()


def _decode(
    base: Base,
    rows: Sequence[Row],
    batch: BatchRows,
    hidden: Tensor,
    drawing: Drawing,
    noise: Tensor | None,
    kept: BaseCaches | None,
    states: _States,
) -> None:
    """Sample token after token from the states (N, H) that the prompts end with."""
    while True:
        states.note(batch.alive, hidden)
        token = len(rows[batch.alive[0]].ids)  # rows that go on are equally long
        numbers = None if noise is None else noise[batch.alive, token]
        chosen, logprobs, sets = next_tokens(base, hidden, drawing, numbers)
        if sets is not None:
            _note_kept(rows, batch.alive, sets)
        chosen, logprobs = _with_forced(base.chat, rows, batch.alive, chosen, logprobs)
        going = [
            rows[i].add(new, logprob, base.chat)
            for i, new, logprob in zip(batch.alive, chosen.tolist(), logprobs.tolist(), strict=True)
        ]
        if kept is not None:
            _keep(base, batch, rows, going, kept)
        if not any(going):
            return
        if not all(going):
            chosen = chosen[batch.drop(going)]
        hidden = batch.read_next(chosen)


class _States:
    """The states before the tokens of rows that have a critic, until their values are asked for.

    Args:
        rows: N rows.
        heads: value heads by name.
    """

    def __init__(self, rows: Sequence[Row], heads: Mapping[str, nn.Module]) -> None:
        self.rows = rows
        self.heads = heads
        self.asked = [row.critic in heads for row in rows]
        self.owners: list[int] = []
        self.parts: list[Tensor] = []

    def note(self, alive: Sequence[int], hidden: Tensor) -> None:
        """Keep the states (N, H) of the rows `alive` that have a critic."""
        places = [place for place, row in enumerate(alive) if self.asked[row]]
        if places:
            self.owners += [alive[place] for place in places]
            self.parts.append(hidden if len(places) == len(alive) else hidden[places])
            if len(self.owners) * hidden.shape[1] >= VALUED_AT_ONCE:
                self.value()

    def value(self) -> None:
        """Write the values of the tokens noted since the last call: one call per critic."""
        if not self.parts:
            return
        states = torch.cat(self.parts)  # (K, H), a row's tokens in order
        self.parts.clear()
        places: dict[str, list[int]] = {}
        for place, row in enumerate(self.owners):
            places.setdefault(str(self.rows[row].critic), []).append(place)
        for critic, own in places.items():
            values = self.heads[critic](states[own]).tolist()
            for place, value in zip(own, values, strict=True):
                self.rows[self.owners[place]].values.append(value)
        self.owners.clear()


def _keep(
    base: Base, batch: BatchRows, rows: Sequence[Row], going: Sequence[bool], kept: BaseCaches
) -> None:
    """Keep what was read of the rows that have ended: all but their last ids."""
    if not isinstance(batch, StoredRows):
        return
    for place, goes in enumerate(going):
        row = rows[batch.alive[place]]
        if row.keep and not goes:
            ids = (*row.prompt, *row.ids[:-1])
            kept.put(base.weights_of(row.policy), ids, batch.states(place))


def _noise(rows: Sequence[Row], temperature: float, device: torch.device) -> Tensor | None:
    """Return the uniform numbers of all tokens, (N, longest limit); None if nothing is drawn."""
    if temperature == 0:
        return None
    table = uniforms([row.stream for row in rows], max(row.limit for row in rows))
    # Not every device has float64: a number that rounds up to 1 is as one just below it.
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.from_numpy(table).to(device, dtype)


class Drawing(NamedTuple):
    """Settings of a draw: temperature 0 takes the most probable token, whatever truncation."""

    temperature: float
    truncation: Truncation | None = None


def next_tokens(
    base: Base, hidden: Tensor, drawing: Drawing, numbers: Tensor | None
) -> tuple[Tensor, Tensor, KeptSets | None]:
    """Return ids drawn after states (N, H), their log-probabilities, (N,) each, and kept sets.

    Rows are read out in parts, so that no table grows with rows times vocabulary.
    """
    drawn = [
        _draw(base.logits(hidden[part]), drawing, None if numbers is None else numbers[part])
        for part in chunks(len(hidden), base.vocab_size, _READ_AT_ONCE)
    ]
    chosen, logprobs, sets = zip(*drawn, strict=True)
    if drawing.truncation is None:
        return torch.cat(chosen), torch.cat(logprobs), None
    kept = KeptSets(*(torch.cat(part) for part in zip(*sets, strict=True)))
    return torch.cat(chosen), torch.cat(logprobs), kept


def _draw(
    logits: Tensor, drawing: Drawing, numbers: Tensor | None
) -> tuple[Tensor, Tensor, KeptSets | None]:
    """Return chosen ids, their log-probabilities, (N,) each, and what they were drawn from."""
    logits = temper(logits, drawing.temperature)
    sets = None
    if drawing.truncation is not None:
        mask = kept_mask(logits, drawing.truncation)
        logits = only(logits, mask)
        # nonzero() goes row by row: (K,) ids, those of each row in ascending order.
        sets = KeptSets(mask.sum(-1), mask.nonzero()[:, 1])
    logprobs = logits.log_softmax(-1)  # (N, V), renormalised over the kept ids
    chosen = logprobs.argmax(-1) if numbers is None else draw(logprobs, numbers)
    return chosen, logprobs.gather(1, chosen[:, None])[:, 0], sets


def _with_forced(
    chat: Chat, rows: Sequence[Row], alive: Sequence[int], chosen: Tensor, logprobs: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ids (N,) and log-probabilities with those that the limit of thinking writes.

    Such an id has probability 1, whatever the policy: it is drawn from the set of itself.
    """
    due = {place: rows[row].due(chat) for place, row in enumerate(alive)}
    forced = {place: token for place, token in due.items() if token is not None}
    if not forced:
        return chosen, logprobs
    chosen, logprobs = chosen.clone(), logprobs.clone()
    for place, token in forced.items():
        row = rows[alive[place]]
        row.forced[len(row.ids)] = token
        if row.kept:
            row.kept[-1] = token.to_bytes(_ID_BYTES, sys.byteorder)
        chosen[place], logprobs[place] = token, 0.0
    return chosen, logprobs


def _note_kept(rows: Sequence[Row], alive: Sequence[int], sets: KeptSets) -> None:
    """Note of the rows `alive` what their newest tokens were drawn from."""
    ids = sets.ids.int().cpu().numpy()
    ends = sets.counts.cumsum(0).tolist()
    for row, first, last in zip(alive, [0, *ends], ends, strict=False):
        rows[row].kept.append(ids[first:last].tobytes())
