"""Tests of the phases of a step: nesting, threads, and what a run writes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from maporl_agents import phases
from maporl_agents.models import parallel_bases
from maporl_agents.phases import measured, phase, shares


class Clock:
    """A clock that the test sets forward."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(phases, "time", made)
    return made


def test_phases_add_up_and_nest(clock: Clock) -> None:
    with measured() as seconds:
        for spent in (1.0, 2.0):
            with phase("play"):
                clock.now += spent
                with phase("play/decode"):
                    clock.now += 10
        with phase("update"):
            clock.now += 5
        clock.now += 2
    assert seconds == {"play": 23, "play/decode": 20, "update": 5, "total": 30}


def test_a_phase_that_raises_is_counted(clock: Clock) -> None:
    def fail() -> None:
        with phase("score"):
            clock.now += 3
            raise KeyError

    with measured() as seconds, pytest.raises(KeyError):
        fail()
    assert seconds["score"] == 3


def test_nobody_measures_outside(clock: Clock) -> None:
    with phase("play"):
        clock.now += 1
    with measured() as seconds:
        clock.now += 1
    assert seconds == {"total": 1}


def test_threads_of_bases_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_bases, "free_cores", lambda: 2)

    def work(_: int) -> None:
        with phase("score"):
            pass

    with measured() as seconds:
        parallel_bases.side_by_side(work, [1, 2])
    assert seconds["score"] > 0


def test_shares_are_of_the_steps_largest_first() -> None:
    line = shares({"total": 10, "play": 4, "update": 5})
    assert line == "update 50%, play 40%"


def test_a_run_writes_the_seconds_of_each_step(tmp_path: Path) -> None:
    from maporl_agents.records.log_lines import log_lines, read_seconds
    from maporl_agents.records.run_log import RunLog

    with RunLog.create(tmp_path / "run", {}) as log:
        for step in (1, 2, 3):
            log.metrics(step, {})
            log.seconds({"play": 1.0, "total": 2.0})
    assert read_seconds(tmp_path / "run") == {"play": 3.0, "total": 6.0}
    with RunLog.resume(tmp_path / "run", {}) as log:
        log.truncate_after(2)
    lines = [record for record, _ in log_lines(tmp_path / "run" / "seconds.jsonl")]
    assert [line["step"] for line in lines] == [1, 2]
