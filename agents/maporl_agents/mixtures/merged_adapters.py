"""Collaboration by weights: one adapter from those of a team.

    merge([run / "policies" / name for name in ("agent_0", "agent_1")], Path("merged"))

- uniform: the mean of the changes, a "soup" (Wortsman et al., arXiv 2203.05482);
- task arithmetic: the sum of the changes times a coefficient (Ilharco et al., arXiv 2212.04089).

The change of an adapter is scale x B A, and changes are added exactly (peft's "cat"): the merged
adapter has the sum of the ranks. Nothing is trained. The result is an adapter as any other:
`--team.start-from`, `peft.PeftModel.from_pretrained`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel
from transformers import AutoModelForCausalLM

from maporl_agents.models.adapter_config import adapter_config

How = Literal["uniform", "task_arithmetic"]


def weights_of(how: How, count: int, coefficient: float = 1.0) -> list[float]:
    """Return the weight of each of `count` changes.

    Raises:
        ValueError: an unknown way, or a coefficient that is not finite or, for a mean, not 1.
    """
    if not math.isfinite(coefficient):
        raise ValueError(f"coefficient must be a finite number, not {coefficient}")
    if how == "task_arithmetic":
        return [coefficient] * count
    if how != "uniform":
        raise ValueError(f"unknown way to merge {how!r}: choose one of uniform, task_arithmetic")
    if coefficient != 1:
        raise ValueError("a mean has no coefficient: leave it out, or choose task_arithmetic")
    return [1 / count] * count


def merge(
    adapters: Sequence[Path], folder: Path, *, how: How = "uniform", coefficient: float = 1.0
) -> Path:
    """Write one adapter that changes the base as several do together; return its folder.

    Args:
        adapters: folders of at least two adapters of one base, as a run or peft saves them.
        folder: of the merged adapter; must not exist.
        how: see the module.
        coefficient: of the sum, for task arithmetic.

    Raises:
        ValueError: fewer than two adapters, different bases, adapters that peft cannot add, or an
            unknown way to merge.
        FileExistsError: there is something at `folder`.
        FileNotFoundError: a folder holds no adapter.
    """
    if len(adapters) < 2:
        raise ValueError(f"merging takes at least two adapters, not {len(adapters)}")
    weights = weights_of(how, len(adapters), coefficient)
    if folder.exists():
        raise FileExistsError(f"{folder} exists: name a new folder")
    bases = {path: str(adapter_config(path).base_model_name_or_path) for path in adapters}
    if len(set(bases.values())) > 1:
        raise ValueError(
            f"adapters of different bases cannot be merged: {sorted(set(bases.values()))}"
        )
    model = AutoModelForCausalLM.from_pretrained(next(iter(bases.values())))
    names = [f"adapter_{place}" for place in range(len(adapters))]
    merged: Any = PeftModel.from_pretrained(model, str(adapters[0]), adapter_name=names[0])
    for name, path in zip(names[1:], adapters[1:], strict=True):
        merged.load_adapter(str(path), adapter_name=name)
    try:
        merged.add_weighted_adapter(names, weights, "merged", combination_type="cat")
    except (ValueError, TypeError, NotImplementedError, KeyError) as error:
        raise ValueError(f"peft cannot add these adapters ({error})") from error
    merged.save_pretrained(str(folder), selected_adapters=["merged"])
    return _at_the_top(folder, weights)


def _at_the_top(folder: Path, weights: Sequence[float]) -> Path:
    """Move what peft saves in a sub-folder of the adapter's name to `folder` itself."""
    inner = folder / "merged"
    for path in sorted(inner.iterdir()):
        path.replace(folder / path.name)
    inner.rmdir()
    (folder / "merged.json").write_text(json.dumps({"weights": list(weights)}), encoding="utf-8")
    return folder
