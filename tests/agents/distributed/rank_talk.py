"""What two processes tell each other, without any model; run by `test_distributed`."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from maporl_agents import distributed


def gradients() -> list[Any]:
    """Return what is left of five gradients of which a rank has some: 1, 2 and 4 of rank 0."""
    given = [nn.Parameter(torch.zeros(2, 3)) for _ in range(5)]
    has = [(0, 1), (0,), (1,), (), (0,)][: len(given)]
    for index, (parameter, owners) in enumerate(zip(given, has, strict=True)):
        if distributed.rank() in owners:
            parameter.grad = torch.full((2, 3), float(index + distributed.rank() + 1))
    distributed.reduce_gradients(given)
    return [None if p.grad is None else p.grad.unique().tolist() for p in given]


def failing(kind: str) -> str:
    """Return how a rank learns that another one failed, of which it was not told before."""
    try:
        with distributed.together():
            assert distributed.count() == 2
            if kind == "facts":
                distributed.require_same(
                    {"setting steps": str(3 + distributed.rank()), "code": "x"}
                )
            elif kind == "signal":
                if distributed.rank() == 1:
                    distributed.tell_later(TimeoutError("stop"))
                while True:
                    distributed.gather("step", 0)
            elif kind == "out of step":
                distributed.gather("here" if distributed.rank() else "there", 0)
            elif distributed.rank() == 1:
                raise ValueError("there is no file data.jsonl")
            else:
                distributed.gather("anything", 0)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main() -> None:
    """Print one line of JSON."""
    with distributed.together():
        found: dict[str, Any] = {
            "gathered": distributed.gather("numbers", distributed.rank() * 10),
            "first": distributed.first(lambda: f"of rank {distributed.rank()}"),
            "joined": distributed.joined("parts", list(range(7))[distributed.part_of(7)]),
            "gradients": gradients(),
        }
    for kind in ("file", "facts", "signal", "out of step"):
        found[kind] = failing(kind)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
