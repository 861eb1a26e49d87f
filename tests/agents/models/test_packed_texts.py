"""Packed texts: what several begin with is read once, and nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lean_cases import TAKEN, batch, lean_of, make_model
from miniatures import load_team, stir, tables_and_gradients

from maporl_agents.models.bases import Base
from maporl_agents.models.grouped_products import RowRuns
from maporl_agents.models.lean_layers import gathered
from maporl_agents.models.packed_texts import Attentions, PackedTexts, pack_texts
from maporl_agents.models.team import Team
from maporl_agents.models.trunk import NewIds, read
from maporl_agents.types import Completion, StopReason, TokenBatch, TokenIds
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.token_logprobs import score_tokens

CPU = torch.device("cpu")
FAMILY = (1, 2, 3, 4)
"""What all texts of `tree` begin with."""


def tree(seed: int, shared: int = 2) -> list[TokenIds]:
    """Return texts that fork twice, some of them beginnings of others, in random order."""
    rng = random.Random(seed)

    def some(count: int) -> TokenIds:
        return tuple(rng.randrange(1, 50) for _ in range(count))

    texts: list[TokenIds] = [FAMILY, some(1)]
    for _ in range(3):
        question = FAMILY + some(rng.randrange(shared, 3 * shared))
        texts += [question + some(rng.randrange(0, 9)) for _ in range(rng.randrange(1, 5))]
        texts += [texts[-1] + some(3), texts[-1] + some(rng.randrange(1, 20))]
    rng.shuffle(texts)
    return texts


def packed(
    texts: Sequence[TokenIds], owners: Sequence[str] | None = None, shared: int = 2
) -> tuple[PackedTexts, list[torch.Tensor]]:
    """Return texts packed with every state asked for, and the places of each text's states."""
    whole = [range(len(text)) for text in texts]
    found, places = pack_texts(texts, owners or ["a"] * len(texts), whole, CPU, shared)
    return found, list(places.split([len(text) for text in texts]))


@pytest.mark.parametrize("seed", range(4))
def test_every_text_is_there_and_its_beginning_once(seed: int) -> None:
    texts = tree(seed)
    found, places = packed(texts, shared=1)
    for text, where in zip(texts, places, strict=True):
        assert tuple(found.ids[found.asked[where]].tolist()) == text
        assert found.positions[found.asked[where]].tolist() == list(range(len(text)))
    assert len(found.ids) == len({text[:end] for text in texts for end in range(1, len(text) + 1)})


def test_owners_share_nothing() -> None:
    texts = [(1, 2, 3), (1, 2, 3, 4), (1, 2, 3), (1, 2, 5)]
    found, _ = packed(texts, ["b", "a", "a", "b"], shared=1)
    assert [(run.owner, run.ids, run.asked) for run in found.runs] == [("a", 4, 4), ("b", 4, 4)]


def test_a_short_beginning_is_read_again() -> None:
    """A segment of its own would cost a call of attention."""
    texts = [(1, 2, 3, 4, 5), (1, 2, 3, 9), (8, 8)]
    assert len(packed(texts, shared=4)[0].ids) == 11
    assert len(packed(texts, shared=3)[0].ids) == 8


@given(
    st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=7), min_size=1, max_size=9),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
@settings(max_examples=80, deadline=None)
def test_each_id_attends_to_its_own_text(
    rows: list[list[int]], shared: int, rng: random.Random
) -> None:
    """And the asked states, of the last layer, to the same ids."""
    texts = [tuple(row) for row in rows]
    owners = [rng.choice("ab") for _ in texts]
    asked = [range(rng.randrange(len(text)), len(text)) for text in texts]
    found, places = pack_texts(texts, owners, asked, CPU, shared)
    every, last = attended(found.every), attended(found.last)
    left = iter(places.tolist())
    for text, positions in zip(texts, asked, strict=True):
        for position in positions:
            place = next(left)
            for keys in (last[place], every[int(found.asked[place])]):
                assert tuple(found.ids[keys].tolist()) == text[: position + 1]
                assert found.positions[keys].tolist() == list(range(position + 1))


