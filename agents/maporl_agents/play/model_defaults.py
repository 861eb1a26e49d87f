"""Drawing by a model's own generation settings, where the settings of a run leave it open.

Built-in models have none. `generate` in transformers goes by the file generation_config.json beside
the weights; a run takes its `temperature`, `top_k`, `top_p` and `min_p` where the file samples
(`do_sample`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from maporl_agents.config import Sampling, Truncation
from maporl_agents.models.sources.hub_check import require_found
from maporl_agents.models.sources.model_download import local_name
from maporl_agents.tiny import MODELS
from maporl_env.user_functions import PYTHON, object_named

FILE = "generation_config.json"
"""Beside the weights of a model."""
Said = Mapping[str, Mapping[str, Any]]
"""Generation settings by the model that they are of."""


def with_model_defaults(sampling: Sampling, models: Sequence[str]) -> tuple[Sampling, str]:
    """Return settings with the temperature and truncation of the models, and what was filled in.

    Args:
        sampling: None in `top_k`, `top_p` and `min_p` is open, and stays None where models keep all
            tokens. A `temperature` of 1 is open with `model_temperature`.
        models: of the agents. Where their own settings differ, all tokens are kept, at the
            temperature 1.

    Returns:
        The settings; and a sentence, "" if no model names anything that is taken.
    """
    said = _said_by(models)
    sampling, warmth = _with_temperature(sampling, said)
    sampling, cut = _with_truncation(sampling, said)
    return sampling, "; ".join(filter(None, [warmth, cut]))


def _said_by(models: Sequence[str]) -> Said:
    """Return the generation settings of each model, in order; each is read once."""
    return {name: generation_settings(name) for name in dict.fromkeys(models)}


def _with_temperature(sampling: Sampling, said: Said) -> tuple[Sampling, str]:
    """Return settings with the temperature of the models where it is open; see above."""
    own = {name: own_temperature(name, settings) for name, settings in said.items()}
    if sampling.temperature != 1 or not sampling.model_temperature or set(own.values()) == {1.0}:
        return sampling, ""
    if len(set(own.values())) > 1:
        return sampling, (
            "the models' generation settings differ in temperature ("
            + ", ".join(f"{name}: {heat:g}" for name, heat in own.items())
            + "), so it is 1: set --sampling.temperature for all of them"
        )
    heat = next(iter(own.values()))
    return replace(sampling, temperature=heat), (
        f"drawing at temperature {heat:g}, as the generation settings of {', '.join(own)} say; "
        "--sampling.temperature sets another value, --sampling.no-model-temperature keeps 1"
    )


def own_temperature(name: str, said: Mapping[str, Any]) -> float:
    """Return the temperature that the generation settings of a model name, or 1.

    Raises:
        ValueError: it is no number above 0; names the file.
    """
    if said.get("do_sample") is not True or said.get("temperature") is None:
        return 1.0
    heat = said["temperature"]
    if isinstance(heat, bool) or not isinstance(heat, int | float) or not 0 < heat < math.inf:
        raise ValueError(
            f"{FILE} of {name!r}: temperature must be a number above 0, not {heat!r}; repair it, "
            "or set --sampling.no-model-temperature"
        )
    return float(heat)


def _with_truncation(sampling: Sampling, said: Said) -> tuple[Sampling, str]:
    own = {name: own_truncation(name, settings) for name, settings in said.items()}
    differ = len(set(own.values())) > 1
    taken = Truncation() if differ else next(iter(own.values()))
    told = [
        name
        for name in Truncation._fields
        if getattr(sampling, name) is None and any(_says(one, name) for one in own.values())
    ]
    if not told:
        return sampling, ""
    filled = replace(sampling, **{name: getattr(taken, name) for name in told})
    flags = ", ".join(f"--sampling.{name.replace('_', '-')}" for name in told)
    if differ:
        return filled, (
            "the models' generation settings differ in which tokens they leave out ("
            + "; ".join(f"{name}: {_words(one, told)}" for name, one in own.items())
            + f"), so none is left out: set {flags} for all of them"
        )
    names = ", ".join(own)
    return filled, (
        f"drawing with {_words(taken, told)}, as the generation settings of {names} say; {flags} "
        "set another value"
    )


def kept_open(sampling: Sampling, saved: Sampling, models: Sequence[str] = ()) -> Sampling:
    """Return settings in which what is open is as in those of a saved run of these models."""
    names = [name for name in Truncation._fields if getattr(sampling, name) is None]
    if models:
        sampling, _ = _with_temperature(sampling, _said_by(models))
    return replace(sampling, **{name: getattr(saved, name) for name in names})


def _says(own: Truncation, name: str) -> bool:
    return bool(getattr(own, name) != getattr(Truncation(), name))


def _words(own: Truncation, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {getattr(own, name):g}" for name in names)


def own_truncation(name: str, said: Mapping[str, Any]) -> Truncation:
    """Return the truncation that the generation settings of a model name, or none.

    Raises:
        ValueError: a value is outside the range of `Sampling`; names the file.
    """
    if said.get("do_sample") is not True:  # then `generate` is greedy, and reads none of them
        return Truncation()
    given = {one: said[one] for one in Truncation._fields if said.get(one) is not None}
    try:
        return Sampling(**given).truncation or Truncation()
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{FILE} of {name!r}: {error}; repair it, or set the option of --sampling"
        ) from error


def generation_settings(name: str) -> Mapping[str, Any]:
    """Return the generation settings of a model, a folder's or a hub's; {} if it has none."""
    if name in MODELS:
        return {}
    if name.startswith(f"{PYTHON}:"):
        given = object_named(name)
        model = given[0] if isinstance(given, tuple) and given else None
        own = getattr(model, "generation_config", None)
        return {} if own is None else own.to_diff_dict()
    file = _file(local_name(name))
    if file is None:
        return {}
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}): repair or remove it") from error
    return said if isinstance(said, dict) else {}


def _file(name: str) -> Path | None:
    if (folder := Path(name)).is_dir():
        return folder / FILE if (folder / FILE).is_file() else None
    try:
        require_found(name)  # or the hub's library repeats its requests for minutes
        found = cached_file(name, FILE, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError):  # no such model: loading it says so, and what to do
        return None
    return None if found is None else Path(found)
