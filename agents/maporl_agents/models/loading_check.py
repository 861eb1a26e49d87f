"""Checks a loaded model: batched sampling and scoring must equal its plain forward pass.

Messages are sampled in batches, with padding, with a cache, with rows that end early and with an
adapter per row, and scored in batches again. Not every architecture or adapter takes all of that,
and some take it and compute something else without an error. So a few tokens are sampled and scored
as in a run, and compared with the plain forward pass of transformers and peft on each text alone.

Models of plain attention go on for a second turn, with the caches kept from the first one. Where
that is exact, runs do the same (`Base.packs`); where it is not, each turn is read anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from maporl_agents.models.bases import Base, window_of
from maporl_agents.models.caches.kept_caches import BaseCaches
from maporl_agents.models.caches.row_caches import plain_attention
from maporl_agents.models.generation import Row, write_rows
from maporl_agents.models.lean_layers import gathered
from maporl_agents.models.packed_texts import pack_texts
from maporl_agents.models.trunk import failing_as
from maporl_agents.tensor_checks import working_dtype
from maporl_agents.text.chat import Chat

TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.15}
"""Largest mean distance of log-probabilities, in nats, that rounding explains."""

_QUANTISED = 0.3
"""The same where inputs are rounded by scales that a batch shares (int8 on GPUs)."""

_TEXT = "Question: how many apples are left when two of the twelve have been eaten?"
_PROMPTS = ((12, 3), (3, 3), (7, 1))
"""Tokens of a prompt and of what is written after it; the last row ends first."""
_ADDED = (2, 9, 5)
"""Tokens that each row's next prompt adds to what it has read and written."""
_TWO_TURNS = 32
"""Tokens that a model has to be able to read for two turns."""


class _Endless(Row):
    """A row that ends only at its limit, whatever token is sampled."""

    def add(self, token: int, logprob: float, chat: Chat) -> bool:
        """Take in a token; return whether another may follow."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        return len(self.ids) < self.limit


@dataclass(frozen=True)
class _Text:
    """Token ids (S,) of a text, its policy, and the position of the first sampled token."""

    ids: Tensor
    policy: str
    start: int


@torch.no_grad()
def check(base: Base, policies: Sequence[str], way_out: str) -> None:
    """Compare a model's batches with its plain forward pass.

    Where `models.lean_trunk` reads the trunk and its results differ, the model's own modules read
    it from then on, and are checked in turn. A model without weights (device "meta") is not
    checked. No global random state is used.

    Args:
        base: the model and its policies.
        policies: one of each kind: of the base, of a fresh adapter, of each adapter begun from.
        way_out: what to do if they differ, for the message.

    Raises:
        ValueError: log-probabilities differ by more than rounding, or the model cannot do it.
    """
    can_pack = plain_attention(base.model) and (window_of(base.model) or _TWO_TURNS) >= _TWO_TURNS
    base.packs = can_pack
    if base.device.type == "meta":
        return
    for lean in (True, False):  # the fastest way first
        if lean and not all(reader.lean for reader in base.readers):
            continue
        if not lean:
            read_by_modules(base)
        for base.packs in (True, False) if can_pack else (False,):
            if _holds(base, policies):
                return
    name = f"{type(base.model).__name__} of {base.model.name_or_path!r}"
    failure = f"{name} cannot run a batch of texts of unequal length"
    with failing_as(failure, way_out), _moved(base, policies):
        distance = _distance(base, policies)
    if not distance <= _tolerance(base):
        raise ValueError(
            f"{name} gives other log-probabilities in a batch than alone (off by {distance:.2g} "
            f"nats on average): {way_out}"
        )


def read_by_modules(base: Base) -> None:
    """Make a base run its trunks by transformers' own modules from now on."""
    for reader in base.readers:
        reader.lean = None


def _holds(base: Base, policies: Sequence[str]) -> bool:
    """Return whether a base, in its present mode, agrees with the plain forward pass."""
    try:
        with _moved(base, policies):
            return _distance(base, policies) <= _tolerance(base)
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False


def _tolerance(base: Base) -> float:
    rounding = TOLERANCE.get(base.model.dtype, _QUANTISED)
    if getattr(base.model.config, "quantization_config", None) is not None:
        return max(rounding, _QUANTISED)
    return rounding


@contextmanager
def _moved(base: Base, policies: Sequence[str]) -> Iterator[None]:
    """Give adapters that are still zero random weights inside the block."""
    generator = torch.Generator().manual_seed(0)
    owned = [named for policy in policies for named in base.trainable(policy).items()]
    zero = [p for name, p in owned if "lora_" in name and p.dim() > 1 and not p.any()]
    try:
        for parameter in zero:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        yield
    finally:
        for parameter in zero:
            parameter.zero_()


