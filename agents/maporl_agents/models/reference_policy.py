"""The reference policy of the KL penalty and of DPO: frozen, as the trained policy began.

How it is held in memory depends on what is trained:

- all weights (`bases.FullBase`): a frozen copy of the model, `frozen_copy`;
- LoRA adapters (`lora.LoraBase`): the base with its adapters switched off, or a frozen copy of the
  adapter that the policy began as, `reference_adapters`.

A base runs it where `hidden`, `states` or `logits` are called with ``reference=True``. Its
log-probabilities are computed in `update.reference_logprobs`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedModel

NO_ADAPTER = "__base__"
"""The name under which peft runs a row through the base alone."""


def frozen_copy(
    model: PreTrainedModel, *, trained: bool, given: PreTrainedModel | None = None
) -> PreTrainedModel:
    """Return the reference model of a model without adapters, without gradient.

    Args:
        model: as it begins.
        trained: whether its weights are trained; else it is its own reference, and no copy is made.
        given: a frozen reference model that bases share, in place of a copy.
    """
    if given is None:
        given = copy.deepcopy(model) if trained else model
    return given.eval().requires_grad_(False)


def reference_adapters(
    policies: Sequence[str], starts: Mapping[str, Path]
) -> tuple[dict[str, str], dict[str, Path]]:
    """Return the adapter that is the reference of each policy, and the folders of these adapters.

    Args:
        policies: names.
        starts: policy -> folder of the saved adapter it begins as. Of the others the reference is
            the base with adapters off, `NO_ADAPTER`.
    """
    names = {folder: f"start_{i}" for i, folder in enumerate(dict.fromkeys(starts.values()))}
    references = {
        policy: names[starts[policy]] if policy in starts else NO_ADAPTER for policy in policies
    }
    return references, {adapter: folder for folder, adapter in names.items()}
