"""Messages that servers wrote, held against the weights that they were sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from maporl_agents.models.bases import Base
from maporl_agents.models.lora import LoraBase
from maporl_agents.play.vllm_client import START
from maporl_agents.play.weight_sync import Version
from maporl_agents.play.weights_check import as_before, joined, logprobs_of, slope_of
from maporl_agents.types import Completion, TokenIds
from maporl_env.services.http_json import RemoteError

OTHER_AGENTS = 3
"""Adapters of other agents that an answer is held against, at most."""


class OtherWeights(RemoteError):
    """A server spoke with other weights than it was sent."""


@dataclass(frozen=True)
class Spoken:
    """A message, and whose it should be.

    Attributes:
        server: name of the server, for messages.
        base: the model on which the trainer computes the same.
        adapter: that was sent; None for the bare base.
        version: of the adapters; None before the first.
        prompt: ids before the message.
        completion: the message with the server's log-probabilities.
        temperature: at which it was sampled.
    """

    server: str
    base: Base
    adapter: str | None
    version: Version | None
    prompt: TokenIds
    completion: Completion
    temperature: float

    @property
    def sent(self) -> str:
        """The name of the weights that should have spoken."""
        if self.version is None or self.adapter is None:
            return "the base model"
        return self.version.names[self.adapter]

    def logprobs(self, adapter: str | None) -> Tensor:
        """Return what the trainer computes with an adapter as it is now, (L,)."""
        return logprobs_of(self.base, adapter, self.prompt, self.completion.ids, self.temperature)


def require_sent_weights(rows: Sequence[Spoken], mismatch: float) -> float:
    """Return the mean distance between server and trainer, in nats per token.

    Args:
        rows: messages of one server, adapter and version.
        mismatch: the largest distance that is no fault.

    Raises:
        OtherWeights: the distance is larger, or the messages are those of other weights.
    """
    first = rows[0]
    said = joined([torch.tensor(row.completion.logprobs) for row in rows])
    sent = _by(rows, _own(first), first.adapter)
    distance = float((said - sent).abs().mean())
    suspects = [
        (float((said - other).abs().mean()), name, slope)
        for name, other in _others(rows)
        if (slope := slope_of(said, sent, other)).others
    ]
    if suspects:
        _, name, slope = min(suspects)
        raise OtherWeights(
            f"{first.server} spoke with other weights than {first.sent}: its log-probabilities are "
            f"nearer to those of {name} (of the difference they show {slope.slope:.2f}, standard "
            f"error {slope.error:.2g}); see why it did not take the adapter, restart it, and go on "
            "with --resume"
        )
    if not distance <= mismatch:
        raise OtherWeights(
            f"{first.server} spoke with other weights than {first.sent}: log-probabilities of "
            f"server and trainer differ by {distance:.2g} nats per token, and sampling.mismatch "
            f"allows {mismatch:g}; let it hold the model of team.model, and {START}"
        )
    return distance


def _own(row: Spoken) -> AbstractContextManager[object]:
    """Return a block in which the adapter has the weights of the version that was sent."""
    if row.version is None or row.adapter not in row.version.weights:
        return nullcontext()
    assert isinstance(row.base, LoraBase)
    assert row.adapter is not None
    return as_before(row.base, row.adapter, row.version.weights[row.adapter])


def _by(
    rows: Sequence[Spoken], block: AbstractContextManager[object], adapter: str | None
) -> Tensor:
    """Return what the trainer computes with an adapter inside a block, of all rows, (N,)."""
    with block:
        return joined([row.logprobs(adapter) for row in rows])


def _others(rows: Sequence[Spoken]) -> Iterator[tuple[str, Tensor]]:
    """Yield other weights that may have spoken: their name, and what they give, (N,)."""
    first = rows[0]
    if first.version is None or not isinstance(base := first.base, LoraBase):
        return
    own, version = first.adapter, first.version
    if own is not None:
        if own in version.before:
            block = as_before(base, own, version.before[own])
            yield f"{own} before its last update", _by(rows, block, own)
        yield "the base model", _by(rows, nullcontext(), None)
    others = (one for one in version.weights if one != own and one in base.trained)
    for other in islice(others, OTHER_AGENTS):
        block = as_before(base, other, version.weights[other])
        yield version.names[other], _by(rows, block, other)
