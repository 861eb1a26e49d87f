"""Log-probabilities and values of a whole batch before an update, without gradient.

Where the sampler's log-probabilities equal the trainer's within rounding, they are taken. Then only
the reference policies are run, and a part of the messages once more, to check that both agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from maporl_agents import distributed
from maporl_agents.models.bases import Base
from maporl_agents.models.parallel_bases import side_by_side
from maporl_agents.models.team import Team
from maporl_agents.phases import phase
from maporl_agents.tensor_checks import working_dtype
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import rows_by_base
from maporl_agents.update.passes import numbers_in_passes
from maporl_agents.update.reference_logprobs import (
    reference_and_kl,
    reference_token_logprobs,
)
from maporl_agents.update.token_logprobs import critic_values, score_tokens

Reference = Literal["none", "logprobs", "kl"]

TOLERANCE = 1e-3
"""Largest difference between sampler and trainer, in nats and units of value, in float32."""
MESSAGES_PER_CHECK = 32
"""Of this many messages, one is run again to compare sampler and trainer."""


class TokenTables(NamedTuple):
    """Numbers about every sampled token, (B, L) each, 0 outside the mask.

    Attributes:
        logprobs: under the current policy.
        ref_logprobs: under the reference policy; 0 unless requested.
        values: of the critics; 0 unless requested.
        exact_kl: KL(ref || policy) over the whole vocabulary; 0 unless requested.
        rescored: (B,) bool, True = the trainer computed `logprobs`, False = the sampler did.
        fault: the largest difference between sampler and trainer among the checked messages, if it
            exceeds `TOLERANCE`; the trainer then computed all rows. Else 0.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    exact_kl: Tensor
    rescored: Tensor
    fault: float


@phase("score")
def token_tables(
    team: Team,
    batch: TokenBatch,
    *,
    temperature: float,
    micro_tokens: int,
    reference: Reference = "logprobs",
    with_values: bool = False,
    sampled: bool = False,
) -> TokenTables:
    """Run a batch through policies and reference policies, pass by pass.

    Args:
        team: the models.
        batch: the messages.
        temperature: the temperature at which they were sampled.
        micro_tokens: largest number of tokens, padding included, in one pass.
        reference: what is computed with the reference policies: nothing, log-probabilities, or
            also the KL over the vocabulary.
        with_values: also run the critics.
        sampled: the messages were just sampled by this team: take the sampler's numbers on bases
            where `samples_exactly` holds, unless servers sampled.
    """

    @torch.no_grad()
    def read(rows: Tensor) -> _Part:
        part = batch.select(rows)
        by = _Passes(team, part, temperature, micro_tokens)
        logprobs, values, rescored, fault = _now(by, with_values=with_values, sampled=sampled)
        ref_logprobs = kl = torch.zeros_like(logprobs)
        if reference == "kl":
            ref_logprobs, kl = by.run(_reference_and_kl)
        elif reference == "logprobs":
            [ref_logprobs] = by.run(_reference)
        return _Part(rows, torch.stack([logprobs, ref_logprobs, values, kl]), rescored, fault)

    by_base = rows_by_base(team, batch)
    # Ranks exchange numbers, base after base in the same order on all of them.
    alone = distributed.count() == 1
    parts = side_by_side(read, by_base) if alone else [read(rows) for rows in by_base]
    dtype = working_dtype(*(part.numbers for part in parts))  # float32 in a run
    tables = torch.zeros(4, *batch.mask.shape, dtype=dtype, device=batch.mask.device)
    rescored = torch.zeros(len(batch), dtype=torch.bool, device=batch.mask.device)
    for part in parts:
        tables[:, part.rows, : part.numbers.shape[2]] = part.numbers.to(dtype)
        rescored[part.rows] = part.rescored
    logprobs, ref_logprobs, values, kl = tables
    fault = max([0.0, *(part.fault for part in parts)])
    return TokenTables(logprobs, ref_logprobs, values, kl, rescored, fault)


def samples_exactly(base: Base) -> bool:
    """Return whether the sampler's log-probabilities on a base equal the trainer's within rounding.

    False in 16 bits and for quantised bases: there rounding differs between one token at a time and
    whole texts, so that probability ratios would be off by several per cent.
    """
    quantised = getattr(base.model.config, "quantization_config", None) is not None
    return not quantised and base.model.dtype in (torch.float32, torch.float64)


