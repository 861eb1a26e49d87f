"""Saved weights and the places in a model that they belong into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

WeightPair = tuple[Tensor, Tensor]
"""A weight of a team, and the saved one that belongs into it."""


def read_shards(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of the safetensors files in a folder."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} holds no *.safetensors file, so there are no weights to load")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def pair(own: Mapping[str, Tensor], given: Mapping[str, Tensor], where: Path) -> list[WeightPair]:
    """Match weights by name and shape; ValueError names what does not fit."""
    if own.keys() != given.keys():
        missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
        raise ValueError(f"{where} does not fit the model: missing {missing}, unknown {unknown}")
    for name, weight in own.items():
        if weight.shape != given[name].shape:
            raise ValueError(
                f"{where}: {name} has shape {tuple(given[name].shape)}, "
                f"the model wants {tuple(weight.shape)}"
            )
    return [(weight, given[name]) for name, weight in own.items()]
