"""Passages of text and the search among them: Okapi BM25 (Robertson and Zaragoza, 2009).

index = PassageIndex(read_folder(Path("notes")))
index.search("Who built the bridge?", 3)
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maporl_env.tasks.files import read_rows

TEXTS = (".txt", ".md")
MAX_FOLDER_BYTES = 1 << 28
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A text with its title; `str` of it is what agents read."""

    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.title}: {self.text}" if self.title else self.text


def read_folder(folder: Path, *, links: bool = True) -> list[Passage]:
    """Return the passages of a folder: of .txt and .md files, and of .jsonl files.

    A text file is divided at blank lines, and its passages have its name as title; a row of a
    .jsonl file has a "text", and may have a "title".

    Args:
        folder: of the files.
        links: also read what symbolic links in it point to, which may lie elsewhere.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no passage in it, more than `MAX_FOLDER_BYTES`, or a file that cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of passages: {folder}")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in (*TEXTS, ".jsonl"))
    if not links:
        files = [file for file in files if _lies_in(file, folder)]
    if sum(file.stat().st_size for file in files) > MAX_FOLDER_BYTES:
        raise ValueError(f"folder {folder} holds more than {MAX_FOLDER_BYTES >> 20} MiB of text")
    found = [passage for file in files for passage in _passages(file)]
    if not found:
        raise ValueError(f"no passage in folder {folder}: put .txt, .md or .jsonl files there")
    return found


def _lies_in(file: Path, folder: Path) -> bool:
    """Return whether a path is that of a file, with no link on the way from the folder."""
    return file.is_file() and file.resolve() == folder.resolve() / file.relative_to(folder)


def _passages(file: Path) -> list[Passage]:
    if file.suffix.lower() == ".jsonl":
        rows = list(read_rows(file))
        for where, row in rows:
            if not isinstance(row.get("text"), str):
                raise ValueError(f"{where}: no text in column 'text'")
        return [Passage(str(row.get("title") or ""), row["text"]) for _, row in rows]
    text = file.read_text(encoding="utf-8", errors="replace")
    parts = (" ".join(part.split()) for part in re.split(r"\n[ \t]*\n", text))
    return [Passage(file.stem, part) for part in parts if part]


class PassageIndex:
    """The words of some passages, for search. Never changes; safe to share.

    Args:
        passages: at least one.
        saturation: BM25's k1: how soon more of a word counts no more.
        length_share: BM25's b, in [0, 1]: how far long passages are marked down.
    """

    def __init__(
        self, passages: Sequence[Passage], saturation: float = 1.2, length_share: float = 0.75
    ) -> None:
        if not passages:
            raise ValueError("an index needs at least one passage")
        self.passages = tuple(passages)
        counts = [Counter(_words(str(passage))) for passage in passages]
        lengths = np.array([max(count.total(), 1) for count in counts], dtype=np.float64)
        norm = saturation * (1 - length_share + length_share * lengths / lengths.mean())
        places: dict[str, list[tuple[int, int]]] = {}
        for place, count in enumerate(counts):
            for word, number in count.items():
                places.setdefault(word, []).append((place, number))
        self._weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for word, there in places.items():
            at, n = np.array(there, dtype=np.int64).T
            rarity = math.log(1 + (len(counts) - len(there) + 0.5) / (len(there) + 0.5))
            self._weights[word] = at, rarity * n * (saturation + 1) / (n + norm[at])

    def search(self, query: str, count: int) -> list[Passage]:
        """Return at most `count` passages that share a word with a query, the best first.

        Of equally good ones, the earlier comes first.
        """
        scores = np.zeros(len(self.passages))
        for word in dict.fromkeys(_words(query)):
            if word in self._weights:
                at, weights = self._weights[word]
                scores[at] += weights
        order = np.argsort(-scores, kind="stable")[:count]
        return [self.passages[place] for place in order if scores[place] > 0]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
