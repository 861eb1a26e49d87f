"""Old import paths of modules that have moved: they still work, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Moved(MetaPathFinder, Loader):
    """Finds the modules of one package under the paths that they had before.

    Args:
        paths: old path -> new path, both dotted and complete.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self.paths = paths
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the import spec of a moved module; None for any other."""
        return ModuleSpec(fullname, self) if fullname in self.paths else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module from its new path."""
        new = self.paths[spec.name]
        warnings.warn(f"{spec.name} has moved to {new}", DeprecationWarning, stacklevel=6)
        module = importlib.import_module(new)
        self._specs[module.__name__] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module, which is loaded already, its own spec back."""
        module.__spec__ = self._specs[module.__name__]


def forward(package: str, paths: Mapping[str, str]) -> None:
    """Let modules of a package be imported from where they were before.

    Args:
        package: its import name.
        paths: old path -> new path, relative to the package.
    """
    sys.meta_path.append(
        _Moved({f"{package}.{old}": f"{package}.{new}" for old, new in paths.items()})
    )
