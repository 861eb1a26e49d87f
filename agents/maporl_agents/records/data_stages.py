"""Data stages of MALT: JSONL files, each made once and kept while its inputs are the same.

A run that was interrupted continues after the last complete file. ``manifest.json`` beside the
files holds, for each, its SHA-256, its number of rows and a digest of what it was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from maporl_agents import distributed
from maporl_agents.records.storage import CheckpointError, load_json, write_text

MANIFEST = "manifest.json"

Rows = list[dict[str, Any]]


def digest(value: Any) -> str:
    """Return a digest of a JSON value; equal values have equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Stages:
    """The files of one folder.

    Args:
        folder: made with its first file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, name: str, made_from: str, make: Callable[[], Iterable[dict[str, Any]]]) -> Rows:
        """Return the rows of a file, which is made if it is not there or made from other things.

        Of several ranks all make the rows, and the first has the file.

        Args:
            name: of the file, e.g. "trees.jsonl".
            made_from: a digest of everything that `make` depends on.
            make: returns the rows, each a JSON object.

        Raises:
            CheckpointError: the file is there and was altered since it was made.
        """
        if distributed.first(lambda: self._lacks(name, made_from)):
            made = make()
            distributed.first(lambda: self._write(name, made_from, made))
        return distributed.first(lambda: self._read(name))

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file that this folder holds."""
        return str(self._entries()[name]["sha256"])

    def _lacks(self, name: str, made_from: str) -> bool:
        entry = self._entries().get(name)
        there = (self.folder / name).is_file()
        return not there or entry is None or bool(entry["made_from"] != made_from)

    def _entries(self) -> dict[str, dict[str, Any]]:
        path = self.folder / MANIFEST
        return load_json(path) if path.is_file() else {}

    def _write(self, name: str, made_from: str, rows: Iterable[dict[str, Any]]) -> None:
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows]
        text = "".join(lines)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / name, text)
        entry = {"sha256": _sha256(text), "rows": len(lines), "made_from": made_from}
        entries = self._entries() | {name: entry}
        write_text(self.folder / MANIFEST, json.dumps(entries, indent=1) + "\n")

    def _read(self, name: str) -> Rows:
        path = self.folder / name
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}. {_WAY_OUT}") from error
        if _sha256(text) != self._entries()[name]["sha256"]:
            raise CheckpointError(f"{path} was altered since it was made. {_WAY_OUT}")
        return [json.loads(line) for line in text.split("\n")[:-1]]


_WAY_OUT = "Restore it, or remove it: it is then made again."


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
