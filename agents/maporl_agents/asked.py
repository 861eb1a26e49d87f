"""Which questions a run is about: noted in its folder when it starts, compared when it goes on.

A run that goes on with other questions than it began with is no longer exact, and its figures
before and after training are not of the same thing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from maporl_agents import storage
from maporl_agents.config import GameConfig
from maporl_env.tasks.index import IndexedQuestions, fingerprint
from maporl_env.types import Question

FILE = "questions.json"

Parts = Mapping[str, Sequence[Question]]
"""The questions of a run by what they are for: "training" and "held-out"."""


def note(parts: Parts) -> dict[str, dict[str, Any]]:
    """Return how many questions there are of each part, and the SHA-256 of them."""
    return {
        name: {"count": len(questions), "sha256": fingerprint(questions)}
        for name, questions in parts.items()
    }


def changes(folder: Path, game: GameConfig, parts: Parts, *, force: bool) -> list[str]:
    """Return a clause on each part that is not what a run's folder notes, naming its data.

    There is none where the folder has no such note: a run of an earlier version.

    Raises:
        ValueError: there is one, and nobody insisted on going on (`force`).
    """
    path = folder / FILE
    if not path.is_file():
        return []
    noted, found = storage.load_json(path), note(parts)
    different = [
        f"the {name} questions ({source(game, questions)}) are not those that {folder} began with "
        f"({noted[name]['count']} then, {found[name]['count']} now)"
        for name, questions in parts.items()
        if noted[name] != found[name]
    ]
    if different and not force:
        raise ValueError(
            f"{', and '.join(different)}: put the old data back, go on with these (--force), or "
            "start another run (--name)"
        )
    return different


MOST = 100_000
"""So many questions are compared with a verifier's; each may have to be read from a file."""


def fingerprints(questions: Iterable[Question]) -> list[str]:
    """Return a short SHA-256 of each question's words, sorted; equal words are one question."""
    words = {question.prompt.encode("utf-8", "backslashreplace") for question in questions}
    return sorted(hashlib.sha256(text).hexdigest()[:16] for text in words)


def shared_with_verifiers(game: GameConfig, questions: Sequence[Question]) -> list[str]:
    """Return a sentence on each learned verifier of a game that was trained on its questions.

    It may know their answers by heart, so that its scores mean more there than elsewhere. None
    where the verifier's folder does not say what it was trained on.
    """
    found = []
    for name in dict.fromkeys((game.verifier, game.feedback_verifier)):
        kind, _, folder = name.partition(":")
        if kind != "learned":
            continue
        about = storage.load_json(Path(folder) / "verifier.json")
        known = set(about.get("report", {}).get("trained_on", ()))
        asked = fingerprints(questions[:MOST])
        if count := len(known.intersection(asked)):
            found.append(
                f"{count:,} of {len(asked):,} training questions are among those that the verifier "
                f"{folder} was trained on: its scores there may be better than elsewhere"
            )
    return found


def source(game: GameConfig, questions: Sequence[Question]) -> str:
    """Return where questions come from, in words: a file, or a task and its data."""
    if isinstance(questions, IndexedQuestions):
        return f"file {questions.path}"
    return f"task {game.task}" + (f", data {game.data}" if game.data else "")
