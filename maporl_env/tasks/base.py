"""The type of a task: named splits of questions, and the template that words them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

from maporl_env.prompts import Template
from maporl_env.protocols import Joiner
from maporl_env.types import Question


class Deferred(Sequence[Question]):
    """Questions that are loaded on first use, because loading is slow.

    Args:
        load: returns them; its errors are raised on first use.
    """

    def __init__(self, load: Callable[[], Sequence[Question]]) -> None:
        self._load = load

    @cached_property
    def _loaded(self) -> Sequence[Question]:
        return self._load()

    def __len__(self) -> int:
        return len(self._loaded)

    @overload
    def __getitem__(self, place: int) -> Question: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Question]: ...

    def __getitem__(self, place: int | slice) -> Question | Sequence[Question]:
        """Return a question, or for a slice those of it."""
        return self._loaded[place]


@dataclass(frozen=True)
class Task:
    """Questions by split and the template that suits them. Made by a loader, read by `Debate`.

    Attributes:
        name: "shopping", "gsm8k", ...
        splits: at least one; by custom "train", "validation" and "test", disjoint. Settings are
            chosen on "validation"; "test" is for the figures in the end.
        template: the words; an environment may be given another one.
        make_verifier: makes what scores answers where none is chosen; None for the answer key.
        joiner: makes one text of the agents' parts, in protocol "joint".
        roles: a system text per agent in protocol "joint", if the parts differ; () if they do not.
        worked: makes the messages of a good debate on a question, for worked examples: a text per
            agent for each turn that they show. None for the bare answer in one turn (see `worked`).
    """

    name: str
    splits: Mapping[str, Sequence[Question]]
    template: Template = field(default_factory=Template)
    make_verifier: Callable[[], Any] | None = None
    joiner: Joiner = "\n".join
    roles: tuple[str, ...] = ()
    worked: Callable[[Question, int], Sequence[Sequence[str]]] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        """Return the task itself: questions never change, so copied environments share them."""
        return self

    @cached_property
    def private_counts(self) -> Mapping[str, Sequence[Question]]:
        """By split, a question for each number of private texts that occurs; not of lazy splits.

        So whether the agents are as many as the texts is known before any question is played.
        """
        return {
            name: tuple({len(q.private): q for q in reversed(questions) if q.private}.values())
            for name, questions in self.splits.items()
            if isinstance(questions, list | tuple)
        }

    @property
    def default_split(self) -> str:
        """The split that is played where none is named: "train", else the first."""
        return "train" if "train" in self.splits else next(iter(self.splits))

    @property
    def measured_split(self) -> str:
        """The split that is measured on where none is named: "test", "validation", the only one.

        Raises:
            ValueError: none of these; names the splits there are.
        """
        for name in ("test", "validation"):
            if name in self.splits:
                return name
        if len(self.splits) == 1:
            return self.default_split
        raise ValueError(
            f"task {self.name!r} has neither a split 'test' nor 'validation' to measure on: name "
            f"one of {sorted(self.splits)}"
        )

    def split(self, name: str) -> Sequence[Question]:
        """Return the questions of one split; ValueError names the splits there are."""
        if name not in self.splits:
            raise ValueError(
                f"task {self.name!r} has no split {name!r}; choose one of {sorted(self.splits)}"
            )
        return self.splits[name]
