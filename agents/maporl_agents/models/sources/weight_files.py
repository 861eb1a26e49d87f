"""Writes and reads weights in safetensors files, and matches them to a model's parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from maporl_agents.records.storage import CheckpointError, reason, save_tensors

WeightPair = tuple[Tensor, Tensor]
"""A weight of a team and the saved weight to copy into it."""

TRAINED = "trained"
"""Sub-folder of a saved model: its trained weights by the names and in the format that they are
trained in, where the model's own files have others (fused experts, renamed heads, bfloat16)."""


def save_model(model: PreTrainedModel, trained: Mapping[str, Tensor], folder: Path) -> None:
    """Write a model so that `from_pretrained` reads it and `read_trained` gives back `trained`.

    Raises:
        CheckpointError: transformers cannot write this model.
    """
    write_model(model, folder)
    if not _holds(folder, trained):
        (folder / TRAINED).mkdir()
        save_tensors(folder / TRAINED / "parameters.safetensors", trained)


def write_model(model: PreTrainedModel, folder: Path) -> None:
    """Write a model as `from_pretrained` reads it.

    transformers refuses to write generation settings that it only warned of when it read them, such
    as a temperature without sampling; they are written as they are.

    Raises:
        CheckpointError: transformers cannot write this model.
    """
    generation = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        model.save_pretrained(folder)
    except (ValueError, RuntimeError, NotImplementedError, TypeError) as error:
        raise CheckpointError(
            f"transformers cannot write a {type(model).__name__} ({reason(error).splitlines()[0]}):"
            " train adapters (tuning='lora') instead"
        ) from error
    finally:
        model.generation_config = generation
    if generation is not None:
        generation.to_json_file(folder / "generation_config.json", keys_to_pop=["compile_config"])


def _holds(folder: Path, trained: Mapping[str, Tensor]) -> bool:
    """Return whether the files of a saved model equal its trained weights, by name and bit."""
    saved = read_shards(folder)
    return saved.keys() == trained.keys() and all(
        saved[name].dtype == weight.dtype and torch.equal(saved[name], weight.cpu())
        for name, weight in trained.items()
    )


def read_trained(folder: Path) -> dict[str, Tensor]:
    """Return the trained weights of a model that `save_model` wrote."""
    own = folder / TRAINED
    return read_shards(own if own.is_dir() else folder)


def read_shards(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of the safetensors files in a folder.

    Raises:
        ValueError: there is no such file.
        CheckpointError: one cannot be read, or two hold a tensor of the same name.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} holds no *.safetensors file, so there are no weights to load")
    found: dict[str, Tensor] = {}
    for file in files:
        given = read_file(file)
        if twice := sorted(found.keys() & given.keys()):
            raise CheckpointError(f"{file} holds {twice[0]!r}, which another file beside it holds")
        found |= given
    return found


def read_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one safetensors file; CheckpointError if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {reason(error)}") from error


def pair(own: Mapping[str, Tensor], given: Mapping[str, Tensor], where: Path) -> list[WeightPair]:
    """Match weights by name and shape.

    Raises:
        ValueError: names or shapes differ; names them.
        CheckpointError: a saved weight is no floating-point number, infinite or not a number.
    """
    if own.keys() != given.keys():
        missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
        raise ValueError(f"{where} does not fit the model: missing {missing}, unknown {unknown}")
    for name, weight in own.items():
        saved = given[name]
        if weight.shape != saved.shape:
            raise ValueError(
                f"{where}: {name} has shape {tuple(saved.shape)}, "
                f"the model wants {tuple(weight.shape)}"
            )
        if not saved.is_floating_point():
            raise CheckpointError(f"{where}: {name} holds {saved.dtype}, no floating-point numbers")
        if not saved.isfinite().all():
            raise CheckpointError(f"{where}: {name} holds numbers that are not finite")
    return [(weight, given[name]) for name, weight in own.items()]


def fingerprint(weights: Iterable[Tensor]) -> str:
    """Return the SHA-256 of weights, in order: their formats, shapes and bytes."""
    digest = hashlib.sha256()
    for weight in weights:
        data = weight.detach().cpu().contiguous()
        digest.update(f"{data.dtype} {list(data.shape)} ".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
