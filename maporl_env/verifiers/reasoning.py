"""The scorers of the library reasoning-gym, each in a process of its own.

Some scorers evaluate an answer as an expression. So they run in a process that is ended where an
answer takes too long, has a limit of memory, and may write no file, start no program and open no
connection (see `reasoning_worker`). That keeps mistakes in bounds; it is no sandbox for attackers.
"""

from __future__ import annotations

import base64
import pickle
import typing
from collections.abc import Mapping
from typing import Any

from maporl_env.answers import last_box, parse_answer
from maporl_env.types import Question
from maporl_env.verifiers.outside_library import LibraryProcess, LibraryVerifier

MAX_CHARS = 20_000  # of an answer; a longer one is wrong
MAX_REMEMBERED = 4_096
WORKER = "maporl_env.verifiers.reasoning_worker"


class Items(typing.Protocol):
    """The items of a data set; `tasks.reasoning_stream.Stream` is one."""

    @property
    def name(self) -> str:
        """Name of the data set."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its settings, with seed and size."""

    def entry_of(self, question: Question) -> dict[str, Any] | None:
        """Return the item that a question was made of; None if it was made of none."""


class ReasoningGymVerifier(LibraryVerifier):
    r"""The score in [0, 1] that a data set's own scorer gives to the boxed answer.

    A message without a box scores 0. An answer is given to the scorer as it is written, and also
    without wrappers of LaTeX and with `\{` read as `{`; the best score counts. A scorer that takes
    too long, ends its process, or raises on an answer but not on the data set's own answer, has
    met an answer that it cannot read: 0. One that raises on its own answer too gives no score,
    and neither does a question of another data set.

    Safe to use from several threads, which take turns.

    Args:
        items: of the data set.
        seconds: on the clock, for one answer.

    Raises:
        ValueError: `seconds` is no finite number above 0.
    """

    def __init__(self, items: Items, seconds: float = 5.0) -> None:
        super().__init__(seconds)
        self.items = items
        self._known: dict[tuple[str, str], float | None] = {}

    def _one(self, question: Question, text: str) -> float | None:
        entry = self.items.entry_of(question)
        if entry is None:
            return None
        box = last_box(text)
        if box is None or len(box) > MAX_CHARS:
            return 0.0
        if (question.id, box) not in self._known:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[question.id, box] = self._score_of(entry, spellings(box))
        return self._known[question.id, box]

    def _score_of(self, entry: dict[str, Any], answers: list[str]) -> float | None:
        item = base64.b64encode(pickle.dumps(entry)).decode("ascii")
        return self._ask({"item": item, "answers": answers}, _score_in, 0.0)

    def _started(self) -> LibraryProcess:
        return library_process(self.items.name, self.items.settings, makes=False)


def _score_in(reply: dict[str, Any]) -> float | None:
    score = reply["score"]
    return None if score is None else float(score)


def library_process(name: str, settings: Mapping[str, Any], *, makes: bool) -> LibraryProcess:
    """Return a process that makes items of a data set, or that scores answers to them."""
    packed = base64.b64encode(pickle.dumps((name, dict(settings)))).decode("ascii")
    return LibraryProcess(WORKER, "reasoning_gym", {"dataset": packed, "makes": makes})


def spellings(box: str) -> list[str]:
    r"""Return the texts that the content of a box may stand for, the plainest first."""
    plain = box.strip()
    braces = plain.replace("\\{", "{").replace("\\}", "}")
    return list(dict.fromkeys([plain, braces, str(parse_answer(plain, "text") or plain)]))
