"""The debates of an evaluation on disk: written batch by batch, and gone on with after a kill.

    OUT            results as JSON; before they are known {"finished": false, "settings": ...}
    OUT's .jsonl   the sampled debates, one a line: "sample", "tokens", then a `Transcript`'s fields
    .greedy.jsonl  the greedy ones, likewise

A line has "picks" too, the scores of the final texts by the verifier that picks, where one does.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maporl_agents.records.storage import load_json, require_plain, write_text
from maporl_env.types import Question, Transcript

ENDINGS = {"sampled": ".jsonl", "greedy": ".greedy.jsonl"}
"""The files of debates beside OUT, by decoding."""


@dataclass(frozen=True)
class Played:
    """A finished debate of an evaluation.

    Attributes:
        transcript: of it.
        tokens: that were generated.
        picks: by agent, the score of its final text by the verifier that picks; () without one.
    """

    transcript: Transcript
    tokens: int
    picks: tuple[float | None, ...] = ()


class EvalRecord:
    """The files of one evaluation, held by this process until `close` or the end of `with`.

    Args:
        out: the file of the results; parents are made.
        settings: all that the results depend on, as JSON values.
        overwrite: replace results of other settings, and other files of these names.

    Raises:
        ValueError: the files hold something else (without `overwrite`), or another process writes
            there. They are then as they were.
        CheckpointError: the file of the results is damaged.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        require_plain(dict(settings), "settings")
        self.out = out
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        out.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.files["sampled"])
        try:
            if not self._goes_on(overwrite):
                self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def files(self) -> dict[str, Path]:
        """The files of debates by decoding."""
        return {name: self.out.with_suffix(ending) for name, ending in ENDINGS.items()}

    def _goes_on(self, overwrite: bool) -> bool:
        """Whether the files are of this evaluation; ValueError if they are of another."""
        if not self.out.exists():
            if not overwrite and any(f.exists() and f.stat().st_size for f in self.files.values()):
                raise ValueError(
                    f"{self.files['sampled']} is there, but {self.out} is not: choose another "
                    "--out, or replace the file by --overwrite"
                )
            return False
        if overwrite and not self._is_ours():
            return False
        found = load_json(self.out)
        known = found.get("settings") if isinstance(found, dict) else None
        if known == self.settings:
            return True
        what = f"; they differ in {difference(known, self.settings)}" if known else ""
        raise ValueError(
            f"{self.out} holds results of other settings{what}: choose another --out, or replace "
            "them by --overwrite"
        )

    def _is_ours(self) -> bool:
        try:
            return bool(load_json(self.out)["settings"] == self.settings)
        except Exception:  # whatever stands there, it may be replaced
            return False

    def _begin(self) -> None:
        for file in self.files.values():
            if file.exists():
                os.truncate(file, 0)
        text = json.dumps({"finished": False, "settings": self.settings}, indent=1)
        write_text(self.out, f"{text}\n")

    def kept(
        self, decoding: str, questions: Sequence[Question], samples: int, batch: int
    ) -> list[list[Played]]:
        """Return the debates of each sample that are there, and drop those of a torn batch.

        Args:
            decoding: "sampled" or "greedy".
            questions: that each sample asks, in order.
            samples: debates of each question.
            batch: debates that are written at once.

        Raises:
            ValueError: a line is damaged, or of another question; names file and line.
        """
        path, count = self.files[decoding], len(questions)
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        lines = lines[: samples * count]
        whole, rest = divmod(len(lines), count)
        lines = lines[: whole * count + rest // batch * batch]
        if path.exists():
            os.truncate(path, sum(len(line) + 1 for line in lines))
        found: list[list[Played]] = [[] for _ in range(samples)]
        for number, line in enumerate(lines):
            sample, index = divmod(number, count)
            found[sample].append(_read(line, path, number + 1, sample, questions[index]))
        return found

    def add(self, decoding: str, sample: int, played: Sequence[Played]) -> None:
        """Write a batch of finished debates.

        Raises:
            OSError: disk full or not writable; what was written before stays.
        """
        rows = [_row(sample, one) for one in played]
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        with self.files[decoding].open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def finish(self, results: Mapping[str, Any]) -> None:
        """Replace the file of the results by the whole results."""
        whole = {**results, "finished": True, "settings": self.settings}
        require_plain(whole, self.out.name)
        write_text(self.out, json.dumps(whole, indent=1) + "\n")

    def close(self) -> None:
        """Release the files."""
        os.close(self._lock)

    def __enter__(self) -> EvalRecord:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _row(sample: int, played: Played) -> dict[str, Any]:
    picks = {"picks": list(played.picks)} if played.picks else {}
    return {"sample": sample, "tokens": played.tokens, **picks, **played.transcript.to_dict()}


def _read(line: bytes, path: Path, number: int, sample: int, question: Question) -> Played:
    try:
        row = json.loads(line)
        transcript = Transcript.from_dict(row)
        played = Played(transcript, int(row["tokens"]), tuple(row.get("picks", ())))
        place = int(row["sample"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}, line {number} is no debate of an evaluation ({type(error).__name__}: "
            f"{error}): remove the file and that of the results, or give --overwrite"
        ) from error
    if place != sample or transcript.question.id != question.id:
        raise ValueError(
            f"{path}, line {number} is a debate of question {transcript.question.id!r}, not of "
            f"{question.id!r} as expected: give --overwrite to begin anew"
        )
    return played


def _locked(path: Path) -> int:
    """Open a file, made if need be, and lock it against other processes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ValueError(f"another process is writing {path}: wait for it") from error
    return descriptor


def difference(known: Any, wanted: Any, place: str = "") -> str:
    """Return the first place in which two JSON values differ, with both values."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        for name in sorted(known.keys() | wanted.keys()):
            if known.get(name) != wanted.get(name):
                inner = f"{place}.{name}" if place else name
                return difference(known.get(name), wanted.get(name), inner)
    return f"{place} (there {json.dumps(known)[:80]}, here {json.dumps(wanted)[:80]})"
