"""FSDP: a frozen base whose layers are sharded over the processes of a run (FSDP2, `fully_shard`).

For bases that are too large for each process. A layer is gathered before it computes and freed
afterwards, so that all processes have to run equally many passes, forward and backward; adapters,
embeddings and the output head stay whole on each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from maporl_agents import distributed
from maporl_agents.models.team import Team
from maporl_agents.models.trunk import trunk_of

if TYPE_CHECKING:
    from maporl_agents.models.lora import LoraBase  # with peft, which takes a second to import


def shard(base: LoraBase) -> None:
    """Spread the layers of a base over all ranks; its trunk is then read by the model's modules.

    Each layer is gathered when it is called, forward and backward, by all ranks at the same time.
    Adapters stay whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layers = decoder_layers(trunk_of(base.model))
    named = [pair for layer in layers for pair in layer.named_parameters()]
    adapters = {parameter for name, parameter in named if ".lora_" in name}
    for _, parameter in named:
        parameter.data = parameter.data.contiguous()  # they may lie column by column
    mesh = init_device_mesh(next(layers[0].parameters()).device.type, (distributed.count(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=adapters)
    for reader in base.readers:
        reader.lean = None  # which computes without calling the layers
    base.sharded = True


def shard_bases(team: Team) -> None:
    """Spread every base with trained adapters over all ranks, if there are several."""
    if distributed.count() > 1:
        from maporl_agents.models.lora import LoraBase

        for base in team.bases:
            if isinstance(base, LoraBase):
                shard(base)


def decoder_layers(trunk: nn.Module) -> list[nn.Module]:
    """Return the layers of a trunk: its list of modules with the most weights."""
    lists = [module for module in trunk.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(
            f"{type(trunk).__name__} has no list of layers to spread over processes: leave out "
            "team.shard_base"
        )
    sizes = [sum(parameter.numel() for parameter in layers.parameters()) for layers in lists]
    return list(lists[sizes.index(max(sizes))])


def runs_together(team: Team) -> bool:
    """Return whether ranks have to run their passes at the same time."""
    return any(base.sharded for base in team.bases)
