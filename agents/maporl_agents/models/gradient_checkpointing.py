"""Gradient checkpointing: keep only the input of each layer, and recompute it backward.

transformers does so in training mode alone, in which dropout is on too. Here models stay in eval
mode; only the layers themselves are told to train, only while a gradient is recorded, and only
until their own code begins: some layers ask `self.training` whether to drop values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def enable_recompute(model: PreTrainedModel, **options: Any) -> None:
    """Turn gradient checkpointing on; it acts inside `recomputing`.

    Args:
        model: changed in place.
        **options: for `torch.utils.checkpoint.checkpoint`.

    Raises:
        ValueError: the architecture has no layers that can be recomputed.
    """
    if not any(_layers(model)):
        raise ValueError(
            f"{type(model).__name__} cannot recompute its layers: leave out gradient_checkpointing"
        )
    # Reentrant checkpointing loses the gradient where the layer's input needs none, as on a frozen
    # base. Nothing in a layer is random, so there is no random state to keep.
    options = {"use_reentrant": False, "preserve_rng_state": False} | options
    if hasattr(model, "activation_checkpointing_enable"):  # its name in newer transformers
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    for layer in _layers(model):
        keep = layer._gradient_checkpointing_func
        layer._gradient_checkpointing_func = partial(_without_dropout, layer, keep)


def _without_dropout(layer: nn.Module, keep: Callable[..., Any], run: Any, *inputs: Any) -> Any:
    """Checkpoint a layer's forward pass, which finds the layer in eval mode, both times it runs."""

    def in_eval_mode(*given: Any) -> Any:
        training, layer.training = layer.training, False
        try:
            return run(*given)
        finally:
            layer.training = training

    return keep(in_eval_mode, *inputs)


@contextmanager
def without_notice() -> Iterator[None]:
    """Hide transformers' notice of an old name for gradient checkpointing, which peft asks by."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """Checkpoint the layers of a prepared model inside the block, if gradients are recorded."""
    layers = [layer for layer in _layers(model) if layer.gradient_checkpointing]
    for layer in layers:
        layer.training = torch.is_grad_enabled()
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


def _layers(model: nn.Module) -> Iterator[GradientCheckpointingLayer]:
    return (layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer))
