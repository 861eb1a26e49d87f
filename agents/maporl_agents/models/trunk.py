"""The trunk: the layers of a causal language model below its output head, for every family."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from maporl_agents.text.tokenizer_files import first_line

ANOTHER_MODEL = "choose a model of a family that docs/how-to/models.md names"
"""Advice for a model that cannot be run correctly."""


def trunk_of(model: PreTrainedModel) -> nn.Module:
    """Return the module that maps ids to the states which the output head reads.

    Raises:
        ValueError: it is neither where `base_model` points nor a child with the same embeddings.
    """
    if model.base_model is not model:
        return model.base_model
    embeddings = model.get_input_embeddings()
    for child in model.children():
        if isinstance(child, PreTrainedModel) and child.get_input_embeddings() is embeddings:
            return child
    raise ValueError(
        f"{type(model).__name__} has no part below its output head that this package can find: "
        f"{ANOTHER_MODEL}"
    )


@contextmanager
def failing_as(failure: str, way_out: str) -> Iterator[None]:
    """Turn any exception of the code of an unknown architecture into one sentence.

    Args:
        failure: sentence that says that the model cannot do something.
        way_out: advice for the user.

    Raises:
        ValueError: the code inside raised an exception other than a lack of GPU memory.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{failure} ({first_line(error)[:150]}): {way_out}") from error


def width_of(model: PreTrainedModel) -> int:
    """Return H, the size of the states that the output head reads."""
    width: int = model.get_output_embeddings().weight.shape[-1]
    return width


class NewIds(NamedTuple):
    """Ids that a trunk reads.

    Attributes:
        ids: (N, S), after those that a cache holds.
        attention: (N, C + S), 1 = real id, C ids of them in the cache.
        positions: (N, S), the place of each id in its own text, from 0.
    """

    ids: Tensor
    attention: Tensor
    positions: Tensor


def read(
    model: PreTrainedModel,
    ids: Tensor,
    attention: Tensor,
    positions: Tensor,
    cache: Cache | None = None,
) -> Tensor:
    """Return a trunk's last hidden states, (N, S, H).

    Args:
        model: the whole model.
        ids: (N, S), the ids after the cached ones.
        attention: (N, C + S), 1 = real id, C ids of them in the cache.
        positions: (N, S), the place of each id in its own text, from 0.
        cache: keys and values of earlier ids; grows by these ids.
    """
    trunk = trunk_of(model)
    takes = _arguments(type(trunk).forward)
    if "cache_params" in takes:  # state spaces: no positions, and a mask for a prompt alone
        prompt = ids.shape[1] == attention.shape[1]
        options = {"cache_params": cache, "attention_mask": attention if prompt else None}
    else:
        options = {
            "past_key_values": cache,
            "attention_mask": attention,
            "position_ids": positions,
        }
    output = trunk(input_ids=ids, use_cache=cache is not None, **options)
    return output.last_hidden_state.to(ids.device)


@lru_cache
def _arguments(forward: Callable[..., object]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)
