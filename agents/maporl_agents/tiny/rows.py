"""Rows of the pre-training: token ids, and labels where a loss is taken."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from maporl_agents.types import TokenIds

NO_LOSS = -100
"""The label of a token on which no loss is taken."""


class Row(NamedTuple):
    """A conversation. Made by the data of a model, read by the loop that pre-trains it.

    Attributes:
        kind: rows of one kind are about equally long; they are padded together.
        ids: the tokens.
        labels: the same, `NO_LOSS` where none is taken.
    """

    kind: str
    ids: TokenIds
    labels: TokenIds


DrawRow = Callable[[random.Random, bool], Row]
"""`(rng, cooling) -> row`: draws one row; `cooling` in the second phase of the pre-training."""


def learn_from(start: int, ids: TokenIds) -> TokenIds:
    """Return labels that take loss from a place to the end."""
    return (NO_LOSS,) * start + ids[start:]


def pad(rows: list[Row], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids and labels of rows, each (N, S), padded on the right."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    labels = torch.full((len(rows), width), NO_LOSS)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, : len(row.ids)] = torch.tensor(row.labels)
    return ids, labels
