"""The simulation of several devices: its limits are known, and `maporl plan --gpus` prints it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maporl_agents.commands.plan import Plan
from maporl_agents.config import TrainConfig
from maporl_agents.planning.scale_model import Cluster, Work, forecast
from maporl_agents.planning.several import cluster_of, share_of

WORK = Work(
    debates=16, turns=2, agents=3, tokens=1e4, updates=4, trained_bytes=1e6,
    play=2.0, score=0.5, update=1.0,
)  # fmt: skip


def test_messages_at_their_limit_keep_all_devices_busy() -> None:
    """Only the exchange is added: 3/4 of the bytes to others, gradients there and back."""
    found = forecast(Cluster(4, mean=1.0, link=1e6), WORK)
    assert found.parts == pytest.approx(
        {
            "play": 2.0,
            "exchange of debates": 40 * 1e4 * 0.75 / 1e6,
            "score": 0.5,
            "update": 1.0,
            "sums of gradients": 2 * 4 * 0.75,
        }
    )
    assert found.busy == pytest.approx(3.5 / found.seconds)


def test_one_device_sends_nothing_and_is_always_busy() -> None:
    found = forecast(Cluster(1), WORK)
    assert found.parts["sums of gradients"] == found.parts["exchange of debates"] == 0
    assert found.busy == pytest.approx(1)


def test_more_devices_wait_longer_for_the_slowest() -> None:
    """With as many debates each, in lock step, messages of random lengths."""
    busy = [forecast(Cluster(n, link=1e15), replace(WORK, debates=4 * n)).busy for n in (1, 4, 32)]
    assert busy[0] > busy[1] > busy[2] > 0.5


def test_servers_write_while_the_devices_compute_nothing() -> None:
    found = forecast(Cluster(4, servers=2, mean=1.0, link=1e15), WORK)
    assert found.busy == pytest.approx(1.5 / 3.5)


def test_a_device_has_its_share_of_the_questions() -> None:
    config = TrainConfig(questions_per_step=10)
    assert [share_of(config, n).questions_per_step for n in (1, 3, 10)] == [10, 4, 1]
    with pytest.raises(ValueError, match="--gpus 11 for 10 questions"):
        share_of(config, 11)
    for given in ((0, 0, 1.0), (1, -1, 1.0), (1, 0, 0.0)):
        with pytest.raises(ValueError, match="--gpus"):
            cluster_of(*given)


@pytest.mark.thorough
def test_the_command_prints_parts_and_assumptions(capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig(questions_per_step=8)
    assert Plan(config, gpus=4, servers=1, tflops=1, gb_per_second=100)() == 0
    shown = capsys.readouterr().out
    assert "Simulated: 4 devices and 1 servers" in shown
    for part in ("play", "exchange of debates", "score", "update", "sums of gradients"):
        assert part in shown
    assert "A simulation, no measurement" in shown
