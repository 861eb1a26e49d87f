"""A few minutes of ratios of the engine against its own plain references, without any peer.

    python benchmarks/bench.py            # fails if a ratio has lost 15 % of the stored one
    python benchmarks/bench.py --store    # after a change that is meant: keep today's ratios

Processor seconds of one thread, both sides in turns, so that neighbours on the machine slow both.
A ratio that seems lost is measured again, with twice and four times the rounds; it counts as lost
only if the medians and the fastest rounds of all of them say so. Ratios are of one kind of machine:
on another one, store them first. What they are against is in `benchmarks/peers.py`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from compared.engine import Engine
from compared.material import SHAPES, save_model
from compared.ratios import best, ratio
from compared.turns import ALONE, Measured
from transformers.utils.logging import disable_progress_bar

STORED = Path(__file__).with_name("ratios.json")
LOSS = 0.15
WIDER = (1, 2, 4)
"""Multiples of the usual rounds: first, and where a ratio seems lost."""

Pair = tuple[Measured, Measured]
"""The plain reference, and ours."""


def turn(engine: Engine) -> Pair:
    """G4: three agents' messages of one turn against generate with set_adapter."""
    found = engine.turn(4, plain=("set_adapter",))
    return found["set_adapter"], found["ours"]


def debate(engine: Engine) -> Pair:
    """G5: a debate against reading every prompt anew."""
    found = engine.debate("tiny", 400, 50, 4).measured
    return found["anew"], found["ours"]


def ragged(engine: Engine) -> Pair:
    """G6: messages of many lengths against generate."""
    found = engine.ragged(rows=12)
    return found["generate"], found["ours"]


def update(engine: Engine) -> Pair:
    """Passes of the update against plain forward and backward of the same rows."""
    found = engine.update(8, 2)
    return found["plain"], found["ours"]


def bookkeeping(engine: Engine) -> Pair:
    """G9: a turn by plain generate, over environment and prompts of a default step."""
    plain = engine.turn(4, plain=("set_adapter",), with_ours=False)
    return plain["set_adapter"], engine.bookkeeping(with_step=False)["environment"]


MEASURES: dict[str, Callable[[Engine], Pair]] = {
    "turn": turn,
    "debate": debate,
    "ragged": ragged,
    "update": update,
    "bookkeeping": bookkeeping,
}


def lost(pair: Pair, stored: float) -> bool:
    """Return whether medians and fastest rounds both lost more than `LOSS` of a ratio."""
    theirs, ours = pair
    return max(ratio(theirs, ours).middle, best(theirs, ours)) < (1 - LOSS) * stored


def measured(name: str, folder: Path, repeats: int, stored: float | None) -> tuple[Pair, bool]:
    """Measure until a ratio is not lost, or has been measured often enough to believe it."""
    both: Pair = (Measured(), Measured())
    for times in WIDER:
        with TemporaryDirectory() as place:
            found = MEASURES[name](Engine(folder, Path(place), times * repeats))
        for side, new in zip(both, found, strict=True):
            side.seconds += new.seconds
        if stored is None or not lost(both, stored):
            return both, False
    return both, True


def main() -> None:
    """Measure, compare, and leave with status 1 where a ratio was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--repeats", type=int, default=4, help="rounds of each measure")
    parser.add_argument("--store", action="store_true", help="keep the ratios found")
    args = parser.parse_args()
    os.environ.update(ALONE)
    torch.set_num_threads(1)
    disable_progress_bar()
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
    ratios: dict[str, float] = stored.get("ratios", {})
    fallen = []
    with TemporaryDirectory() as place:
        for name in ("tiny", "small"):
            save_model(Path(place) / name, SHAPES[name])
        for name in args.only:
            before = None if args.store else ratios.get(name)
            pair, is_lost = measured(name, Path(place), args.repeats, before)
            against = "" if before is None else f", stored {before:.2f}{' LOST' * is_lost}"
            print(f"{name:12} {ratio(*pair)}{against}", flush=True)
            fallen += [name] * is_lost
            if args.store:
                ratios[name] = round(ratio(*pair).middle, 3)
    if args.store:
        about = f"{datetime.date.today()}, {platform.machine()}, torch {torch.__version__}"
        text = json.dumps({"measured": about, "ratios": ratios}, indent=2)
        STORED.write_text(f"{text}\n", encoding="utf-8")
    if fallen:
        sys.exit(f"lost more than {LOSS:.0%} of the stored ratio: {', '.join(fallen)}")


if __name__ == "__main__":
    main()
