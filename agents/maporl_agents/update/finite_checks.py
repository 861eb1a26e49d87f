"""NaN and infinity stop a run: in a loss or gradient before the update, in weights after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

REMEDY = "Look at the last transcripts of the run, or lower the learning rate"


def not_finite(what: str, value: Tensor) -> FloatingPointError:
    """Return an error that names a value that became infinite or NaN before an update."""
    return FloatingPointError(
        f"{what} became {float(value.detach())}; this update was not made. {REMEDY}"
    )


def require_finite(trained: Mapping[str, Sequence[Tensor]]) -> None:
    """Check the trained weights after an update, by the largest of each policy or critic.

    Raises:
        FloatingPointError: one is infinite or NaN; the message names its policy or critic.
    """
    for name, weights in trained.items():
        largest = nn.utils.get_total_norm(weights, math.inf)
        if not torch.isfinite(largest):
            raise FloatingPointError(
                f"the weights of {name} became {float(largest)} in this update, so they are not "
                f"saved; the last checkpoint has them as they were. {REMEDY}"
            )