def attended(layer: Attentions) -> list[list[int]]:
    """Return the places that each query of a layer attends to."""
    rows: list[list[int]] = []
    for call in layer.calls:
        for row, (queries, keys) in enumerate(zip(call.queries, call.keys, strict=True)):
            for place in range(len(queries)):
                if call.mask is None:
                    rows.append(keys[: place + 1].tolist())
                else:
                    rows.append(keys[call.mask[min(row, len(call.mask) - 1), 0, place]].tolist())
        if call.first is not None:
            assert call.queries.flatten().tolist() == list(
                range(call.first, call.first + call.queries.numel())
            )
    return rows if layer.order is None else [rows[place] for place in layer.order.tolist()]


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize(
    ("dtype", "apart"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["32", "64"]
)
@torch.no_grad()
def test_states_equal_those_of_each_text_alone(name: str, dtype: torch.dtype, apart: float) -> None:
    family, given_ = TAKEN[name]
    model = make_model(family, **given_).to(dtype)
    texts = tree(1)
    asked = [range(len(text) // 2, len(text)) for text in texts]
    found, places = pack_texts(texts, ["a"] * len(texts), asked, CPU, 2)
    states = gathered(places, lean_of(model).states(found))
    expected = []
    for text, wanted in zip(texts, asked, strict=True):
        ids = torch.tensor([text])
        whole = read(model, ids, torch.ones_like(ids), torch.arange(len(text))[None])[0]
        expected.append(whole[wanted.start :])
    torch.testing.assert_close(states, torch.cat(expected), atol=apart, rtol=apart)


def test_rows_of_runs() -> None:
    runs = RowRuns([("a", 4, 2), ("b", 3, 3), ("b", 2, 0), ("a", 1, 1)])
    assert runs.row_spans(10) == [("a", 0, 4), ("b", 4, 9), ("a", 9, 10)]
    assert runs.row_spans(6) == [("a", 0, 2), ("b", 2, 5), ("a", 5, 6)]
    assert runs.names_of_rows(6) == ["a", "a", "b", "b", "b", "a"]
    with pytest.raises(ValueError, match="7 rows"):
        runs.row_spans(7)


def tree_batch(team: Team, prompt: int = 20) -> TokenBatch:
    """Return ragged messages of both agents: siblings, and a second turn after some of them."""
    rng = random.Random(0)

    def said(count: int) -> Completion:
        ids = tuple(rng.randrange(1, 50) for _ in range(count))
        return Completion(ids, (0.0,) * count, "", StopReason.LENGTH)

    rows = []
    for question in range(2):
        asked = tuple(rng.randrange(1, 50) for _ in range(prompt + 3 * question))
        for seat in range(2):
            for length in (1, 7, 4, 12):
                first = said(length)
                rows.append(Row(asked, first, f"agent_{seat}", question, 0, seat, 1.0))
                if length > 4:
                    again = (*asked, *first.ids, *said(18).ids)
                    rows += [
                        Row(again, said(n), f"agent_{seat}", question, 1, seat, -1.0)
                        for n in (3, 5)
                    ]
    return batch_of(team, rows)


TEAMS = {
    "full": {"tuning": "full", "sharing": "agent"},
    "lora": {"tuning": "lora"},
    "critics with adapters": {"tuning": "lora", "critic": "adapter"},
    "recomputed": {"tuning": "lora", "gradient_checkpointing": True},
    "a frozen agent": {"tuning": "lora", "train_agents": (1,)},
}


@pytest.mark.thorough
@pytest.mark.parametrize("kind", TEAMS)
@pytest.mark.parametrize(("double", "apart"), [(False, 1e-5), (True, 1e-12)], ids=["32", "64"])
def test_scores_and_gradients_equal_those_of_padded_texts(
    checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    double: bool,
    apart: float,
) -> None:
    folder = checkpoint("llama")
    team = load_team(
        [folder, folder] if kind == "full" else folder, double=double, num_turns=2, **TEAMS[kind]
    )
    stir(team)
    batch = tree_batch(team)

    assert all(base.reads_packed for base in team.bases)
    found, grads = tables_and_gradients(team, batch)
    monkeypatch.setattr(Base, "reads_packed", False)
    expected, others = tables_and_gradients(team, batch)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=apart, rtol=apart)
    assert grads.keys() == others.keys()
    assert any(grad.any() for grad in grads.values())
    for name, grad in grads.items():  # norms are in float32 in either format, as transformers' are
        largest = max(float(others[name].abs().max()), 1.0)
        torch.testing.assert_close(grad, others[name], atol=3e-6 * largest, rtol=0)


@torch.no_grad()
def test_a_question_of_a_group_is_read_once(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By each policy; once by the reference that all of them began as."""
    team = load_team(checkpoint("llama"), tuning="lora")
    rows = [
        Row(tuple(range(1, 31)), said, f"agent_{seat}", 0, 0, seat, 1.0)
        for seat in range(2)
        for said in (
            Completion((first, 2, 3), (0.0,) * 3, "", StopReason.LENGTH) for first in (5, 6, 7, 8)
        )
    ]
    batch = batch_of(team, rows)
    sizes = []
    states = Base.states

    def counted(self: Base, texts: PackedTexts, **options: bool) -> torch.Tensor:
        sizes.append(len(texts.ids))
        return states(self, texts, **options)

    monkeypatch.setattr(Base, "states", counted)
    score_tokens(team, batch, temperature=1.0)
    score_tokens(team, batch, temperature=1.0, reference=True)
    assert sizes == [2 * (30 + 4 * 3), 30 + 4 * 3]


@torch.no_grad()
def test_the_last_layer_reads_out_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("Llama")
    inside = model.model.layers[-1].mlp.down_proj
    sizes = []
    inside.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[:-1].numel()))
    texts = [tuple(range(1, 10)), tuple(range(20, 24))]
    found, _ = pack_texts(texts, ["a", "a"], [range(7, 9), range(3, 4)], CPU)
    lean_of(model).states(found)
    ids = torch.tensor([texts[0]] * 3)
    new = NewIds(ids, torch.ones_like(ids), torch.arange(9).expand(3, 9))
    lean_of(model).read(new, at_end=True)
    assert sizes == [3, 3]


@pytest.mark.parametrize("padding", ["none", "right", "left", "holes"])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
@torch.no_grad()
def test_states_at_the_end(name: str, padding: str) -> None:
    family, given_ = TAKEN[name]
    model = make_model(family, **given_)
    ids, attention, positions = batch(padding)
    whole = lean_of(model).read(NewIds(ids, attention, positions))[:, -1:]
    found = lean_of(model).read(NewIds(ids, attention, positions), at_end=True)
    ends = attention[:, -1].bool()
    torch.testing.assert_close(found[ends], whole[ends], atol=1e-5, rtol=1e-5)


def test_an_owner_between_others_keeps_its_adapter(checkpoint: Callable[..., Path]) -> None:
    """Rows of three owners in one pass, in an order that is not theirs."""
    team = load_team(checkpoint("llama"), tuning="lora", num_agents=3)
    stir(team)
    batch = tree_batch(team)
    third = replace(batch, policies=tuple(f"agent_{i % 3}" for i in range(len(batch))))
    with torch.no_grad():
        whole = score_tokens(team, third, temperature=1.0).logprobs
        for row in range(0, len(batch), 5):
            one = score_tokens(team, third.select([row]), temperature=1.0).logprobs
            torch.testing.assert_close(one[0], whole[row, : one.shape[1]], atol=1e-5, rtol=1e-5)
