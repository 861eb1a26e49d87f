"""The simulation of several devices: its limits are known, and `maporl plan --gpus` prints it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maporl_agents.commands.plan import Plan
from maporl_agents.config import TeamConfig, TrainConfig
from maporl_agents.planning.scale_model import Cluster, Work, forecast
from maporl_agents.planning.several import cluster_of, served_by, share_of

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


def test_debates_on_servers_do_not_wait_for_each_other() -> None:
    """The longest debate decides, not the longest message of every turn; with tools it does."""
    work = replace(WORK, debates=8, turns=4)
    lock = cluster_of(4, 1, 1e6, tools=True)
    free = cluster_of(4, 1, 1e6)
    assert (lock.lock_step, free.lock_step, cluster_of(4, 0, 1e6).lock_step) == (True, False, True)
    waited, went_on = forecast(lock, work).parts["play"], forecast(free, work).parts["play"]
    assert went_on < waited <= work.play
    assert forecast(replace(free, mean=1.0), work).parts["play"] == work.play
    assert any("lock step" in text for text in lock.assumptions())
    assert any("as soon as its own turn" in text for text in free.assumptions())


def test_adapters_go_to_each_server_in_turn() -> None:
    work = replace(WORK, adapter_bytes=1e6)
    parts = forecast(Cluster(4, servers=3, link=1e6), work).parts
    assert parts["adapters to servers"] == 3
    assert "adapters to servers" not in forecast(Cluster(4, link=1e6), work).parts


def test_servers_are_planned_only_where_they_can_write() -> None:
    config = TrainConfig(questions_per_step=8)
    assert served_by(config, 0) is config
    with pytest.raises(ValueError, match="full"):
        served_by(config, 2)
    served = served_by(replace(config, team=TeamConfig(tuning="lora")), 2)
    assert (served.sampling.engine, len(served.sampling.url)) == ("vllm", 2)
    assert served_by(served, 3) is served


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
    config = TrainConfig(questions_per_step=8, team=TeamConfig(tuning="lora"))
    assert Plan(config, gpus=4, servers=1, tflops=1, gb_per_second=100)() == 0
    shown = capsys.readouterr().out
    assert "Simulated: 4 devices and 1 servers" in shown
    parts = ("play", "exchange of debates", "score", "update", "sums of gradients")
    for part in (*parts, "adapters to servers"):
        assert part in shown
    assert "A simulation, not a measurement" in shown
