"""Device placement: on which device, or several GPUs (`device_map`), each agent's models run."""

from __future__ import annotations

from typing import Any

import torch

from maporl_agents.config import TeamConfig
from maporl_agents.text.tokenizer_files import first_line


def agent_devices(config: TeamConfig, num_agents: int) -> list[str]:
    """Return the device of each agent's models: those of `devices`, or `device` for all.

    Raises:
        ValueError: there is not one per agent, or agents that share a policy have different ones.
    """
    named = config.devices or (config.device,)
    if len(named) not in (1, num_agents):
        raise ValueError(
            f"team.devices names {len(named)} devices for {num_agents} agents: name one for all or "
            "one per agent"
        )
    if config.sharing == "one" and len(set(named)) > 1:
        raise ValueError(
            "team.devices: with sharing='one' all agents have one policy, which is on one device: "
            "name one, or choose sharing='agent'"
        )
    return list(named) * (num_agents if len(named) == 1 else 1)


def pick_device(device: str) -> torch.device:
    """Return the device; "auto" is a GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {device!r} cannot be used here ({first_line(error)}); "
            "choose auto, cpu, or cuda where there is a GPU"
        ) from error


def placement_options(config: TeamConfig, device: torch.device) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for placement; {} for a model moved when loaded.

    With `device_map` "auto" accelerate spreads the layers over the GPUs.
    """
    if config.device_map == "auto":
        return {"device_map": "auto"}
    if config.quantization != "none":  # layers are quantised as they arrive at a device
        return {"device_map": {"": device}}
    return {}
