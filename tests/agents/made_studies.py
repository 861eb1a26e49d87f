"""Studies made by hand, for tests of verdicts and of the pages that show them."""

from __future__ import annotations

from maporl_agents.measure.debate_stats import TurnStats
from maporl_agents.studies.results import Arm, Measurement, SeedResult, Study


def turn(vote: float) -> TurnStats:
    return TurnStats((vote,), vote, 0.02, 0.0, 0.0, 0.5, 0.0)


def measured(stage: str, first: float, last: float) -> Measurement:
    return Measurement(stage, "sampled", (turn(first), turn(last)), 100, 400, 4000)  # type: ignore[arg-type]


def make_study() -> Study:
    """A method that rises by .3 whatever is shuffled, and beats one sample by .3."""
    trained = [
        SeedResult(
            s, (measured("before", 0.3, 0.3 + s / 100), measured("after", 0.4, 0.6 + s / 100))
        )
        for s in range(3)
    ]
    shuffled = [SeedResult(s, (measured("after", 0.4, 0.6 + s / 100),)) for s in range(3)]
    single = [SeedResult(s, (measured("after", 0.3, 0.3 + s / 100),)) for s in range(3)]
    return Study(
        "s",
        "A study",
        "a claim",
        "maporl compare s",
        "2025-01-01T00:00:00Z",
        (
            Arm("debate", "Trained debate", "method", tuple(trained)),
            Arm("shuffled", "Shuffled", "control", tuple(shuffled), "peers_shuffled", of="debate"),
            Arm("single", "one agent", "baseline", tuple(single)),
        ),
    )
