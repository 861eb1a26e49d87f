"""Top-k, top-p and min-p: the set they keep, and the tables that carry it."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from maporl_agents.config import Sampling, Truncation
from maporl_agents.models import truncation as module
from maporl_agents.models.truncation import KeptSets, kept_mask, only

HALVES = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625]]).double().log()


def kept(logits: torch.Tensor, **settings: float) -> list[list[int]]:
    mask = kept_mask(logits, Truncation(**settings))  # type: ignore[arg-type]
    return [row.nonzero()[:, 0].tolist() for row in mask]


def by_definition(logits: torch.Tensor, cut: Truncation) -> list[int]:
    """One row, by the words of the docstring."""
    left = list(range(len(logits)))
    if 0 < cut.top_k < len(logits):
        least = sorted(logits.tolist(), reverse=True)[cut.top_k - 1]
        left = [v for v in left if logits[v] >= least]
    p = logits[left].softmax(0).tolist()
    if cut.top_p < 1:
        sets = [[i for i in range(len(left)) if p[i] >= c] for c in p]
        enough = [one for one in sets if math.fsum(p[i] for i in one) >= cut.top_p]
        chosen = min(enough or sets, key=lambda one: len(one) if enough else -len(one))
        left, p = [left[i] for i in chosen], [p[i] for i in chosen]
    return [v for v, x in zip(left, p, strict=True) if x >= cut.min_p * max(p)]


@pytest.mark.parametrize("top_k", [0, 1, 5, 40, 1000])
@pytest.mark.parametrize("top_p", [0.001, 0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("min_p", [0.0, 0.02, 0.4, 1.0])
def test_equal_to_the_definition_and_to_transformers(
    top_k: int, top_p: float, min_p: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(6, 50, generator=generator, dtype=torch.float64)
    cut = Truncation(top_k, top_p, min_p)
    found = [row.nonzero()[:, 0].tolist() for row in kept_mask(logits, cut)]
    assert found == [by_definition(row, cut) for row in logits]
    theirs = LogitsProcessorList()
    if top_k:
        theirs.append(TopKLogitsWarper(top_k))
    theirs += [TopPLogitsWarper(top_p)] * (top_p < 1) + [MinPLogitsWarper(min_p)] * (min_p > 0)
    left = theirs(torch.zeros(6, 1, dtype=torch.long), logits).isfinite()
    assert found == [row.nonzero()[:, 0].tolist() for row in left]


def test_ties_stay_together() -> None:
    assert kept(HALVES, top_k=4) == [[0, 1, 2, 3, 4]]
    assert kept(HALVES, top_p=0.9) == [[0, 1, 2, 3, 4]]
    assert kept(torch.zeros(1, 7), top_k=1) == [list(range(7))]
    assert kept(torch.zeros(1, 7), top_p=0.01) == [list(range(7))]


def test_a_nucleus_that_is_reached_exactly_ends_there() -> None:
    assert kept(HALVES, top_p=0.75) == [[0, 1]]
    assert kept(HALVES, top_p=0.7501) == [[0, 1, 2]]
    assert kept(HALVES, top_p=1e-9) == [[0]]


def test_a_nucleus_larger_than_what_is_sorted_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of both kinds in one call."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(8, 60, generator=generator) * torch.tensor([[0.2], [4.0]] * 4)
    whole = kept(logits, top_p=0.8)
    assert min(map(len, whole)) < 9 < max(map(len, whole))
    monkeypatch.setattr(module, "_SORTED", 9)
    assert kept(logits, top_p=0.8) == whole


def test_one_id_is_always_kept() -> None:
    rows = torch.tensor([[0.0, -1e30, -1e30], [-1e30, -1e30, 5.0]])
    for settings in ({"min_p": 1.0}, {"top_p": 1e-12}, {"top_k": 1}):
        assert kept(rows, **settings) == [[0], [2]]


def test_a_dropped_id_has_neither_probability_nor_gradient() -> None:
    logits = HALVES.clone().requires_grad_()
    mask = kept_mask(logits.detach(), Truncation(top_k=2))
    logprobs = only(logits, mask).log_softmax(-1)
    assert logprobs.exp().tolist()[0] == pytest.approx([2 / 3, 1 / 3, 0, 0, 0])
    logprobs[0, 1].backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([-2 / 3, 2 / 3, 0, 0, 0])


def test_sets_become_the_mask_they_were() -> None:
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]]).bool()
    sets = KeptSets(mask.sum(-1), mask.nonzero()[:, 1])
    assert torch.equal(sets.mask(4), mask)
    assert torch.equal(sets.part(slice(1, 3)).mask(4), mask[1:])
    assert torch.equal(sets.part(slice(2, 9)).mask(4), mask[2:])
    whole = KeptSets(torch.tensor([0, 1]), torch.tensor([2]))
    assert whole.mask(3).tolist() == [[True] * 3, [False, False, True]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"top_k": -1}, "top_k must be at least 0, or None, not -1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], or None, not 0.0"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"min_p": -0.1}, "min_p must be in .0, 1., or None, not -0.1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Sampling(**settings)  # type: ignore[arg-type]


def test_nothing_is_truncated_by_default() -> None:
    assert Sampling().truncation is None
    assert Sampling(top_k=0, top_p=1.0, min_p=0.0).truncation is None
    assert Sampling(top_p=0.9).truncation == (0, 0.9, 0.0)