class _Part(NamedTuple):
    """The tables of one base's rows; `numbers` (4, N, L) in the order of `TokenTables`."""

    rows: Tensor
    numbers: Tensor
    rescored: Tensor
    fault: float


@dataclass
class _Passes:
    """Rows of one base and the settings of their passes."""

    team: Team
    batch: TokenBatch
    temperature: float
    micro_tokens: int

    @property
    def base(self) -> Base:
        """The base that all rows are run on."""
        return self.team.base_of(self.batch.policies[0])

    def select(self, rows: Tensor) -> _Passes:
        """Return some of the rows."""
        return _Passes(self.team, self.batch.select(rows), self.temperature, self.micro_tokens)

    def run(self, read: Callable[[_Passes], Tensor]) -> Tensor:
        """Return the K numbers per token that `read` computes, (K, B, L), pass by pass."""
        return numbers_in_passes(
            self.batch,
            lambda rows: read(self.select(rows)),
            self.micro_tokens,
            packed=self.base.reads_packed,
            alike=self.base.sharded,
        )


def _scored(by: _Passes) -> Tensor:
    """Return log-probabilities, (1, B, L)."""
    return score_tokens(by.team, by.batch, temperature=by.temperature).logprobs[None]


def _scored_with_values(by: _Passes) -> Tensor:
    """Return log-probabilities and values, (2, B, L)."""
    now = score_tokens(by.team, by.batch, temperature=by.temperature, with_values=True)
    return torch.stack([now.logprobs, now.values])


def _reference(by: _Passes) -> Tensor:
    return reference_token_logprobs(by.team, by.batch, temperature=by.temperature)[None]


def _critics(by: _Passes) -> Tensor:
    return critic_values(by.team, by.batch)[None]


def _reference_and_kl(by: _Passes) -> Tensor:
    return reference_and_kl(by.team, by.batch, temperature=by.temperature)


def _now(by: _Passes, *, with_values: bool, sampled: bool) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return log-probabilities, values, which rows the trainer computed, and the fault."""
    batch = by.batch
    own_trunks = bool(by.base.critics) or by.team.central  # critics with a trunk of their own
    # The sampler gave no values and critics read the policies' states: the trunks must run anyway.
    runs_anyway = with_values and batch.sampled_values is None and not own_trunks
    fault = 0.0
    if sampled and not batch.served and samples_exactly(by.base) and not runs_anyway:
        tables = [batch.sampled_logprobs]
        if with_values and batch.sampled_values is not None:
            tables.append(batch.sampled_values)
        checked = rows_to_check(batch)  # (C,)
        fresh = by.select(checked).run(_scored_with_values if len(tables) == 2 else _scored)
        taken = torch.stack(tables).to(fresh.dtype)  # (1 or 2, B, L)
        apart = (fresh - taken[:, checked, : fresh.shape[2]]).abs()
        apart[1:] /= fresh[1:].abs().clamp(min=1)  # values: relative, they have no fixed scale
        distance = float(apart.max())
        if distance <= TOLERANCE:
            taken[:, checked, : fresh.shape[2]] = fresh
            rescored = torch.zeros_like(batch.agents, dtype=torch.bool)
            rescored[checked] = True
            values = taken[1] if len(tables) == 2 else torch.zeros_like(taken[0])
            if with_values and len(tables) == 1:
                values = by.run(_critics)[0]
            return taken[0], values, rescored, fault
        fault = distance
    fresh = by.run(_scored_with_values if with_values else _scored)
    values = fresh[1] if with_values else torch.zeros_like(fresh[0])
    return fresh[0], values, torch.ones_like(batch.agents, dtype=torch.bool), fault


def rows_to_check(batch: TokenBatch) -> Tensor:
    """Return the rows that are run again: every 32nd, from a first row that depends on the ids."""
    step = min(MESSAGES_PER_CHECK, len(batch))
    return torch.arange(int(batch.ids.sum()) % step, len(batch), step, device=batch.ids.device)
