"""TinyGSM: synthetic word problems, each with a Python program as its solution (Liu et al., 2023).

Only the final answers are used: each program is run once, in the sandbox, and what its function
returns becomes the gold answer. A problem whose program fails, or returns no finite number, is left
out. One that was too slow is run once more, with time to spare, so that a busy machine gives the
same questions as an idle one. The answers are kept in the cache folder, so that programs run once
per machine and a later load gives the same questions: under the hash of a file's content, or of the
name on the hub (delete the folder `tinygsm` in the cache to read a newer revision). Beside them
stands, as JSON, how many problems were left out and why.

Splits: "rl", the first 12,800 problems with an answer, what the paper trains its agents on,
and "validation", the next 500, which are looked for when they are asked for.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from maporl_env.answers import MAX_CHARS, parse_answer
from maporl_env.sandbox import Job, Limits, Result, Sandbox, SandboxUnavailable
from maporl_env.tasks.base import Deferred, Task
from maporl_env.tasks.files import read_questions, read_rows
from maporl_env.tasks.hub import source, stream_hub
from maporl_env.tasks.line_index import cache_folder, file_digest, keep
from maporl_env.tasks.splits import Numbered, Row, Splits
from maporl_env.types import Question

HUB_NAME = "TinyGSM/TinyGSM"
FILE = "tinygsm.jsonl"
FUNCTION = "simple_math_problem"
NUM_RL = 12_800
NUM_VALIDATION = 500
LIMITS = Limits(seconds=2.0, memory_mb=256)
BATCH = 512
PATIENCE = 5.0  # times the seconds of a program, when it is run again
_VERSION = 2  # of how answers are made; counts into the cache's key


def load(data: str | Path | None = None) -> Task:
    """Return the task.

    Args:
        data: a .jsonl or .csv file with columns question and code (as published) or question and
            answer, a folder that holds `tinygsm.jsonl`, or "TinyGSM/TinyGSM", of which no more is
            streamed than needed. None: the folder `$MAPORL_DATA/tinygsm`, else the hub.

    Raises:
        FileNotFoundError: no such file.
        SandboxUnavailable: programs must be run and cannot be isolated here.
        ValueError: a malformed row, or no problem with an answer.
    """
    place = source("tinygsm", data, HUB_NAME)
    splits: Splits = {"rl": take(place, NUM_RL)}
    if len(splits["rl"]) == NUM_RL:
        splits["validation"] = Deferred(lambda: _behind(place))
    return Task("tinygsm", splits)


def _behind(place: Path | str) -> list[Question]:
    rest = take(place, NUM_RL + NUM_VALIDATION)[NUM_RL:]
    if not rest:
        raise ValueError(f"{place} has {NUM_RL} problems with an answer: none is left to validate")
    return rest


def take(place: Path | str, count: int, without: Collection[str] = ()) -> list[Question]:
    """Return the first questions of a file, folder or hub name; errors as :func:`load`."""
    if isinstance(place, Path):
        return read(place / FILE if place.is_dir() else place, count, without)
    key = hashlib.sha256(place.encode()).hexdigest()
    return _kept(key, lambda: stream_hub(place, None, "train"), count, without)


def read(path: Path, count: int, without: Collection[str] = ()) -> list[Question]:
    """Return the first questions of a file that have an answer; errors as :func:`load`.

    Args:
        path: see `data` of :func:`load`.
        count: how many at most.
        without: prompts to leave out.
    """
    first = next(read_rows(path), None)
    if first is not None and "answer" in first[1]:
        fresh = (n for n in read_rows(path) if n[1].get("question") not in without)
        return read_questions(itertools.islice(fresh, count), "tinygsm")
    return _kept(file_digest(path), lambda: read_rows(path), count, without)


def _kept(
    key: str, rows: Callable[[], Iterator[Numbered]], count: int, without: Collection[str]
) -> list[Question]:
    """Questions from the cache, or made and put there."""
    settings = json.dumps([_VERSION, key, count, sorted(without)])
    name = hashlib.sha256(settings.encode()).hexdigest()
    path = cache_folder() / "tinygsm" / f"{name}.jsonl"
    if path.is_file() and (known := read_questions(read_rows(path), "tinygsm")):
        return known
    dropped: Counter[str] = Counter()
    made = list(itertools.islice(solve(rows(), Sandbox(LIMITS), without, dropped), count))
    if not made:
        raise ValueError(
            f"no problem of TinyGSM has a program that returns a number: {dict(dropped)}"
        )
    lines = [json.dumps({"id": q.id, "question": q.prompt, "answer": q.answer}) for q in made]
    keep(path.with_suffix(".json"), json.dumps({"kept": len(made), "dropped": dropped}).encode())
    keep(path, ("\n".join(lines) + "\n").encode())
    return read_questions(read_rows(path), "tinygsm")


def solve(
    rows: Iterable[Numbered],
    sandbox: Sandbox,
    without: Collection[str] = (),
    dropped: Counter[str] | None = None,
) -> Iterator[Question]:
    """Yield the questions whose program returns a number, in order, with that number as answer.

    Args:
        rows: with columns question and code; read a batch at a time.
        sandbox: where the programs run.
        without: prompts to leave out.
        dropped: is told how many had no answer, by outcome; "passed" is a value that is no number.

    Raises:
        SandboxUnavailable: the sandbox gave no answer for a program, twice.
        ValueError: a row without text in its columns question and code, with its place.
    """
    dropped = Counter() if dropped is None else dropped
    numbered = (item for item in enumerate(rows) if item[1][1].get("question") not in without)
    while batch := list(itertools.islice(numbered, BATCH)):
        jobs = [Job(_text(row, where, "code"), FUNCTION) for _, (where, row) in batch]
        for (number, (where, row)), result in zip(batch, _run(jobs, sandbox), strict=True):
            if result.outcome == "lost":
                raise SandboxUnavailable(f"{where}: {result.detail}: try again")
            answer = final_answer(result)
            if answer is None:
                dropped[result.outcome] += 1
            else:
                yield Question(f"tinygsm/{number}", _text(row, where, "question"), answer)


def _run(jobs: Sequence[Job], sandbox: Sandbox) -> list[Result]:
    """Run programs; run those that timed out a second time."""
    results = sandbox.run_many(jobs)
    again = [i for i, result in enumerate(results) if result.outcome in ("timeout", "lost")]
    if again:
        limits = replace(sandbox.limits, seconds=PATIENCE * sandbox.limits.seconds)
        patient = replace(sandbox, limits=limits)
        for i, result in zip(again, patient.run_many([jobs[i] for i in again]), strict=True):
            results[i] = result
    return results


def _text(row: Row, where: str, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: no text in column {column!r}")
    return value


def final_answer(result: Result) -> str | None:
    """Return the number that a program gave, to ten significant digits, or None for none."""
    value = result.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and value.bit_length() > 4 * MAX_CHARS:
        return None  # longer than any answer that is read; Python may refuse to write it out
    answer = str(value) if isinstance(value, int) else format(value, ".10g")
    return answer if parse_answer(answer, "number") is not None else None
