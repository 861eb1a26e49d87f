"""Tokens drawn in chunks of the vocabulary head: equal to all rows at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maporl_agents.config import Truncation
from maporl_agents.models import generation
from maporl_agents.models.generation import Drawing, next_tokens

ROWS, WIDTH, VOCABULARY = 11, 5, 21


class Head:
    """A linear head in float64 that counts how often it is asked."""

    vocab_size = VOCABULARY

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64)
        self.calls = 0

    def logits(self, hidden: Tensor) -> Tensor:
        self.calls += 1
        return hidden @ self.weight.T


@pytest.mark.parametrize(("chunk", "calls"), [(1, 11), (50, 6), (21 * 4, 3), (10**9, 1)])
@pytest.mark.parametrize("cut", [None, Truncation(top_k=5), Truncation(top_p=0.8)])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_chunks_draw_what_all_rows_at_once_draw(
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
    calls: int,
    cut: Truncation | None,
    temperature: float,
) -> None:
    """Ids and kept sets are the same, log-probabilities within 1e-12."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    numbers = torch.rand(ROWS, generator=generator, dtype=torch.float64) if temperature else None
    drawing = Drawing(temperature, cut)
    head = Head()
    monkeypatch.setattr(generation, "_READ_AT_ONCE", chunk)
    ids, logprobs, sets = next_tokens(head, hidden, drawing, numbers)  # type: ignore[arg-type]
    assert head.calls == calls

    whole_ids, whole_logprobs, whole_sets = generation._draw(head.logits(hidden), drawing, numbers)
    assert torch.equal(ids, whole_ids)
    torch.testing.assert_close(logprobs, whole_logprobs, atol=1e-12, rtol=1e-12)
    assert (sets is None) == (cut is None)
    for found, hand in zip(sets or (), whole_sets or (), strict=True):
        assert torch.equal(found, hand)
