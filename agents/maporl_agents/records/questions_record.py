"""questions.json: a hash of the questions of a run, written at its start, compared on resume.

A run that is resumed with other questions is not the run that was interrupted, and its figures
before and after training measure different questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from maporl_agents.config import GameConfig
from maporl_agents.records import storage
from maporl_env.tasks.line_index import IndexedQuestions, fingerprint
from maporl_env.types import Question

FILE = "questions.json"

Parts = Mapping[str, Sequence[Question]]
"""The questions of a run by what they are for: "training" and "held-out"."""


def note(parts: Parts) -> dict[str, dict[str, Any]]:
    """Return the number of questions of each part and their SHA-256."""
    return {
        name: {"count": len(questions), "sha256": fingerprint(questions)}
        for name, questions in parts.items()
    }


def changes(folder: Path, game: GameConfig, parts: Parts, *, force: bool) -> list[str]:
    """Return a clause on each part whose questions differ from those noted in a run's folder.

    Returns none where the folder has no such note, as a run of an earlier version.

    Raises:
        ValueError: the questions changed and `force` is False.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    noted, found = storage.load_json(path), note(parts)
    for name in parts:
        if not isinstance(noted, dict) or not isinstance(noted.get(name), dict):
            raise storage.CheckpointError(
                f"{path} does not say what the {name} questions were: restore it from a copy"
            )
    different = [
        f"the {name} questions ({source(game, questions)}) are not those that {folder} began with "
        f"({noted[name].get('count')} then, {found[name]['count']} now)"
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
"""The most questions that are compared with a verifier's; each may have to be read from a file."""


def fingerprints(questions: Iterable[Question]) -> list[str]:
    """Return a short SHA-256 of each question's words, sorted; equal words are one question."""
    words = {question.words.encode("utf-8", "backslashreplace") for question in questions}
    return sorted(hashlib.sha256(text).hexdigest()[:16] for text in words)


def shared_with_verifiers(game: GameConfig, questions: Sequence[Question]) -> list[str]:
    """Return a sentence on each learned verifier of a game that was trained on its questions.

    It may have memorised their answers, so that its scores are better there than elsewhere. None
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


def seen_in_training(
    held: Sequence[Question], measured: Sequence[Question], training: Sequence[Question]
) -> int:
    """Return the number of held-out questions that are among the training questions.

    Args:
        held: the questions that are asked.
        measured: the whole split that they were drawn from.
        training: those that agents are trained on; of more than `MOST`, the first are looked at.
    """
    if _same(measured, training):
        return len(held)
    known = {question.words for question in training[:MOST]}
    return sum(question.words in known for question in held)


def _same(one: Sequence[Question], other: Sequence[Question]) -> bool:
    """Whether two lists are one, as far as that can be told without reading questions on disk."""
    on_disk = isinstance(one, IndexedQuestions) and isinstance(other, IndexedQuestions)
    return one is other or (on_disk and fingerprint(one) == fingerprint(other))


def memory_warning(seen: int, count: int, name: str) -> str:
    """Return a sentence that measuring on training questions measures memory; "" if none is one.

    Args:
        seen: how many questions are training questions.
        count: how many are measured on.
        name: of the split that they are of.
    """
    if not seen:
        return ""
    return (
        f"WARNING: {seen:,} of {count:,} questions of split {name!r}, which are measured on, are "
        "training questions too: of a team that is trained on them the figures say how well it "
        "remembers answers, not how well it answers new questions. Mark questions to measure on (a "
        "column 'split', or files named train and test), or name another split"
    )


def source(game: GameConfig, questions: Sequence[Question]) -> str:
    """Return where questions come from, in words: a file, or a task and its data."""
    if isinstance(questions, IndexedQuestions):
        return f"file {questions.path}"
    return f"task {game.task}" + (f", data {game.data}" if game.data else "")
