"""The processes in which `reasoning_gym` makes items, or scores answers: see `verifiers.reasoning`.

Run as `main()` with messages of `jail.frames` on standard input and output. The first message names
the data set, and whether items are made or answers scored. A request for items is the places of the
first and behind the last; one for a score is an item and answers to it, and the reply is the best.
Answers come from models, so a process that scores makes no items.
"""

from __future__ import annotations

import base64
import os
import pickle
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

from numpy import random as numpy_random

from maporl_env.jail import frames
from maporl_env.verifiers.latex_equivalence_worker import (
    LAST_RESORT_SECONDS,
    limit_memory,
    taken_pipes,
)

REFUSED = (
    *("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "fcntl.", "resource."),
    *("signal.", "mmap.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "sqlite3."),
)
"""Starts of the names of audit events that an answer may not cause."""
ALLOWED = ("os.listdir", "os.scandir", "os.walk")
"""Events of an import."""


def main() -> None:
    """Answer requests until the other side is gone."""
    requests, replies = taken_pipes()
    limit_memory()
    try:
        first = frames.receive(requests)
        dataset = _dataset(*_unpacked(first["dataset"]))
    except Exception as error:
        frames.send(replies, {"refused": f"{type(error).__name__}: {error}"})
        return
    if first["makes"]:
        frames.serve(requests, replies, lambda request: {"items": _items(dataset, **request)})
        return
    score = _scorer(dataset)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        alarm(int(request["seconds"]) + LAST_RESORT_SECONDS)  # whose default is the end
        result = score(_unpacked(request["item"]), request["answers"])
        alarm(0)
        return {"score": result}

    alarm = signal.alarm
    sys.addaudithook(refuse)
    frames.serve(requests, replies, answer)


def _unpacked(text: str) -> Any:
    """Return the object that the caller packed; the caller is trusted."""
    return pickle.loads(base64.b64decode(text))


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise PermissionError for an event that reaches beyond this process."""
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
            raise PermissionError("a scorer writes no file")
    elif event.startswith(REFUSED) and event not in ALLOWED:
        raise PermissionError(f"a scorer may not use {event}")


def _dataset(name: str, settings: dict[str, Any]) -> Any:
    import reasoning_gym

    _seed(0)
    return reasoning_gym.create_dataset(name, **settings)


def _items(dataset: Any, start: int, stop: int) -> str:
    """Return items by their places, packed; fewer where the data set ends."""
    made = []
    for place in range(start, stop):
        _seed(dataset.config.seed + place)
        try:
            made.append(dataset[place])
        except IndexError:
            break
    return base64.b64encode(pickle.dumps(made)).decode("ascii")


def _seed(seed: int) -> None:
    """Seed the global random numbers, from which some data sets draw."""
    random.seed(seed)
    numpy_random.seed(seed % 2**32)  # noqa: NPY002


def _scorer(dataset: Any) -> Callable[[Any, list[str]], float | None]:
    def attempt(answer: Any, item: Any) -> float | None:
        _seed(0)
        try:
            return float(dataset.score_answer(answer, item))
        except BaseException:  # an answer may raise anything, also SystemExit
            return None

    def score(item: Any, answers: list[str]) -> float | None:
        found = [attempt(answer, item) for answer in answers]
        scores = [one for one in found if one is not None]
        if not scores and attempt(item["answer"], item) is None:
            return None
        return max(scores, default=0.0)

    return score
