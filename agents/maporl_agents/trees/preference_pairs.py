"""Training data from judged samples: messages to imitate, and preference pairs of siblings.

`tree_values.judge` gives every sample its value and its label.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maporl_agents.trees.sample_tree import Steps
from maporl_agents.trees.samples import Sample
from maporl_agents.trees.tree_values import Judged

Place = tuple[int, Steps]


@dataclass(frozen=True, slots=True)
class Example:
    """A message to imitate, `times` times in each pass."""

    sample: Sample
    value: float
    times: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; the tokens stay with the sample."""
        return {
            **_named(self.sample),
            "value": self.value,
            "times": self.times,
            "text": self.sample.completion.text,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], samples: Mapping[Place, Sample]) -> Example:
        """Inverse of :meth:`to_dict`, given the samples by place."""
        place = (data["tree"], tuple(data["path"]))
        return cls(samples[place], data["value"], data["times"])


@dataclass(frozen=True, slots=True)
class Preference:
    """Two continuations of one prefix, a good one and a bad one."""

    chosen: Sample
    rejected: Sample
    chosen_value: float
    rejected_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; the tokens stay with the samples."""
        return {
            **_named(self.chosen),
            "rejected_path": list(self.rejected.path),
            "chosen_value": self.chosen_value,
            "rejected_value": self.rejected_value,
            "chosen": self.chosen.completion.text,
            "rejected": self.rejected.completion.text,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], samples: Mapping[Place, Sample]) -> Preference:
        """Inverse of :meth:`to_dict`, given the samples by place."""
        chosen, rejected = (
            samples[data["tree"], tuple(data[name])] for name in ("path", "rejected_path")
        )
        return cls(chosen, rejected, data["chosen_value"], data["rejected_value"])


def _named(sample: Sample) -> dict[str, Any]:
    return {
        "tree": sample.tree,
        "path": list(sample.path),
        "question": sample.question,
        "seat": sample.agent,
        "policy": sample.policy,
    }


def positives(judged: Sequence[Judged]) -> list[Example]:
    """Return every positive sample, once."""
    return [Example(one.sample, one.value) for one in judged if one.positive]


def right_paths(judged: Sequence[Judged]) -> list[Example]:
    """Return the messages of all debates with a right final answer, weighted by these (STaR).

    A leaf's value is 1 where it is right. `times` of a message is the number of right leaves below
    it.
    """
    depth = max((len(one.sample.path) for one in judged), default=0)
    times: Counter[Place] = Counter()
    for one in judged:
        tree, path = one.sample.place
        if len(path) == depth and one.value == 1:
            # Count this leaf for every message on its path, itself included.
            times.update((tree, path[:length]) for length in range(1, depth + 1))
    return [
        Example(one.sample, one.value, times[one.sample.place])
        for one in judged
        if times[one.sample.place]
    ]


def sibling_pairs(judged: Sequence[Judged]) -> list[Preference]:
    """Return every pair of a positive and a negative sample that continue the same prefix.

    p positives among n siblings make p (n - p) pairs. Siblings with equal tokens make none: their
    labels differ only by sampling noise in the continuations.
    """
    families: defaultdict[Place, list[Judged]] = defaultdict(list)
    for one in judged:
        families[one.sample.parent].append(one)
    return [
        Preference(good.sample, bad.sample, good.value, bad.value)
        for family in families.values()
        for good in family
        for bad in family
        if good.positive and not bad.positive
        if good.sample.completion.ids != bad.sample.completion.ids
    ]
