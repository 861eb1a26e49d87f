"""The simulation behind `maporl plan --gpus`: tables of it, and a comparison with measurements.

    .venv/bin/python benchmarks/scale_model.py                    # the tables
    .venv/bin/python benchmarks/scale_model.py --measure tiny     # one and two processes, minutes

The tables are for a step of 64 debates per device, three agents and turns, where a device's share
takes one second to play, .3 to score and 1 to update at the limit of every message. The comparison
takes the seconds of a process with half the debates, and asks what two would take.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from compared.material import SHAPES, save_model
from scale import ROWS, started

from maporl_agents.planning.scale_model import Cluster, Work, forecast


def step_of(devices: int, debates: int = 64, **seconds: float) -> Work:
    """Return a step of `debates` debates for each device."""
    given = {"play": 1.0, "score": 0.3, "update": 1.0} | seconds
    return Work(
        debates=devices * debates, turns=3, agents=3, tokens=devices * debates * 9 * 256,
        updates=8, trained_bytes=261e6, **given,
    )  # fmt: skip


def tables() -> None:
    """Print steps on more and more devices."""
    print("| devices | step, s | computing | play | update | sums |\n|---|---|---|---|---|---|")
    for devices in (1, 2, 8, 64, 256):
        found = forecast(Cluster(devices), step_of(devices))
        parts = found.parts
        print(
            f"| {devices} | {found.seconds:.2f} | {found.busy:.0%} | {parts['play']:.2f} | "
            f"{parts['update']:.2f} | {parts['sums of gradients']:.3f} |"
        )
    print("\nTaken for granted:", *Cluster(1).assumptions(), sep="\n- ")


def compare(shape: str) -> None:
    """Print the speed-up of two processes that is forecast, and the one that is measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model", SHAPES[shape])
        one, half, two = (
            started(1, folder)[0],
            started(1, folder, ROWS // 2)[0],
            started(2, folder),
        )
    share = {part: half["phases"].get(part, 0.0) for part in ("play", "score", "update")}
    work = Work(
        debates=8, turns=2, agents=3, tokens=8 * 6 * 64, updates=6,
        trained_bytes=one["due"] / 12, **share,
    )  # fmt: skip
    found = forecast(Cluster(2, mean=1.0, link=2e9), work)
    whole = sum(one["phases"].get(part, 0.0) for part in share)
    # The clock of a busy machine tells little of a part: its share of the processor time is taken.
    expected = one["cpu"] / (half["cpu"] * found.seconds / sum(share.values()))
    measured = one["cpu"] / max(rank["cpu"] for rank in two)
    print(
        f"{shape}: forecast {expected:.2f} by processor seconds ({whole / found.seconds:.2f} by "
        f"the clock), measured {measured:.2f}"
    )


def main() -> None:
    """Print the tables, or a comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", choices=SHAPES, help="compare with one and two processes")
    given = parser.parse_args()
    if given.measure:
        compare(given.measure)
    else:
        tables()


if __name__ == "__main__":
    main()
