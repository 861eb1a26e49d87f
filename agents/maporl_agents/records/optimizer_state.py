"""Saves and restores the state of an optimiser, by parameter name instead of position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maporl_agents.records.storage import CheckpointError, require_plain

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


def optimizer_state(
    optimizer: Optimizer, names: Mapping[Any, str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimiser's whole state as tensors and JSON, by parameter name instead of position.

    Args:
        optimizer: any torch optimiser whose state is per parameter.
        names: a name for each of its parameters, by the parameter itself or its `id`.

    Returns:
        (tensors, state). `tensors` maps "<parameter>/<moment>" to a copy of the moment, the step
        count included. `state` holds the kind, hyperparameters per group, and for each parameter
        its shape, the shapes of its moments and what of its state is not a tensor.

    Raises:
        ValueError: if a parameter has no name, two share one, or a setting is not a JSON value.
    """
    tensors: dict[str, Tensor] = {}
    parameters: dict[str, Any] = {}
    groups = []
    for group, members in zip(optimizer.param_groups, _named(optimizer, names), strict=True):
        settings = {key: value for key, value in group.items() if key != "params"}
        require_plain(settings, "optimizer")
        groups.append({"parameters": list(members), "settings": settings})
        for name, parameter in members.items():
            moments, values = _split(optimizer.state.get(parameter, {}))
            tensors |= {f"{name}/{key}": value.clone() for key, value in moments.items()}
            parameters[name] = {
                "shape": list(parameter.shape),
                "moments": {key: list(value.shape) for key, value in moments.items()},
                "values": values,
            }
    kind = type(optimizer).__name__
    return tensors, {"kind": kind, "groups": groups, "parameters": parameters}


def load_optimizer_state(
    optimizer: Optimizer,
    names: Mapping[Any, str],
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> None:
    """Give an optimiser the state that `optimizer_state` returned, bitwise.

    Settings of the groups (learning rate, betas, ...) become the saved ones.

    Raises:
        ValueError, CheckpointError: as `require_fitting`. The optimiser is then unchanged.
    """
    require_fitting(optimizer, names, tensors, state)
    named = _named(optimizer, names)
    for group, members, saved in zip(optimizer.param_groups, named, state["groups"], strict=True):
        for key, value in saved["settings"].items():
            group[key] = tuple(value) if isinstance(value, list) else value
        on_device = bool(group.get("capturable") or group.get("fused"))  # where torch counts steps
        for name, parameter in members.items():
            entry = state["parameters"][name]
            moments = {key: tensors[f"{name}/{key}"].clone() for key in entry["moments"]}
            optimizer.state.pop(parameter, None)
            if moments or entry["values"]:
                optimizer.state[parameter] = {
                    key: _placed(key, value, parameter, on_device) for key, value in moments.items()
                } | entry["values"]


def require_fitting(
    optimizer: Optimizer, names: Mapping[Any, str], tensors: Mapping[str, Tensor], state: Any
) -> None:
    """Check that a saved state is one that `load_optimizer_state` can give an optimiser.

    Raises:
        CheckpointError: it is none that `optimizer_state` returns: of another form, or with numbers
            that are not finite or, where they count or are squares, negative.
        ValueError: kind, groups, names or shapes differ, or a moment is missing, too many or of
            another shape; names what differs.
    """
    if not _well_formed(state):
        raise CheckpointError("the optimizer's state is not of the form that is saved")
    problems = _mismatches(optimizer, _named(optimizer, names), tensors, state)
    if problems:
        raise ValueError("The saved optimizer state does not fit: " + "; ".join(problems) + ".")
    if impossible := _impossible(tensors, state):
        raise CheckpointError(f"the optimizer's state is impossible: {impossible}")


def _well_formed(state: Any) -> bool:
    """Whether a saved state has the fields that `optimizer_state` gives it, each of its type."""
    return (
        _has(state, kind=str, groups=list, parameters=dict)
        and all(
            _has(group, parameters=list, settings=dict)
            and "params" not in group["settings"]
            and all(isinstance(name, str) for name in group["parameters"])
            and set(group["parameters"]) <= state["parameters"].keys()
            for group in state["groups"]
        )
        and all(
            _has(entry, shape=list, moments=dict, values=dict)
            and entry["moments"].keys().isdisjoint(entry["values"])
            for entry in state["parameters"].values()
        )
    )


def _has(value: Any, **fields: type) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == fields.keys()
        and all(isinstance(value[name], kind) for name, kind in fields.items())
    )


