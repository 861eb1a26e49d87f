"""Runs whose messages servers write: the weights of a local run, faults, and bad input."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from small_runs import SIZES, maporl
from vllm_stand_in import Faults, StandIn, running

from maporl_agents import tiny
from maporl_agents.commands.chosen_flags import start_of
from maporl_agents.config import (
    CONFIGS,
    EvalConfig,
    MAGRPOConfig,
    RunConfig,
    Sampling,
    TeamConfig,
    TrainConfig,
)
from maporl_agents.play.spoken import OtherWeights
from maporl_agents.play.vllm_engine import serving
from maporl_agents.records.run_log import read_metrics
from maporl_agents.training import experiment
from maporl_agents.training.resume import resume
from maporl_env.services.http_json import RemoteUnavailable

TINY = tiny.checkpoint(0)
LORA = TeamConfig(model=(str(TINY),), tuning="lora", device="cpu")
SAMPLING = Sampling(max_new_tokens=6)
VERIFIER = """
def by_letters(questions, responses):
    return [sum(map(ord, text)) % 11 / 10 for text in responses]
"""


def settings(scheme: str = "maporl", **changes: Any) -> RunConfig:
    """Return a run of two steps, in which all messages are rewarded differently."""
    Path("scores.py").write_text(VERIFIER)
    sizes = {**SIZES, "steps": 2, "questions_per_step": 4, "sampling": SAMPLING}
    own = CONFIGS[scheme]().game
    game = replace(own, num_agents=2, num_turns=2, verifier="scores.py:by_letters")
    made: RunConfig = CONFIGS[scheme](
        **{**sizes, "team": LORA, "game": game, "eval": EvalConfig(questions=1, greedy=False)}
        | changes
    )
    return made


def served(config: RunConfig, *servers: StandIn, **changes: Any) -> RunConfig:
    """Return the same run with servers."""
    urls = tuple(server.url for server in servers)
    sampling = replace(config.sampling, engine="vllm", url=urls, retries=0, **changes)
    return replace(config, sampling=sampling)


def carried_out(config: RunConfig, folder: Path) -> dict[str, torch.Tensor]:
    """Carry out a run; return its adapters, one vector each."""
    experiment.run(config, folder, Console(file=io.StringIO()))
    return adapters(folder)


def adapters(folder: Path) -> dict[str, torch.Tensor]:
    _, team = experiment.load_team(folder, "last")
    return {
        policy: torch.cat([p.detach().flatten() for p in named.values()])
        for policy, named in team.trainable().items()
        if named
    }


def assert_close(
    found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], config: RunConfig
) -> None:
    """Adapters moved, and to the same place; AdamW makes much of gradients that are rounding."""
    began = experiment.build(config)[1].team.trainable()
    for policy, weights in wanted.items():
        start = torch.cat([p.detach().flatten() for p in began[policy].values()])
        moved = (weights - start).norm()
        assert moved > 1e-3
        assert (weights - found[policy]).norm() < 0.1 * moved


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["maporl", "grpo", "iac", "magrpo"])
def test_a_served_run_is_the_local_one(work_folder: Path, scheme: str) -> None:
    """Same texts; weights differ by importance weights of tokens whose rounding differs."""
    config = settings(scheme)
    if isinstance(config, MAGRPOConfig):  # trees, of which every branch is written
        few = replace(config.magrpo, group_size=2)
        config = replace(config, questions_per_step=2, magrpo=few)
    local = carried_out(config, work_folder / "local")
    with running(TINY) as one, running(TINY) as two:
        found = carried_out(served(config, one, two), work_folder / "served")
        asked = [len(one.asked), len(two.asked)]
    said = [work_folder / name / "transcripts" for name in ("local", "served")]
    assert [path.name for path in sorted(said[0].iterdir())]
    for path in said[0].iterdir():
        assert path.read_text() == (said[1] / path.name).read_text()
    assert_close(found, local, config)
    assert min(asked) > 0
    assert not (work_folder / "adapters" / "served").exists() or not list(
        (work_folder / "adapters" / "served").iterdir()
    )
    metrics = read_metrics(work_folder / "served")
    assert [line["importance_weight"] for line in metrics] == pytest.approx([1.0] * 2, abs=1e-3)


@pytest.mark.thorough
def test_with_a_lag_each_step_is_played_by_the_weights_before_the_last_update(
    work_folder: Path,
) -> None:
    config = settings(steps=3)
    with running(TINY) as server:
        config = served(config, server, lag=1)
        experiment.run(config, work_folder / "run", Console(file=io.StringIO()))
        trained = [body["model"] for body in server.asked]
    versions = [name.partition("@")[2].partition("-")[0] for name in trained if "@" in name]
    order = list(dict.fromkeys(versions))
    # 0: measured before, steps 1 and 2; 1 (after update 1): step 3; the last: measured after.
    assert order[:2] == ["0", "1"]
    lines = read_metrics(work_folder / "run")
    assert lines[0]["importance_weight"] == pytest.approx(1.0, abs=1e-3)
    assert lines[1]["importance_weight"] != pytest.approx(1.0, abs=1e-5)
    assert len(lines) == 3


@pytest.mark.thorough
def test_a_run_goes_on_with_the_server_that_is_left(work_folder: Path) -> None:
    config = settings(steps=3)
    whole = carried_out(config, work_folder / "local")
    with running(TINY) as one, running(TINY, Faults(dies_after=11)) as dying:
        found = carried_out(served(config, one, dying), work_folder / "served")
        assert len(dying.asked) >= 11
    assert_close(found, whole, config)


@pytest.mark.thorough
def test_a_run_without_any_server_left_is_saved_and_resumed(work_folder: Path) -> None:
    config = settings(steps=3)
    whole = carried_out(config, work_folder / "local")
    folder = work_folder / "served"
    with running(TINY, Faults(dies_after=24)) as dying, pytest.raises(RemoteUnavailable) as stop:
        carried_out(served(config, dying), folder)
    assert "no server is left" in str(stop.value)
    done = len(read_metrics(folder))
    assert 0 < done < 3
    with running(TINY) as back:
        resume(folder, Console(file=io.StringIO()), served(config, back), force=True)
    assert_close(adapters(folder), whole, config)


@pytest.mark.thorough
@pytest.mark.parametrize("lag", [0, 1])
def test_a_server_that_stops_taking_adapters_stops_the_run(work_folder: Path, lag: int) -> None:
    config = settings(steps=4)
    with running(TINY) as server:

        def turn_stale(body: Mapping[str, Any]) -> None:
            server.faults.stale = True

        server.faults.before = turn_stale
        with pytest.raises(OtherWeights, match="before its last update"):
            carried_out(served(config, server, lag=lag), work_folder / "served")
    assert len(read_metrics(work_folder / "served")) <= 2 + lag


def test_threads_of_a_served_run_end_with_it(work_folder: Path) -> None:
    before = threading.active_count()
    config = settings(steps=1)
    with running(TINY) as server:
        _, learner = experiment.build(config)
        with serving(learner.team, served(config, server).sampling, work_folder / "r"):
            assert learner.team.engine is not None
        assert learner.team.engine is None
    for thread in threading.enumerate():
        if thread.name.startswith("served"):
            thread.join(10)
    assert threading.active_count() <= before + 1


# -- bad input ---------------------------------------------------------------------------------

FLAGS = ("--sampling.engine", "vllm", "--sampling.url", "http://127.0.0.1:9")
ONE_MODEL = ("--team.tuning", "lora", "--team.model", str(TINY))
MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "full tuning": (FLAGS, "team.tuning='full' has none"),
    "no adapters": ((*FLAGS, "--team.tuning", "none"), "team.tuning='none' has none"),
    "no address": (("--sampling.engine", "vllm"), "--sampling.url http://host:port"),
    "twice": ((*FLAGS, "http://127.0.0.1:9"), "names a server twice"),
    "no vllm": (FLAGS[2:], "sampling.engine is 'local'"),
    "truncation": (
        (*FLAGS, "--team.tuning", "lora", "--sampling.top-k", "5"),
        "sampling.engine='vllm' cannot truncate",
    ),
    "two bases": (
        (*FLAGS, "--team.tuning", "lora", "--team.model", "tiny", "tiny", "tiny-sharing"),
        "choose one model for all agents",
    ),
    "models that are several": (
        (*FLAGS, "--team.tuning", "lora"),
        "the agents have several",
    ),
    "thoughts": (
        (*FLAGS, "--team.tuning", "lora", "--sampling.max-thinking-tokens", "5"),
        "cannot end thoughts",
    ),
    "no address of a server": (
        ("--sampling.engine", "vllm", "--sampling.url", "host", *ONE_MODEL),
        "is http://host:port or https://host:port",
    ),
    "nobody there": (
        (*FLAGS, *ONE_MODEL, "--sampling.retries", "0"),
        "cannot be reached",
    ),
    "lag of 2": ((*FLAGS, "--team.tuning", "lora", "--sampling.lag", "2"), "lag must be 0 or 1"),
    "lag of trees": (
        ("--scheme", "magrpo", *FLAGS, "--team.tuning", "lora", "--sampling.lag", "1"),
        "samples trees",
    ),
    "a lag and a greedy baseline": (
        (
            *("--scheme", "grpo", *FLAGS, "--team.tuning", "lora", "--sampling.lag", "1"),
            *("--grpo.variant", "remax"),
        ),
        "baseline='greedy'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    work_folder: Path, capfd: pytest.CaptureFixture[str], mistake: str
) -> None:
    flags, words = MISTAKES[mistake]
    assert maporl("train", *flags, "--steps", 1) == 2
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("maporl: ")
    assert words in said
    assert not list(work_folder.glob("runs/*"))


def test_a_server_without_adapters_leaves_an_older_run_alone(
    work_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """--overwrite replaces the older run only once the servers are known to serve."""
    old = work_folder / "runs" / "maporl-shopping"
    old.mkdir(parents=True)
    (old / "config.json").write_text(json.dumps({}))
    with running(TINY, Faults(no_lora=True)) as server:
        code = maporl(
            *("train", "--sampling.engine", "vllm", "--sampling.url", server.url),
            *(*ONE_MODEL, "--overwrite", "--name", "maporl-shopping"),
        )
    assert code == 2
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in capfd.readouterr().err
    assert [path.name for path in old.iterdir()] == ["config.json"]


def test_a_config_with_servers_survives_json(work_folder: Path) -> None:
    config = replace(
        settings(),
        sampling=replace(SAMPLING, engine="vllm", url=("http://a:1", "http://b:2"), lag=1),
    )
    from maporl_agents.config import read_settings

    assert read_settings(json.loads(json.dumps(_as_dict(config)))) == config


def _as_dict(config: RunConfig) -> dict[str, Any]:
    from dataclasses import asdict

    return {"scheme": "maporl", **asdict(config)}


def test_measuring_with_servers_is_refused_and_a_served_run_is_measured_here(
    work_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert maporl("eval", "--limit", 1, *FLAGS) == 2
    assert "servers write in `maporl train`" in capfd.readouterr().err
    sampling = replace(SAMPLING, engine="vllm", url=("http://a:1",), lag=1)
    own = settings(sampling=sampling)
    assert start_of(own, "", ("tiny",)).sampling == replace(SAMPLING)


def test_default_settings_are_local() -> None:
    assert TrainConfig().sampling.engine == "local"
    assert TrainConfig().sampling.url == ()
