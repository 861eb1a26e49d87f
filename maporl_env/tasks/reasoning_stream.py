"""One stream of procedural items of the library reasoning-gym, divided into splits.

Item i of a data set with seed s is drawn by a random number generator with seed s + i, so items
have seeds of their own. Items are made in a process of its own, in which sets of words have one
order and whose random numbers are nobody else's: they are the same in every run. Which split an
item belongs to follows from the text of its question, so no question is in two splits, whatever the
seed and the numbers of questions are.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import math
import pickle
import threading
from collections.abc import Mapping
from typing import Any

from maporl_env.missing_extra import is_installed, missing_extra
from maporl_env.types import Question
from maporl_env.verifiers.outside_library import LibraryProcess
from maporl_env.verifiers.reasoning import library_process

SHARES = {"train": 7, "validation": 1, "test": 2}
"""Tenths of all items that belong to each split."""
SEED_STRIDE = 1_000_000
"""Between the streams of two seeds, so that they share no item."""
MAX_SEED = 4_000
"""Seeds of items stay below 2**32, as numpy asks."""
CHUNK = 8
"""Items that are made at once."""
MAKE_SECONDS = 600.0
"""On the clock, for as many items."""
NO_KEY = "any that the scorer accepts"
"""The answer key of a question to which its data set gives no answer."""
UNSUITABLE = {"composite": "it is a mixture of the others: name one of them"}


def library() -> Any:
    """Return the module of the library; ImportError names the extra where it is missing."""
    if not is_installed("reasoning_gym"):
        raise ImportError(missing_extra("a task reasoning_gym:NAME", "reasoning-gym", "reasoning"))
    return importlib.import_module("reasoning_gym")


def config_classes() -> dict[str, type]:
    """Return the settings class of every data set that can be a task, by name."""
    library()
    known = importlib.import_module("reasoning_gym.factory").DATASETS
    return {name: pair[1] for name, pair in known.items() if name not in UNSUITABLE}


def require_accepted(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings that the library refuses."""
    try:
        library().create_dataset(name, **settings)
    except (AssertionError, ValueError, TypeError, LookupError) as error:
        words = str(error) or repr(error)
        raise ValueError(f"reasoning_gym refuses these options: {words}") from error


def items_needed(counts: Mapping[str, int]) -> int:
    """Return the length of a stream in which every split has as many items, but for rare chance."""
    return max(math.ceil(10 * counts[split] / share * 1.2) + 100 for split, share in SHARES.items())


def split_of(prompt: str) -> str:
    """Return the split that a question belongs to."""
    digest = hashlib.sha256(f"reasoning_gym/{prompt}".encode("utf-8", "replace")).digest()
    part = int.from_bytes(digest[:8], "big") % 10
    return "test" if part < 2 else "validation" if part == 2 else "train"


class Stream:
    """The items of one data set, made when they are asked for. Safe to use from several threads.

    Args:
        name: of the data set.
        settings: its own settings, without seed and size.
        seed: of the stream, in [0, `MAX_SEED`].
        counts: the largest number of questions per split.
    """

    def __init__(
        self, name: str, settings: Mapping[str, Any], seed: int, counts: Mapping[str, int]
    ) -> None:
        self.name = name
        self.counts = dict(counts)
        self.settings = {**settings, "seed": SEED_STRIDE * seed, "size": items_needed(counts)}
        require_accepted(name, self.settings)
        self._maker: LibraryProcess | None = None
        self._entries: dict[int, dict[str, Any]] = {}
        self._splits: dict[str, list[Question]] = {split: [] for split in SHARES}
        self._seen: set[str] = set()
        self._next = 0
        self._lock = threading.RLock()

    def questions(self, split: str) -> list[Question]:
        """Return the questions of a split: as many as were asked for, or all there are.

        Raises:
            ValueError: there is none.
        """
        wanted, found = self.counts[split], self._splits[split]
        with self._lock:
            while len(found) < wanted and self._next < self.settings["size"]:
                self._grow()
        if not found:
            raise ValueError(
                f"task 'reasoning_gym:{self.name}' has no question for split {split!r} among its "
                f"{len(self._seen)} different ones: choose options that allow more"
            )
        return found[:wanted]

    def _grow(self) -> None:
        """Make the next items; the second of two equal questions is dropped."""
        start, size = self._next, self.settings["size"]
        stop = min(start + CHUNK, size)
        made = self._made(start, stop)
        self._next = stop if len(made) == stop - start else size  # data sets may end
        for place, entry in enumerate(made, start):
            self._add(place, entry)

    def _add(self, place: int, entry: dict[str, Any]) -> None:
        prompt = str(entry["question"])
        if prompt in self._seen:
            return
        self._seen.add(prompt)
        self._entries[place] = entry
        answer = entry["answer"]
        key = NO_KEY if answer is None or not str(answer).strip() else str(answer)
        question = Question(f"{self.name}/{place}", prompt, key, kind="scored")
        self._splits[split_of(prompt)].append(question)

    def entry(self, place: int) -> dict[str, Any]:
        """Return the library's item at a place of the stream; it is made at most once."""
        with self._lock:
            if place not in self._entries:
                [self._entries[place]] = self._made(place, place + 1)
            return self._entries[place]

    def _made(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return items by their places; fewer where the data set ends."""
        if self._maker is None or not self._maker.is_mine():
            self._maker = library_process(self.name, self.settings, makes=True)
        reply = self._maker.ask({"start": start, "stop": stop}, MAKE_SECONDS)
        items: list[dict[str, Any]] = pickle.loads(base64.b64decode(reply["items"]))
        return items

    def entry_of(self, question: Question) -> dict[str, Any] | None:
        """Return the item that a question was made of; None if it is not of this stream."""
        name, _, place = question.id.rpartition("/")
        if name != self.name or not place.isdecimal() or int(place) >= self.settings["size"]:
            return None
        entry = self.entry(int(place))
        return entry if str(entry["question"]) == question.prompt else None
