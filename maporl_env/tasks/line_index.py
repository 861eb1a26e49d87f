"""Questions that stay on disk: a large JSONL file with an index of where its rows start.

The index is kept in the cache folder under the hash of the file's *content*. Making it reads and
checks every row once; afterwards a load only hashes the file. Question n is the same row in every
run, so a resumed run asks what the first would have asked, and a file that has changed gets a new
index, never the old one.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from maporl_env.tasks.splits import OtherMarks, Row, require_once
from maporl_env.types import Question

Reader = Callable[[Any, str, str], Question]
"""`(row, where, id) -> Question`, from `files`."""

_VERSION = 2  # of what an index says and of what is checked; counts into its name

Stamp = tuple[int, int]
"""Size of a file, and when it was last written."""


def cache_folder() -> Path:
    """Return where indexes and computed answers are kept.

    That is `$MAPORL_CACHE`, else `maporl` in `$XDG_CACHE_HOME` or in `~/.cache`.
    """
    if named := os.environ.get("MAPORL_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maporl"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache atomically, also when other processes write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a crash leaves an empty file under the final name
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


class IndexedQuestions(Sequence[Question]):
    """The questions of a JSONL file, each read when it is asked for. Safe to share and to pickle.

    Attributes:
        path: the file.
        digest: the SHA-256 of its content.
    """

    def __init__(
        self,
        path: Path,
        prefix: str,
        read: Reader,
        digest: str,
        spans: NDArray[np.int64],
        stamp: Stamp,
    ) -> None:
        """`spans`: (rows, 3), the number of a row among all, its first byte and its length.

        `stamp`: of the file, taken before its digest.
        """
        self.path, self.digest = path, digest
        self._prefix, self._read, self._spans, self._stamp = prefix, read, spans, stamp

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, place: int) -> Question: ...
    @overload
    def __getitem__(self, place: slice) -> IndexedQuestions: ...

    def __getitem__(self, place: int | slice) -> Question | IndexedQuestions:
        """Return a question, or for a slice a view; ValueError if the file was changed."""
        if isinstance(place, slice):
            view = copy.copy(self)  # of the file as it was when it was loaded
            view._spans = self._spans[place]
            return view
        row, start, length = (int(n) for n in self._spans[place])
        if _stamp(self.path) != self._stamp:
            raise ValueError(f"{self.path} was changed while in use: load the task again")
        with self.path.open("rb") as file:
            file.seek(start)
            text = file.read(length)
        return self._read(json.loads(text), f"{self.path}, row {row}", f"{self._prefix}/{row}")

    def at(self, places: Sequence[int]) -> IndexedQuestions:
        """Return a view of the questions at some places, in that order."""
        view = self[:]
        view._spans = self._spans[list(places)]
        return view

    def row_bytes(self) -> list[int]:
        """Return the bytes of each question's row in the file, without reading it."""
        sizes: list[int] = self._spans[:, 2].tolist()
        return sizes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file's content and of which of its rows these are; reads nothing."""
        rows = np.ascontiguousarray(self._spans, dtype="<i8").tobytes()
        return hashlib.sha256(f"{self.digest} {self._prefix}\n".encode() + rows).hexdigest()


def fingerprint(questions: Sequence[Question]) -> str:
    """Return a SHA-256 that changes with the questions: their order, ids, words and gold answers.

    Of questions on disk, it changes with anything in their file.
    """
    if isinstance(questions, IndexedQuestions):
        return questions.fingerprint
    total = hashlib.sha256()
    for question in questions:
        total.update(json.dumps(question.to_dict(), sort_keys=True).encode() + b"\n")
    return total.hexdigest()


def open_index(
    path: Path,
    prefix: str,
    read: Reader,
    *,
    checked_as: str = "one set",
    split: str | None = None,
) -> IndexedQuestions:
    """Return the questions of a large JSONL file.

    Args:
        path: the file.
        prefix: starts the id of a row that brings none.
        read: makes a question of a row; it raises ValueError for a wrong one.
        checked_as: names what `read` refuses; a file is checked once for each.
        split: what the name of the file tells; counts into what a file is checked as.

    Raises:
        ValueError: a malformed row, a gold answer that cannot be read, an id that stands twice, a
            column of names of splits that is not called "split", or a file without rows; with file
            and line.
    """
    stamp, name = _stamp(path), file_digest(path)
    kept = cache_folder() / "index" / f"{name}.{_VERSION}.{checked_as}.{split or ''}.npy"
    spans = _known(kept)
    if spans is None:
        spans = _check(path, prefix, read, OtherMarks(split))
        with tempfile.TemporaryFile() as file:
            np.save(file, spans, allow_pickle=False)
            file.seek(0)
            keep(kept, file.read())
    return IndexedQuestions(path, prefix, read, name, spans, stamp)


def _known(kept: Path) -> NDArray[np.int64] | None:
    """Return the spans of an index; None if there is none or it is damaged."""
    try:
        spans: NDArray[np.int64] = np.load(kept, allow_pickle=False)
    except (OSError, EOFError, ValueError):
        return None
    whole = spans.dtype == np.int64 and spans.ndim == 2 and spans.shape[1] == 3 and len(spans) > 0
    return spans if whole else None


def json_object(line: str | bytes, where: str) -> Row:
    """Return the JSON object of a line.

    Raises:
        ValueError: it is none, or Python cannot read it: nested too deeply, or an integer of more
            digits than it converts; or a field of a question stands twice; with the place.
    """
    outermost: list[tuple[str, Any]] = []

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal outermost
        outermost = pairs  # the object around all others is made last
        return dict(pairs)

    try:
        row = json.loads(line, object_pairs_hook=made)
    except RecursionError as error:
        raise ValueError(f"{where}: not readable as JSON, it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{where}: not valid JSON ({_in_short(error)})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a JSON object with fields, not {line[:40]!r}")
    if len(outermost) != len(row):
        require_once((name for name, _ in outermost), where)
    return row


def _in_short(error: ValueError) -> str:
    """Return the error of a JSON text, without its position in the line or advice on Python."""
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error).partition(";")[0]


def _check(path: Path, prefix: str, read: Reader, marks: OtherMarks) -> NDArray[np.int64]:
    """Read every row once; their spans."""
    spans: list[tuple[int, int, int]] = []
    seen: dict[str, str] = {}
    for where, start, line in _lines(path):
        row = json_object(line, where)
        question = read(row, where, f"{prefix}/{len(spans)}")
        if question.id in seen:
            raise ValueError(f"{where}: id {question.id!r} stands already in {seen[question.id]}")
        seen[question.id] = where
        marks.see(where, row)
        spans.append((len(spans), start, len(line)))
    if not spans:
        raise ValueError(f"{path} holds no question")
    marks.refuse()
    return np.array(spans, dtype=np.int64)


def _lines(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield place, first byte and content of each line that is not blank."""
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            mark = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0
            if line[mark:].strip():
                yield f"{path}, line {number}", start + mark, line[mark:]
            start += len(line)


def _stamp(path: Path) -> Stamp:
    state = path.stat()
    return state.st_size, state.st_mtime_ns
