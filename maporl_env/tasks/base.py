"""What a task is: named splits of questions, and the words they are asked in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maporl_env.prompts import Template
from maporl_env.protocols import Joiner
from maporl_env.types import Question


@dataclass(frozen=True)
class Task:
    """Questions by split and the template that suits them. Made by a loader, read by `Debate`.

    Attributes:
        name: "shopping", "gsm8k", ...
        splits: at least one; by custom "train" and "test", disjoint.
        template: the words; an environment may be given another one.
        make_verifier: makes what scores answers where none is chosen; None for the answer key.
        joiner: makes one text of the agents' parts, in protocol "joint".
        roles: a system text per agent in protocol "joint", if the parts differ; () if they do not.
    """

    name: str
    splits: Mapping[str, Sequence[Question]]
    template: Template = field(default_factory=Template)
    make_verifier: Callable[[], Any] | None = None
    joiner: Joiner = "\n".join
    roles: tuple[str, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        """Return the task itself: questions never change, so copied environments share them."""
        return self

    @property
    def default_split(self) -> str:
        """The split that is played where none is named: "train", else the first."""
        return "train" if "train" in self.splits else next(iter(self.splits))

    def split(self, name: str) -> Sequence[Question]:
        """Return the questions of one split; ValueError names the splits there are."""
        if name not in self.splits:
            raise ValueError(
                f"task {self.name!r} has no split {name!r}; choose one of {sorted(self.splits)}"
            )
        return self.splits[name]
