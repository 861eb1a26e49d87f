"""What two processes tell each other, without any model; run by `test_ranks`."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from maporl_agents import ranks


def gradients() -> list[Any]:
    """Return what is left of five gradients of which a rank has some: 1, 2 and 4 of rank 0."""
    given = [nn.Parameter(torch.zeros(2, 3)) for _ in range(5)]
    has = [(0, 1), (0,), (1,), (), (0,)][: len(given)]
    for index, (parameter, owners) in enumerate(zip(given, has, strict=True)):
        if ranks.rank() in owners:
            parameter.grad = torch.full((2, 3), float(index + ranks.rank() + 1))
    ranks.reduce_gradients(given)
    return [None if p.grad is None else p.grad.unique().tolist() for p in given]


def failing(kind: str) -> str:
    """Return how a rank learns that another one failed, of which it was not told before."""
    try:
        with ranks.together():
            assert ranks.count() == 2
            if kind == "facts":
                ranks.require_same({"setting steps": str(3 + ranks.rank()), "code": "x"})
            elif kind == "signal":
                if ranks.rank() == 1:
                    ranks.tell_later(TimeoutError("stop"))
                while True:
                    ranks.gather("step", 0)
            elif kind == "out of step":
                ranks.gather("here" if ranks.rank() else "there", 0)
            elif ranks.rank() == 1:
                raise ValueError("there is no file data.jsonl")
            else:
                ranks.gather("anything", 0)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main() -> None:
    """Print one line of JSON."""
    with ranks.together():
        found: dict[str, Any] = {
            "gathered": ranks.gather("numbers", ranks.rank() * 10),
            "first": ranks.first(lambda: f"of rank {ranks.rank()}"),
            "joined": ranks.joined("parts", list(range(7))[ranks.part_of(7)]),
            "gradients": gradients(),
        }
    for kind in ("file", "facts", "signal", "out of step"):
        found[kind] = failing(kind)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