ADAM = {"step", "exp_avg", "exp_avg_sq"}
"""The state that torch's Adam and AdamW keep for a parameter, once it has had a gradient."""


def _impossible(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> str | None:
    """Return the first value of a state that no optimiser can have; None if there is none."""
    for name, entry in state["parameters"].items():
        moments = entry["moments"]
        if state["kind"] in ("Adam", "AdamW"):
            kept = moments.keys() - {"max_exp_avg_sq"}
            if entry["values"] or kept not in (set(), ADAM):
                return f"{name} has {sorted({*moments, *entry['values']})}"
            if any(shape != entry["shape"] for key, shape in moments.items() if key != "step"):
                return f"a moment of {name} has another shape than {name}"
        for key in moments:
            value = tensors[f"{name}/{key}"]
            if not value.isfinite().all():
                return f"{name}/{key} is not finite"
            if key in ("step", "exp_avg_sq", "max_exp_avg_sq") and (value < 0).any():
                return f"{name}/{key} is negative"
    return None


def _placed(key: str, value: Tensor, parameter: Tensor, on_device: bool) -> Tensor:
    """Return a moment where and in the format that torch keeps it for a parameter."""
    if key == "step":
        return value.to(parameter.device) if on_device else value
    return value.to(parameter.device, parameter.dtype)


def _named(optimizer: Optimizer, names: Mapping[Any, str]) -> list[dict[str, Tensor]]:
    """Return the parameters of each group by name."""
    by_id = {key if isinstance(key, int) else id(key): name for key, name in names.items()}
    groups, used = [], set()
    for group in optimizer.param_groups:
        members = {}
        for parameter in group["params"]:
            name = by_id.get(id(parameter))
            if name is None:
                shape = tuple(parameter.shape)
                raise ValueError(f"A parameter of shape {shape} in the optimizer has no name.")
            if name in used:
                raise ValueError(f"Two parameters in the optimizer are named {name!r}.")
            used.add(name)
            members[name] = parameter
        groups.append(members)
    return groups


def _split(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a parameter's state as (tensors, everything else)."""
    import torch

    moments = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    values = {key: value for key, value in state.items() if key not in moments}
    require_plain(values, "optimizer")
    return moments, values


def _mismatches(
    optimizer: Optimizer,
    named: list[dict[str, Tensor]],
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> list[str]:
    """Return all ways in which a saved state does not fit an optimiser, as clauses."""
    kind, groups = type(optimizer).__name__, state["groups"]
    if kind != state["kind"]:
        return [f"it is of {state['kind']}, the optimizer is {kind}"]
    if len(groups) != len(named):
        return [f"it has {len(groups)} parameter groups, the optimizer {len(named)}"]
    problems = []
    for index, (members, group) in enumerate(zip(named, groups, strict=True)):
        saved = set(group["parameters"])
        problems += [f"{name} is new in group {index}" for name in sorted(members.keys() - saved)]
        problems += [
            f"{name} is gone from group {index}" for name in sorted(saved - members.keys())
        ]
        for name in sorted(members.keys() & saved):
            was, now = state["parameters"][name]["shape"], list(members[name].shape)
            problems += [f"{name} has shape {now}, saved {was}"] if was != now else []
    return problems + _tensor_mismatches(tensors, state)


def _tensor_mismatches(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> list[str]:
    """Return clauses on saved tensors that differ from the description in the saved state."""
    described = {
        f"{name}/{key}": shape
        for name, entry in state["parameters"].items()
        for key, shape in entry["moments"].items()
    }
    problems = [f"{key} is missing" for key in sorted(described.keys() - tensors.keys())]
    problems += [f"{key} is unknown" for key in sorted(tensors.keys() - described.keys())]
    for key in sorted(described.keys() & tensors.keys()):
        was, now = described[key], list(tensors[key].shape)
        problems += [f"{key} has shape {now}, not {was}"] if was != now else []
    return problems