def _distance(base: Base, policies: Sequence[str]) -> float:
    """Return the largest mean distance in nats of any policy's tokens, sampled or scored."""
    rows = _sampled(base, policies)
    texts = [
        _Text(
            torch.tensor((*row.prompt, *row.ids), device=base.device), row.policy, len(row.prompt)
        )
        for row in rows
    ]
    alone = [_alone(base, text) for text in texts]
    sampled = [
        one[text.start - 1 :] - one.new_tensor(row.logprobs)
        for row, one, text in zip(rows, alone, texts, strict=True)
    ]
    frozen = [_alone(base, text, reference=True) for text in texts]
    found = [sampled]
    for expected, reference in ((alone, False), (frozen, True)):
        for scored in (_scored, _packed) if base.reads_packed else (_scored,):
            others = scored(base, texts, reference=reference)
            found.append([one - other for one, other in zip(expected, others, strict=True)])
    means = [
        torch.cat([part for part, text in zip(parts, texts, strict=True) if text.policy == policy])
        .abs()
        .mean()
        for parts in found
        for policy in policies
    ]
    return float(torch.stack(means).max())


def _sampled(base: Base, policies: Sequence[str]) -> list[Row]:
    """Sample a few tokens in one batch, as in a run; twice if caches may be kept."""
    ids = base.chat.encode(_TEXT) or [base.chat.pad_id]
    room = (window_of(base.model) or 16) - 3
    rows: list[Row] = [
        _Endless(tuple((ids * 12)[: max(min(length, room), 1)]), policy, limit, (), stream)
        for policy in policies
        for stream, (length, limit) in enumerate(_PROMPTS)
    ]
    kept = BaseCaches(base, math.inf)
    write_rows(base, rows, 1.0, kept)
    if not base.packs:
        return rows
    later: list[Row] = [
        _Endless(
            (*row.prompt, *row.ids, *(ids * 12)[:added]), row.policy, row.limit, (), stream + 9
        )
        for stream, (row, added) in enumerate(zip(rows, _ADDED * len(policies), strict=True))
    ]
    later.append(_Endless(rows[0].prompt[1:], policies[0], 2, (), 8))  # nothing of it is kept
    pasts = kept.take([base.weights_of(row.policy) for row in later], [row.prompt for row in later])
    for row, past in zip(later, pasts, strict=True):
        row.past = past
    write_rows(base, later, 1.0)
    return [*rows, *later]


def _packed(base: Base, texts: Sequence[_Text], *, reference: bool) -> list[Tensor]:
    """Return the log-probabilities of all ids but the first, of packed texts, as in training."""
    own = base.weights_of_reference if reference else str
    ids = [tuple(text.ids.tolist()) for text in texts]
    owners = [own(text.policy) for text in texts]
    packed, places = pack_texts(ids, owners, [range(len(x)) for x in ids], base.device, shared=2)
    states = gathered(places, base.states(packed, reference=reference))
    parts = states.split([len(x) for x in ids])
    return [
        _of_ids(base.logits(part, reference=reference), text.ids)
        for part, text in zip(parts, texts, strict=True)
    ]


def _scored(base: Base, texts: Sequence[_Text], *, reference: bool) -> list[Tensor]:
    """Return the log-probabilities of all ids but the first, read in one padded batch."""
    width = max(len(text.ids) for text in texts)
    ids = torch.full((len(texts), width), base.chat.pad_id, device=base.device)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = text.ids
    columns = torch.arange(width, device=base.device).expand_as(ids)
    lengths = torch.tensor([len(text.ids) for text in texts], device=base.device)
    attention = (columns < lengths[:, None]).long()
    owners = [text.policy for text in texts]
    hidden = base.hidden(ids, attention, columns, owners, reference=reference)
    return [
        _of_ids(base.logits(states[: len(text.ids)], reference=reference), text.ids)
        for states, text in zip(hidden, texts, strict=True)
    ]


def _alone(base: Base, text: _Text, *, reference: bool = False) -> Tensor:
    """Return the log-probabilities of one text by the plain forward pass of the libraries."""
    return _of_ids(base.plain_logits(text.ids, text.policy, reference=reference), text.ids)


def _of_ids(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probability (S - 1,) of each id after the first, of logits (S, V)."""
    logprobs = logits[:-1].to(working_dtype(logits)).log_softmax(-1)
    return logprobs.gather(1, ids[1:, None].to(logprobs.device))[:, 0].to(ids.device)
