"""Weight synchronisation: newly trained adapters, and how inference servers are sent them.

Each version of the adapters is written to files under names that were never used before (`add`);
a server then loads the files of those that changed (`send_newest`). `vllm_engine` does so after
every update, and meets servers that were lost and are back.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from maporl_agents import distributed
from maporl_agents.models.lora import LoraBase
from maporl_agents.models.team import Team
from maporl_agents.play.vllm_client import VLLMClient
from maporl_agents.play.weights_check import copies
from maporl_env.services.http_json import RemoteRefused


@dataclass(frozen=True)
class Version:
    """The adapters as they were at one time, and their names on the servers.

    Attributes:
        number: counted from 0.
        names: adapter -> name.
        weights: trained adapter -> its weights then.
        before: those of the version before, {} at first.
    """

    number: int
    names: Mapping[str, str]
    weights: Mapping[str, Mapping[str, Tensor]]
    before: Mapping[str, Mapping[str, Tensor]]


class Published:
    """The versions of a team's adapters, in files that servers load.

    Args:
        team: the team; bases without adapters are left out.
        folder: of the files, one folder below it for each name.
        kept: versions whose files stay besides the newest.

    Attributes:
        versions: those whose files stay, oldest first.
        fixed: adapter that is not trained -> its one name.
    """

    def __init__(self, team: Team, folder: Path, kept: int) -> None:
        self.team = team
        self.folder = folder.absolute()
        self.kept = kept
        self.versions: list[Version] = []
        self.fixed: dict[str, str] = {}
        self._made = 0
        self._refreshed: int | None = None

    @property
    def due(self) -> bool:
        """Whether the weights have changed since the newest version."""
        return self._refreshed != self.team.refreshed

    def adapters(self) -> dict[str, LoraBase]:
        """Return the adapters that speak, each with its base."""
        return {
            adapter: base
            for base in self.team.bases
            if isinstance(base, LoraBase)
            for policy in base.policies
            if (adapter := base.adapter_of(policy)) is not None
        }

    def rank(self, adapter: str) -> int:
        """Return the rank of an adapter."""
        return int(self.adapters()[adapter].peft.peft_config[adapter].r)

    def add(self) -> Version:
        """Write the weights of now as a new version, under names that were never used.

        Files have the number format of the base, which servers round adapters to (peft trains those
        of a 16-bit base in float32). Of several ranks the first writes the files, and all have the
        same names.
        """
        own = distributed.first(lambda: secrets.token_hex(4))
        before = self.versions[-1].weights if self.versions else {}
        names: dict[str, str] = {}
        weights: dict[str, Mapping[str, Tensor]] = {}
        for adapter, base in self.adapters().items():
            if adapter in base.trained:
                weights[adapter] = copies(base.adapter_weights(adapter))
            elif adapter in self.fixed:
                names[adapter] = self.fixed[adapter]
                continue
            names[adapter] = f"{adapter}@{self._made}-{own}"
            file = self.folder / names[adapter]
            distributed.first(partial(base.save_adapter, adapter, file, base.model.dtype))
            if adapter not in base.trained:
                self.fixed[adapter] = names[adapter]
        version = Version(self._made, names, weights, before)
        self._made += 1
        self._refreshed = self.team.refreshed
        self.versions.append(version)
        return version

    def send_newest(self, server: VLLMClient, *, whole: bool) -> None:
        """Push the adapters of the newest version to a server.

        Args:
            server: which loads them from their files.
            whole: send also those that are not trained, which a server keeps once it has them.

        Raises:
            RemoteError: the server is lost, or refuses an adapter.
        """
        version = self.versions[-1]
        for adapter, name in version.names.items():
            if whole or adapter not in self.fixed or not version.number:
                self.send(server, adapter, name)

    def send(self, server: VLLMClient, adapter: str, name: str) -> None:
        """Let a server load a version of an adapter by its name."""
        try:
            server.load(name, self.folder / name, self.rank(adapter))
        except RemoteRefused as error:
            if "already" not in str(error):  # another thread was first
                raise

    def drop(self) -> list[str]:
        """Remove the files of versions that are older than those kept; return their names."""
        old, self.versions = self.versions[: -1 - self.kept], self.versions[-1 - self.kept :]
        return self._remove({name for one in old for name in one.names.values()})

    def clear(self) -> list[str]:
        """Remove the files of all versions; return their names."""
        names = {name for one in self.versions for name in one.names.values()}
        self.versions, self.fixed = [], {}
        return self._remove(names)

    def _remove(self, names: set[str]) -> list[str]:
        gone = sorted(names - set(self.fixed.values()))
        for name in gone if distributed.is_first() else ():
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return gone
