"""The whole state of an optimiser as tensors and JSON, by parameter name instead of position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maporl_agents.storage import require_plain

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
        tensors: "<parameter>/<moment>" to a copy of the moment, the step count included.
        state: kind, hyperparameters per group, and for each parameter its shape, the shapes of its
            moments and what of its state is not a tensor.

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
        ValueError: if kind, groups, names or shapes differ, or a moment is missing, too many or of
            another shape; names what differs. The optimiser is then unchanged.
    """
    named = _named(optimizer, names)
    problems = _mismatches(optimizer, named, tensors, state)
    if problems:
        raise ValueError("The saved optimizer state does not fit: " + "; ".join(problems) + ".")
    for group, members, saved in zip(optimizer.param_groups, named, state["groups"], strict=True):
        for key, value in saved["settings"].items():
            group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
        on_device = bool(group.get("capturable") or group.get("fused"))  # where torch counts steps
        for name, parameter in members.items():
            entry = state["parameters"][name]
            moments = {key: tensors[f"{name}/{key}"].clone() for key in entry["moments"]}
            optimizer.state.pop(parameter, None)
            if moments or entry["values"]:
                optimizer.state[parameter] = {
                    key: value if key == "step" and not on_device else value.to(parameter.device)
                    for key, value in moments.items()
                } | entry["values"]


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
    """Say all ways in which a saved state does not belong to an optimiser."""
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
    """Say where the saved tensors are not those that the saved state describes."""
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
