"""Argument checks shared by the pure tensor functions (`advantages`, `losses`).

One mask polarity everywhere: True marks a real sampled token. Values where the mask is
False are replaced by 0 *before* any arithmetic, so that NaN and infinities there can reach
neither a value nor a gradient (0 x NaN is NaN: never multiply by a mask).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor


def require_option(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ValueError, naming the valid choices, unless `value` is one of them."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        valid = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}={value!r} is not known: choose one of {valid}.")


def require_shape(name: str, tensor: Tensor, shape: tuple[int, ...], like: str) -> None:
    """Raise ValueError, naming both shapes, unless `tensor` has the given one."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, but {like} calls for {tuple(shape)}."
        )


def require_mask(mask: Tensor, *, dims: int | None = None) -> None:
    """Raise ValueError unless `mask` is boolean and has `dims` axes (None: any number)."""
    shape = tuple(mask.shape)
    if mask.dtype != torch.bool:
        raise ValueError(
            f"mask of shape {shape} has dtype {mask.dtype}: it must be torch.bool, "
            "True = a real sampled token."
        )
    if dims is not None and mask.dim() != dims:
        raise ValueError(f"mask has shape {shape}: it needs {dims} axes, (sequences B, tokens L).")


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the widest dtype among the tensors, but at least float32.

    Raises:
        ValueError: if a tensor is complex.
    """
    for tensor in tensors:
        if tensor.is_complex():
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)} is complex: pass reals.")
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)


def real_only(mask: Tensor, **tensors: Tensor) -> list[Tensor]:
    """Return the tensors in their working dtype, with 0 wherever `mask` is False.

    Args:
        mask: boolean, any shape.
        **tensors: named as the caller's arguments, each of the shape of `mask`.

    Raises:
        ValueError: if a shape differs from the mask's or the mask is not boolean.
    """
    require_mask(mask)
    for name, tensor in tensors.items():
        require_shape(name, tensor, mask.shape, like="mask")
    dtype = working_dtype(*tensors.values())
    return [torch.where(mask, tensor.to(dtype), 0.0) for tensor in tensors.values()]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device: all moves between the devices of a team's models."""
    return tensor.to(device)
