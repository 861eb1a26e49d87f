"""Search in the passages of a folder, as a tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from maporl_env.tasks.published.passages import PassageIndex, read_folder

LONGEST_QUERY = 1000
"""Characters of a query that are read."""


@dataclass(frozen=True)
class FolderSearch:
    """Returns the passages of a folder that fit a query best (BM25).

    The folder is read once, when the first of its passages is asked for or `load` is called. Only
    what lies in it is read: links are left out, to files and to folders, and a query is words,
    never a path.

    Attributes:
        folder: of .txt, .md and .jsonl files; see `passages.read_folder`.
        count: the most passages of a result.
        passage_chars: the most characters of each.
    """

    folder: Path
    count: int = 3
    passage_chars: int = 300
    name = "search"
    use = "words to search for in a collection of texts; you get the passages that fit best."

    def load(self) -> FolderSearch:
        """Read the folder now; return this tool.

        Raises:
            FileNotFoundError: no such folder.
            ValueError: there is no passage in it, or it cannot be read.
        """
        _ = self._index
        return self

    @cached_property
    def _index(self) -> PassageIndex:
        return PassageIndex(read_folder(self.folder, links=False))

    def run(self, inputs: Sequence[str]) -> list[str]:
        """Return the best passages for each query, one a line."""
        return [self._found(query[:LONGEST_QUERY]) for query in inputs]

    def _found(self, query: str) -> str:
        passages = map(str, self._index.search(query, self.count))
        lines = [
            text if len(text) <= self.passage_chars else text[: self.passage_chars] + " [...]"
            for text in passages
        ]
        return "\n".join(lines) or "no passage has any of these words"
